"""Who leads in a failover: appends one event after another whenever it leads.

As a task of the bench, or as a process of its own that can be killed:

    python -m lunalog.cli.bench.engine URL STREAM PEER SEED SIZE

The process prints a line for each thing that it has to tell, by the clock that all processes of the
machine share.  It ends when its stdin closes, and the kernel kills it when its parent dies, so that it
never outlives the bench: not even one that is frozen.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lunalog.cli.bench.chain import Bodies, Chain
from lunalog.cli.bench.recorder import clock
from lunalog.errors import LunalogError, NotLeaderError, OutcomeUnknownError

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal

READY, LEADS, ACK, FAILED = "ready", "leads", "ack", "failed"
PR_SET_PDEATHSIG: Final = 1
Tell = Callable[[str, float, int], None]
"""(what, when, number): ready 0; leads EPOCH; ack SEQUENCE; failed 0."""


async def lead_and_append(
    journal: SingleWriteJournal, stream: str, bodies: Bodies, tell: Tell
) -> None:
    """Stand for election, append while leading, and stand again, until this is cancelled.

    A new leader reads the last event before it appends: the chain goes on behind it, as the state of
    any program would that replays.
    """
    tell(READY, clock(), 0)
    while True:
        try:
            async with journal.lead(stream) as writer:
                tell(LEADS, clock(), writer.epoch)
                last = await _last(journal, stream, writer.tail)
                chain = Chain.behind(bodies, last)
                while True:
                    (payload,) = chain.take(1)
                    sequence = await writer.append(payload)
                    tell(ACK, clock(), sequence)
        except (NotLeaderError, OutcomeUnknownError):
            continue


async def _last(journal: SingleWriteJournal, stream: str, tail: int) -> bytes | None:
    """Return the payload before `tail`."""
    if tail == 0:
        return None
    async with journal.read(stream, start=tail - 1, follow=True) as reader:
        return (await reader.wait_next()).payload


def _print(what: str, when: float, number: int) -> None:
    sys.stdout.write(f"{what} {when:.9f} {number}\n")
    sys.stdout.flush()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, also while it is stopped (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


async def main(url: str, stream: str, peer: str, seed: int, size: int) -> None:
    """Be an engine process."""
    from lunalog import SingleWriteJournal

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    ending: list[int] = []

    def end() -> None:
        if task is not None and not ending:
            ending.append(1)
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the bench ends us
    loop.add_reader(sys.stdin.fileno(), end)
    with contextlib.suppress(asyncio.CancelledError):
        async with SingleWriteJournal.connect(url, peer=peer) as journal:
            await lead_and_append(journal, stream, Bodies(seed, size), _print)


if __name__ == "__main__":
    from lunalog.cli.running import loop_factory

    die_with_parent()
    _, its_url, its_stream, its_peer, its_seed, its_size = sys.argv
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main(its_url, its_stream, its_peer, int(its_seed), int(its_size)))
    except LunalogError as error:
        sys.stderr.write(f"{its_peer}: {error}\n")
        _print(FAILED, clock(), 0)
        sys.exit(error.exit_code)
