"""Everything that is read from a data directory: batches, extents, sidecars, checkpoints, identity."""

from __future__ import annotations

from functools import cache, partial

from crc32c import crc32c
from tests.fuzz.harness import (
    StillRuntime,
    Target,
    disk_of,
    files_of,
    pack,
    require,
    unpack,
)
from tests.fuzz.wire_targets import with_checksum

from lunalog.config import ServerConfig
from lunalog.core.replica import Replica
from lunalog.embedded.disk import MemoryDisk
from lunalog.errors import StorageError
from lunalog.runtime import drive
from lunalog.server import facts
from lunalog.storage import checkpoint, extents, identity
from lunalog.storage import format as layout
from lunalog.storage.boot import Boot, Booted
from lunalog.storage.fetch import RecordReader
from lunalog.storage.format import BATCH_HEAD_BYTES, BLOCK_BYTES, RECORD_HEAD_BYTES, Place, Position
from lunalog.storage.index import Index, Run, SegmentIndex, block_bytes, decode_block, encode_block
from lunalog.storage.ledger import Beginning, Ledger, carry_out
from lunalog.storage.records import (
    BaseRecord,
    CertificateRecord,
    Damage,
    DropRecord,
    FrameRecord,
    MarkRecord,
    OpenRecord,
    PromiseRecord,
    Record,
    TombstoneRecord,
    TrimRecord,
    UnknownRecord,
)
from lunalog.storage.writer import Put
from lunalog.types import Certificate, Member, Promise, SealedSegment, SegmentId
from lunalog.wire import frames

STREAM, OTHER, LEADER = b"s" * 16, b"t" * 16, b"a" * 16
SEGMENT = SegmentId(1, 0)
TAG = 0x1234567890ABCDEF
CONFIG = ServerConfig(extent_bytes=8 << 10, reserve_bytes=0)
ROW = SealedSegment(SEGMENT, 0, 4, 77, (Member("s1", 1), Member("s2", 1)), 2, "ann", "age", 123, 2)


def frame_record(first: int, count: int = 1, size: int = 20, committed: int = 0) -> FrameRecord:
    payloads = [bytes([first + i]) * size for i in range(count)]
    frame = bytes(frames.build(STREAM, first, 1, 1000 + first, payloads))
    return FrameRecord(STREAM, SEGMENT, committed, first * 31, frames.parse(frame), frame)


OPENED = OpenRecord(STREAM, SEGMENT, LEADER, 0, 0, 1)
PROMISED = PromiseRecord(STREAM, Promise(1, LEADER))
STORY: list[Record] = [
    PROMISED,
    OPENED,
    frame_record(0),
    frame_record(1, 2),
    MarkRecord(STREAM, SEGMENT, 2),
    frame_record(3, 1, 40, 2),
    CertificateRecord(Certificate(STREAM, ROW, Promise(2, LEADER))),
    TrimRecord(STREAM, 2, 3),
    BaseRecord(STREAM, SEGMENT, 1, 9),
    UnknownRecord(STREAM, SEGMENT, 1, 3),
    DropRecord(OTHER, SegmentId(2, 1), Promise(3, LEADER), 4),
    TombstoneRecord(OTHER, Promise(4, b"")),
]


# ------------------------------------------------------------------------------- batches


