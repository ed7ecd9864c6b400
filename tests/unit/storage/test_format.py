"""Batches and records as bytes: what was laid out is read back, and nothing else is."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.storage.conftest import ANN, OTHER, SEGMENT, STREAM, build_frame

from lunalog.storage import format as layout
from lunalog.storage.format import (
    BATCH_HEAD_BYTES,
    BLOCK_BYTES,
    RECORD_HEAD_BYTES,
    BatchHead,
    Flags,
    Place,
    Position,
)
from lunalog.storage.records import (
    CONTROL_BYTES,
    CertificateRecord,
    ControlRecord,
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
    bytes_of,
)
from lunalog.types import Certificate, Member, Promise, SealedSegment, SegmentId
from lunalog.wire import frames

TAG, BOOT, EXTENT, OFFSET = 0x1234567890ABCDEF, 7, 3, 1024
PLACE = Place(
    TAG, BOOT, EXTENT, OFFSET, 41, 99, Position(3, 512), Position(2, 4096), Flags.TAKEOVER
)
ROW = SealedSegment(
    SEGMENT, 10, 20, 77, (Member("a", 1), Member("b", 2)), 2, "ann", "age", 123, 4
)  # fmt: skip

sequences = st.integers(0, (1 << 63) - 1)
streams = st.sampled_from([STREAM, OTHER])
segment_ids = st.builds(SegmentId, st.integers(1, 1 << 40), st.integers(0, 1 << 40))
promises = st.builds(Promise, sequences, st.sampled_from([ANN, b""]))
controls: st.SearchStrategy[ControlRecord] = st.one_of(
    st.builds(OpenRecord, streams, segment_ids, st.just(ANN), sequences, sequences, sequences),
    st.builds(PromiseRecord, streams, promises),
    st.just(CertificateRecord(Certificate(STREAM, ROW, Promise(9, ANN)))),
    st.builds(TrimRecord, streams, sequences, sequences),
    st.builds(DropRecord, streams, segment_ids, promises, sequences),
    st.builds(TombstoneRecord, streams, promises),
    st.builds(MarkRecord, streams, segment_ids, sequences),
    st.builds(EndRecord, streams, segment_ids, sequences, sequences, sequences, sequences),
    st.builds(UnknownRecord, streams, segment_ids, sequences, sequences),
)


def frame_record(first: int, count: int, size: int, committed: int = 5) -> FrameRecord:
    frame = build_frame(STREAM, first, count, size)
    return FrameRecord(STREAM, SEGMENT, committed, first * 3, frames.parse(frame), frame)


records_of = st.lists(
    st.one_of(
        controls,
        st.builds(frame_record, st.integers(0, 1 << 40), st.integers(1, 3), st.integers(0, 700)),
    ),
    max_size=8,
)


def encode(records: list[Record], place: Place = PLACE) -> bytes:
    batch = layout.encode(place, records)
    data = b"".join(batch.buffers)
    assert len(data) == batch.size
    return data


def decode(data: bytes) -> tuple[BatchHead | None, layout.Body | None]:
    """Read a batch as replay does."""
    head = layout.parse_batch_head(data, 0, EXTENT, OFFSET)
    if head is None or head.tag != TAG:
        return None, None
    return head, layout.decode_body(memoryview(data)[BATCH_HEAD_BYTES : head.size], head)


@given(records_of)
def test_a_batch_is_read_back(records: list[Record]) -> None:
    batch = layout.encode(PLACE, records)
    data = b"".join(batch.buffers)
    assert len(data) == batch.size
    assert batch.size % BLOCK_BYTES == 0
    head, body = decode(data)
    assert head is not None
    assert body is not None
    assert body.is_whole
    assert body.is_complete
    assert [found.record for found in body.found] == records
    assert [found.offset for found in body.found] == batch.offsets
    assert (head.flags, head.boot, head.number, head.before) == (Flags.TAKEOVER, BOOT, 41, 99)
    assert (head.synced_to, head.previous) == (PLACE.synced_to, PLACE.previous)
    assert (head.hash, head.end) == (batch.hash, OFFSET + batch.size)


@given(records_of)
def test_each_record_is_found_by_its_offset_alone(records: list[Record]) -> None:
    data = memoryview(encode(records))
    batch = layout.encode(PLACE, records)
    seed = layout.record_seed(TAG)
    for record, offset in zip(records, batch.offsets, strict=True):
        found = layout.parse_record(data, offset - OFFSET, seed, EXTENT, offset)
        assert found is not None
        assert found.record == record
        size = found.end - offset - RECORD_HEAD_BYTES
        assert layout.body_size(data[offset - OFFSET :]) == size
        assert layout.parse_record(data, offset - OFFSET, seed, EXTENT, offset, 41) is not None
        assert layout.parse_record(data, offset - OFFSET, seed, EXTENT, offset, 42) is None


def test_every_flipped_bit_is_noticed() -> None:
    """In the header, in a record's header, in a body, in the padding."""
    records = [frame_record(100, 2, 30), PromiseRecord(STREAM, Promise(4, ANN))]
    data = encode(records)
    for offset in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << bit
            _, body = decode(bytes(flipped))
            assert body is None or not body.is_whole, f"bit {bit} at {offset}"
            if body is not None:  # what is still taken for a record is one
                assert all(f.record in records for f in body.found if f.is_whole)


