"""The journal frame: what was put in comes out, and one wrong bit anywhere is found."""

import struct
import tracemalloc

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from lunalog import limits
from lunalog.core import chain as chains
from lunalog.errors import CorruptFrameError
from lunalog.types import Event
from lunalog.wire import frames

STREAM = bytes(range(16))
payload_lists = st.lists(st.binary(max_size=40), min_size=1, max_size=20)
streams = st.binary(min_size=16, max_size=16)
firsts = st.integers(0, limits.SEQUENCE_MAX - 20)
epochs = st.integers(1, limits.SEQUENCE_MAX)
clocks = st.integers(0, 2**64 - 1)
FRAME = frames.build(STREAM, 7, 3, 123, [b"one", b"", b"three"])


def sealed(**changes: object) -> bytes:
    """FRAME with other numbers in its header and a checksum that fits."""
    fields = dict(
        zip(
            ("magic", "version", "flags", "r1", "count", "body", "first", "epoch", "at", "stream",
             "r2"),
            frames.HEAD.unpack_from(FRAME),
            strict=True,
        )
    )  # fmt: skip
    fields.update(changes)
    head = frames.HEAD.pack(*fields.values())
    body = FRAME[frames.HEAD_BYTES :]
    return head + frames.CRC.pack(crc32c(body, crc32c(head))) + body


# ------------------------------------------------------------------------------ round trip


@given(streams, firsts, epochs, clocks, payload_lists)
def test_what_was_put_in_comes_out(stream, first, epoch, at, payloads):
    frame = frames.build(stream, first, epoch, at, payloads)
    head = frames.parse(frame)
    assert (head.stream, head.first, head.epoch, head.appended_us) == (stream, first, epoch, at)
    assert (head.count, head.end, head.size) == (
        len(payloads), first + len(payloads), len(frame),
    )  # fmt: skip
    assert frames.payloads(head, frame) == payloads
    assert frames.payloads(head, memoryview(bytearray(frame))) == payloads
    assert all(type(payload) is bytes for payload in frames.payloads(head, bytearray(frame)))


@given(payload_lists, st.integers(0, 30))
def test_events_begin_where_they_are_asked_to(payloads, start):
    frame = frames.build(STREAM, 5, 2, 99, payloads)
    wanted = [
        Event(sequence, 2, payload, 99)
        for sequence, payload in enumerate(payloads, 5)
        if sequence >= start
    ]
    assert frames.events(frames.parse(frame), frame, start) == wanted


@given(st.lists(payload_lists, min_size=1, max_size=5))
def test_a_run_of_frames_is_cut_where_they_were_joined(batches):
    first, made = 0, []
    for payloads in batches:
        made.append(frames.build(STREAM, first, 1, 0, payloads))
        first += len(payloads)
    run = b"".join(made)
    assert [bytes(frame) for _, frame in frames.split(run)] == made
    assert [head.end for head, _ in frames.split(memoryview(run))][-1] == first
    assert list(frames.split(b"")) == []


@given(payload_lists)
def test_a_frame_costs_its_header_and_four_bytes_an_event(payloads):
    frame = frames.build(STREAM, 0, 1, 0, payloads)
    assert len(frame) == frames.HEAD_BYTES + 4 * len(payloads) + sum(map(len, payloads))


def test_an_event_of_the_limit_fits_and_a_frame_past_it_does_not():
    frame = frames.build(STREAM, 0, 1, 0, [bytes(limits.PAYLOAD_BYTES_MAX)])
    assert frames.parse(frame).size == limits.PAYLOAD_BYTES_MAX + 68
    most = limits.FRAME_BYTES_MAX - frames.HEAD_BYTES
    assert frames.parse_head(sealed(body=most)).body_bytes == most
    with pytest.raises(CorruptFrameError, match="out of bounds"):
        frames.parse_head(sealed(body=most + 1))


# ----------------------------------------------------------------------------- wrong bytes