def with_checksums(data: bytes, start: int = 0) -> bytes:
    """Make the checksums of one batch right, from the frames outwards, and its place as well."""
    if data[:4] != layout.MAGIC or len(data) < BATCH_HEAD_BYTES:
        return data
    tag, extent = (int.from_bytes(data[at : at + 8], "little") for at in (8, 16))
    head = bytearray(data[:BATCH_HEAD_BYTES])
    head[24:32] = start.to_bytes(8, "little")
    used, count = (int.from_bytes(data[at : at + 4], "little") for at in (92, 96))
    body, records_crc = bytearray(data[BATCH_HEAD_BYTES:]), 0
    seed, at = layout.record_seed(tag), 0
    for _ in range(min(count, 1000)):
        if at + RECORD_HEAD_BYTES > min(len(body), used - BATCH_HEAD_BYTES):
            break
        end = at + RECORD_HEAD_BYTES + int.from_bytes(body[at + 4 : at + 8], "little")
        content = bytes(body[at + RECORD_HEAD_BYTES : end])
        if body[at] == layout.KIND_FRAME:
            content = with_checksum(content)
            body[at + RECORD_HEAD_BYTES : end] = content
            body[at + 76 : at + 80] = content[60:64].ljust(4, b"\0")
        else:
            body[at + 76 : at + 80] = crc32c(content).to_bytes(4, "little")
        offset = start + BATCH_HEAD_BYTES + at
        placed = extent.to_bytes(8, "little") + offset.to_bytes(8, "little")
        crc = crc32c(placed + bytes(body[at : at + 84]), seed)
        body[at + 84 : at + 88] = crc.to_bytes(4, "little")
        records_crc = crc32c(bytes(body[at : at + 88]), records_crc)
        at = end
    head[100:104] = records_crc.to_bytes(4, "little")
    head[108:112] = crc32c(bytes(head[:108])).to_bytes(4, "little")
    return bytes(head + body)


def chained(data: bytes) -> bytes:
    """Make every batch of an extent right, and each name the one before it."""
    found, offset, before = bytearray(data), 0, None
    while (offset := data.find(layout.MAGIC, offset)) >= 0:
        if offset % BLOCK_BYTES == 0:
            if before is not None:
                found[offset + 48 : offset + 56] = before.to_bytes(8, "little")
            size = int.from_bytes(data[offset + 88 : offset + 92], "little")
            fixed = with_checksums(bytes(found[offset : offset + size]), offset)
            found[offset : offset + len(fixed)] = fixed
            before = layout.hash_of(bytes(fixed[:BATCH_HEAD_BYTES]))
        offset += 1
    return bytes(found)


def run_batch(data: bytes) -> bool:
    return any([_batch(data), _batch(with_checksums(data))])


def _batch(data: bytes) -> bool:
    extent = int.from_bytes(data[16:24], "little")
    head = layout.parse_batch_head(data, 0, extent, 0)
    layout.salvage(memoryview(data), TAG, extent, 0)
    if head is None:
        return False
    body = layout.decode_body(memoryview(data)[BATCH_HEAD_BYTES : head.size], head)
    require(len(body.found) <= head.count, "no more records than promised")
    for found in body.found:
        require(BATCH_HEAD_BYTES <= found.offset < head.used, "inside its batch")
        require(found.end <= head.used or not found.is_whole, "to its end")
    if not body.is_whole:
        return False
    place = Place(
        head.tag, head.boot, extent, 0, head.number, head.before, head.synced_to, head.previous,
        head.flags,
    )  # fmt: skip
    again = layout.encode(place, [found.record for found in body.found])
    back = b"".join(again.buffers)
    found_again = layout.parse_batch_head(back, 0, extent, 0)
    require(found_again is not None, "what decodes can be written")
    if found_again is not None:
        rest = layout.decode_body(memoryview(back)[BATCH_HEAD_BYTES:], found_again)
        require(rest.is_whole, "and read again")
        records = [found.record for found in body.found]
        require([found.record for found in rest.found] == records, "as the same records")
    return bool(body.found)


def _batches() -> dict[str, bytes]:
    place = Place(TAG, 7, 3, 0, 41, 99, Position(2, 512), Position(2, 4096), 1)
    named = {f"{type(record).__name__}-{number}": [record] for number, record in enumerate(STORY)}
    named["story"] = STORY
    named["empty"] = []
    return {name: b"".join(layout.encode(place, found).buffers) for name, found in named.items()}


# ------------------------------------------------------------------------------- whole directories


def is_file(name: str) -> bool:
    return bool(
        extents.NAME.fullmatch(name)
        or extents.INDEX_NAME.fullmatch(name)
        or checkpoint.NAME.fullmatch(name)
    )


