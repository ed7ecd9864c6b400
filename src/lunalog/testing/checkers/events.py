"""I1 to I3, I16, I17: the events themselves, as writers were told and readers got them."""

from __future__ import annotations

from lunalog.testing.checkers.points import (
    by_sequence,
    end_of,
    highest_before,
    running_max,
    seen,
)
from lunalog.testing.history import REFUSED, Finding, History
from lunalog.types import Epoch, LeaderIncarnation, Sequence


def prefix_agreement(history: History) -> Finding:
    """I1: what two readers get at one sequence is the same, and is what the final log holds."""
    finding = Finding()
    known = by_sequence(history)
    for reader in history.readers:
        for event in reader.deliveries:
            held = known.setdefault(event.sequence, event)
            finding.require(
                held == event, "I1: reader {r} got {e}, others {h}", r=reader.name, e=event, h=held
            )
    if history.has_log and known:
        end, last = end_of(history), max(known)
        finding.require(
            last < end, "I1: {s} was read but the final log ends at {end}", s=last, end=end
        )
    return finding


def no_acked_loss(history: History) -> Finding:
    """I2: an acknowledged event is in the final log, at its sequence, unless truncated."""
    finding = Finding()
    if not history.has_log:
        return finding
    log = by_sequence(history)
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
    found = seen(history)
    for event in [*found.values(), *history.log]:
        append = appended.get(event.payload)
        finding.require(
            append is not None and append.outcome != REFUSED,
            "I3: the log holds {e}, which was {a}",
            e=event,
            a=append or "never appended",
        )
        place = places.setdefault(event.payload, event.sequence)
        finding.require(place == event.sequence, "I3: {e} is also at {p}", e=event, p=place)
    for append in history.acked:
        read_at = places.get(append.payload, append.sequence)
        finding.require(read_at == append.sequence, "I3: {a} was read at {p}", a=append, p=read_at)
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


def session_order(history: History) -> Finding:
    """I17: readers go forward; a writer's order is the log's; what follows an ack lies behind it."""
    finding = Finding()
    for reader in history.readers:
        last = -1
        for event in reader.deliveries:
            finding.require(
                event.sequence > last, "I17: {r} got {e} after {s}", r=reader.name, e=event, s=last
            )
            last = event.sequence
    ends: dict[tuple[LeaderIncarnation, Epoch], Sequence] = {}
    acked = [append for append in history.acked if append.sequence is not None]
    for append in acked:
        place = append.sequence or 0
        key = (append.incarnation, append.epoch)
        finding.require(
            place >= ends.get(key, 0), "I17: {a} was called later, and lies before", a=append
        )
        ends[key] = place + 1
    told = sorted((append.done, (append.sequence or 0) + 1) for append in acked)
    points = running_max(told)
    for append in acked:
        least = highest_before(points, append.invoked)
        finding.require(
            (append.sequence or 0) >= least,
            "I17: {a}, but all below {n} was acked before it was called",
            a=append,
            n=least,
        )
    return finding