def test_each_wrong_bit_is_found():
    for at in range(len(FRAME)):
        for bit in range(8):
            broken = bytearray(FRAME)
            broken[at] ^= 1 << bit
            with pytest.raises(CorruptFrameError):
                frames.parse(broken)


def test_each_wrong_length_is_found():
    for size in range(len(FRAME)):
        with pytest.raises(CorruptFrameError):
            frames.parse(FRAME[:size])
    with pytest.raises(CorruptFrameError, match=f"{len(FRAME) + 1} bytes, not {len(FRAME)}"):
        frames.parse(FRAME + b"\0")


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": b"LLF2"},
        {"version": 0},
        {"version": 2},
        {"flags": 1},
        {"r1": 1},
        {"r2": 1},
        {"count": 0},
        {"count": limits.FRAME_EVENTS_MAX + 1, "body": 4 * (limits.FRAME_EVENTS_MAX + 1)},
        {"count": 6},
        {"count": 0xFFFFFFFF},
        {"body": 11},
        {"body": 0xFFFFFFFF},
        {"first": limits.SEQUENCE_MAX - 2},
        {"first": 2**64 - 1},
        {"epoch": 0},
        {"epoch": 2**63},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_true_are_refused_though_the_checksum_fits(changes):
    with pytest.raises(CorruptFrameError):
        frames.parse_head(sealed(**changes))


@pytest.mark.parametrize("lengths", [(3, 0, 6), (3, 0, 4), (0, 0, 0), (2**32 - 1, 0, 9), (9, 9, 9)])
def test_lengths_that_do_not_add_up_are_refused(lengths):
    body = struct.pack("<3I", *lengths) + b"onethree"
    head = FRAME[: frames.HEAD.size]
    frame = head + frames.CRC.pack(crc32c(body, crc32c(head))) + body
    with pytest.raises(CorruptFrameError, match="do not add up"):
        frames.payloads(frames.parse(frame), frame)


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_the_typed_error(data):
    try:
        found = list(frames.split(data))
    except CorruptFrameError:
        return
    assert b"".join(bytes(frame) for _, frame in found) == data


@given(st.binary(max_size=60), st.integers(0, len(FRAME)))
def test_frames_behind_damage_are_not_taken(junk, size):
    """A run is read from its beginning: what follows bad bytes is never believed."""
    run = FRAME + FRAME[:size] + junk
    found = []
    try:
        for head, _ in frames.split(run):
            found.append(head.first)
    except CorruptFrameError:
        pass
    assert found[:1] == [7]
    assert len(found) <= 1 + (size + len(junk)) // len(FRAME)


def test_a_header_that_lies_costs_no_memory():
    liar = sealed(body=limits.FRAME_BYTES_MAX - frames.HEAD_BYTES, count=limits.FRAME_EVENTS_MAX)
    tracemalloc.start()
    try:
        for read in (frames.parse, lambda data: list(frames.split(data))):
            with pytest.raises(CorruptFrameError):
                read(liar)
        assert tracemalloc.get_traced_memory()[1] < 64 * limits.KIB
    finally:
        tracemalloc.stop()


# ----------------------------------------------------------------------------- the chain


def test_the_chain_tells_every_difference_of_what_came_before():
    """Equal (end, chain) means equal frames; cut or joined otherwise, it is another chain."""
    one = frames.parse(frames.build(STREAM, 0, 1, 0, [b"a", b"b"]))
    parts = [
        frames.parse(frames.build(STREAM, first, 1, 0, [payload]))
        for first, payload in enumerate((b"a", b"b"))
    ]
    other = frames.parse(frames.build(STREAM, 0, 2, 0, [b"a", b"b"]))
    whole = chains.extend(0, one.first, one.count, one.crc)
    split = 0
    for head in parts:
        split = chains.extend(split, head.first, head.count, head.crc)
    different = chains.extend(0, other.first, other.count, other.crc)
    moved = chains.extend(0, one.first + 1, one.count, one.crc)
    after = chains.extend(1, one.first, one.count, one.crc)
    assert len({whole, split, different, moved, after}) == 5
    assert all(0 <= found < 2**64 for found in (whole, split, different, moved, after))
