"""`lunalog read`: events of a stream to standard output."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lunalog.cli.options import Number, Settings, read_only, shared
from lunalog.cli.pipes import OutputPump
from lunalog.cli.records import FORMATS, Format, template
from lunalog.cli.running import connected, note, run

if TYPE_CHECKING:
    from lunalog.client.reader import StreamReader
    from lunalog.types import Event

EVENTS_A_WRITE = 1000


@click.command("read", short_help="Print committed events, one a line, in order.")
@click.argument("stream")
@click.option(
    "--from",
    "start",
    type=Number(int),
    metavar="SEQUENCE",
    help="First event; negative: so many before the end.  [default: the first kept]",
)
@click.option("--to", "end", type=Number(int, 0), metavar="SEQUENCE", help="Stop before it.")
@click.option("-n", "--count", type=Number(int, 0), metavar="N", help="Stop after N events.")
@click.option("-F", "--follow", is_flag=True, help="Wait for more at the end.")
@click.option(
    "--linearizable", is_flag=True, help="See all that was acknowledged before the command began."
)
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), help="[default: lines]")
@click.option("-0", "--null", "form", flag_value="null", help="Same as --format null.")
@click.option(
    "--length-prefixed",
    "form",
    flag_value="length-prefixed",
    help="Same as --format length-prefixed.",
)
@click.option(
    "-f",
    "pattern",
    metavar="PATTERN",
    help=r"%s sequence, %e epoch, %p payload, %l its length, %t time; \n \t \0.",
)
@shared
@click.pass_obj
@read_only
def read_command(
    settings: Settings,
    /,
    *,
    stream: str,
    start: int | None,
    end: int | None,
    count: int | None,
    follow: bool,
    linearizable: bool,
    form: str | None,
    pattern: str | None,
) -> None:
    """Print committed events, one a line, in order, without gap or repeat."""
    if form is not None and pattern is not None:
        raise click.UsageError("-f and --format exclude each other")
    if end is not None and count is not None:
        raise click.UsageError("--to and --count exclude each other")
    if follow and linearizable:
        raise click.UsageError("--follow and --linearizable exclude each other")
    if pattern is not None:
        render = template(pattern)
    else:
        render = FORMATS[form or ("json" if settings.is_json else "lines")]
    reading = Reading(
        stream,
        start=start,
        end=end,
        count=count,
        follow=follow,
        linearizable=linearizable,
        render=render,
    )
    run(settings, reading.run(settings))


class Reading:
    """One run from the journal to standard output."""

    def __init__(
        self,
        stream: str,
        *,
        start: int | None,
        end: int | None,
        count: int | None,
        follow: bool,
        linearizable: bool,
        render: Format,
    ) -> None:
        self._stream = stream
        self._start = start
        self._end = end
        self._left = count
        self._is_empty = True
        self._follow = follow
        self._linearizable = linearizable
        self._render = render

    async def run(self, settings: Settings) -> None:
        """Print all that is asked for."""
        if self._start is not None and self._start >= 0 and self._end is not None:
            self._left = max(self._end - self._start, 0)
        if self._left == 0:
            return
        async with connected(settings) as journal:
            task = asyncio.current_task()
            output = OutputPump(sys.stdout.fileno(), lambda: task and task.cancel("stdout"))
            async with journal.read(
                self._stream,
                start=self._start,
                follow=self._follow,
                linearizable=self._linearizable,
            ) as reader:
                try:
                    is_short = await self._copy(reader, output)
                    await output.close()
                except asyncio.CancelledError:
                    output.check()  # raises why, if it was the output's end
                    raise
                if is_short:
                    await self._note_end(reader)
                    await self._warn_if_leaderless(reader)

    async def _copy(self, reader: StreamReader, output: OutputPump) -> bool:
        """Copy events; returns true if the stream ended before the wanted range did."""
        render = self._render
        async for batch in reader.batches():
            events = self._wanted(batch)
            self._is_empty = self._is_empty and not events
            for at in range(0, len(events), EVENTS_A_WRITE):
                await output.write(b"".join(map(render, events[at : at + EVENTS_A_WRITE])))
            if self._left == 0 or len(events) < len(batch):
                return False
        return True

    def _wanted(self, batch: Sequence[Event]) -> Sequence[Event]:
        if self._end is not None and batch and batch[-1].sequence >= self._end:
            batch = [event for event in batch if event.sequence < self._end]
        if self._left is not None:
            batch = batch[: self._left]
            self._left -= len(batch)
        return batch

    async def _note_end(self, reader: StreamReader) -> None:
        """Say where the stream ends to who wanted events behind that and got none."""
        if self._start is None or self._start < 0 or not self._is_empty:
            return
        reader.seek(-1)
        async for _ in reader.batches():
            pass
        end = reader.position
        if end is not None and end <= self._start:
            note(
                f"note: {self._stream} has no event {self._start} yet: it ends at {end}; "
                "--follow waits for more"
            )

    async def _warn_if_leaderless(self, reader: StreamReader) -> None:
        """Say so when a leader died: what it wrote last may still come to light (R31)."""
        from lunalog.client.reader import EndState

        if not reader.is_complete and await reader.end_state() is EndState.LEADERLESS:
            note(
                f"note: {self._stream} has no leader and its last one did not close it; events from "
                f"{reader.position} on may exist: whoever leads next brings them to light"
            )