def test_a_batch_cut_anywhere_is_no_whole_one() -> None:
    records: list[Record] = [frame_record(100, 1, 30), frame_record(101, 1, 30)]
    data = encode(records)
    for size in range(len(data)):
        head, body = decode(data[:size])
        assert head is None or body is None or not body.is_whole
        if body is not None:
            whole = [f.record for f in body.found if f.is_whole]
            assert whole == records[: len(whole)]


def test_a_damaged_frame_leaves_its_header_and_the_records_behind_it() -> None:
    """R18: it is known what was held there."""
    records: list[Record] = [frame_record(100, 2, 30), frame_record(102, 1, 30)]
    batch = layout.encode(PLACE, records)
    data = bytearray(b"".join(batch.buffers))
    data[batch.offsets[0] - OFFSET + RECORD_HEAD_BYTES + 70] ^= 1
    _, body = decode(bytes(data))
    assert body is not None
    assert body.is_complete
    assert not body.is_whole
    damaged, whole = body.found
    assert isinstance(damaged.record, FrameRecord)
    assert not damaged.is_whole
    assert damaged.record.frame == b""
    assert (damaged.record.head.first, damaged.record.head.end) == (100, 102)
    assert damaged.record.chain == 300
    assert whole.record == records[1]


def test_a_damaged_record_header_ends_what_can_be_read() -> None:
    records: list[Record] = [frame_record(n, 1, 30) for n in range(100, 103)]
    batch = layout.encode(PLACE, records)
    data = bytearray(b"".join(batch.buffers))
    data[batch.offsets[1] - OFFSET + 9] ^= 1
    _, body = decode(bytes(data))
    assert body is not None
    assert not body.is_complete
    assert [f.record for f in body.found] == records[:1]
    assert body.stopped == batch.offsets[1]


@pytest.mark.parametrize("size", [30, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES - 200])
def test_records_are_salvaged_behind_lost_headers(size: int) -> None:
    """All of a batch, and of the next ones: also where a record of one is damaged."""
    data, expected = b"", []
    for n in range(3):
        records: list[Record] = [frame_record(100 + n, 1, size), MarkRecord(STREAM, SEGMENT, 101)]
        place = msgspec.structs.replace(PLACE, offset=OFFSET + len(data), number=PLACE.number + n)
        batch = layout.encode(place, records)
        encoded = bytearray(b"".join(batch.buffers))
        encoded[20] ^= 1
        if n == 1:
            encoded[batch.offsets[1] - place.offset + 9] ^= 1
        data += encoded
        expected += records[: 1 if n == 1 else 2]
    found = layout.salvage(memoryview(data), TAG, EXTENT, OFFSET)
    assert [f.record for f in found] == expected
    assert layout.salvage(memoryview(data), TAG + 1, EXTENT, OFFSET) == []


@pytest.mark.parametrize(
    "other",
    [
        {"tag": TAG + 1}, {"extent": EXTENT + 1}, {"offset": OFFSET + BLOCK_BYTES},
    ],
)  # fmt: skip
def test_bytes_written_for_another_place_are_not_read(other: dict[str, int]) -> None:
    """D7: another log, extent or offset; neither the batch nor a record in it."""
    record = frame_record(100, 1, 30)
    data = encode([record], msgspec.structs.replace(PLACE, **other))
    assert decode(data) == (None, None)
    at = BATCH_HEAD_BYTES
    seed = layout.record_seed(TAG)
    assert layout.parse_record(memoryview(data), at, seed, EXTENT, OFFSET + at) is None


@settings(max_examples=300)
@given(st.integers(0, 1 << 32), st.integers(0, 2000), st.booleans())
def test_random_bytes_never_raise(seed: int, size: int, has_magic: bool) -> None:
    data = random.Random(seed).randbytes(size)
    if has_magic:
        data = layout.MAGIC + b"\x01" + data
    assert layout.parse_batch_head(data, 0, EXTENT, OFFSET) is None
    assert layout.parse_record(memoryview(data), 0, layout.record_seed(TAG), EXTENT, 0) is None


