"""What the events of a bench hold, and what the check of them refuses."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunalog import limits
from lunalog.cli.bench.chain import BODIES, Bodies, BrokenChainError, Chain, Check
from lunalog.errors import UsageError

COUNT = 200  # more than there are bodies
BODIES_OF_7 = Bodies(7, 40)
WRITTEN = Chain(BODIES_OF_7).take(COUNT)


def read(payloads, cuts=(50,), first=0):
    """Check events in pieces; returns how many were right."""
    check = Check(BODIES_OF_7, first)
    sequences = list(range(first, first + len(payloads)))
    at = 0
    for end in (*cuts, len(payloads)):
        check.take(sequences[at:end], payloads[at:end])
        at = end
    return check.count


def refused(payloads, sequences=None):
    """The reason, and how many before it were right."""
    check = Check(BODIES_OF_7)
    sequences = list(range(len(payloads))) if sequences is None else sequences
    with pytest.raises(BrokenChainError) as found:
        check.take(sequences, payloads)
    return str(found.value), check.count


@given(st.lists(st.integers(0, COUNT), max_size=5).map(sorted), st.integers(0, 1 << 40))
def test_what_was_written_is_right_however_it_is_cut(cuts, first):
    assert read(WRITTEN, cuts=tuple(cuts), first=first) == COUNT


def test_every_event_differs_and_has_the_size():
    assert len(set(WRITTEN)) == COUNT
    assert {len(payload) for payload in WRITTEN} == {40}
    assert COUNT > BODIES
    assert Chain(Bodies(8, 40)).take(1) != WRITTEN[:1]


@given(st.integers(0, COUNT - 2))
def test_a_lost_event_is_refused_with_its_place(lost):
    rest = WRITTEN[:lost] + WRITTEN[lost + 1 :]
    sequences = [n for n in range(COUNT) if n != lost]
    assert refused(rest, sequences) == (f"event {lost} is missing: {lost + 1} came instead", lost)
    why, right = refused(rest)  # a journal that closes the hole in its numbers
    assert (why.split(",")[0], right) == (f"event {lost} holds number {lost + 1}", lost)


@given(st.integers(0, COUNT - 1))
def test_an_event_that_is_there_twice_is_refused(n):
    twice = WRITTEN[: n + 1] + WRITTEN[n:]
    check = Check(BODIES_OF_7)
    with pytest.raises(BrokenChainError, match="holds the one before it again"):
        check.take(list(range(COUNT + 1)), twice)
    assert check.count == n + 1


@given(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1))
def test_events_that_changed_places_are_refused(a, b):
    if a == b:
        return
    moved = list(WRITTEN)
    moved[a], moved[b] = moved[b], moved[a]
    assert refused(moved)[1] == min(a, b)


@given(st.integers(0, COUNT - 1), st.integers(0, 39), st.integers(1, 255))
def test_a_flipped_bit_anywhere_is_refused(n, at, mask):
    payload = bytearray(WRITTEN[n])
    payload[at] ^= mask
    _, right = refused([*WRITTEN[:n], bytes(payload), *WRITTEN[n + 1 :]])
    assert right == n


@pytest.mark.parametrize("cut", [0, 8, 39])
def test_an_event_cut_short_is_refused(cut):
    why, right = refused([*WRITTEN[:3], WRITTEN[3][:cut]])
    assert (why, right) == (f"event 3 has {cut} bytes, 40 were written", 3)


def test_an_event_of_another_run_is_refused():
    foreign = Chain(Bodies(8, 40)).take(4)
    why, right = refused([*WRITTEN[:3], foreign[3]])
    assert right == 3
    assert re.fullmatch(r"event 3 is damaged: byte \d+ is not what was written", why)


def test_the_same_number_and_body_behind_another_past_is_refused():
    other = Chain(BODIES_OF_7, 5, link=1).take(1)[0]
    assert (other[:8], other[16:]) == (WRITTEN[5][:8], WRITTEN[5][16:])
    assert refused([*WRITTEN[:5], other])[1] == 5


@given(st.integers(0, COUNT - 1))
def test_a_chain_goes_on_behind_any_event(n):
    assert Chain.behind(BODIES_OF_7, WRITTEN[n]).take(COUNT - n - 1) == WRITTEN[n + 1 :]
    assert Chain.behind(BODIES_OF_7, None).take(1) == WRITTEN[:1]


@pytest.mark.parametrize("size", [0, 15, limits.PAYLOAD_BYTES_MAX + 1])
def test_a_size_that_cannot_hold_a_chain_or_be_an_event_is_refused(size):
    with pytest.raises(UsageError, match="nothing was started"):
        Bodies(1, size)


def test_the_smallest_and_large_events_are_chains_too():
    for size in (16, 1 << 20):
        bodies = Bodies(1, size)
        check = Check(bodies)
        check.take([0, 1, 2], Chain(bodies).take(3))
        assert check.count == 3
