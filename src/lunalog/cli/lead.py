"""`lunalog lead STREAM -- CMD`: a lock with a fence token, for shells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lunalog.cli import exits
from lunalog.cli.leading import leading
from lunalog.cli.options import Number, Settings, shared
from lunalog.cli.running import connected, note, peer_name, run

if TYPE_CHECKING:
    from collections.abc import Sequence

WITHOUT = "without --no-wait this waits for its turn"


@click.command(
    "lead", options_metavar="[OPTIONS]", short_help="Run a command while leading a stream."
)
@click.argument("stream")
@click.argument("command", nargs=-1, required=True, metavar="-- CMD...")
@click.option("--no-wait", is_flag=True, help="Exit 4 at once if another leads.")
@click.option("--peer", metavar="NAME", help="Name to lead under.  [default: of host and process]")
@click.option(
    "--grace",
    type=Number(float, 0),
    default=5.0,
    metavar="SECONDS",
    help="Between SIGTERM and SIGKILL.  [default: 5]",
)
@shared
@click.pass_obj
def lead_command(
    settings: Settings,
    /,
    *,
    stream: str,
    command: tuple[str, ...],
    no_wait: bool,
    peer: str | None,
    grace: float,
) -> int:
    """Wait for leadership of STREAM, run CMD while it lasts, and exit with its code.

    The wait has no end, unless --timeout is given: then the exit code is 5, and CMD was not run.

    CMD finds LUNALOG_STREAM and LUNALOG_EPOCH in its environment: the epoch is a fence token that only
    grows, for whoever it writes to.  When the epoch is lost CMD and its process group are ended
    (SIGTERM, then SIGKILL), and the exit code is 4.

    \b
    lunalog lead backups -- ./backup.sh --full
    """
    refuse_if_not_there(command[0])

    async def body() -> int:
        async with (
            connected(settings, peer_name("lead") if peer is None else peer) as journal,
            leading(settings, journal, stream, wait=not no_wait, hint=WITHOUT) as writer,
        ):
            note(f"leading {stream} in epoch {writer.epoch}")
            environment = {
                **os.environ,
                "LUNALOG_STREAM": stream,
                "LUNALOG_EPOCH": str(writer.epoch),
                "LUNALOG_URL": settings.cluster,
            }
            return await run_child(command, environment, grace)

    return run(settings, body())


def refuse_if_not_there(program: str) -> None:
    """Raise `CommandError` for a program that cannot be run: its turn may be hours away."""
    if shutil.which(program) is not None:
        return
    is_there = os.sep in program and Path(program).exists()
    why, code = ("Permission denied", 126) if is_there else ("No such file or directory", 127)
    raise exits.CommandError(f"cannot run {program}: {why}; nothing was run", code)


async def run_child(command: Sequence[str], environment: dict[str, str], grace: float) -> int:
    """Run a process group to its end; a cancellation ends it first.  Returns its exit code."""
    try:
        child = await asyncio.create_subprocess_exec(
            *command, env=environment, start_new_session=True
        )
    except OSError as error:
        raise exits.CommandError(
            f"cannot run {command[0]}: {error.strerror or error}; nothing was run",
            127 if isinstance(error, FileNotFoundError) else 126,
        ) from error
    try:
        code = await child.wait()
    except asyncio.CancelledError:
        await end_group(child, grace)
        raise
    return code if code >= 0 else 128 - code


async def end_group(child: asyncio.subprocess.Process, grace: float) -> None:
    """SIGTERM to the group, SIGKILL after the grace; returns when the child is reaped."""
    _signal_group(child.pid, signal.SIGTERM)
    for seconds in (grace, None):
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):  # a second Ctrl-C: at once
            async with asyncio.timeout(seconds):
                await child.wait()
        _signal_group(child.pid, signal.SIGKILL)  # also what the child left behind in its group


def _signal_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
