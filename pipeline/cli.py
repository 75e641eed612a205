"""The front door: the click group with its commands loaded on demand, and the one place that turns errors
into exit codes.
"""

import gc
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import pipeline
from pipeline.command_table import COMMANDS
from pipeline.errors import ExitCode, PipelineError
from pipeline.many_objects import many_objects
from pipeline.settings import nearest

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 finished with failed items, 130 interrupted."
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and build a command, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        with many_objects():
            from pipeline.stage_command import command_of

            return command_of(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = nearest(args[0], COMMANDS)
            hint = f' Did you mean "{near}"?' if near else ""
            ctx.fail(f'there is no command "{args[0]}".{hint}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's summaries, group by group."""
        for group in dict.fromkeys(row.group for row in COMMANDS.values()):
            with formatter.section(group):
                formatter.write_dl(
                    [(name, row.summary) for name, row in COMMANDS.items() if row.group == group]
                )


@click.command(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pipeline.__version__, prog_name="celforge")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="Say only warnings and errors on stderr; draw no bars.")
def cli(verbose: bool, quiet: bool) -> None:
    """From anime episodes or screenshots to a trained Stable Diffusion LoHa, LoCon or checkpoint.

    Every command works alone on any folder; what it learns is kept in the folder's .celforge/. Running a
    command again goes on where it stopped.
    """
    from pipeline.console import set_up_logging

    set_up_logging(verbose=verbose, quiet=quiet)


def main(arguments: Sequence[str] | None = None, *, command: click.Command = cli) -> NoReturn:
    """Run a command line, celforge's own or another, and leave the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a name that the terminal cannot show must not end a run
    code = run(command, arguments)
    gc.freeze()  # all of it goes with the process, and need not be searched for cycles
    sys.exit(code)


def run(command: click.Command, arguments: Sequence[str] | None = None, **extra: Any) -> int:
    """Run a click command; every error becomes one sentence on stderr and an exit code.

    Args:
        arguments: what follows the program's name; the process's own when None.
    """
    try:
        result = command.main(args=arguments, standalone_mode=False, **extra)
        return int(result) if isinstance(result, int) else ExitCode.DONE
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and error.ctx is not None and error.ctx.parent is not None:
            _say_where_it_belongs(error.option_name, error.ctx)
        return error.exit_code
    except PipelineError as error:
        return _say(error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; nothing is left to say
        return ExitCode.DONE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _say(PipelineError(f"{place}{(error.strerror or str(error)).lower()}"))
    except (KeyboardInterrupt, click.Abort):
        return _say(PipelineError("interrupted"), ExitCode.INTERRUPTED)


def _say_where_it_belongs(flag: str, context: click.Context) -> None:
    """Flags of celforge itself stand before the command."""
    if any(flag in option.opts for option in cli.params):
        command = context.command_path.removeprefix(context.find_root().command_path)
        click.echo(f"  try: celforge {flag}{command} ...", err=True)


def _say(error: PipelineError, code: ExitCode | None = None) -> int:
    from pipeline.console import printable

    click.echo(printable(f"error: {error.message}"), err=True)
    if error.hint:
        click.echo(printable(f"  try: {error.hint}"), err=True)
    return code or error.exit_code
