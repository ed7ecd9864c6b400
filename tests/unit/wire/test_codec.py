"""Envelope and messages: what decodes is what was said, and nothing else has any effect but an error."""

import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.wire.samples import SAMPLES

from lunalog import limits
from lunalog.errors import CorruptFrameError, LunalogError, UnsupportedVersionError
from lunalog.wire import codec
from lunalog.wire.codec import ENVELOPE, ENVELOPE_BYTES, FramesHead, Kind, ReadStatus
from lunalog.wire.messages import ANSWERS, Failure, Hello, Message

sequences = st.integers(0, limits.SEQUENCE_MAX)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 2**64 - 1)


def decode(body: bytes) -> Message | None:
    """The message, or none; any error but the typed one is a failure of the test."""
    try:
        return codec.decode_control(body)
    except CorruptFrameError:
        return None


# ------------------------------------------------------------------------------- envelope


@pytest.mark.parametrize("kind", Kind)
def test_sizes_are_bounded_by_kind_and_state_before_anything_is_read(kind):
    data = kind in codec.DATA_KINDS
    most = limits.MESSAGE_BYTES_MAX if data else limits.CONTROL_BYTES_MAX
    for size, is_open in ((most, True), (limits.HELLO_BYTES_MAX, False), (ENVELOPE_BYTES, True)):
        found = codec.parse_envelope(ENVELOPE.pack(size, kind, 0, 0, 7), 0, is_open=is_open)
        assert found == (size, kind, 7)
    for size, is_open in (
        (most + 1, True),
        (limits.HELLO_BYTES_MAX + 1, False),
        (ENVELOPE_BYTES - 1, True),
        (0, True),
        (0xFFFFFFFF, True),
        (0xFFFFFFFF, False),
    ):
        with pytest.raises(CorruptFrameError, match=f"{size} bytes is past the limit"):
            codec.parse_envelope(ENVELOPE.pack(size, kind, 0, 0, 7), 0, is_open=is_open)


@pytest.mark.parametrize("kind", sorted(set(range(256)) - codec.KINDS))
def test_no_other_kind_is_taken(kind):
    with pytest.raises(CorruptFrameError, match=f"kind {kind}"):
        codec.parse_envelope(ENVELOPE.pack(12, kind, 0, 0, 0), 0, is_open=True)


@pytest.mark.parametrize(("flags", "reserved"), [(1, 0), (0x80, 0), (0, 1), (0, 0x8000)])
def test_flags_and_reserved_bytes_are_kept_for_later(flags, reserved):
    with pytest.raises(CorruptFrameError):
        codec.parse_envelope(ENVELOPE.pack(12, Kind.REPLY, flags, reserved, 0), 0, is_open=True)


@given(st.binary(min_size=12, max_size=12), st.booleans())
def test_an_envelope_is_one_of_ours_or_an_error(data, is_open):
    try:
        size, kind, number = codec.parse_envelope(data, 0, is_open=is_open)
    except CorruptFrameError:
        return
    assert ENVELOPE.pack(size, kind, 0, 0, number) == data
    assert ENVELOPE_BYTES <= size <= limits.MESSAGE_BYTES_MAX


# ------------------------------------------------------------------------ control messages


@pytest.mark.parametrize("name", SAMPLES)
def test_no_part_of_a_message_is_a_message(name):
    """Every truncation fails but those at a field's end behind which all have defaults."""
    body = codec.control(Kind.PUSH, 0, SAMPLES[name])[ENVELOPE_BYTES:]
    for size in range(len(body)):
        assert decode(body[:size]) is None


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_with_a_wrong_byte_is_another_one_or_an_error(name):
    """What it decodes to can be sent on, so nothing in it is out of bounds."""
    body = codec.control(Kind.PUSH, 0, SAMPLES[name])[ENVELOPE_BYTES:]
    for at in range(len(body)):
        for value in (0x00, 0x7F, 0x80, 0xC0, 0xD3, 0xFF, body[at] ^ 0x01):
            found = decode(body[:at] + bytes([value]) + body[at + 1 :])
            if found is not None:
                again = codec.control(Kind.PUSH, 0, found)[ENVELOPE_BYTES:]
                back = codec.decode_control(again)
                assert codec.control(Kind.PUSH, 0, back)[ENVELOPE_BYTES:] == again


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x91\xc0")
@example(b"\xc1")
def test_any_bytes_are_a_message_or_the_typed_error(data):
    found = decode(data)
    assert found is None or decode(codec.control(Kind.PUSH, 0, found)[ENVELOPE_BYTES:]) is not None


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8)
    | st.binary(max_size=17) | st.floats(),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(st.integers(0, 120), st.lists(plain, max_size=10))
