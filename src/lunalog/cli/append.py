"""`lunalog append`: events from standard input into a stream."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING

import click

from lunalog.cli.leading import leading
from lunalog.cli.options import Settings, shared
from lunalog.cli.pipes import InputPump
from lunalog.cli.records import DelimitedSplitter, LengthSplitter, Splitter
from lunalog.cli.running import connected, note, peer_name, run
from lunalog.errors import OutcomeUnknownError, OverloadedError

if TYPE_CHECKING:
    from lunalog import StreamWriter

PENDING_MAX = 100_000
"""Events that wait for their ack; beside the writer's bound in bytes."""


@click.command("append")
@click.argument("stream")
@click.option("-0", "--null", is_flag=True, help="Events end with a NUL instead of a newline.")
@click.option(
    "--length-prefixed",
    is_flag=True,
    help="Each event comes behind its length (32 bit, little endian).",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait until nobody else leads the stream, for ever or as long as --timeout says.",
)
@click.option("--peer", metavar="NAME", help="Name to lead under.  [default: of host and process]")
@shared
@click.pass_obj
def append_command(
    settings: Settings,
    /,
    *,
    stream: str,
    null: bool,
    length_prefixed: bool,
    wait: bool,
    peer: str | None,
) -> None:
    """Append what comes on standard input, one event a line.

    Leads the stream while it runs; exit code 4 names the leader if another leads.  Events are on the
    disks of an ack quorum when it says so.  If it ends early it says exactly how many are.
    """
    if null and length_prefixed:
        raise click.UsageError("--null and --length-prefixed exclude each other")
    delimited = DelimitedSplitter(b"\0" if null else b"\n")
    splitter: Splitter = LengthSplitter() if length_prefixed else delimited

    async def body() -> None:
        appending: Appending | None = None
        try:
            async with (
                connected(settings, peer_name("append") if peer is None else peer) as journal,
                leading(settings, journal, stream, wait=wait) as writer,
            ):
                if sys.stdin.isatty():
                    note(f"appending to {stream} what is typed here; Ctrl-D ends it")
                appending = Appending(writer, splitter)
                await appending.run()
        finally:  # leaving the scope has waited for what was under way
            if appending is not None:
                note(appending.account())

    run(settings, body())


class Appending:
    """One run from standard input to the last ack, with its account."""

    def __init__(self, writer: StreamWriter, splitter: Splitter) -> None:
        self._writer = writer
        self._splitter = splitter
        self._pending: deque[asyncio.Future[int]] = deque()
        self.sent = 0
        self.acknowledged = 0
        self.first = writer.tail
        self._is_done = False

    async def run(self, fd: int | None = None) -> None:
        """Append all, and wait for the last ack."""
        pump = InputPump(sys.stdin.fileno() if fd is None else fd)
        async for chunk in pump.chunks():
            await self._append(self._splitter.feed(chunk))
        await self._append(self._splitter.finish())
        await self._settle(len(self._pending))
        self._is_done = True

    async def _append(self, events: list[bytes]) -> None:
        writer, pending = self._writer, self._pending
        for event in events:
            try:
                future = writer.append_soon(event)
            except OverloadedError:
                await writer.drain()
                future = writer.append_soon(event)
            pending.append(future)
            self.sent += 1
            if len(pending) >= PENDING_MAX:
                await self._settle(PENDING_MAX // 2)
        self._collect()
        await writer.drain()

    async def _settle(self, count: int) -> None:
        """Wait for the oldest `count`; raises why one of them failed."""
        for _ in range(count):
            oldest = self._pending[0]
            if not oldest.done():
                await asyncio.wait((oldest,))  # a Ctrl-C meanwhile must not cancel the answer, too
            oldest.result()
            _ = self._pending.popleft()
            self.acknowledged += 1

    def _collect(self) -> None:
        pending = self._pending
        while pending and pending[0].done():
            future = pending[0]
            if future.cancelled() or future.exception() is not None:
                break
            _ = pending.popleft()
            self.acknowledged += 1
        for future in pending:
            if future.done() and not future.cancelled():
                future.exception()  # seen: the loop must not complain

    def account(self) -> str:
        """Return what is known of the events, when nothing is under way any more."""
        self._collect()
        end = self.first + self.acknowledged
        text = f"appended {self.first}..{end - 1}" if self.acknowledged else "appended nothing"
        if self._is_done:
            return f"{text}, tail {end}"
        text += "; ended early"
        if self.sent:
            text += f": {self.acknowledged} of {self.sent} acknowledged"
        unknown = sum(1 for future in self._pending if not is_refused(future))
        if unknown:
            text += f"; the fate of {unknown} more is not known: read from {end}"
        return text


def is_refused(future: asyncio.Future[int]) -> bool:
    """Return true if this event was certainly not appended."""
    if not future.done() or future.cancelled():
        return False
    error = future.exception()
    return error is not None and not isinstance(error, OutcomeUnknownError)
