"""Bytes of the log: batches of records, in extent files.  No I/O.

A batch is what one fdatasync covers.  It begins at a multiple of 512 and is padded with zeros to one:

    offset  size  field of the batch header
         0     4  magic "LLB1"
         4     1  version (1)
         5     1  flags: 1 takeover (first batch of a boot), 2 last batch of its extent
         6     2  reserved (0)
         8     8  tag of this log, random: bytes of another log or of a payload never pass
        16     8  extent number (its generation: never used twice for other bytes)
        24     8  offset of this batch in the extent
        32     8  boot
        40     8  batch number
        48     8  hash of the batch before
        56    16  synced_to: (extent, offset), log end known synced when this was written (R17)
        72    16  previous: (extent, offset) where the log ended before this extent; in its first batch
        88     4  size of the batch, padding included
        92     4  bytes used, without padding
        96     4  count of records
       100     4  crc32c over all record headers
       104     4  reserved (0)
       108     4  crc32c over bytes 0..108

    offset  size  field of a record header
         0     1  kind: 1 frame, 2 control
         1     3  reserved (0)
         4     4  size of the body behind this header
         8    16  stream
        24    16  segment: epoch, n
        40     8  first sequence
        48     8  committed
        56     8  chain behind the frame
        64     8  batch number
        72     4  count of events
        76     4  crc32c of the body: a frame's own
        80     4  reserved (0)
        84     4  crc32c over tag, extent, offset of this header, and bytes 0..84

Little endian.  Control records use only kind, size, batch number and checksum; their body is
MessagePack.  The hash of a batch is blake2b-64 of its header, which covers the record headers, which
cover the frames.

Source: R17, R26; docs/storage.md.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import msgspec
from crc32c import crc32c

from lunalog import limits
from lunalog.errors import CorruptFrameError
from lunalog.storage.files import Buffer
from lunalog.storage.records import ControlRecord, FrameRecord, Record
from lunalog.types import Count, SegmentId
from lunalog.wire import frames

MAGIC: Final = b"LLB1"
VERSION: Final = 1
BLOCK_BYTES: Final = 512
BATCH: Final = struct.Struct("<4sBBHQQQQQQQQQQIIIII")
CRC: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
BATCH_HEAD_BYTES: Final = BATCH.size + CRC.size
PLACED: Final = struct.Struct("<QQBBHI16sQQQQQQIII")
"""A record header behind the extent and offset that its checksum covers too."""
PLACE_BYTES: Final = 16
RECORD_HEAD_BYTES: Final = PLACED.size - PLACE_BYTES + CRC.size
RECORD_HEAD: Final = struct.Struct("<BBHI16sQQQQQQIII")
BODY_BYTES_MAX: Final = limits.FRAME_BYTES_MAX
ZEROS: Final = bytes(BLOCK_BYTES)
NO_STREAM: Final = bytes(16)
KIND_FRAME: Final = 1
KIND_CONTROL: Final = 2

if (
    BATCH_HEAD_BYTES != 112 or RECORD_HEAD_BYTES != 88
):  # pragma: no cover  constants, checked at every import
    raise RuntimeError("the layouts above do not fit their structs")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ControlRecord)


class Flags(enum.IntFlag):
    """What a batch is besides its records."""

    NONE = 0
    TAKEOVER = 1
    LAST = 2


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in the log; extents are ordered by number."""

    extent: Count = 0
    offset: Count = 0


class BatchHead(msgspec.Struct, frozen=True, gc=False):
    """A batch header whose checksum was right."""

    flags: int
    tag: int
    extent: int
    offset: int
    boot: int
    number: int
    before: int
    synced_to: Position
    previous: Position
    size: int
    used: int
    count: int
    records_crc: int
    hash: int

    @property
    def end(self) -> int:
        """Offset behind this batch."""
        return self.offset + self.size


class Batch(msgspec.Struct, gc=False):
    """An encoded batch: what to write, and where its records will lie."""

    buffers: list[Buffer]
    size: int
    hash: int
    offsets: list[int]
    """Of each record header in the extent."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """One record as it was read; `is_whole` is false where only its header is."""

    record: Record
    offset: int
    end: int
    is_whole: bool = True


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a batch goes, and what its header says of the log before it."""

    tag: int
    boot: int
    extent: int
    offset: int
    number: int
    before: int
    synced_to: Position
    previous: Position = Position()
    flags: int = 0