def test_any_fields_behind_any_tag_are_a_message_or_the_typed_error(tag, fields):
    found = decode(msgspec.msgpack.encode([tag, *fields]))
    if isinstance(found, Failure):
        assert isinstance(codec.error_of(found), LunalogError)


@pytest.mark.parametrize("depth", [1_000, 100_000, 2_000_000])
def test_deep_nesting_is_an_error_and_no_crash(depth):
    body = b"\x94\x03\xa1x\xa1m\x81\xa1a" + b"\x91" * depth
    with pytest.raises(CorruptFrameError):
        codec.decode_control(body)


HUGE = b"\xff\xff\xff\xff"
LIARS = {
    "array": b"\xdd" + HUGE,
    "fields of Certify": b"\x93\x18\xdd" + HUGE,
    "names to exclude": b"\x94\x3a\xc4\x10" + bytes(16) + b"\x92\x01\xc4\x00\xdd" + HUGE,
    "map of an error": b"\x94\x03\xa1x\xa1m\xdf" + HUGE,
    "list in an error": b"\x94\x03\xa1x\xa1m\x81\xa1a\xdd" + HUGE,
    "text": b"\x92\x34\xdb" + HUGE,
    "bytes": b"\x92\x37\xc6" + HUGE,
    "extension": b"\x94\x03\xa1x\xa1m\x81\xa1a\xc9" + HUGE + b"\x01",
}


@pytest.mark.parametrize("name", LIARS)
def test_a_length_that_is_a_lie_costs_no_memory(name):
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFrameError):
            codec.decode_control(LIARS[name])
        assert tracemalloc.get_traced_memory()[1] < 256 * limits.KIB
    finally:
        tracemalloc.stop()


# Each field of a bounded type, as (message, place in the plain array, a value out of bounds).
OUT_OF_BOUNDS = [
    ("OpenSlot", (2,), b"short"),
    ("OpenSlot", (2,), bytes(17)),
    ("OpenSlot", (4,), bytes(17)),
    ("OpenSlot", (3, 0), -1),
    ("OpenSlot", (3, 1), -1),
    ("OpenSlot", (5,), -1),
    ("OpenSlot", (6,), -1),
    ("OpenSlot", (6,), 1 << 63),
    ("OpenSlot", (7,), -1),
    ("OpenSlot", (8,), 1 << 63),
    ("Fence", (4, 0), 1 << 63),
    ("Fence", (4, 1), bytes(17)),
    ("Read", (3,), -1),
    ("Fenced", (4, 0, 1), -1),
    ("Certify", (1, 1, 2), -1),
    ("RegisterServer", (2,), (1 << 64) - 1),
    ("RegisterServer", (4,), -1),
    ("TrimCommand", (4,), 1 << 63),
    ("ClientBeat", (2, 0, 1), -1),
]


@pytest.mark.parametrize(("name", "place", "value"), OUT_OF_BOUNDS)
def test_what_is_out_of_bounds_is_no_message(name, place, value):
    """A negative end or a long id would fail whoever packs it later: nobody gets so far (H1)."""
    fields = msgspec.msgpack.decode(codec.control(Kind.PUSH, 0, SAMPLES[name])[ENVELOPE_BYTES:])
    at = fields
    for index in place[:-1]:
        at = at[index]
    at[place[-1]] = value
    with pytest.raises(CorruptFrameError):
        codec.decode_control(msgspec.msgpack.encode(fields))


def test_a_chain_has_all_of_its_64_bits():
    found = codec.decode_control(msgspec.msgpack.encode([17, 0, 2**64 - 1]))
    assert found.chain == 2**64 - 1


# --------------------------------------------------------------------------- data messages


@given(u32, sequences)
def test_acks_and_marks_come_back(slot, sequence):
    for make, kind in ((codec.ack, Kind.ACK), (codec.mark, Kind.MARK)):
        data = make(slot, sequence)
        assert codec.parse_envelope(data, 0, is_open=True) == (len(data), kind, slot)
        assert codec.decode_u64(data[ENVELOPE_BYTES:]) == sequence


@given(u32, sequences, sequences, u64, st.sampled_from(ReadStatus), st.binary(max_size=40))
def test_heads_of_replies_come_back(request_id, end, committed, chain, status, rest):
    head = FramesHead(end, committed, chain, status)
    data = codec.frames_head(request_id, head, len(rest)) + rest
    assert codec.parse_envelope(data, 0, is_open=True) == (len(data), Kind.FRAMES, request_id)
    found, frames = codec.decode_frames(memoryview(data)[ENVELOPE_BYTES:])
    assert (found, bytes(frames)) == (head, rest)


