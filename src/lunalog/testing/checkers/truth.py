"""I13, I14, I18: what a server denies, and what it gives up."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from lunalog.testing.checkers.points import Points, highest_by
from lunalog.testing.history import Finding, History, Removal, RowChange
from lunalog.types import Member, SealedSegment, SegmentId, Sequence


def denials_are_true(history: History) -> Finding:
    """I13: a server that said it never had something has acked it at no time."""
    finding = Finding()
    losses: dict[Member, float] = {}
    for loss in history.losses:
        losses.setdefault(loss.member, loss.at)
    for denial in history.denials:
        if losses.get(denial.member, denial.at + 1) <= denial.at:
            continue  # a disk that lies cannot be held to what it forgot
        acked = history.acks.get((denial.member, denial.segment), 0)
        covered = denial.first
        for first, end in sorted(denial.unknown):
            if first <= covered < end:
                covered = end
        finding.require(acked <= covered, "I13: {d}, but it acked up to {a}", d=denial, a=acked)
    return finding


def removals_are_allowed(history: History) -> Finding:
    """I14: bytes go only when the master's record says that they may."""
    finding = Finding()
    trims: Points = list(
        accumulate(
            ((change.at, change.head.truncated_before) for change in history.heads),
            lambda one, two: (two[0], max(one[1], two[1])),
        )
    )
    rows: dict[SegmentId, list[RowChange]] = {}
    for change in history.rows:
        rows.setdefault(change.row.id, []).append(change)
    for removal in history.removals:
        is_deleted = history.deleted_at is not None and history.deleted_at <= removal.at
        known = [c.row for c in rows.get(removal.segment, ()) if c.at <= removal.at]
        newest = known[-1] if known else None
        if removal.kind == "trim":
            is_fine = highest_by(trims, removal.at) >= removal.end
        elif removal.kind == "suffix":
            is_fine = newest is not None and removal.first >= newest.end
        elif removal.kind == "drop":
            is_fine = _may_drop(history, removal, newest)
        else:
            is_fine = is_deleted
        finding.require(
            is_fine or is_deleted, "I14: {r}, but its newest row is {w}", r=removal, w=newest
        )
    return finding


def _may_drop(history: History, removal: Removal, newest: SealedSegment | None) -> bool:
    """Its member is not listed any more, or nobody ever will list the segment (R10)."""
    if newest is not None:
        return removal.member not in newest.members
    count = bisect_right(history.heads, removal.at, key=lambda change: change.at)
    if not count:
        return False
    head = history.heads[count - 1].head
    is_open = head.open is not None and head.open.id == removal.segment
    return removal.segment.epoch < head.epoch and not is_open


def suffix_cuts_are_certified(history: History) -> Finding:
    """I18: a suffix goes only under its segment's certificate, and nothing below its end with it."""
    finding = Finding()
    ends: dict[tuple[SegmentId, Sequence], float] = {}
    for change in history.rows:
        ends.setdefault((change.row.id, change.row.end), change.at)
    for removal in history.removals:
        if removal.kind != "suffix":
            continue
        shown = removal.certificate
        finding.require(
            shown is not None
            and shown.id == removal.segment
            and shown.end <= removal.first
            and ends.get((shown.id, shown.end), removal.at + 1) <= removal.at,
            "I18: {r} without a certificate that the master gave",
            r=removal,
        )
    return finding
