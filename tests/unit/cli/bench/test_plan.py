"""Options become a plan, or are refused."""

import click
import pytest

from lunalog.cli.bench.plan import Plan, Size
from lunalog.cli.options import Number
from lunalog.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"), [("100", 100), ("4KiB", 4096), ("1m", 1 << 20), ("64 k", 65536), ("7b", 7)]
)
def test_sizes(text, size):
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "x", "0", "00k", "9" * 5000, "1GiB", "-1", "1.5k", "k"])
def test_what_is_no_size(text):
    with pytest.raises(click.BadParameter, match="no size"):
        Size().convert(text, None, None)


@pytest.mark.parametrize(
    ("kind", "text", "number"), [(int, "1", 1), (int, "1000", 1000), (float, "0.5", 0.5)]
)
def test_numbers(kind, text, number):
    assert Number(kind, above=0).convert(text, None, None) == number


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((int, text) for text in ("", "0", "-1", "1.5", "x", "9" * 5000)),
        *((float, text) for text in ("", "0", "-1", "nan", "inf", "x")),
    ],
)
def test_what_is_no_number(kind, text):
    with pytest.raises(click.BadParameter, match=r"no (whole )?number above 0"):
        Number(kind, above=0).convert(text, None, None)


def test_the_mode_follows_from_what_is_asked_for():
    assert Plan().mode == "closed"
    assert Plan(window=1).mode == "lone"
    assert Plan(window=1, batch=10).mode == "closed"
    assert Plan(rate=5).mode == "open"


def test_a_rate_and_a_window_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        Plan(rate=5, window=2).validate()
    Plan(rate=5).validate()
    Plan(window=2).validate()


@pytest.mark.parametrize(("batch", "size"), [(17, 1 << 20), ((1 << 20) + 1, 16), (200_000, 100)])
def test_a_batch_that_is_no_frame_is_refused(batch, size):
    with pytest.raises(UsageError, match="nothing was started; choose a smaller --batch"):
        Plan(batch=batch, size=size).validate()
    Plan(batch=15, size=1 << 20).validate()
    Plan(size=8 << 20).validate()


def test_a_run_ends_by_time_or_events_or_whichever_comes_first():
    assert Plan().time_s == 5
    assert Plan(events=10).time_s is None
    assert Plan(events=10, seconds=2).time_s == 2
    assert Plan(rounds=3).time_s is None
    assert Plan(events=10, batch=4).units_max == 3
    assert Plan(rate=100, seconds=2).units_max == 200
    assert Plan(rate=100, seconds=2, batch=50).units_max == 4
    assert Plan(rate=100, seconds=2, events=7).units_max == 7
    assert Plan(rate=0.01, seconds=1).units_max == 1
    assert Plan(seconds=1).units_max is None


def test_a_slow_rate_is_no_stall():
    assert Plan(rate=1000).patience_s == 8
    assert Plan(rate=0.1).patience_s == 30
    assert Plan(rate=100, batch=1000).patience_s == 30


def test_many_streams_do_together_what_one_does():
    share = Plan(streams=4, rate=100, events=10).share()
    assert (share.rate, share.events, share.window) == (25, 3, None)
    share = Plan(streams=100, size=100).share()
    assert share.in_flight == 10_485 // 100
    assert Plan(streams=4, window=7).share().in_flight == 7
    assert Plan(streams=100_000).share().in_flight == 16


def test_streams_at_a_rate_take_turns():
    """On one schedule all would send in the same moment, and that burst is what would be measured."""
    plan = Plan(streams=4, rate=8, seconds=2)
    gap_s = 1 / plan.share().rate
    moments = sorted(plan.phase_s(n) + k * gap_s for n in range(4) for k in range(4))
    assert moments == [k / 8 for k in range(16)]
    assert [Plan(streams=4, rate=8, batch=2).phase_s(n) for n in range(4)] == [0, 0.25, 0.5, 0.75]
    assert [Plan(streams=4, rate=1, seconds=2).phase_s(n) for n in range(4)] == [0, 0.5, 1, 1.5]
    assert Plan(streams=4, window=8).phase_s(3) == 0
