"""The command tree, and the one place where errors end."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from lunalog import __version__
from lunalog.cli import exits
from lunalog.cli.groups import Group
from lunalog.cli.options import OUTPUTS, Settings, shared
from lunalog.errors import LunalogError

COMMANDS: dict[str, str] = {
    "append": "append",
    "bench": "bench.command",
    "completion": "completion",
    "config": "config",
    "create": "streams",
    "delete": "streams",
    "dev": "dev",
    "health": "health",
    "history": "streams",
    "info": "streams",
    "lead": "lead",
    "ls": "streams",
    "master": "nodes",
    "read": "read",
    "server": "nodes",
    "servers": "servers",
    "transfer": "roles",
    "truncate": "streams",
    "watch": "roles",
}
"""Command -> module of this room that holds it; imported when it is needed."""


class LazyGroup(Group):
    """A group that imports a command's module when somebody asks for the command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = importlib.import_module(f"lunalog.cli.{module}")
        command: click.Command = getattr(found, f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a pipe that nobody reads ends here, as `main` expects it.

        click would end the process with 1 for one that carries an errno.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise BrokenPipeError from None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Exit codes: {exits.TABLE}",
)
@click.version_option(__version__, prog_name="lunalog")
@functools.partial(shared, environment=True)
def root_command() -> None:
    """Replicated single-write journals: one leader appends, many followers read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error ends here as a message on stderr."""
    settings = Settings()
    try:
        code = _invoke(arguments, settings)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        code = exits.INTERRUPTED
    except exits.TerminatedError as error:
        code = 128 + error.signum
    except BrokenPipeError:
        code = exits.BROKEN_PIPE
    except click.ClickException as error:
        words = sys.argv[1:] if arguments is None else arguments
        code = exits.report_usage(error, as_json=settings.is_json or asks_for_json(words))
    except LunalogError as error:
        code = exits.report(
            error,
            verbose=settings.verbose,
            as_json=settings.is_json,
            is_read_only=settings.is_read_only,
            has_begun=settings.has_begun,
            after_refusal=settings.after_refusal,
        )
    except OSError as error:
        mapped = exits.from_os_error(error, "cannot go on")
        code = exits.report(mapped, verbose=settings.verbose, as_json=settings.is_json)
    except Exception as error:  # noqa: BLE001  the last stop of all errors
        code = exits.report(error, verbose=settings.verbose, as_json=settings.is_json)
    with contextlib.suppress(OSError, AttributeError):  # none, if it was closed from the beginning
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()
    return code


def _invoke(arguments: Sequence[str] | None, settings: Settings) -> int:
    result: Any = root_command.main(
        args=None if arguments is None else list(arguments),
        prog_name="lunalog",
        standalone_mode=False,
        obj=settings,
    )
    return result if isinstance(result, int) else exits.OK


def asks_for_json(words: Sequence[str]) -> bool:
    """Return true if a command line that could not be read to its end wants JSON."""
    own = list(itertools.takewhile(lambda word: word != "--", words))
    pairs = [*itertools.pairwise(own), *(tuple(word.split("=", 1)) for word in own if "=" in word)]
    return any(
        option in ("-o", "--output") and form in OUTPUTS and form != "table"
        for option, form in pairs
    )


def _drop_stdout() -> None:
    """Keep the interpreter from complaining about output that nobody takes."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
