"""Write docs/reference.md from the click tree: every command, argument and option with its help. Run by
`make docs`.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from pipeline.cli import EXIT_CODES, cli

PATH = Path(__file__).parent / "reference.md"
HEAD = f"""# Reference of every command

Made by `make docs` from the commands themselves; a test fails when it is stale. {EXIT_CODES}
"""


def reference_text() -> str:
    """The whole page, in Markdown."""
    return HEAD + "".join(_command(cli, click.Context(cli, info_name="celforge"), depth=0))


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command of the tree below `command`, itself first."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, click.Context(child, info_name=name, parent=context))


def _command(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    for one, its_context in walk(command, context):
        yield f"\n## {its_context.command_path}\n\n"
        yield f"    {its_context.command_path} {' '.join(one.collect_usage_pieces(its_context))}\n\n"
        yield (one.help or "").replace("\b\n", "\n").strip() + "\n"
        options = [option for option in one.params if isinstance(option, click.Option) and not option.hidden]
        if options:
            yield "\n| option | what it does |\n| --- | --- |\n"
            for option in options:
                record = option.get_help_record(its_context)
                assert record is not None
                flags, text = record
                yield f"| `{_cell(flags)}` | {_cell(text)} |\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(reference_text(), encoding="utf-8", newline="\n")
