"""I4 to I6: who may write, what the master's record may become, what a fence ends."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from lunalog.testing.history import Finding, History
from lunalog.types import Chain, Epoch, SegmentId, Sequence

HEAD_COUNTS = ("generation", "version", "epoch", "truncated_before", "next")


def one_leader_per_epoch(history: History) -> Finding:
    """I4: one incarnation is granted an epoch, and only it acks under it."""
    finding = Finding()
    leaders: dict[Epoch, bytes] = {}
    for change in history.heads:
        leader, epoch = change.head.leader, change.head.epoch
        if leader is not None and epoch:
            held = leaders.setdefault(epoch, leader.incarnation)
            finding.require(held == leader.incarnation, "I4: epoch {e} granted twice", e=epoch)
    if not history.heads:
        return finding  # nobody saw the master: its grants cannot be compared
    for append in history.acked:
        finding.require(
            leaders.get(append.epoch) == append.incarnation,
            "I4: acked under an epoch that was not its own: {a}",
            a=append,
        )
    return finding


def metadata_is_monotone(history: History) -> Finding:
    """I5: versions, epochs and truncation only grow; segments are sealed once and join exactly."""
    finding = Finding()
    for before, after in pairwise(change.head for change in history.heads):
        for name in HEAD_COUNTS:
            old, new = getattr(before, name), getattr(after, name)
            finding.require(
                old <= new, "I5: the head's {n} went from {o} to {w}", n=name, o=old, w=new
            )
        finding.require(
            before.version < after.version or before == after,
            "I5: two heads of version {v}",
            v=before.version,
        )
    _rows_join(history, finding)
    return finding


def _rows_join(history: History, finding: Finding) -> None:
    opened = {
        change.head.open.id: change.head.open.first
        for change in history.heads
        if change.head.open is not None
    }
    ends: dict[SegmentId, tuple[Sequence, Sequence, Chain]] = {}
    for change in history.rows:
        row = change.row
        held = ends.setdefault(row.id, (row.first, row.end, row.chain))
        finding.require(
            held == (row.first, row.end, row.chain), "I5: {r} was sealed as {h}", r=row, h=held
        )
        first = opened.get(row.id)
        finding.require(
            first == row.first or not opened, "I5: {r} was opened at {f}", r=row, f=first
        )
    spans = sorted((first, end) for first, end, _ in ends.values())
    for (_, end), (first, _) in pairwise(spans):
        finding.require(
            end == first, "I5: a row ends at {e}, the next begins at {f}", e=end, f=first
        )
    if spans and history.heads:
        last = history.heads[-1].head.next
        finding.require(
            spans[-1][1] == last,
            "I5: the rows end at {e}, the head says {n}",
            e=spans[-1][1],
            n=last,
        )


def fencing_holds(history: History) -> Finding:
    """I6: a later epoch's events lie behind an earlier one's, and nothing sent late is acked."""
    finding = Finding()
    acked = sorted(history.acked, key=lambda append: append.sequence or 0)
    for before, after in pairwise(acked):
        finding.require(before.epoch <= after.epoch, "I6: {b} before {a}", b=before, a=after)
    taken = takeovers(history)
    highest = 0
    passed = [highest := max(highest, epoch) for _, epoch in taken]
    for append in acked:
        at = bisect_left(taken, (append.invoked, 0))
        latest = passed[at - 1] if at else 0
        finding.require(
            latest <= append.epoch,
            "I6: appended after epoch {p} had taken over, and acked: {a}",
            p=latest,
            a=append,
        )
    for one, two in pairwise(history.log):
        finding.require(one.epoch <= two.epoch, "I6: {o}, then {t} in the log", o=one, t=two)
    return finding


def takeovers(history: History) -> list[tuple[float, Epoch]]:
    """When each epoch first had a segment of its own open in the metadata, in order of time."""
    first: dict[Epoch, float] = {}
    for change in history.heads:
        if change.head.open is not None:
            first.setdefault(change.head.open.id.epoch, change.at)
    return sorted((at, epoch) for epoch, at in first.items())
