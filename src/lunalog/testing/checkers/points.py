"""What several checkers need: a history's events by sequence, and the highest value told by a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from lunalog.testing.history import Delivery, History
from lunalog.types import Sequence

Points = list[tuple[float, Sequence]]
"""(time, highest value so far), in order of time."""


def by_sequence(history: History) -> dict[Sequence, Delivery]:
    """The final log."""
    return {event.sequence: event for event in history.log}


def end_of(history: History) -> Sequence:
    """Where the final log ends."""
    return history.log[-1].sequence + 1 if history.log else history.log_start


def seen(history: History) -> dict[Sequence, Delivery]:
    """Everything that was ever delivered, or is in the final log: also what was truncated since."""
    found: dict[Sequence, Delivery] = {}
    for reader in history.readers:
        for event in reader.deliveries:
            found.setdefault(event.sequence, event)
    for event in history.log:
        found.setdefault(event.sequence, event)
    return found


def running_max(points: Iterable[tuple[float, Sequence]]) -> Points:
    """Turn values in order of time into the highest so far at each time."""
    best: Points = []
    highest = 0
    for at, value in points:
        if value > highest:
            highest = value
        best.append((at, highest))
    return best


def highest_before(points: Points, at: float) -> Sequence:
    """The highest value strictly before a time; 0: none."""
    index = bisect_left(points, (at, -1))
    return points[index - 1][1] if index else 0


def highest_by(points: Points, at: float) -> Sequence:
    """The highest value up to and at a time; 0: none."""
    index = bisect_right(points, at, key=lambda point: point[0])
    return points[index - 1][1] if index else 0
