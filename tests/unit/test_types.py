"""Names and policies are checked at the gate; records keep their shape."""

import datetime

import msgspec
import pytest

from lunalog import limits
from lunalog.errors import BadNameError, UsageError
from lunalog.types import (
    Event,
    Member,
    Peer,
    Policy,
    Promise,
    SegmentId,
    StreamHead,
    check_node_name,
    check_stream_name,
)


@pytest.mark.parametrize("name", ["a", "orders/eu-1", "A.b_c-d", "x" * 255])
def test_stream_names(name):
    assert check_stream_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 256, "a b", "ä", "a\n", None, 7, b"a"])
def test_what_is_no_stream_name(name):
    with pytest.raises(BadNameError, match="is not a stream name"):
        check_stream_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", None])
def test_what_is_no_peer_name(name):
    assert check_node_name("engine-1") == "engine-1"
    with pytest.raises(BadNameError, match="peer or server name"):
        check_node_name(name)


@pytest.mark.parametrize(("n", "a"), [(1, 1), (2, 2), (3, 2), (3, 3), (5, 3), (16, 16)])
def test_legal_policies(n, a):
    Policy(n, a).validate()


@pytest.mark.parametrize(("n", "a"), [(0, 0), (1, 0), (2, 1), (3, 1), (2, 3), (17, 2), (3, -1)])
def test_what_is_no_legal_policy(n, a):
    with pytest.raises(UsageError, match="not a legal policy"):
        Policy(n, a).validate()


def test_a_segment_holds_at_least_one_frame_and_lives_some_time():
    for policy in (
        Policy(segment_bytes_max=limits.FRAME_BYTES_MAX - 1),
        Policy(segment_age_s=0.0),
        Policy(segment_age_s=float("nan")),
    ):
        with pytest.raises(UsageError, match="a segment must"):
            policy.validate()


def test_segments_are_ordered_by_epoch_then_number():
    assert sorted([SegmentId(2, 0), SegmentId(1, 9), SegmentId(1, 10)]) == [
        SegmentId(1, 9),
        SegmentId(1, 10),
        SegmentId(2, 0),
    ]
    assert str(SegmentId(3, 1)) == "3.1"
    assert str(Member("s1", 2)) == "s1#2"
    assert str(Peer("engine", b"i" * 16)) == "engine"


def test_the_promise_of_a_head_names_its_epoch_and_leader():
    head = StreamHead("x", b"s" * 16, Policy(), epoch=4, leader=Peer("p", b"i" * 16))
    assert head.promise == Promise(4, b"i" * 16)
    assert StreamHead("x", b"s" * 16, Policy()).promise == Promise()


def test_an_older_record_is_read_with_the_defaults_of_newer_fields():
    """Array-like records only ever grow at the end."""
    old = msgspec.msgpack.encode(["orders", b"s" * 16, [3, 2]])
    head = msgspec.msgpack.decode(old, type=StreamHead)
    assert head.policy == Policy()
    assert head.released
    assert head.open is None


def test_the_clock_of_an_event_is_for_people():
    event = Event(0, 1, b"x", 1_700_000_000_000_000)
    assert event.appended_at == datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.UTC)


@pytest.mark.parametrize("us", [253_402_300_799_999_999, 253_402_300_800_000_000, 2**64 - 1])
def test_a_clock_gone_wild_hides_no_event(us):
    """C1: what a leader's clock said decides nothing, so nothing fails on it either."""
    assert Event(1, 1, b"x", us).appended_at.year == 9999
