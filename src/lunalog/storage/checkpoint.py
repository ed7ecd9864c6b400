"""The checkpoint: all that full extents hold besides frames, and where those frames are.

    offset  size  field
         0     4  magic "LLC1"
         4     4  version (1)
         8     8  number of this checkpoint
        16     8  bytes of the body
        24     4  crc32c of the body
        28     4  crc32c over bytes 0..28

Then the body, MessagePack: `Contents`.  Files are `checkpoint-<number>`: written beside, synced,
renamed, directory synced.  The two newest are kept: when the newest is damaged or lost, the one
before it and the extents since lead to the same state, so one bad file makes the server forget
nothing (D5, D8).  That is why an extent goes only when two checkpoints have done without it (R29).

Source: R18, R29; design.md section 6; docs/storage.md.
"""

from __future__ import annotations

import re
import struct
from typing import Final

import msgspec
from crc32c import crc32c

from lunalog.storage.files import Disk
from lunalog.storage.format import Position
from lunalog.storage.index import Index, Run
from lunalog.storage.records import (
    ControlRecord,
    Damage,
    EndRecord,
    Record,
    UnknownRecord,
)
from lunalog.types import Chain, Count, SegmentId, Sequence, StreamId

MAGIC: Final = b"LLC1"
VERSION: Final = 1
HEAD: Final = struct.Struct("<4sIQQI")
CRC: Final = struct.Struct("<I")
HEAD_BYTES: Final = HEAD.size + CRC.size
NAME: Final = re.compile(r"checkpoint-(\d{10})")
TEMPORARY: Final = "checkpoint.tmp"
READ_BYTES: Final = 1 << 20
KEPT: Final = 2


class ExtentNote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A full extent."""

    number: Count
    end: Count
    closed_at: Count
    """Number of the first checkpoint that had it as full."""


class RunNote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run of a full extent."""

    extent: Count
    first: Sequence
    end: Sequence
    count: Count
    offset: Count
    place: int


class SegmentNote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is held of a segment."""

    stream: StreamId
    segment: SegmentId
    start: Sequence
    end: Sequence
    chain: Chain
    committed: Sequence
    runs: list[RunNote]


class Contents(msgspec.Struct, array_like=True):
    """One checkpoint."""

    number: Count
    tag: Chain
    extents: list[ExtentNote]
    """The full ones."""
    current: Count
    """The extent that replay begins with; it exists."""
    batch: Count
    """Number that its first batch has at least."""
    before: Chain
    """Hash that its first batch names."""
    synced_to: Position
    """End of what was synced when this was written: below it nothing is torn."""
    may_have_lost: bool
    """Damage may have hidden a promise, and no new incarnation has answered for it yet (R18)."""
    segments: list[SegmentNote]
    records: list[ControlRecord]

    def replay(self) -> list[Record]:
        """What the owner of the log must hear, in order; where an OPEN is lost, ends tell first."""
        ends = [
            EndRecord(note.stream, note.segment, note.start, note.end, note.chain, note.committed)
            for note in self.segments
        ]
        facts = [record for record in self.records if type(record) is not UnknownRecord]
        unknown = [record for record in self.records if type(record) is UnknownRecord]
        return [*facts, *ends, *unknown]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Contents)


def name_of(number: int) -> str:
    """File name of a checkpoint."""
    return f"checkpoint-{number:010}"


def note_segments(index: Index, places: dict[Run, int], full: set[int]) -> list[SegmentNote]:
    """What the checkpoint says of each segment; runs in extents being filled are left to replay.

    A segment that the owner has let go is not told of, though its frames may still be listed: they
    would come back without the certificate that cut them (R21, R22).

    Args:
        index: As of now; what it holds is synced.
        places: Where runs whose sidecar is not written yet will stand in it.
        full: Numbers of the full extents.
    """
    notes = []
    for s in index.all():
        if index.start_of(s.stream, s.segment) is None:
            continue
        runs = [
            RunNote(r.extent, r.first, r.end, r.count, r.offset, places.get(r, r.place))
            for r in s.runs
            if r.extent in full
        ]
        notes.append(SegmentNote(s.stream, s.segment, s.start, s.end, s.chain, s.committed, runs))
    return notes


def restore(contents: Contents, index: Index) -> None:
    """Put the index of the full extents back."""
    for note in contents.segments:
        segment = index.ensure(note.stream, note.segment, note.start)
        segment.start, segment.end = note.start, note.end
        segment.chain, segment.committed = note.chain, note.committed
        for r in note.runs:
            run = Run(segment, r.extent, r.first, r.end, r.offset)
            run.count, run.place = r.count, r.place
            index.restore(segment, run)


def encode(contents: Contents) -> list[bytes]:
    """Bytes of a checkpoint file."""
    body = _encoder.encode(contents)
    head = HEAD.pack(MAGIC, VERSION, contents.number, len(body), crc32c(body))
    return [head + CRC.pack(crc32c(head)), body]


def decode(data: bytes, number: int) -> Contents | None:
    """Read a checkpoint file; none if it is damaged."""
    if len(data) < HEAD_BYTES or CRC.unpack_from(data, HEAD.size)[0] != crc32c(data[: HEAD.size]):
        return None
    magic, version, its_number, size, crc = HEAD.unpack_from(data)
    body = memoryview(data)[HEAD_BYTES:]
    if (magic, version, its_number, size) != (MAGIC, VERSION, number, len(body)):
        return None
    if crc32c(body) != crc:
        return None
    try:
        contents = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return contents if contents.number == number else None


async def write_file(disk: Disk, temporary: str, name: str, buffers: list[bytes]) -> None:
    """Replace a file as a whole; the caller syncs the directory."""
    file = await disk.open(temporary, create=True)
    try:
        await file.write(0, buffers)
        await file.sync()
    finally:
        await file.close()
    await disk.rename(temporary, name)


async def store(disk: Disk, contents: Contents) -> None:
    """Make a checkpoint durable, then drop those before the last two.

    A crash before the directory is synced leaves the older ones in force.
    """
    await write_file(disk, TEMPORARY, name_of(contents.number), encode(contents))
    await disk.sync_directory()
    for number in await numbers(disk):
        if number <= contents.number - KEPT:
            await disk.remove(name_of(number))


async def numbers(disk: Disk) -> list[int]:
    """Checkpoints in this directory, in order."""
    return sorted(int(m[1]) for n in await disk.names() if (m := NAME.fullmatch(n)))


async def load(disk: Disk) -> tuple[Contents | None, int, list[Damage]]:
    """Read the newest checkpoint that is whole.

    Returns:
        It, the highest number in the directory, and the damaged ones.

    Raises:
        OSError: One could not be read, and no other is whole.
    """
    found = await numbers(disk)
    damage: list[Damage] = []
    unreadable: OSError | None = None
    for number in reversed(found):
        try:
            contents = decode(await read_all(disk, name_of(number)), number)
        except OSError as error:
            unreadable = error
            contents = None
        if contents is not None:
            return contents, found[-1], damage
        damage.append(Damage(name_of(number), 0, 0, "checkpoint is damaged"))
    if unreadable is not None:
        raise unreadable
    return None, found[-1] if found else 0, damage


async def read_all(disk: Disk, name: str) -> bytes:
    """Read a whole file."""
    file = await disk.open(name)
    try:
        parts = []
        offset = 0
        while part := await file.read(offset, READ_BYTES):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)
    finally:
        await file.close()
