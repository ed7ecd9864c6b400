"""One client process: it stands for election and appends, follows, and asks for read points.

`python -m chaos.workload '{"url": ...}'`.  What it does it writes to stdout *before* it does it, a
JSON array a line, so that the harness knows of every attempt however this process dies:

    ["start", incarnation, at]
    ["lead", epoch, at]                      ["left", epoch, at]
    ["try", at, epoch, first number, [padding, ...]]
    ["ack", at, [[number, sequence], ...]]
    ["unknown", at, [number, ...]]           ["refused", at, [number, ...]]
    ["point", asked, answered, committed]
    ["open", session, start]                 ["got", session, [[sequence, epoch, squeezed], ...]]
    ["broken", what]                         never expected: a violation

Times are CLOCK_MONOTONIC, one clock for all processes of a machine.  A payload is made from its number,
so that it is unique and need not be written twice.  SIGTERM: flush, resign, end with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import sys
import time
import traceback
from typing import Any

import msgspec

from lunalog.client.ending import JournalRuntime
from lunalog.client.journal import SingleWriteJournal
from lunalog.client.writer import StreamWriter
from lunalog.errors import (
    AvailabilityError,
    ConflictError,
    LunalogError,
    NotLeaderError,
    OutcomeUnknownError,
    TruncatedError,
)
from lunalog.runtime import Address, ProtocolFactory, TcpNetwork

F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the harness tells a client."""

    url: str
    name: str
    stream: str
    seed: int
    routes: list[tuple[Address, Address]] = []
    """Where to dial instead: the proxies in front of master and servers."""
    rate: float = 300.0
    """Events a second, about."""
    burst_max: int = 20
    padding_max: int = 300
    big_share: float = 0.01
    big_max: int = 512 << 10
    """A few events are large, so that extents fill, memory grows, and frames are cut in the middle."""
    turn_s: float = 20.0
    """About how long a leader stays before it resigns."""
    keeps: int = 20_000
    """Events that are kept when the leader truncates."""


def payload_of(name: str, incarnation: str, number: int, padding: int) -> bytes:
    """The bytes of one event."""
    return f"{name}/{incarnation}/{number}/{'.' * padding}".encode()


def squeezed(payload: bytes) -> bytes:
    """The same without its padding, but with its length: equal for equal payloads only."""
    head = payload.rstrip(b".")
    return head + b"%d" % (len(payload) - len(head))


class RoutedNetwork(TcpNetwork):
    """TCP that dials somebody in front of the one it was asked to dial."""

    def __init__(self, routes: dict[Address, Address]) -> None:
        self._routes = routes

    async def connect(self, factory: ProtocolFactory, address: Address) -> None:
        """Dial the proxy of `address`, or itself."""
        await super().connect(factory, self._routes.get((address[0], address[1]), address))


