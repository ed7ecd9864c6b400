"""I8, I10: what clients are told is committed."""

from __future__ import annotations

from bisect import bisect_left

from lunalog.testing.checkers.points import end_of, highest_before, running_max, seen
from lunalog.testing.history import Finding, History
from lunalog.types import Sequence


def linearizable_reads(history: History) -> Finding:
    """I8: a read point covers all acked before it was asked for, and nothing from the future."""
    finding = Finding()
    acked = sorted(history.acked, key=lambda append: append.done)
    points = running_max((append.done, (append.sequence or 0) + 1) for append in acked)
    reads = sorted(history.linear_reads, key=lambda read: read.done)
    told = running_max((read.done, read.committed) for read in reads)
    places, latest = _invoked_below(history)
    for read in reads:
        least = max(highest_before(points, read.invoked), highest_before(told, read.invoked))
        finding.require(
            read.committed >= least, "I8: {r}, but {n} was acked or told before", r=read, n=least
        )
        index = bisect_left(places, read.committed)
        invoked = latest[index - 1] if index else 0.0
        finding.require(
            invoked <= read.done, "I8: {r} covers what was appended only at {t}", r=read, t=invoked
        )
    return finding


def _invoked_below(history: History) -> tuple[list[Sequence], list[float]]:
    """Sequences that were seen, and the latest time at which one up to each was appended."""
    appended = {append.payload: append.invoked for append in history.appends}
    events = sorted(seen(history).values(), key=lambda event: event.sequence)
    highest = 0.0
    latest = [highest := max(highest, appended.get(event.payload, 0.0)) for event in events]
    return [event.sequence for event in events], latest


def committed_is_monotone(history: History) -> Finding:
    """I10: what a client is told never falls, and no replica knows more than was committed."""
    finding = Finding()
    told: dict[str, Sequence] = {}
    for read in sorted(history.linear_reads, key=lambda read: read.invoked):
        before = told.get(read.peer, 0)
        finding.require(
            before <= read.committed, "I10: {r}, who was told {b} before", r=read, b=before
        )
        told[read.peer] = read.committed
    if not history.has_log:
        return finding
    end = end_of(history)
    for replica in history.replicas:
        finding.require(
            replica.committed <= max(end, replica.first),
            "I10: {r}, but the log ends at {end}",
            r=replica,
            end=end,
        )
    return finding