@given(st.integers(0, 1 << 32), records_of)
def test_scrambled_batches_never_raise(seed: int, records: list[Record]) -> None:
    """What the header promises and the body is: every lie is only a batch that is not whole."""
    chance = random.Random(seed)
    data = bytearray(encode(records))
    head, _ = decode(bytes(data))
    assert head is not None
    for _ in range(chance.randrange(1, 20)):
        data[chance.randrange(BATCH_HEAD_BYTES, len(data))] ^= 1 << chance.randrange(8)
    lying = msgspec.structs.replace(
        head, count=chance.randrange(20), used=chance.randrange(BATCH_HEAD_BYTES, head.size + 1)
    )
    body = layout.decode_body(memoryview(data)[BATCH_HEAD_BYTES:], lying)
    for found in body.found:
        if found.is_whole:
            assert found.record in records


def test_a_whole_record_of_an_unknown_kind_is_not_read() -> None:
    """Its checksum is right: a later version wrote it, and this one must not guess."""
    data = bytearray(encode([MarkRecord(STREAM, SEGMENT, 101)]))
    at = BATCH_HEAD_BYTES
    for kind, body in ((3, None), (layout.KIND_CONTROL, b"\xc1" * 8)):
        forged = bytearray(data[at:])
        size = layout.body_size(forged)
        if body is not None:
            forged[RECORD_HEAD_BYTES : RECORD_HEAD_BYTES + size] = (body * size)[:size]
            crc = layout.crc32c(bytes(forged[RECORD_HEAD_BYTES : RECORD_HEAD_BYTES + size]))
            forged[76:80] = crc.to_bytes(4, "little")
        forged[0] = kind
        where = layout.U64.pack(EXTENT) + layout.U64.pack(OFFSET + at)
        head = bytes(forged[: RECORD_HEAD_BYTES - 4])
        crc = layout.crc32c(head, layout.crc32c(where, layout.record_seed(TAG)))
        forged[RECORD_HEAD_BYTES - 4 : RECORD_HEAD_BYTES] = crc.to_bytes(4, "little")
        seed = layout.record_seed(TAG)
        assert layout.parse_record(memoryview(forged), 0, seed, EXTENT, OFFSET + at) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"segment": SegmentId(1 << 63, 0)},
        {"segment": SegmentId(1, 1 << 63)},
        {"committed": 1 << 63},
        {"head": frames.FrameHead(STREAM, (1 << 63) - 1, 1, 0, 0, 30, 7)},
    ],
    ids=["epoch", "segment", "committed", "end"],
)
def test_a_frame_with_a_number_past_all_numbers_is_not_read(wrong: dict[str, Any]) -> None:
    """Its checksum is right; the next checkpoint would tell of it, and be read as damage."""
    record = msgspec.structs.replace(frame_record(100, 1, 30), **wrong)
    data = encode([record])
    head = layout.parse_batch_head(data, 0, EXTENT, OFFSET)
    assert head is not None
    body = layout.decode_body(memoryview(data)[BATCH_HEAD_BYTES:], head)
    assert (body.found, body.is_whole, body.is_complete) == ([], False, False)


def test_sizes_are_estimated_before_anything_is_encoded() -> None:
    """The estimate bounds what waits in memory, and never by too little."""
    records: list[Record] = [
        frame_record(100, 1, 3000),
        CertificateRecord(Certificate(STREAM, ROW, Promise(9, ANN))),
    ]
    assert bytes_of(records) == 2 * CONTROL_BYTES + len(build_frame(STREAM, 100, 1, 3000))
    assert bytes_of(records) + 2 * BLOCK_BYTES >= len(encode(records))


def test_a_control_record_of_another_shape_is_none_whatever_is_wrong_with_it() -> None:
    """Its checksum is right: somebody wrote it so."""
    for body in (b"\xc1", b"\x92\x02\xa2\xff\xfe", b"\x94\x02" + b"\x91" * 100_000, b"\x91\x63"):
        crc = layout.crc32c(body)
        assert layout._parse_control(memoryview(body), len(body), crc) is None


def test_a_batch_at_the_end_of_all_numbers_is_none() -> None:
    """The next one could not be written."""
    last = (1 << 63) - 1
    for place in (
        Place(TAG, BOOT, EXTENT, OFFSET, last, 99, Position(), Position()),
        Place(TAG, BOOT, last, OFFSET, 41, 99, Position(), Position()),
    ):
        data = b"".join(layout.encode(place, []).buffers)
        assert layout.parse_batch_head(data, 0, place.extent, OFFSET) is None
