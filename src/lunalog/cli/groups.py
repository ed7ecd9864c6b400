"""Groups of commands that guess what was meant by a name that none of them has."""

from __future__ import annotations

import click

from lunalog.cli.exits import did_you_mean


class Group(click.Group):
    """A group that names the command that was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; raises `UsageError` with what is near if there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            # `health` is near, and not meant
            names = self.list_commands(ctx) if args[0] != "help" else ()
            near = difflib.get_close_matches(args[0], names, n=1)
            raise click.UsageError(
                f"no such command {args[0]!r}{did_you_mean(near)}", ctx
            ) from error
