"""I7, I9, I11, I12, I15: what lies on servers, and what left them."""

from __future__ import annotations

import struct
from collections import defaultdict
from hashlib import blake2b

from lunalog.testing.history import Finding, HeldFrame, History, RowChange
from lunalog.types import Chain, Epoch, Member, SealedSegment, SegmentId, Sequence, StreamId


def content_identity(history: History) -> Finding:
    """I7: one (segment, sequence) holds one frame on all servers, at all times."""
    finding = Finding()
    frames: dict[tuple[StreamId, SegmentId, Sequence], tuple[int, int]] = {}
    for held in history.held:
        known = frames.setdefault((held.stream, held.segment, held.first), (held.count, held.crc))
        finding.require(
            known == (held.count, held.crc), "I7: {h}, elsewhere (count, crc) {k}", h=held, k=known
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


def replication(history: History) -> Finding:
    """I11: a sealed segment is on A listed disks, but for injected losses; in the end on all.

    A server that lost its disk has its copies again by then, and is listed as who it is now (R19).
    """
    finding = Finding()
    for change in history.rows:
        if change.copies is None:
            continue
        row = change.row
        lost = sum(_has_lost(history, member, change) for member in row.members)
        finding.require(
            len(set(change.copies)) >= row.ack_quorum - lost,
            "I11: {r} was sealed with copies on {c}; {n} of its disks had lost something",
            r=row,
            c=[str(member) for member in change.copies],
            n=lost,
        )
    if history.replicas:
        complete = {(r.member, r.segment) for r in history.replicas if r.is_complete}
        damaged = {(r.member.server, r.segment) for r in history.replicas if r.is_damaged}
        start, until = history.log_start, history.over_at
        for row, member in lacking(history, complete, damaged, start, until=until):
            finding.require(False, "I11: {m} never completed {r}", m=member, r=row)
        finding.checked += len(complete)
    return finding


def _has_lost(history: History, member: Member, change: RowChange) -> bool:
    """Whether a listed disk had lost something by then.

    A segment is sealed on those who acked it, under their incarnations.  A row that changes later lists
    a server under a new one because its disk may have lost something under an old one (R19).
    """
    return any(
        loss.at <= change.at
        and (
            loss.member == member
            or (change.row.version > 1 and loss.member.server == member.server)
        )
        for loss in history.losses
    )


def lacking(
    history: History,
    complete: set[tuple[Member, SegmentId]],
    damaged: set[tuple[str, SegmentId]],
    start: Sequence,
    until: float = float("inf"),
) -> list[tuple[SealedSegment, Member]]:
    """Members listed by then that hold neither a complete copy nor a damaged one.

    Args:
        history: Its rows count.
        complete: Who has completed what.
        damaged: Servers, each with a segment of which something there is unknown (R18).
        start: Segments that end before are truncated, and need not be kept.
        until: Rows that are younger have not had their time yet.
    """
    rows = {change.row.id: change.row for change in history.rows if change.at <= until}
    return [
        (row, member)
        for row in rows.values()
        if row.end > start and history.has_log
        for member in row.members
        if (member, row.id) not in complete and (member.server, row.id) not in damaged
    ]


def integrity(history: History) -> Finding:
    """I12: nobody is served bytes that fail their checksum, or that no writer wrote."""
    finding = Finding()
    for held in history.held:
        if held.epoch:
            finding.require(held.is_sound, "I12: bytes that fail their checksum: {h}", h=held)
    appended = {append.payload for append in history.appends}
    for reader in history.readers:
        for event in reader.deliveries:
            finding.require(
                event.payload in appended,
                "I12: reader {r} got what nobody wrote: {e}",
                r=reader.name,
                e=event,
            )
    return finding


def sealed_is_immutable(history: History) -> Finding:
    """I15: a frame stays what its origin made it, in every segment; each copy hashes to its row."""
    finding = Finding()
    origins: dict[tuple[Epoch, Sequence], tuple[int, int]] = {}
    for held in history.held:
        if held.epoch:
            key, value = (held.epoch, held.first), (held.count, held.crc)
            known = origins.setdefault(key, value)
            finding.require(
                known == value, "I15: {h}, in another segment (count, crc) {k}", h=held, k=known
            )
    appended = {append.payload: append.epoch for append in history.appends}
    for event in history.log:
        origin = appended.get(event.payload)
        finding.require(
            origin in (event.epoch, None, 0), "I15: {e} was appended in {o}", e=event, o=origin
        )
    rows = {change.row.id: change.row for change in history.rows}
    for replica in history.replicas:
        row = rows.get(replica.segment)
        if row is not None and replica.is_complete:
            finding.require(
                (replica.end, replica.chain) == (row.end, row.chain),
                "I15: {r} is complete, the row is {w}",
                r=replica,
                w=row,
            )
    _rehash(history, rows, finding)
    return finding


def _rehash(history: History, rows: dict[SegmentId, SealedSegment], finding: Finding) -> None:
    """Hash what each server held of each sealed segment, where all of its frames were seen."""
    chain_at: dict[Sequence, Chain] = {row.end: row.chain for row in rows.values()}
    chain_at.setdefault(0, 0)
    copies: defaultdict[tuple[Member, SegmentId], list[HeldFrame]] = defaultdict(list)
    for held in history.held:
        if held.epoch and held.segment in rows:
            copies[held.member, held.segment].append(held)
    for (member, segment), held_frames in copies.items():
        row = rows[segment]
        if row.first not in chain_at:
            continue  # what was before it was truncated before anybody looked
        chain, at = chain_at[row.first], row.first
        for held in sorted(held_frames, key=lambda frame: frame.first):
            if held.first == at < row.end:
                chain, at = _link(chain, at, held.count, held.crc), at + held.count
        if at == row.end:
            finding.require(
                chain == row.chain,
                "I15: {m} holds segment {s} with hash {c:016x}, the row is {r}",
                m=member,
                s=segment,
                c=chain,
                r=row,
            )


def _link(chain: Chain, first: Sequence, count: int, crc: int) -> Chain:
    """The chain as docs/protocol.md defines it (R26); a checker shares no code with what it judges."""
    link = blake2b(struct.pack("<QQII", chain, first, count, crc), digest_size=8)
    return int.from_bytes(link.digest(), "little")
