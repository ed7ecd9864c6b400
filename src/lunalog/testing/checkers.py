"""One small function an invariant: a history in, a `Finding` out (docs/protocol.md, invariants)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import pairwise

from lunalog.testing.history import Append, Delivery, Finding, History
from lunalog.types import Chain, Epoch, SegmentId, Sequence


def prefix_agreement(history: History) -> Finding:
    """I1: what two readers get at one sequence is the same, and is what the final log holds."""
    finding = Finding()
    seen = {event.sequence: event for event in history.log}
    for reader in history.readers:
        for event in reader.deliveries:
            held = seen.setdefault(event.sequence, event)
            finding.require(
                held == event, "I1: reader {r} got {e}, others {h}", r=reader.name, e=event, h=held
            )
    end = _end(history)
    for sequence in seen:
        finding.require(
            sequence < end, "I1: {s} was read but the final log ends at {end}", s=sequence, end=end
        )
    return finding


def no_acked_loss(history: History) -> Finding:
    """I2: an acknowledged event is in the final log, at its sequence, unless truncated."""
    finding = Finding()
    log = _by_sequence(history)
    for append in history.acked:
        if append.sequence is not None and append.sequence >= history.log_start:
            event = log.get(append.sequence)
            finding.require(
                event is not None and event.payload == append.payload,
                "I2: acked {a}, but the log holds {e}",
                a=append,
                e=event,
            )
    return finding


def at_most_once(history: History) -> Finding:
    """I3: each event is at one sequence at most, and somebody appended it; refused ones are not."""
    finding = Finding()
    appended = {append.payload: append for append in history.appends}
    places: dict[bytes, Sequence] = {}
    for event in history.log:
        append = appended.get(event.payload)
        finding.require(
            append is not None and append.outcome != "refused",
            "I3: the log holds {e}, which was {a}",
            e=event,
            a=append or "never appended",
        )
        place = places.setdefault(event.payload, event.sequence)
        finding.require(place == event.sequence, "I3: {e} is also at {p}", e=event, p=place)
    return finding


def one_leader_per_epoch(history: History) -> Finding:
    """I4: one incarnation is granted an epoch, and only it acks under it."""
    finding = Finding()
    leaders: dict[Epoch, bytes] = {}
    for change in history.heads:
        leader, epoch = change.head.leader, change.head.epoch
        if leader is not None and epoch:
            held = leaders.setdefault(epoch, leader.incarnation)
            finding.require(held == leader.incarnation, "I4: epoch {e} granted twice", e=epoch)
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
        for name in ("generation", "version", "epoch", "truncated_before", "next"):
            old, new = getattr(before, name), getattr(after, name)
            finding.require(
                old <= new, "I5: the head's {n} went from {o} to {w}", n=name, o=old, w=new
            )
        finding.require(
            before.version < after.version or before == after,
            "I5: two heads of version {v}",
            v=before.version,
        )
    ends: dict[SegmentId, tuple[Sequence, Sequence, Chain]] = {}
    for change in history.rows:
        row = change.row
        held = ends.setdefault(row.id, (row.first, row.end, row.chain))
        finding.require(
            held == (row.first, row.end, row.chain), "I5: {r} was sealed as {h}", r=row, h=held
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
    return finding


def fencing_holds(history: History) -> Finding:
    """I6: a later epoch's events lie behind an earlier one's, and nothing sent late is acked."""
    finding = Finding()
    acked = sorted(history.acked, key=lambda append: append.sequence or 0)
    for before, after in pairwise(acked):
        finding.require(before.epoch <= after.epoch, "I6: {b} before {a}", b=before, a=after)
    taken = _takeovers(history)
    for append in acked:
        at = bisect_left(taken, (append.invoked, 0))
        passed = max((epoch for _, epoch in taken[:at]), default=0)
        finding.require(
            passed <= append.epoch,
            "I6: appended after epoch {p} had taken over, and acked: {a}",
            p=passed,
            a=append,
        )
    for one, two in pairwise(history.log):
        finding.require(one.epoch <= two.epoch, "I6: {o}, then {t} in the log", o=one, t=two)
    return finding


def content_identity(history: History) -> Finding:
    """I7: one (segment, sequence) holds one frame on all servers, at all times."""
    finding = Finding()
    frames: dict[tuple[bytes, SegmentId, Sequence], tuple[int, int]] = {}
    for held in history.held:
        known = frames.setdefault((held.stream, held.segment, held.first), (held.count, held.crc))
        finding.require(
            known == (held.count, held.crc), "I7: {h}, elsewhere (count, crc) {k}", h=held, k=known
        )
    return finding


def linearizable_reads(history: History) -> Finding:
    """I8: a read point covers all acked before it was asked for, and nothing from the future."""
    finding = Finding()
    acked = sorted(history.acked, key=lambda append: append.done)
    points = _running_max((append.done, (append.sequence or 0) + 1) for append in acked)
    log, appended = _by_sequence(history), {a.payload: a for a in history.appends}
    reads = sorted(history.linear_reads, key=lambda read: read.done)
    told = _running_max((read.done, read.committed) for read in reads)
    for read in reads:
        least = max(_highest_before(points, read.invoked), _highest_before(told, read.invoked))
        finding.require(
            read.committed >= least, "I8: {r}, but {n} was acked or told before", r=read, n=least
        )
        last = log.get(read.committed - 1)
        source: Append | None = appended.get(last.payload) if last else None
        finding.require(
            source is None or source.invoked <= read.done,
            "I8: {r} covers what was appended later: {s}",
            r=read,
            s=source,
        )
    return finding


def local_durability(history: History) -> Finding:
    """I9: after a crash with its disk intact, a server holds and promises all that it had acked."""
    finding = Finding()
    for restart in history.restarts:
        for stream, promise in restart.before.promises.items():
            after = restart.after.promises.get(stream)
            finding.require(
                after is not None and after >= promise,
                "I9: {s} had promised {b}, now {a}",
                s=restart.server,
                b=promise,
                a=after,
            )
        for key, end in restart.before.ends.items():
            held = restart.after.ends.get(key)
            finding.require(
                held is not None and held >= end,
                "I9: {s} had acked segment {k} to {b}, now it ends at {a}",
                s=restart.server,
                k=key[1],
                b=end,
                a=held,
            )
    return finding


def committed_is_monotone(history: History) -> Finding:
    """I10: what a client is told never falls, and no replica knows more than was committed."""
    finding = Finding()
    told: dict[str, Sequence] = {}
    for read in history.linear_reads:
        before = told.get(read.peer, 0)
        finding.require(
            before <= read.committed, "I10: {r}, who was told {b} before", r=read, b=before
        )
        told[read.peer] = read.committed
    end = _end(history)
    for replica in history.replicas:
        finding.require(
            replica.committed <= max(end, replica.first),
            "I10: {r}, but the log ends at {end}",
            r=replica,
            end=end,
        )
    return finding


def density(history: History) -> Finding:
    """I16: every read is without hole or repeat, from where it started."""
    finding = Finding()
    sessions = [(reader.name, reader.start, reader.deliveries) for reader in history.readers]
    for name, start, events in [("the final log", history.log_start, history.log), *sessions]:
        for expected, event in enumerate(events, start):
            finding.require(
                event.sequence == expected,
                "I16: {n} got {e}, {x} was due",
                n=name,
                e=event,
                x=expected,
            )
            if event.sequence != expected:
                break
    return finding


CHECKERS: dict[str, Callable[[History], Finding]] = {
    "I1": prefix_agreement,
    "I2": no_acked_loss,
    "I3": at_most_once,
    "I4": one_leader_per_epoch,
    "I5": metadata_is_monotone,
    "I6": fencing_holds,
    "I7": content_identity,
    "I8": linearizable_reads,
    "I9": local_durability,
    "I10": committed_is_monotone,
    "I16": density,
}


def _by_sequence(history: History) -> dict[Sequence, Delivery]:
    return {event.sequence: event for event in history.log}


def _end(history: History) -> Sequence:
    return history.log[-1].sequence + 1 if history.log else history.log_start


def _takeovers(history: History) -> list[tuple[float, Epoch]]:
    """When each epoch first had a segment of its own open in the metadata, in order of time."""
    first: dict[Epoch, float] = {}
    for change in history.heads:
        if change.head.open is not None:
            first.setdefault(change.head.open.id.epoch, change.at)
    return sorted((at, epoch) for epoch, at in first.items())


def _running_max(points: Iterable[tuple[float, Sequence]]) -> list[tuple[float, Sequence]]:
    best: list[tuple[float, Sequence]] = []
    for at, value in points:
        best.append((at, max(value, best[-1][1] if best else 0)))
    return best


def _highest_before(points: list[tuple[float, Sequence]], at: float) -> Sequence:
    index = bisect_left(points, (at, -1))
    return points[index - 1][1] if index else 0
