"""Read back what a bench wrote, and compare every byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lunalog.cli.bench.chain import Bodies, BrokenChainError, Check
from lunalog.cli.bench.recorder import Part, clock

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal


@dataclass(frozen=True, slots=True)
class Written:
    """What one stream must hold."""

    stream: str
    bodies: Bodies
    first: int
    acknowledged: int
    """Events that must be there."""
    sent: int | None
    """Events that may be there; none: not known, who sent them was killed."""


@dataclass(slots=True)
class Verdict:
    """What reading back has found so far."""

    streams: int = 0
    events: int = 0
    """Right ones."""
    unacknowledged: int = 0
    """Of them, how many are there although nobody was told: the run ended before."""
    is_over: bool = False
    broken: str | None = None
    """Why the journal is wrong."""
    unknown: str | None = None
    """Why it could not be read."""

    def row(self) -> dict[str, Any]:
        """Return the fields of a result."""
        return {
            "holds": None if self.broken is None and not self.is_over else self.broken is None,
            "streams": self.streams,
            "events": self.events,
            "unacknowledged": self.unacknowledged,
            "why": self.broken or self.unknown,
        }


async def read_back(
    journal: SingleWriteJournal, written: list[Written], verdict: Verdict, part: Part
) -> None:
    """Read every stream from the first event of the bench, and note in `verdict` what is found."""
    part.start(clock())
    for each in written:
        if verdict.broken is not None or verdict.unknown is not None:
            return
        await _read_one(journal, each, verdict, part)
        verdict.streams += 1
    verdict.is_over = verdict.unknown is None
    part.stop(clock())


async def _read_one(
    journal: SingleWriteJournal, written: Written, verdict: Verdict, part: Part
) -> None:
    check, before = Check(written.bodies, written.first), verdict.events
    async with journal.read(written.stream, start=written.first) as reader:
        try:
            async for events in reader.batches():
                check.take([e.sequence for e in events], [e.payload for e in events])
                verdict.events = before + check.count
                part.note(clock(), len(events))
            judge(written, check.count, is_complete=reader.is_complete)
        except BrokenChainError as error:
            verdict.events = before + check.count
            verdict.broken = f"{written.stream}: {error}"
        except UnreadableError as error:
            verdict.unknown = f"{written.stream}: {error}"
    verdict.unacknowledged += max(0, check.count - written.acknowledged)


class UnreadableError(Exception):
    """Events cannot be read now; whether they are lost is not known."""


def judge(written: Written, count: int, *, is_complete: bool) -> None:
    """Compare how many events are there with how many there must and may be."""
    if written.sent is not None and count > written.sent:
        raise BrokenChainError(f"{count} events are there, {written.sent} were sent")
    if count >= written.acknowledged:
        return
    missing = f"{written.acknowledged} were acknowledged, {count} are there"
    if is_complete:
        raise BrokenChainError(f"acknowledged events are lost: {missing}")
    raise UnreadableError(
        f"{missing}, and its last leader left it open: the others cannot be read until somebody leads"
    )