@lru_cache(maxsize=8)
def record_seed(tag: int) -> int:
    """Start value of the checksums of record headers in the log `tag`."""
    return int(crc32c(U64.pack(tag)))


def encode(place: Place, records: Iterable[Record]) -> Batch:
    """Lay a batch out; frames go into `buffers` as they are, uncopied."""
    extent, number = place.extent, place.number
    start = at = place.offset + BATCH_HEAD_BYTES
    seed = record_seed(place.tag)
    buffers: list[Buffer] = [b""]
    offsets: list[int] = []
    records_crc = 0
    for record in records:
        if type(record) is FrameRecord:
            head, segment, body = record.head, record.segment, record.frame
            size = len(body)
            packed = PLACED.pack(
                extent, at, KIND_FRAME, 0, 0, size, record.stream, segment.epoch, segment.n,
                head.first, record.committed, record.chain, number, head.count, head.crc, 0,
            )  # fmt: skip
        else:
            body = _encoder.encode(record)
            size = len(body)
            packed = PLACED.pack(
                extent, at, KIND_CONTROL, 0, 0, size, NO_STREAM, 0, 0,
                0, 0, 0, number, 0, crc32c(body), 0,
            )  # fmt: skip
        header = packed[PLACE_BYTES:] + CRC.pack(crc32c(packed, seed))
        records_crc = crc32c(header, records_crc)
        buffers += header, body
        offsets.append(at)
        at += RECORD_HEAD_BYTES + size
    used = BATCH_HEAD_BYTES + at - start
    padding = -used % BLOCK_BYTES
    if padding:
        buffers.append(ZEROS[:padding])
    head_bytes = BATCH.pack(
        MAGIC, VERSION, place.flags, 0, place.tag, extent, place.offset, place.boot, number,
        place.before, place.synced_to.extent, place.synced_to.offset, place.previous.extent,
        place.previous.offset, used + padding, used, len(offsets), records_crc, 0,
    )  # fmt: skip
    buffers[0] = head_bytes = head_bytes + CRC.pack(crc32c(head_bytes))
    return Batch(buffers, used + padding, hash_of(head_bytes), offsets)


def hash_of(header: Buffer) -> int:
    """What the next batch says of the one with this header."""
    found: int = U64.unpack(blake2b(header, digest_size=8).digest())[0]
    return found


def parse_batch_head(buffer: Buffer, at: int, extent: int, offset: int) -> BatchHead | None:
    """Read the header at `buffer[at:]`; none unless it is whole and was written for this place."""
    header = bytes(memoryview(buffer)[at : at + BATCH_HEAD_BYTES])
    if len(header) < BATCH_HEAD_BYTES or header[:4] != MAGIC:
        return None
    fields = BATCH.unpack_from(header)
    if CRC.unpack_from(header, BATCH.size)[0] != crc32c(header[: BATCH.size]):
        return None
    (_, version, flags, r1, tag, its_extent, its_offset, boot, number, before,
     synced_extent, synced_offset, previous_extent, previous_offset,
     size, used, count, records_crc, r2) = fields  # fmt: skip
    if version != VERSION or r1 or r2 or its_extent != extent or its_offset != offset:
        return None
    if number >= limits.SEQUENCE_MAX or its_extent >= limits.SEQUENCE_MAX:  # one more must fit
        return None
    if size % BLOCK_BYTES or not BATCH_HEAD_BYTES <= used <= size or size - used >= BLOCK_BYTES:
        return None
    return BatchHead(
        flags, tag, extent, offset, boot, number, before,
        Position(synced_extent, synced_offset), Position(previous_extent, previous_offset),
        size, used, count, records_crc, hash_of(header),
    )  # fmt: skip


class Body(msgspec.Struct, gc=False):
    """The records of one batch as they were read."""

    found: list[Found]
    is_whole: bool
    """All that the header promised is there, to the last byte of padding."""
    is_complete: bool
    """No record is missing, though a frame may be damaged."""
    stopped: int = 0
    """Offset in the extent of what could not be read as a record, if not complete."""


