"""`lunalog completion`: tab completion for shells."""

from __future__ import annotations

import click

from lunalog.cli.options import refuse_cluster, settings_of, without_cluster
from lunalog.cli.render import echo


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")), metavar="SHELL")
@without_cluster
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    \b
    bash:  eval "$(lunalog completion bash)"
    zsh:   eval "$(lunalog completion zsh)"
    fish:  lunalog completion fish | source
    """
    refuse_cluster(settings_of(ctx), "a script is good for all of them")
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    echo(kind(ctx.find_root().command, {}, "lunalog", "_LUNALOG_COMPLETE").source())
