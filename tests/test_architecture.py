"""The rules of the house, checked on the code itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline.command_table import COMMANDS, load
from pipeline.settings import options_of

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "stages", "trainers")
HEAVY = {"torch", "cv2", "av", "onnxruntime", "diffusers", "transformers", "safetensors"}
ALLOWED = {"pipeline": {"pipeline"}, "stages": {"stages", "pipeline"}, "trainers": {"trainers", "pipeline"}}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules that a piece of code imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which package is meant"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run at import time."""
    for node in tree.body:
        is_type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not is_type_checking:
            yield node


@pytest.mark.parametrize("package", PACKAGES)
def test_stages_and_trainers_stand_on_pipeline_and_never_meet(package: str) -> None:
    for path in modules(package):
        for name in imports(parsed(path)):
            top = name.split(".")[0]
            assert top not in PACKAGES or top in ALLOWED[package], f"{path.name} imports {name}"


def test_stages_never_import_the_verb_of_another_stage() -> None:
    verbs = {row.module for row in COMMANDS.values() if row.module.startswith("stages.")}
    for path in modules("stages"):
        own = f"stages.{path.stem}"
        for name in imports(parsed(path)):
            assert name not in verbs - {own}, f"{path.name} imports {name}"


@pytest.mark.parametrize("package", ["pipeline", "stages"])
def test_nothing_heavy_is_imported_at_import_time(package: str) -> None:
    for path in modules(package):
        for node in top_level(parsed(path)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                tops = {name.split(".")[0] for name in imports(node)}
                assert not tops & HEAVY, f"{path.name} imports {tops & HEAVY}"


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in modules(package):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            graph[name] = {
                imported
                for node in top_level(parsed(path))
                if isinstance(node, (ast.Import, ast.ImportFrom))
                for imported in imports(node)
            }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for imported in sorted(graph[name] & set(graph)):
                visit(imported, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_terminal_modules_write_to_the_terminal(package: str) -> None:
    allowed = {"console.py", "cli.py"}
    for path in modules(package):
        if path.name in allowed:
            continue
        for node in ast.walk(parsed(path)):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))
            called = ast.unparse(node.func) if is_call else ""
            assert called not in ("print", "click.echo", "sys.stdout.write", "sys.stderr.write"), path


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_module_is_a_heap(name: str) -> None:
    assert not [path for package in PACKAGES for path in modules(package) if path.stem == name]


def test_functions_stay_short() -> None:
    for package in PACKAGES:
        for path in modules(package):
            for node in ast.walk(parsed(path)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    most = 120 if path.name == "loop.py" else 60
                    length = (node.end_lineno or 0) - node.lineno + 1
                    assert length <= most, f"{path.name}: {node.name} has {length} lines"


def test_help_of_every_command_loads_nothing_heavy() -> None:
    code = """
import sys
from pipeline.cli import cli, run
for name in [None, *sys.argv[1:]]:
    assert run(cli, ["--help"] if name is None else [name, "--help"]) == 0
    heavy = {"torch", "cv2", "av", "onnxruntime", "diffusers", "numpy", "PIL", "rich", "huggingface_hub"}
    assert not heavy & set(sys.modules), (name, heavy & set(sys.modules))
"""
    subprocess.run([sys.executable, "-c", code, *COMMANDS], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_in_the_table_is_the_first_line_of_the_module(name: str) -> None:
    assert (load(name).__doc__ or "").splitlines()[0] == COMMANDS[name].summary


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if row.has_settings])
def test_every_setting_has_a_sentence_of_help(name: str) -> None:
    for one in options_of(load(name).Settings):
        assert one.help.endswith("."), one.name
        assert one.help[0].isupper(), one.name