class Client:
    """Everything that one client process does."""

    def __init__(self, options: Options, journal: SingleWriteJournal) -> None:
        self._options = options
        self._journal = journal
        self._chance = random.Random(options.seed)
        self._incarnation = journal.incarnation.hex()[:12]
        self._count = 0
        self._seen = 0
        self._sessions = 0
        self.is_over = asyncio.Event()

    async def run(self) -> None:
        """Do it all until the end is asked for."""
        tell("start", self._journal.incarnation.hex(), now())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._peer())
            reading = [
                group.create_task(self._reader()),
                group.create_task(self._points()),
            ]
            await self.is_over.wait()
            for task in reading:
                task.cancel()

    # ------------------------------------------------------------------ lead

    async def _peer(self) -> None:
        while not self.is_over.is_set():
            try:
                standing = self._journal.lead(self._options.stream, timeout=20.0)
                async with standing as writer:
                    await self._turn(writer)
            except (AvailabilityError, NotLeaderError, OutcomeUnknownError):
                await asyncio.sleep(self._chance.uniform(0, 0.2))

    async def _turn(self, writer: StreamWriter) -> None:
        epoch = writer.epoch
        tell("lead", epoch, now())
        until = now() + self._chance.expovariate(1 / self._options.turn_s)
        try:
            while not self.is_over.is_set() and now() < until:
                count = self._chance.randint(1, self._options.burst_max)
                kind = self._chance.randrange(4)
                if kind == 0:
                    await self._one(writer)
                elif kind == 1:
                    await self._together(writer, count)
                else:
                    self._burst(writer, count)
                    await writer.drain()
                await asyncio.sleep(self._chance.expovariate(self._options.rate / count))
                if self._chance.random() < 0.02 and writer.committed > self._options.keeps:
                    await writer.truncate(before=writer.committed - self._options.keeps)
            await writer.flush()
        finally:
            tell("left", epoch, now())

    def _attempt(self, writer: StreamWriter, count: int) -> tuple[list[int], list[bytes]]:
        """Draw events and tell of them."""
        first = self._count
        self._count += count
        paddings = [self._padding() for _ in range(count)]
        tell("try", now(), writer.epoch, first, paddings)
        name = self._options.name
        payloads = [
            payload_of(name, self._incarnation, first + n, padding)
            for n, padding in enumerate(paddings)
        ]
        return list(range(first, first + count)), payloads

    def _padding(self) -> int:
        is_big = self._chance.random() < self._options.big_share
        return self._chance.randrange(
            self._options.big_max if is_big else self._options.padding_max
        )

    async def _one(self, writer: StreamWriter) -> None:
        """A conditional append, right or wrong about the tail."""
        is_right = self._chance.random() < 0.8
        numbers, payloads = self._attempt(writer, 1)
        try:
            sequence = await writer.append(payloads[0], expected=writer.tail + (not is_right))
        except BaseException as error:
            settle(numbers, error)
            if not isinstance(error, ConflictError):
                raise
        else:
            tell("ack", now(), [[numbers[0], sequence]])

    async def _together(self, writer: StreamWriter, count: int) -> None:
        numbers, payloads = self._attempt(writer, count)
        try:
            sequences = await writer.append_many(payloads)
        except BaseException as error:
            settle(numbers, error)
            raise
        tell("ack", now(), list(zip(numbers, sequences, strict=True)))

    def _burst(self, writer: StreamWriter, count: int) -> None:
        numbers, payloads = self._attempt(writer, count)
        for at, (number, payload) in enumerate(zip(numbers, payloads, strict=True)):
            try:
                pending = writer.append_soon(payload)
            except BaseException as error:
                settle(numbers[at:], error)
                raise
            pending.add_done_callback(lambda done, number=number: settled(number, done))

    # ------------------------------------------------------------------ read

    async def _reader(self) -> None:
        while True:
            start = self._seen
            if self._chance.random() < 0.3:
                start = max(0, self._seen - self._chance.randrange(3000))
            with contextlib.suppress(TimeoutError, AvailabilityError, NotLeaderError):
                async with asyncio.timeout(self._chance.uniform(0.5, 10.0)):
                    await self._read(start)
            await asyncio.sleep(self._chance.uniform(0, 0.3))

    async def _read(self, start: int) -> None:
        self._sessions += 1
        session = self._sessions
        tell("open", session, start)
        got: list[list[Any]] = []
        told = now()
        try:
            async for event in self._journal.read(self._options.stream, start=start, follow=True):
                got.append([event.sequence, event.epoch, squeezed(event.payload).decode()])
                self._seen = max(self._seen, event.sequence + 1)
                if len(got) >= 200 or now() > told + 0.1:
                    tell("got", session, got)
                    got, told = [], now()
                    await asyncio.sleep(0)
        except TruncatedError as error:
            self._seen = max(self._seen, error.start)
        finally:
            if got:
                tell("got", session, got)

    async def _points(self) -> None:
        """Ask for read points; each answer is complete, so an unanswered question tells nothing."""
        while True:
            asked = now()
            try:
                committed = await self._journal.committed(self._options.stream, timeout=5.0)
                tell("point", asked, now(), committed)
            except (AvailabilityError, NotLeaderError):
                pass
            await asyncio.sleep(self._chance.uniform(0, 0.2))


def now() -> float:
    """The clock that all processes of this machine share."""
    return time.monotonic()


def tell(*what: object) -> None:
    """Write one line; it is with the kernel when this returns, so a SIGKILL does not take it back."""
    line = msgspec.json.encode(what) + b"\n"
    while line:
        line = line[os.write(1, line) :]


def settle(numbers: list[int], error: BaseException) -> None:
    """Tell how attempts ended that were not acknowledged."""
    is_unknown = (
        not isinstance(error, LunalogError) or error.maybe_applied  # a cancellation, too
    )
    tell("unknown" if is_unknown else "refused", now(), numbers)


def settled(number: int, done: asyncio.Future[int]) -> None:
    """Tell how one of a burst ended."""
    if done.cancelled():
        settle([number], asyncio.CancelledError())
    elif (error := done.exception()) is not None:
        settle([number], error)
    else:
        tell("ack", now(), [[number, done.result()]])


async def connected(options: Options, runtime: JournalRuntime) -> SingleWriteJournal:
    """Connect, however long there is no master."""
    while True:
        try:
            return await SingleWriteJournal.connect(
                options.url, peer=options.name, runtime=runtime, timeout=5.0
            )
        except AvailabilityError:
            await asyncio.sleep(0.2)


async def main(options: Options) -> int:
    """Run one client; 0 when it was told to end, 1 when something broke that may not."""
    loop = asyncio.get_running_loop()
    term = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, term.set)
    runtime = JournalRuntime()
    runtime.network = RoutedNetwork(dict(options.routes))
    journal = await connected(options, runtime)
    async with journal:
        client = Client(options, journal)
        running = asyncio.ensure_future(client.run())
        ending = asyncio.ensure_future(term.wait())
        await asyncio.wait([running, ending], return_when=asyncio.FIRST_COMPLETED)
        client.is_over.set()
        ending.cancel()
        await running
    return 0


def run() -> int:
    """Entry: `python -m chaos.workload OPTIONS`."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(1, F_SETPIPE_SZ, PIPE_BYTES)
    options = msgspec.json.decode(sys.argv[1], type=Options)
    try:
        return asyncio.run(main(options))
    except BaseException as error:  # noqa: BLE001  whatever it is, it is told
        found = error
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        tell("broken", "".join(traceback.format_exception(found))[-4000:])
        return 1


if __name__ == "__main__":
    sys.exit(run())
