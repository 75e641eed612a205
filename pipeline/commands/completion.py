"""Print the shell's completion script.

\b
bash:  celforge completion bash >> ~/.bashrc
zsh:   celforge completion zsh  >> ~/.zshrc
fish:  celforge completion fish  > ~/.config/fish/completions/celforge.fish
"""

import click
from click.shell_completion import get_completion_class

from pipeline import console


def _completion(shell: str) -> None:
    from pipeline.cli import cli

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    console.write(completion_class(cli, {}, "celforge", "_CELFORGE_COMPLETE").source())


command = click.Command(
    "completion",
    params=[click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"]))],
    callback=_completion,
    help=__doc__,
)
