"""Latencies in an HDR histogram: microseconds, three digits, up to an hour.

What the library does not say aloud is handled here: it drops values past its range without a word,
tells percentiles as the top of a bucket even where that is past the largest value seen, and walks in
Python through a correction in steps that may be a millionth of the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from lunalog.errors import UsageError

US_MAX: Final = 3_600_000_000
DIGITS: Final = 3
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
STEPS_MAX: Final = 10_000
"""A correction takes at most so many steps for one value."""
CURVE_STEPS: Final = 10
INSTALL: Final = "pip install 'lunalog[bench]'"


def new_histogram(digits: int = DIGITS) -> Any:
    """Return an empty histogram of the library; raises `UsageError` when it is not installed."""
    try:
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            f"`lunalog bench` needs the package hdrhistogram; nothing was started; {INSTALL}"
        ) from error
    return HdrHistogram(1, US_MAX, digits)


class Latencies:
    """How long things took."""

    def __init__(self, digits: int = DIGITS) -> None:
        self._histogram = new_histogram(digits)
        self.count = 0
        self._sum_us = 0.0
        self._min_us = 0
        self._max_us = 0

    def note(self, seconds: float, count: int = 1) -> None:
        """Add one latency, `count` times."""
        us = min(max(round(seconds * 1e6), 0), US_MAX)
        if not self._histogram.record_value(us, count):
            raise RuntimeError(f"the histogram has no place for {us} us")
        self._min_us = us if self.count == 0 else min(self._min_us, us)
        self._max_us = max(self._max_us, us)
        self._sum_us += us * count
        self.count += count

    def percentile_us(self, percent: float) -> int:
        """Return the latency that `percent` of all do not exceed; 0 of none."""
        return self.percentiles_us([percent])[percent]

    def percentiles_us(self, percents: Iterable[float]) -> dict[float, int]:
        """Return several of them in one walk."""
        wanted = list(percents)
        if self.count == 0:
            return dict.fromkeys(wanted, 0)
        found = self._histogram.get_percentile_to_value_dict(wanted)
        return {p: min(max(int(found[p]), self._min_us), self._max_us) for p in wanted}

    def summary(self) -> dict[str, float] | None:
        """Return the fields of a result in microseconds; none of no latency at all."""
        if self.count == 0:
            return None
        found = self.percentiles_us(PERCENTILES)
        return {
            "count": self.count,
            "min": self._min_us,
            **{name(percent): value for percent, value in found.items()},
            "max": self._max_us,
            "mean": round(self._sum_us / self.count, 1),
        }

    def curve(self) -> list[tuple[float, int]]:
        """Return (percent, microseconds), ten for each nine that the count allows."""
        steps = int(math.log10(self.count) * CURVE_STEPS) if self.count else -1
        percents = [round(100 - 100 * 10 ** (-n / CURVE_STEPS), 6) for n in range(steps + 1)]
        found = self.percentiles_us(percents)
        return [(percent, found[percent]) for percent in percents]

    def buckets(self) -> list[tuple[int, int]]:
        """Return (microseconds, count) of all that is not empty, in order."""
        return [
            (min(int(item.value_iterated_to), self._max_us), int(item.count_at_value_iterated_to))
            for item in self._histogram.get_recorded_iterator()
        ]

    def corrected(self) -> tuple[Latencies, int]:
        """Return what a closed loop would have seen had it not waited for each answer, and how.

        Whoever waits for an answer sends nothing meanwhile, so that a stall is counted once where it
        would have hit many.  Beside each latency above the median those are added which would have been
        sent meanwhile, one every median (the second value returned, in microseconds).
        """
        interval = max(self.percentile_us(50), self._max_us // STEPS_MAX, 1)
        found = Latencies()
        for us, count in self.buckets():
            left = us
            while True:
                found.note(left / 1e6, count)
                left -= interval
                if left < interval:
                    break
        return found, interval


def name(percent: float) -> str:
    """Return the field of a percentile: p50, p99_9."""
    return f"p{percent:g}".replace(".", "_")
