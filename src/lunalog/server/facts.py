"""Between the log's records and the replica's decisions: replay and snapshot."""

from __future__ import annotations

from lunalog.core.replica import Replica
from lunalog.errors import InvariantError, LunalogError
from lunalog.storage.records import (
    BaseRecord,
    CertificateRecord,
    ControlRecord,
    Damage,
    DropRecord,
    EndRecord,
    FrameRecord,
    MarkRecord,
    OpenRecord,
    PromiseRecord,
    Record,
    TombstoneRecord,
    TrimRecord,
    UnknownRecord,
)
from lunalog.types import SegmentId, Sequence, StreamId


def replay(replica: Replica, record: Record, damage: Damage | None) -> None:
    """Apply one record of the log; twice, or behind a newer one, changes nothing (I9)."""
    match record:
        case FrameRecord(stream, segment, committed, chain, head, _):
            replica.held_frame(
                stream,
                segment,
                committed,
                chain,
                (head.first, head.end),
                head.crc,
                is_damaged=damage is not None,
            )
        case OpenRecord(stream, segment, leader, first, chain, generation):
            replica.opened(stream, segment, leader, first, chain, generation)
        case PromiseRecord(stream, promise):
            replica.promised(stream, promise)
        case MarkRecord(stream, segment, committed):
            held = replica.find(stream, segment)
            if held is not None:
                replica.mark(held, committed)
        case EndRecord(stream, segment, first, end, chain, committed):
            replica.held_until(stream, segment, (first, end), chain, committed)
        case UnknownRecord(stream, segment, first, end):
            replica.damaged(stream, segment, (first, end))
        case BaseRecord(stream, segment, first, chain):
            replica.based(stream, segment, (first, chain))
        case _:
            _replay_command(replica, record)


def _replay_command(replica: Replica, record: Record) -> None:
    try:
        match record:
            case CertificateRecord(certificate):
                replica.certify(certificate)
            case TrimRecord(stream, before, version):
                replica.trim(stream, before, version)
            case DropRecord(stream, segment, promise, version):
                replica.drop(stream, segment, promise, version)
            case TombstoneRecord(stream, promise):
                replica.delete(stream, promise)
            case _:
                raise InvariantError(f"no such record: {record!r}")
    except InvariantError:
        raise
    except LunalogError:
        return  # a later record of its kind came first


def start_of(replica: Replica, stream: StreamId, segment: SegmentId) -> Sequence | None:
    """Return the first sequence that is kept of a segment; none when nothing is."""
    held = replica.find(stream, segment)
    return None if held is None else max(held.first, replica.streams[stream].trimmed_before)


def snapshot(replica: Replica) -> list[ControlRecord]:
    """Everything that is not a frame, as the records that rebuild it."""
    found: list[ControlRecord] = []
    for stream, state in replica.streams.items():
        found.append(PromiseRecord(stream, state.promise))
        if state.trimmed_before:
            found.append(TrimRecord(stream, state.trimmed_before, state.trim_version))
        for segment, version in (state.versions or {}).items():
            found.append(DropRecord(stream, segment, state.promise, version))
        if state.is_deleted:
            found.append(TombstoneRecord(stream, state.promise))
        for held in state.segments.values():
            if held.is_opened:
                found.append(
                    OpenRecord(
                        stream, held.id, held.leader, held.first, held.start_chain, held.generation
                    )
                )
            if held.certificate is not None:
                found.append(CertificateRecord(held.certificate))
            if held.committed:
                found.append(MarkRecord(stream, held.id, held.committed))
            if held.base is not None:
                found.append(BaseRecord(stream, held.id, *held.base))
            found += [UnknownRecord(stream, held.id, *span) for span in held.unknown]
    return found
