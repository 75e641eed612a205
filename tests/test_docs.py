"""The pages say what the commands do, and every command has its page."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from pipeline.cli import cli
from pipeline.command_table import COMMANDS

ROOT = Path(__file__).parents[1]
FROZEN = Path(__file__).with_name("frozen_options.json")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_not_stale(reference: ModuleType) -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == reference.reference_text(), "run: make docs"


def test_a_new_option_is_a_decision(reference: ModuleType) -> None:
    """The list is changed by hand, in the commit that adds or removes an option."""
    found = {
        context.command_path: sorted(
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        )
        for command, context in reference.walk(cli, click.Context(cli, info_name="celforge"))
    }
    assert found == json.loads(FROZEN.read_text(encoding="utf-8"))


def test_every_option_has_help(reference: ModuleType) -> None:
    for command, context in reference.walk(cli, click.Context(cli, info_name="celforge")):
        assert command.help, context.command_path
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (context.command_path, option.name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_page(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    assert f"celforge {name}" in page


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_commands_in_the_pages_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"(?:^    |`)celforge ([a-z_-]+)", text, re.MULTILINE):
        assert name in COMMANDS, f"celforge {name}"
