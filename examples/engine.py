"""An engine: a program that is highly available because it appends to a journal before it acts.

Its state is a running sha256 over all events of a stream, in order.  Every engine replays the stream and
is a candidate for its leadership; the one that leads appends the lines of a file, beginning at the line
that the journal says is next.  Kill it, and another one goes on.

Run three of them on a cluster of this machine:

    lunalog dev up --detach
    lunalog create lines
    python examples/engine.py engine-1 lines README.md

Each prints JSON lines: what it is, how far it is, and its digest when it has applied the whole file.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lunalog import LunalogError, NotLeaderError, SingleWriteJournal, StreamWriter

BLOCK = 1000
"""Lines between two looks at what was acknowledged."""
BLOCKS_IN_FLIGHT = 16
REPORT_EVERY_S = 0.02


class Engine:
    """One replica of the state."""

    def __init__(self, name: str, stream: str, file: Path) -> None:
        self.name = name
        self.stream = stream
        self.file = file
        self.digest = hashlib.sha256()
        self.applied = 0
        """Events applied: all below this sequence, each once."""
        self.role = "follower"
        self.epoch = 0
        self._progress = asyncio.Event()
        self._reported_at = 0.0

    def apply(self, sequence: int, payload: bytes) -> None:
        """Apply one committed event."""
        if sequence != self.applied:
            raise RuntimeError(f"{self.name} wants event {self.applied} and got {sequence}")
        self.digest.update(payload + b"\n")
        self.applied += 1

    # ------------------------------------------------------------------ following

    async def follow(self, journal: SingleWriteJournal) -> None:
        """Apply every event that is committed, for ever."""
        async with journal.read(self.stream, start=self.applied, follow=True) as reader:
            async for events in reader.batches():
                for event in events:
                    self.apply(event.sequence, event.payload)
                self._progress.set()
                self.report()

    async def caught_up(self, tail: int) -> None:
        """Wait until everything below `tail` is applied."""
        while self.applied < tail:
            self._progress.clear()
            await self._progress.wait()

    # ------------------------------------------------------------------ leading

    async def lead(self, writer: StreamWriter) -> None:
        """Append what is left of the file; each line is applied once it is acknowledged."""
        in_flight: list[tuple[list[bytes], list[asyncio.Future[int]]]] = []
        with self.file.open("rb") as file:
            rest = itertools.islice(file, writer.tail, None)  # the journal knows where to go on
            for lines in blocks(line.removesuffix(b"\n") for line in rest):
                pending = []
                for line in lines:
                    await writer.drain()  # waits while too much is on its way
                    pending.append(writer.append_soon(line))
                in_flight.append((lines, pending))
                await asyncio.sleep(0)  # let it be sent
                if len(in_flight) >= BLOCKS_IN_FLIGHT:
                    await self.acknowledged(*in_flight.pop(0))
        for block in in_flight:
            await self.acknowledged(*block)

    async def acknowledged(self, lines: list[bytes], pending: list[asyncio.Future[int]]) -> None:
        """Wait for a block, then apply it."""
        for line, sequence in zip(lines, pending, strict=True):
            self.apply(await sequence, line)
        self.report(is_due=True)

    # ------------------------------------------------------------------ its life

    async def run(self, journal: SingleWriteJournal) -> None:
        """Follow, lead when it is our turn, and follow again if that ends."""
        while True:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self.follow(journal))
                try:
                    async with journal.lead(self.stream) as writer:
                        await self.caught_up(writer.tail)
                        following.cancel()
                        self.role, self.epoch = "leader", writer.epoch
                        self.report(is_due=True, goes_on_at=writer.tail)
                        await self.lead(writer)
                        await asyncio.Event().wait()  # lead until we are ended
                except NotLeaderError as error:
                    print(f"{self.name}: {error}", file=sys.stderr)
                    self.role = "follower"
                    following.cancel()

    def report(self, *, is_due: bool = False, **more: int) -> None:
        """Print where we stand: each acknowledged block, or every now and then."""
        now = time.monotonic()
        if is_due or now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            row = {
                "t": now,
                "role": self.role,
                "epoch": self.epoch,
                "applied": self.applied,
                **more,
            }
            print(json.dumps(row), flush=True)

    async def report_in_the_end(self, lines: int) -> None:
        """Print the digest when all lines are applied."""
        while self.applied < lines:
            await asyncio.sleep(REPORT_EVERY_S)
        row = {"t": time.monotonic(), "role": self.role, "epoch": self.epoch}
        row |= {"applied": self.applied, "sha256": self.digest.hexdigest()}
        print(json.dumps(row), flush=True)


def blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut an iterable into lists."""
    iterator = iter(lines)
    while block := list(itertools.islice(iterator, BLOCK)):
        yield block


async def main(options: argparse.Namespace) -> None:
    """Run one engine until it is killed."""
    engine = Engine(options.name, options.stream, options.file)
    lines = count_lines(options.file)
    async with (
        SingleWriteJournal.connect(options.cluster, peer=options.name) as journal,
        asyncio.TaskGroup() as group,
    ):
        _ = group.create_task(engine.report_in_the_end(lines))
        _ = group.create_task(engine.run(journal))


def count_lines(file: Path) -> int:
    """Return how many events the file makes; a last line needs no newline."""
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's where it is installed: it is about twice as fast."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def readable(name: str) -> Path:
    """Return the path of a file that can be read, for `parse`."""
    try:
        with open(name, "rb"):
            return Path(name)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name}: {error.strerror}") from error


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="One engine on a lunalog stream.")
    parser.add_argument("name")
    parser.add_argument("stream")
    parser.add_argument("file", type=readable)
    url = os.environ.get("LUNALOG_URL", "lunalog://127.0.0.1:7600")
    parser.add_argument("--cluster", default=url)
    parser.add_argument("--lifeline", type=int, help="end when this inherited pipe closes")
    return parser.parse_args()


def run(options: argparse.Namespace) -> int:
    """Run until it is killed, or cannot go on: then say why, and what it needs."""
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main(options))
    except KeyboardInterrupt:
        return 130
    except Exception as raised:  # of one task of a group, or of none
        error: BaseException = raised
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, LunalogError | OSError):
            raise
        needs = f"a cluster (`lunalog dev up --detach`) and a stream (`lunalog create {options.stream}`)"
        print(f"{options.name}: {error}; an engine needs {needs}", file=sys.stderr)
        return error.exit_code if isinstance(error, LunalogError) else 1
    return 0


if __name__ == "__main__":
    options = parse()
    if options.lifeline is not None:
        from lunalog.orchestrator.process import watch_lifeline

        watch_lifeline(options.lifeline, lambda: None, grace_s=0)
    sys.exit(run(options))
