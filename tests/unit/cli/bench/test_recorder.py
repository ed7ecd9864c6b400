"""A part of a run, as it goes and when it is over."""

import pytest

from lunalog.cli.bench.recorder import Origins, Part


def test_rate_and_pause_are_of_the_time_between_start_and_stop():
    part = Part("append", size=100)
    part.start(10.0)
    part.note(10.5, 4, 0.001)
    part.note(12.0, 6, 0.001)
    assert part.rate(12.0) == 5.0
    part.stop(14.0)
    part.stop(99.0)
    row = part.row(99.0)
    assert (row["seconds"], row["done"], row["per_s"]) == (4.0, 10, 2.5)
    assert row["bytes_per_s"] == 250
    assert row["longest_pause_ms"] == 2000


def test_what_is_acknowledged_after_the_clock_stopped_counts_but_not_for_the_rate():
    part = Part("append")
    part.start(0.0)
    part.note(1.0, 10, 0.1)
    part.stop(2.0)
    part.settle(15)
    assert (part.done, part.rate(9.0)) == (15, 5.0)
    part.settle(3)
    assert part.done == 15


def test_what_has_no_answer_counts_with_the_time_it_waited():
    part = Part("append")
    part.start(0.0)
    part.note(0.1, 1, 0.001)
    part.note_unanswered(8.0, 2)
    row = part.row(9.0)
    assert (row["done"], row["unanswered"]) == (1, 2)
    assert row["latency_us"]["max"] == 8_000_000
    assert row["latency_us"]["count"] == 3


def test_the_timeline_has_a_point_for_each_interval_empty_ones_too():
    part = Part("append", seconds=50)  # points of half a second
    part.start(100.0)
    part.note(100.1, 2, 0.010)
    part.note(100.4, 1, 0.030)
    part.note(102.2, 5, 2.0)
    part.stop(102.3)
    told = [(p["at_s"], p["events"], p["max_us"]) for p in part.row(103.0)["timeline"]]
    assert told == [
        (0.5, 3, 30_000),
        (1.0, 0, 0),
        (1.5, 0, 0),
        (2.0, 0, 0),
        (2.3, 5, pytest.approx(2_000_000, rel=0.01)),
    ]


def test_a_part_that_never_began_is_all_nothing():
    part = Part("tail")
    part.stop(5.0)
    row = part.row(9.0)
    assert (row["seconds"], row["done"], row["per_s"], row["latency_us"]) == (0.0, 0, 0.0, None)
    assert row["timeline"] == []


def test_a_closed_loop_says_what_it_would_have_seen_without_waiting():
    part = Part("append")
    part.is_closed_loop = True
    part.start(0.0)
    for n in range(10):
        part.note(n / 1000, 1, 0.001)
    part.note(1.0, 1, 0.020)
    row = part.row(2.0)
    assert row["corrected_interval_us"] == 1000
    assert row["corrected_us"]["count"] == 30
    part.is_closed_loop = False
    assert part.row(2.0)["corrected_us"] is None


def test_single_measurements_have_no_rate():
    part = Part("kill", is_sampled=True)
    part.start(0.0)
    part.note(1.0, 1, 0.25)
    row = part.row(2.0)
    assert (row["per_s"], row["longest_pause_ms"]) == (None, None)
    assert row["latency_us"]["p50"] == 250_000


def test_answers_are_for_the_oldest_events_and_what_has_none_waits_until_the_end():
    part = Part("append")
    part.start(0.0)
    origins = Origins(part)
    origins.left(0.0, 3)
    origins.left(1.0, 2)
    origins.answered(1.0, 2)
    origins.answered(2.0, 2)  # the last of the first three, and one of the next two
    origins.answered(2.0, 0)
    origins.close(5.0)
    origins.close(9.0)
    assert (part.done, part.unanswered) == (4, 1)
    assert sorted(us for us, count in part.latencies.buckets() for _ in range(count)) == [
        *(pytest.approx(s * 1e6, rel=0.001) for s in (1, 1, 1, 2, 4))
    ]