def boot(disk: MemoryDisk, replica: Replica, index: Index, number: int = 1) -> Booted:
    def deliver(record: Record, damage: Damage | None) -> None:
        facts.replay(replica, record, damage)

    start = Boot(
        disk,
        StillRuntime(),  # type: ignore[arg-type]
        CONFIG,
        index,
        boot=number,
        deliver=deliver,
        snapshot=lambda: facts.snapshot(replica),
    )
    return drive(start.run())


def fixed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same directory with all checksums right."""
    found = {}
    for name, data in files.items():
        if extents.NAME.fullmatch(name):
            found[name] = chained(data)
        elif checkpoint.NAME.fullmatch(name):
            found[name] = with_head(data, int(name[-10:]))
        else:
            found[name] = with_last_checksum(data)
    return found


def run_directory(data: bytes) -> bool:
    files = unpack(data, is_file)
    return any([_directory(files), _directory(fixed(files))])


def _directory(files: dict[str, bytes]) -> bool:
    disk, replica = disk_of(files), Replica(1)
    index = Index(partial(facts.start_of, replica))
    try:
        booted = boot(disk, replica, index)
    except StorageError:
        return False
    replica.settled()
    again = Replica(1)
    second = Index(partial(facts.start_of, again))
    opened = boot(disk_of(files_of(disk)), again, second, 2)
    require(not opened.damage or bool(booted.damage), "a start does not make damage")
    again.settled()
    for stream, state in replica.streams.items():
        require(again.streams[stream].promise == state.promise, "I9: the promise stays")
    _read(disk, booted, index)
    return not booted.damage and any(True for _ in index.all())


def _read(disk: MemoryDisk, booted: Booted, index: Index) -> None:
    """Read what the index says that there is: whole, or told not to be."""
    for segment in index.all():
        for run in segment.runs[:8]:
            file = drive(disk.open(extents.name_of(run.extent)))
            reader = RecordReader(file, run.extent, booted.wal.tag, 4096)
            found = drive(reader.get(run.offset))
            if found is not None and found.is_whole:
                require(len(found.record.frame) <= layout.BODY_BYTES_MAX, "bounded")  # type: ignore[union-attr]


@cache
def _directories() -> dict[str, bytes]:
    """A life of a log: begun, filled past two extents with checkpoints, and begun again."""
    disk = MemoryDisk("seed")
    replica, index = Replica(1), Index()
    booted = boot(disk, replica, index)
    found = {"new": pack(_small(disk))}
    wal, book = booted.wal, booted.ledger
    at = 0
    first: list[Record] = [PROMISED, OPENED]
    for batch in range(5):
        records = first if batch == 0 else [frame_record(at, 1, 900), frame_record(at + 1, 1, 10)]
        at += 2 if batch else 0
        done = drive(wal.commit([Put(records, 2000)]))
        for record, offset in zip(records, done.offsets, strict=True):
            facts.replay(replica, record, None)
            if isinstance(record, FrameRecord):
                index.add(record, done.extent, offset)
            elif isinstance(record, OpenRecord):
                index.opened(record)
        if done.closed is not None:
            book.closed(done.closed.extent, done.closed.end)
            beginning = Beginning(done.closed.next, done.closed.number, done.closed.before)
            plan = book.plan(beginning, wal.synced_to, facts.snapshot(replica))
            drive(carry_out(disk, plan))
            book.finished(plan)
    found["lived"] = pack(_small(disk))
    boot(disk, Replica(1), Index(), 2)
    found["twice"] = pack(_small(disk))
    return found


def _small(disk: MemoryDisk) -> dict[str, bytes]:
    files = {name: data for name, data in files_of(disk).items() if is_file(name)}
    return {name: data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512) if name.endswith(".wal")
            else data for name, data in files.items()}  # fmt: skip


# ------------------------------------------------------------------------------- sidecars


def a_run(count: int = 3) -> Run:
    owner = SegmentIndex(STREAM, SEGMENT, 0)
    run = Run(owner, 4, 0, 1, 112)
    for first in range(1, count):
        run.append(first, first + 1, 112 + 200 * first)
    return run


def with_last_checksum(data: bytes) -> bytes:
    return data[:-4] + crc32c(data[:-4]).to_bytes(4, "little") if len(data) > 4 else data


def run_sidecar(data: bytes) -> bool:
    return any([_sidecar(data), _sidecar(with_last_checksum(data))])


def _sidecar(data: bytes) -> bool:
    run = a_run(max(1, (len(data) - block_bytes(0)) // 16))
    block = decode_block(data, run)
    if block is None:
        return False
    require(encode_block(run, block) == data, "the bytes it was")
    require(len(block.firsts) == len(block.offsets) == run.count, "a pair a frame")
    return True


def _blocks() -> dict[str, bytes]:
    runs = {name: a_run(count) for name, count in (("two", 2), ("nine", 9))}
    return {name: encode_block(run, run.block) for name, run in runs.items() if run.block}


# ------------------------------------------------------------------------------- checkpoints


def with_head(data: bytes, number: int) -> bytes:
    """Make size, number and checksums of a checkpoint right."""
    if len(data) < checkpoint.HEAD_BYTES:
        return data
    body = data[checkpoint.HEAD_BYTES :]
    head = data[:8] + checkpoint.HEAD.pack(b"", 0, number, len(body), crc32c(body))[8:]
    return head + checkpoint.CRC.pack(crc32c(head)) + body


def run_checkpoint(data: bytes) -> bool:
    return any([_checkpoint(data), _checkpoint(with_head(data, 3))])


def _checkpoint(data: bytes) -> bool:
    contents = checkpoint.decode(data, 3)
    if contents is None:
        return False
    again = b"".join(checkpoint.encode(contents))
    back = checkpoint.decode(again, contents.number)
    require(back is not None, "what decodes can be written")
    require(again == b"".join(checkpoint.encode(back or contents)), "the bytes it was")
    index = Index()
    checkpoint.restore(contents, index)
    for segment in index.all():
        list(segment.gaps())
    replica = Replica(1)
    for record in contents.replay():
        facts.replay(replica, record, None)
    facts.snapshot(replica)
    return True


def _checkpoints() -> dict[str, bytes]:
    index = Index()
    index.opened(OPENED)
    for number, record in enumerate((frame_record(0), frame_record(1), frame_record(5))):
        index.add(record, 2, 112 + 200 * number)
    ledger = Ledger(index, TAG)
    ledger.number = 2
    ledger.closed(2, 4096)
    plan = ledger.plan(Beginning(3, 40, 99), Position(3, 512), [PROMISED, OPENED, STORY[6]])
    return {"three": b"".join(checkpoint.encode(plan.contents))}


# ------------------------------------------------------------------------------- identity


def run_identity(data: bytes) -> bool:
    body = data.partition(b"crc32c = ")[0]
    return any([_identity(data), _identity(body + b"crc32c = %08x\n" % crc32c(body))])


def _identity(data: bytes) -> bool:
    try:
        found = identity.parse(data, "fuzz")
    except StorageError:
        return False
    require(identity.parse(identity.render(found), "fuzz") == found, "it is written as it is read")
    return True


TARGETS = (
    Target("batch", run_batch, _batches, ("lunalog.storage.format",), bytes_each=1500),
    Target(
        "directory",
        run_directory,
        _directories,
        (
            "lunalog.storage.replay",
            "lunalog.storage.scan",
            "lunalog.storage.boot",
            "lunalog.server.facts",
        ),
        bytes_each=3000,
        bytes_base=8 << 20,
    ),
    Target("sidecar", run_sidecar, _blocks, ("lunalog.storage.index",), bytes_each=400),
    Target("checkpoint", run_checkpoint, _checkpoints, ("lunalog.storage.checkpoint",), 2000),
    Target(
        "identity",
        run_identity,
        lambda: {"new": identity.render(identity.Identity(cluster="c0ffee", name="s1", boot=3))},
        ("lunalog.storage.identity",),
    ),
)
