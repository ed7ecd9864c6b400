"""Latencies: true to three digits, none lost, and the correction of a closed loop."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunalog.cli.bench import histogram
from lunalog.cli.bench.histogram import PERCENTILES, Latencies, name
from lunalog.errors import UsageError

LATENCIES = st.lists(st.integers(0, 3_600_000_000), min_size=1, max_size=200)


def of(*microseconds):
    found = Latencies()
    for us in microseconds:
        found.note(us / 1e6)
    return found


def exact(values, percent):
    """The smallest value that `percent` of all do not exceed."""
    ordered = sorted(values)
    rank = max(1, int(percent * len(ordered) / 100 + 0.5))
    return ordered[rank - 1]


@given(LATENCIES)
def test_percentiles_are_true_to_three_digits(values):
    found = of(*values)
    assert found.count == len(values)
    for percent, us in found.percentiles_us(PERCENTILES).items():
        right = exact(values, percent)
        assert abs(us - right) <= right / 1000 + 1


@given(LATENCIES)
def test_a_summary_keeps_the_exact_ends_and_is_in_order(values):
    summary = of(*values).summary()
    assert (summary["min"], summary["max"]) == (min(values), max(values))
    told = [summary["min"], *(summary[name(p)] for p in PERCENTILES), summary["max"]]
    assert told == sorted(told)
    assert summary["mean"] == pytest.approx(sum(values) / len(values), abs=0.06)


def test_what_took_longer_than_an_hour_or_less_than_nothing_is_not_lost():
    found = Latencies()
    found.note(7200.0)
    found.note(-0.1)
    summary = found.summary()
    assert (summary["count"], summary["min"], summary["max"]) == (2, 0, 3_600_000_000)


def test_many_of_one_value_are_noted_at_once():
    found = Latencies()
    found.note(0.001, 999)
    found.note(1.0)
    assert found.summary()["count"] == 1000
    assert found.percentile_us(50) == 1000
    assert found.percentile_us(100) == 1_000_000


def test_of_nothing_nothing_is_told():
    found = Latencies()
    assert found.summary() is None
    assert found.percentile_us(50) == 0
    assert found.curve() == []
    assert found.buckets() == []


def test_a_stall_of_a_closed_loop_is_counted_for_those_that_would_have_come():
    """One a millisecond, then one that waits for 100 ms: 99 more would have waited, ever less."""
    corrected, interval = of(*[1000] * 900, 100_000).corrected()
    assert interval == 1000
    assert corrected.count == 900 + 100
    assert corrected.percentile_us(50) == 1000
    assert corrected.percentile_us(95) == pytest.approx(50_000, rel=0.02)
    assert of(*[1000] * 900, 100_000).percentile_us(95) == 1000  # what the loop itself has seen


def test_without_a_stall_nothing_is_added():
    corrected, _ = of(*[1000] * 50, *[1500] * 20).corrected()
    assert corrected.count == 70


def test_a_correction_of_an_hour_by_a_microsecond_ends():
    corrected, interval = of(*[1] * 100, 3_600_000_000).corrected()
    assert interval == 3_600_000_000 // histogram.STEPS_MAX
    assert corrected.count <= 100 + histogram.STEPS_MAX + 1


@given(LATENCIES)
def test_a_curve_grows_and_ends_where_its_count_does(values):
    curve = of(*values).curve()
    assert [us for _, us in curve] == sorted(us for _, us in curve)
    assert curve[0][0] == 0
    assert 100 - curve[-1][0] >= 100 / len(values) * 0.999
    assert all(math.isfinite(percent) for percent, _ in curve)


def test_names_of_percentiles():
    assert [name(p) for p in PERCENTILES] == ["p50", "p90", "p99", "p99_9", "p99_99"]


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(UsageError, match=r"nothing was started.*lunalog\[bench\]"):
        Latencies()
