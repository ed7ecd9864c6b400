"""Bytes that were once on the wire are read for ever: golden vectors of every kind and message.

A vector is never changed.  When a message gets a field, its old vector stays, and the new bytes are
added under another name.
"""

import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from tests.unit.wire.samples import SAMPLES

from lunalog.core.chain import extend
from lunalog.wire import codec, frames
from lunalog.wire.codec import FramesHead, Kind, ReadStatus
from lunalog.wire.messages import Done, Hello, Message, Ping, Welcome

HERE = Path(__file__).parent
WIRE_PAGE = HERE.parents[2] / "docs" / "wire.md"
GOLDEN = json.loads((HERE / "golden.json").read_text())
FRAME = bytes.fromhex(GOLDEN["data"]["frame"]["hex"])
HEAD = FramesHead(10, 9, 0x0102030405060708, ReadStatus.HELD)
DATA = {
    "frame": frames.build(bytes(range(16)), 7, 3, 1_700_000_000_000_000, [b"one", b"", b"three"]),
    "append": codec.append_head(2, 7, len(FRAME)) + FRAME,
    "ack": codec.ack(2, 10),
    "mark": codec.mark(2, 10),
    "frames": codec.frames_head(6, HEAD, len(FRAME)) + FRAME,
    "frames_nothing_yet": codec.frames_head(6, FramesHead(10, 9, 0, ReadStatus.NOTHING_YET), 0),
    "frames_absent": codec.frames_head(6, FramesHead(10, 9, 0, ReadStatus.ABSENT), 0),
    "frames_end_of_segment": codec.frames_head(
        6, FramesHead(10, 9, 0, ReadStatus.END_OF_SEGMENT), 0
    ),
    "hello": codec.MAGIC
    + codec.control(
        Kind.HELLO, 0, Hello(1, 1, "", "client", "engine-1", b"\x11" * 16, b"\x22" * 16)
    ),
    "welcome": codec.control(Kind.WELCOME, 0, Welcome(1, "c0ffee", "server", "s1")),
    "request": codec.control(Kind.REQUEST, 1, Ping()),
    "reply": codec.control(Kind.REPLY, 1, Done()),
    "error": codec.control(Kind.ERROR, 0xFFFFFFFF, SAMPLES["Failure"]),
    "push": codec.control(Kind.PUSH, 0, SAMPLES["CloseSlot"]),
}


def test_every_message_and_every_kind_has_its_bytes():
    assert sorted(SAMPLES) == sorted(kind.__name__ for kind in get_args(Message))
    assert sorted(GOLDEN["control"]) == sorted(SAMPLES)
    assert sorted(GOLDEN["data"]) == sorted(DATA)
    kinds = {bytes.fromhex(vector["hex"])[4] for vector in GOLDEN["data"].values()}
    assert {int(kind) for kind in Kind} <= kinds | {Kind.HELLO}
    assert all(vector["says"] for group in GOLDEN.values() for vector in group.values())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_is_the_bytes_that_it_ever_was(name):
    body = bytes.fromhex(GOLDEN["control"][name]["hex"])
    assert codec.decode_control(body) == SAMPLES[name]
    envelope = codec.control(Kind.REQUEST, 5, SAMPLES[name])
    assert envelope[codec.ENVELOPE_BYTES :].hex() == body.hex()
    assert codec.parse_envelope(envelope, 0, is_open=True) == (12 + len(body), Kind.REQUEST, 5)


@pytest.mark.parametrize("name", GOLDEN["before"])
def test_a_message_that_lacks_a_newer_field_is_still_read(name):
    body = bytes.fromhex(GOLDEN["before"][name]["hex"])
    assert codec.decode_control(body) == msgspec.structs.replace(SAMPLES[name], nonce=b"")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_is_an_array_of_its_tag_and_fields(name):
    """What another language sees."""
    plain = msgspec.msgpack.decode(bytes.fromhex(GOLDEN["control"][name]["hex"]))
    kind = type(SAMPLES[name])
    assert plain[0] == kind.__struct_config__.tag
    assert len(plain) == 1 + len(kind.__struct_fields__)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_newer_peer_may_say_more(name):
    plain = msgspec.msgpack.decode(bytes.fromhex(GOLDEN["control"][name]["hex"]))
    newer = msgspec.msgpack.encode([*plain, "something", {"new": [1, 2]}])
    assert codec.decode_control(newer) == SAMPLES[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_an_older_peer_may_say_less(name):
    """Fields with defaults may be missing at the end, all or some."""
    plain = msgspec.msgpack.decode(bytes.fromhex(GOLDEN["control"][name]["hex"]))
    kind = type(SAMPLES[name])
    fields, defaults = kind.__struct_fields__, kind.__struct_defaults__
    for missing in range(1, len(defaults) + 1):
        found = codec.decode_control(msgspec.msgpack.encode(plain[:-missing]))
        assert type(found) is kind
        for field, default in zip(fields[-missing:], defaults[-missing:], strict=True):
            assert getattr(found, field) == default


@pytest.mark.parametrize("name", DATA)
def test_a_kind_is_the_bytes_that_it_ever_was(name):
    assert DATA[name].hex() == GOLDEN["data"][name]["hex"]


def test_what_the_data_messages_say():
    append = memoryview(DATA["append"])
    assert codec.parse_envelope(append, 0, is_open=True) == (len(append), Kind.APPEND, 2)
    assert codec.decode_u64(append[12:]) == 7
    assert frames.parse(append[20:]) == frames.parse(FRAME)
    for name, kind in (("ack", Kind.ACK), ("mark", Kind.MARK)):
        assert codec.parse_envelope(DATA[name], 0, is_open=True) == (20, kind, 2)
        assert codec.decode_u64(DATA[name][12:]) == 10
    found, rest = codec.decode_frames(memoryview(DATA["frames"])[12:])
    assert (found, bytes(rest)) == (HEAD, FRAME)
    for status in (ReadStatus.NOTHING_YET, ReadStatus.ABSENT, ReadStatus.END_OF_SEGMENT):
        body = memoryview(DATA[f"frames_{status.name.lower()}"])[12:]
        found, rest = codec.decode_frames(body)
        assert (found.status, bytes(rest)) == (status, b"")


def test_what_the_frame_says():
    head = frames.parse(FRAME)
    assert (head.stream, head.first, head.count, head.end) == (bytes(range(16)), 7, 3, 10)
    assert (head.epoch, head.appended_us, head.size) == (3, 1_700_000_000_000_000, len(FRAME))
    assert frames.payloads(head, FRAME) == [b"one", b"", b"three"]
    assert extend(0, head.first, head.count, head.crc) == 16617660657006561409


def test_the_page_shows_these_bytes():
    page = WIRE_PAGE.read_text()
    told = dict(re.findall(r"^```hex (\w+)\n(.*?)^```", page, re.M | re.S))
    same = {"ping": "request", "done": "reply"}
    assert sorted(told) == ["ack", "done", "frame", "hello", "mark", "ping", "welcome"]
    for name, text in told.items():
        assert bytes.fromhex(text).hex() == GOLDEN["data"][same.get(name, name)]["hex"], name
    assert "`16617660657006561409`" in page