@pytest.mark.parametrize("size", range(8))
def test_a_data_message_that_is_too_short_is_an_error(size):
    with pytest.raises(CorruptFrameError, match="too short"):
        codec.decode_u64(bytes(size))


@pytest.mark.parametrize(
    "data",
    [bytes(31), struct.pack("<QQQQ", 1, 1, 0, max(ReadStatus) + 1)],
    ids=["cut", "status"],
)
def test_a_head_of_a_reply_that_is_none_is_an_error(data):
    with pytest.raises(CorruptFrameError, match="not a FRAMES message"):
        codec.decode_frames(memoryview(data))


@example(struct.pack("<QQQQ", 0, 1 << 63, 0, ReadStatus.HELD))
@given(st.binary(max_size=64))
def test_any_bytes_are_the_head_of_a_reply_or_the_typed_error(data):
    try:
        head, rest = codec.decode_frames(memoryview(data))
    except CorruptFrameError:
        is_cut = len(data) < codec.FRAMES_HEAD.size
        ends = () if is_cut else struct.unpack_from("<QQ", data)
        assert is_cut or data[24] > max(ReadStatus) or max(ends) > limits.SEQUENCE_MAX
        return
    assert struct.pack("<QQQB", *msgspec.structs.astuple(head)) == data[:25]
    assert rest == data[32:]


# ------------------------------------------------------------------------ versions, answers


def hello(version_min: int, version_max: int) -> Hello:
    return Hello(version_min, version_max, "", "client", "c", b"", b"")


def test_the_highest_version_that_both_speak_is_chosen(monkeypatch):
    monkeypatch.setattr(codec, "VERSION_MIN", 2)
    monkeypatch.setattr(codec, "VERSION_MAX", 4)
    chosen = {(1, 2): 2, (2, 3): 3, (3, 9): 4, (4, 4): 4, (0, 99): 4}
    assert {asked: codec.agreed_version(hello(*asked)) for asked in chosen} == chosen


@pytest.mark.parametrize("asked", [(0, 0), (2, 9), (-5, 0), (1, 0), (9, 1)])
def test_without_a_common_version_nobody_speaks(asked):
    with pytest.raises(UnsupportedVersionError, match="upgrade the older one"):
        codec.agreed_version(hello(*asked))


def test_every_request_has_one_answer():
    """What is asked, what is answered, and what is pushed: each message is one of them."""
    asked = {kind.__name__ for kind in ANSWERS}
    answers = {kind.__name__ for kind in ANSWERS.values()} - {"tuple"}
    pushed = {
        "CloseSlot", "AppendRefused", "LeaderAsked", "LeaderAnswer", "StreamChanged", "StreamGone",
        "ResignWanted", "RollWanted",
    }  # fmt: skip
    inside = {"CertifyCommand", "TrimCommand", "DropSegment", "DropStream"}
    rest = {"Hello", "Welcome", "Failure"}
    groups = [asked, answers, pushed, inside, rest]
    assert sorted(name for group in groups for name in group) == sorted(SAMPLES)


@pytest.mark.parametrize("limit", ["PAYLOAD", "FRAME", "MESSAGE", "CONTROL", "HELLO"])
def test_limits_fit_into_each_other(limit):
    """An event into a frame, a frame into a message, all into what a slow peer may have waiting."""
    order = ["HELLO", "CONTROL", "PAYLOAD", "FRAME", "MESSAGE", "SEND_QUEUE"]
    sizes = [getattr(limits, f"{name}_BYTES_MAX") for name in order]
    assert sizes == sorted(set(sizes))
    assert getattr(limits, f"{limit}_BYTES_MAX") in sizes


@example(limits.SEQUENCE_MAX + 1)
@given(st.integers(limits.SEQUENCE_MAX + 1, 2**64 - 1))
def test_a_number_past_all_sequences_never_reaches_a_record(number):
    """A mark above the bound went into the log, whose decoder refuses it: damage at the next start."""
    with pytest.raises(CorruptFrameError, match="no sequence"):
        codec.decode_u64(codec.mark(1, number)[ENVELOPE_BYTES:])
    for head in (
        FramesHead(number, 0, 0, ReadStatus.HELD),
        FramesHead(0, number, 0, ReadStatus.HELD),
    ):
        with pytest.raises(CorruptFrameError, match="no sequence"):
            codec.decode_frames(memoryview(codec.frames_head(1, head, 0)[ENVELOPE_BYTES:]))
