"""An open loop's schedule: fixed before the run, the same whatever happens in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunalog.cli.bench.schedule import Schedule

RATES = st.floats(0.01, 1e6)
MOMENTS = st.floats(0, 1e5)


@given(RATES, MOMENTS, st.floats(0, 100))
def test_what_is_due_is_exactly_what_was_meant_to_leave_by_now(rate, start, after):
    schedule = Schedule(rate, start, None)
    now = start + after
    due = schedule.due(now)
    assert due >= 1  # the first one leaves at the start
    assert schedule.intended(due - 1) <= now < schedule.intended(due)


@given(RATES, MOMENTS)
def test_nothing_is_due_before_the_start(rate, start):
    assert Schedule(rate, start, None).due(start - 1e-3) == 0
    assert Schedule(rate, start, None).intended(0) == start


@given(RATES, st.integers(1, 1000), st.floats(0, 1e4))
def test_no_more_are_due_than_there_are(rate, most, after):
    schedule = Schedule(rate, 0.0, most)
    due = schedule.due(after)
    assert due <= most
    assert schedule.is_over(due) == (due == most)


def test_an_endless_one_is_never_over():
    assert not Schedule(10, 0.0, None).is_over(1 << 40)


@pytest.mark.parametrize(("now", "due"), [(5.0, 1), (5.09, 1), (5.1, 2), (5.95, 10), (15.0, 101)])
def test_ten_a_second(now, due):
    assert Schedule(10, 5.0, None).due(now) == due
