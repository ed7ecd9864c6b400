"""Bytes of a pipe to events and back."""

import itertools
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunalog import limits
from lunalog.cli.records import (
    DelimitedSplitter,
    LengthSplitter,
    as_json,
    as_length_prefixed,
    as_lines,
    as_null,
    template,
)
from lunalog.errors import PayloadTooLargeError, UsageError
from lunalog.types import Event


def event(payload: bytes = b"x", sequence: int = 7) -> Event:
    return Event(sequence, 3, payload, 1_700_000_000_000_000)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(c, len(data)) for c in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_come_out_as_they_went_in_however_they_are_cut(lines, data):
    text = b"".join(line + b"\n" for line in lines)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    splitter = DelimitedSplitter(b"\n")
    found = [e for chunk in chunked(text, cuts) for e in splitter.feed(chunk)]
    assert found + splitter.finish() == lines


def test_the_last_line_needs_no_newline():
    splitter = DelimitedSplitter(b"\n")
    assert splitter.feed(b"a\n\nb") == [b"a", b""]
    assert splitter.finish() == [b"b"]
    assert splitter.finish() == []


def test_null_terminated_events_may_hold_newlines():
    splitter = DelimitedSplitter(b"\0")
    assert splitter.feed(b"a\nb\0c\0") == [b"a\nb", b"c"]
    assert splitter.finish() == []


@given(st.lists(st.binary(max_size=9), max_size=8), st.data())
def test_length_prefixed_events_come_out_as_they_went_in(events, data):
    text = b"".join(as_length_prefixed(event(e)) for e in events)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    splitter = LengthSplitter()
    found = [e for chunk in chunked(text, cuts) for e in splitter.feed(chunk)]
    assert found + splitter.finish() == events


def test_half_an_event_at_the_end_is_an_error_that_names_it():
    splitter = LengthSplitter()
    assert splitter.feed(struct.pack("<I", 1) + b"a" + struct.pack("<I", 5) + b"b") == [b"a"]
    with pytest.raises(UsageError, match="middle of event 1"):
        splitter.finish()


def test_a_length_past_the_limit_is_refused_before_anything_is_kept():
    splitter = LengthSplitter()
    with pytest.raises(PayloadTooLargeError, match="event 0"):
        splitter.feed(struct.pack("<I", limits.PAYLOAD_BYTES_MAX + 1))


def test_a_line_past_the_limit_is_refused_with_its_number_finished_or_not():
    big = b"x" * (limits.PAYLOAD_BYTES_MAX + 1)
    splitter = DelimitedSplitter(b"\n")
    with pytest.raises(PayloadTooLargeError, match="event 0"):
        splitter.feed(big + b"\nb\n")
    splitter = DelimitedSplitter(b"\n")
    splitter.feed(b"a\nb\n")
    with pytest.raises(PayloadTooLargeError, match="event 2"):
        splitter.feed(big)


@pytest.mark.parametrize("call", ["feed", "finish"])
def test_events_before_one_that_is_refused_come_out_however_the_input_is_cut(call):
    big = limits.PAYLOAD_BYTES_MAX + 1
    inputs = (
        (DelimitedSplitter(b"\n"), b"a\nb\n" + b"x" * big + b"\nc\n"),
        (DelimitedSplitter(b"\n"), b"a\nb\n" + b"x" * big),
        (LengthSplitter(), as_length_prefixed(event(b"a")) + as_length_prefixed(event(b"b"))
         + struct.pack("<I", big) + b"x"),
    )  # fmt: skip
    for splitter, text in inputs:
        assert splitter.feed(text) == [b"a", b"b"]
        with pytest.raises(PayloadTooLargeError, match="event 2"):
            splitter.finish() if call == "finish" else splitter.feed(b"more\n")


def test_formats():
    assert as_lines(event(b"a")) == b"a\n"
    assert as_null(event(b"a")) == b"a\0"
    assert json.loads(as_json(event("ä".encode()))) == {
        "sequence": 7,
        "epoch": 3,
        "appended_at": "2023-11-14T22:13:20+00:00",
        "payload": "ä",
    }
    assert json.loads(as_json(event(b"\xff\xfe")))["payload_base64"] == "//4="


def test_templates():
    assert template("%s %e %p")(event(b"a")) == b"7 3 a\n"
    assert template(r"%l\t%p\n")(event(b"abc")) == b"3\tabc\n"
    assert template(r"%p\0")(event(b"abc")) == b"abc\0"
    assert template("100%% %t")(event()) == b"100% 2023-11-14T22:13:20+00:00\n"
    for bad in ("%x", "a%", r"\q"):
        with pytest.raises(UsageError, match="nothing was read"):
            template(bad)