def decode_body(body: memoryview, head: BatchHead) -> Body:
    """Read the records behind a batch header; `body` is what follows it, up to the batch's end."""
    start = head.offset + BATCH_HEAD_BYTES
    found, records_crc, at = _walk(body[: head.used - BATCH_HEAD_BYTES], head)
    is_complete = (
        len(found) == head.count
        and at == head.used - BATCH_HEAD_BYTES
        and records_crc == head.records_crc
    )
    is_whole = (
        is_complete
        and len(body) == head.size - BATCH_HEAD_BYTES
        and not any(body[at:])
        and all(f.is_whole for f in found)
    )
    return Body(found, is_whole, is_complete, start + at)


def salvage(buffer: memoryview, tag: int, extent: int, offset: int) -> list[Found]:
    """Read what records there are in batches whose headers are lost; `buffer` begins with such a one.

    Each record tells its own place, so none is taken for another; it lies behind the others of its
    batch, and the first of each where a batch may begin.
    """
    found: list[Found] = []
    seed = record_seed(tag)
    block = 0
    while block < len(buffer):
        at, end = block + BATCH_HEAD_BYTES, block + 1
        while (record := parse_record(buffer, at, seed, extent, offset + at)) is not None:
            found.append(record)
            at = end = record.end - offset
        block = end + -end % BLOCK_BYTES
    return found


def _walk(body: memoryview, head: BatchHead) -> tuple[list[Found], int, int]:
    found: list[Found] = []
    records_crc = at = 0
    seed = record_seed(head.tag)
    start = head.offset + BATCH_HEAD_BYTES
    while len(found) != head.count:
        record = parse_record(body, at, seed, head.extent, start + at, head.number)
        if record is None:
            break
        records_crc = crc32c(body[at : at + RECORD_HEAD_BYTES], records_crc)
        found.append(record)
        at = record.end - start
    return found, records_crc, at


def parse_record(
    buffer: memoryview, at: int, seed: int, extent: int, offset: int, number: int | None = None
) -> Found | None:
    """Read the record at `buffer[at:]`, which lies at `offset` of `extent`.

    Returns:
        None unless its header is whole and was written for this place (and batch, if given); a
        record without `frame` when the header is whole and the frame is not.
    """
    header = bytes(buffer[at : at + RECORD_HEAD_BYTES])
    if not _is_whole(header, crc32c(U64.pack(extent) + U64.pack(offset), seed)):
        return None
    (kind, r1, r2, size, stream, epoch, n, first, committed, chain,
     its_number, count, body_crc, r3) = RECORD_HEAD.unpack_from(header)  # fmt: skip
    if r1 or r2 or r3 or size > BODY_BYTES_MAX or number not in {None, its_number}:
        return None
    body = buffer[at + RECORD_HEAD_BYTES : at + RECORD_HEAD_BYTES + size]
    end = offset + RECORD_HEAD_BYTES + size
    if kind == KIND_CONTROL:
        control = _parse_control(body, size, body_crc)
        return None if control is None else Found(control, offset, end)
    if kind != KIND_FRAME or (epoch | n | committed | first + count) > limits.SEQUENCE_MAX:
        return None  # all bits below are the bound; no checkpoint could tell of such numbers
    segment = SegmentId(epoch, n)
    head = _parse_frame(body, size, body_crc)
    if head is not None and (head.stream, head.first, head.count) == (stream, first, count):
        return Found(FrameRecord(stream, segment, committed, chain, head, bytes(body)), offset, end)
    head = frames.FrameHead(stream, first, count, 0, 0, size - frames.HEAD_BYTES, body_crc)
    return Found(FrameRecord(stream, segment, committed, chain, head, b""), offset, end, False)


def _is_whole(header: bytes, seed: int) -> bool:
    if len(header) < RECORD_HEAD_BYTES:
        return False
    crc: int = CRC.unpack_from(header, RECORD_HEAD.size)[0]
    return crc32c(header[: RECORD_HEAD.size], seed) == crc


def body_size(header: Buffer) -> int:
    """What an unchecked record header says of its body's size."""
    size: int = RECORD_HEAD.unpack_from(header)[3]
    return size


def _parse_control(body: memoryview, size: int, crc: int) -> ControlRecord | None:
    if len(body) != size or crc32c(body) != crc:
        return None
    try:
        record: ControlRecord = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return record


def _parse_frame(body: memoryview, size: int, crc: int) -> frames.FrameHead | None:
    if len(body) != size:
        return None
    try:
        head = frames.parse(body)
    except CorruptFrameError:
        return None
    return head if head.crc == crc else None
