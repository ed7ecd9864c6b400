"""The journal frame: one batch of events, made once by its producer and kept byte for byte.

    offset  size  field
         0     4  magic "LLF1"
         4     1  version (1)
         5     1  flags (0)
         6     2  reserved (0)
         8     4  count of events (>= 1)
        12     4  body bytes: 4 * count + all payloads
        16     8  first sequence
        24     8  origin epoch
        32     8  producer's clock, microseconds since 1970
        40    16  stream id
        56     4  reserved (0)
        60     4  crc32c over bytes 0..60 and the body
        64     -  body: count lengths (u32 each), then the payloads one behind another

Little endian.  A frame is indivisible: `end`, committed and every other bound lie between frames.
Source: R26; docs/wire.md.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Final

import msgspec
from crc32c import crc32c

from lunalog import limits
from lunalog.errors import CorruptFrameError
from lunalog.types import Epoch, Event, Sequence, StreamId

MAGIC: Final = b"LLF1"
VERSION: Final = 1
HEAD: Final = struct.Struct("<4sBBHIIQQQ16sI")
CRC: Final = struct.Struct("<I")
WHOLE_HEAD: Final = struct.Struct(HEAD.format + "I")
"""With the checksum."""
HEAD_BYTES: Final = HEAD.size + CRC.size
HEAD_ROOM: Final = bytes(HEAD_BYTES)
Buffer = bytes | bytearray | memoryview

if HEAD_BYTES != 64:  # pragma: no cover  constants, checked at every import
    raise RuntimeError("the frame header is 64 bytes")


class FrameHead(msgspec.Struct, frozen=True, gc=False):
    """What a header says; the bounds were checked, the checksum only by `check`."""

    stream: StreamId
    first: Sequence
    count: int
    epoch: Epoch
    appended_us: int
    body_bytes: int
    crc: int

    @property
    def end(self) -> Sequence:
        """First sequence behind this frame."""
        return self.first + self.count

    @property
    def size(self) -> int:
        """Bytes of the whole frame."""
        return HEAD_BYTES + self.body_bytes


def build(
    stream: StreamId,
    first: Sequence,
    epoch: Epoch,
    appended_us: int,
    payloads: list[bytes],
    sizes: list[int] | None = None,
) -> bytearray:
    """Make one frame of at least one payload; the caller keeps to `limits.FRAME_BYTES_MAX`.

    Payloads are copied once, into the frame.  `sizes` are their lengths, where the caller knows them.
    """
    lengths = column_of(list(map(len, payloads)) if sizes is None else sizes)
    frame = bytearray().join([HEAD_ROOM, lengths, *payloads])
    _seal(frame, stream, first, epoch, appended_us, len(payloads))
    return frame


def build_of_parts(
    stream: StreamId,
    first: Sequence,
    epoch: Epoch,
    appended_us: int,
    columns: list[array[int]],
    bodies: list[bytes],
) -> bytearray:
    """Make one frame of runs of payloads: of each its `column_of` lengths, and what they join to."""
    frame = bytearray().join([HEAD_ROOM, *columns, *bodies])
    _seal(frame, stream, first, epoch, appended_us, sum(map(len, columns)))
    return frame


def column_of(sizes: list[int]) -> array[int]:
    """Return the lengths of payloads as a frame has them."""
    lengths = array("I", sizes)
    if sys.byteorder != "little":
        lengths.byteswap()
    return lengths


def _seal(
    frame: bytearray, stream: StreamId, first: Sequence, epoch: Epoch, appended_us: int, count: int
) -> None:
    """Put the header and the checksum in front of a body."""
    body_bytes = len(frame) - HEAD_BYTES
    HEAD.pack_into(
        frame, 0, MAGIC, VERSION, 0, 0, count, body_bytes, first, epoch, appended_us, stream, 0
    )  # fmt: skip
    view = memoryview(frame)
    CRC.pack_into(frame, HEAD.size, crc32c(view[HEAD_BYTES:], crc32c(view[: HEAD.size])))


def parse_head(buffer: Buffer, offset: int = 0) -> FrameHead:
    """Read a header and check that its numbers can be true.

    Raises `CorruptFrameError`; allocates nothing that depends on the numbers (H1).
    """
    try:
        magic, version, flags, r1, count, body, first, epoch, at, stream, r2, crc = (
            WHOLE_HEAD.unpack_from(buffer, offset)
        )
    except struct.error as error:
        raise CorruptFrameError(f"a frame header needs {HEAD_BYTES} bytes") from error
    if magic != MAGIC or version != VERSION or flags or r1 or r2:
        raise CorruptFrameError(f"not a frame of version {VERSION}: {magic!r} {version}")
    if not (
        1 <= count <= limits.FRAME_EVENTS_MAX
        and 4 * count <= body <= limits.FRAME_BYTES_MAX - HEAD_BYTES
        and first + count <= limits.SEQUENCE_MAX
        and 1 <= epoch <= limits.SEQUENCE_MAX
    ):
        raise CorruptFrameError(f"frame of {count} events, {body} bytes at {first}: out of bounds")
    return FrameHead(stream, first, count, epoch, at, body, crc)


def check(head: FrameHead, frame: memoryview) -> None:
    """Raise `CorruptFrameError` unless `frame` (exactly its bytes) matches its checksum."""
    if len(frame) != HEAD_BYTES + head.body_bytes:
        raise CorruptFrameError(f"frame at {head.first}: {len(frame)} bytes, not {head.size}")
    found = crc32c(frame[HEAD_BYTES:], crc32c(frame[: HEAD.size]))
    if found != head.crc:
        raise CorruptFrameError(f"frame at {head.first}: checksum {found:08x}, not {head.crc:08x}")


def parse(frame: Buffer) -> FrameHead:
    """Read the header of exactly one whole frame and check its checksum."""
    head = parse_head(frame)
    check(head, memoryview(frame))
    return head


def split(buffer: Buffer) -> Iterator[tuple[FrameHead, memoryview]]:
    """Yield each frame of a run of whole frames, checked; views into `buffer`, not copies."""
    view = memoryview(buffer)
    offset = 0
    while offset < len(view):
        head = parse_head(view, offset)
        frame = view[offset : offset + head.size]
        check(head, frame)
        yield head, frame
        offset += head.size


def _bounds(head: FrameHead, frame: Buffer) -> array[int]:
    lengths = array("I")
    lengths.frombytes(memoryview(frame)[HEAD_BYTES : HEAD_BYTES + 4 * head.count])
    if sys.byteorder != "little":
        lengths.byteswap()
    if sum(lengths) != head.body_bytes - 4 * head.count:
        raise CorruptFrameError(f"frame at {head.first}: lengths do not add up to the body")
    return lengths


def payloads(head: FrameHead, frame: Buffer) -> list[bytes]:
    """Cut the payloads out of a checked frame; raises `CorruptFrameError` if lengths do not fit."""
    lengths = _bounds(head, frame)
    body = bytes(frame)
    found = []
    at = HEAD_BYTES + 4 * head.count
    for length in lengths:
        end = at + length
        found.append(body[at:end])
        at = end
    return found


def events(head: FrameHead, frame: Buffer, start: Sequence = 0) -> list[Event]:
    """Decode the events of a checked frame from sequence `start` on."""
    skip = max(0, start - head.first)
    epoch, at_us = head.epoch, head.appended_us
    found = payloads(head, frame)[skip:]
    return [
        Event(sequence, epoch, payload, at_us)
        for sequence, payload in enumerate(found, head.first + skip)
    ]
