"""Rounds and their figures: kept as JSON, summed up by row, and judged."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SMALL, LARGE, LONE = "window 100B", "window 1024B", "lone 1024B"
OURS = ("lunalog/batches", "lunalog/futures")
YARDSTICKS = ("floor", "prototype")
AHEAD_OF_FSYNCING = 3.0
AHEAD_OF_OTHERS = 2.0


@dataclass(frozen=True)
class Row:
    """What one contestant did in one round."""

    title: str
    setting: str
    client: str
    fsyncs: bool
    figures: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Absent:
    """A peer, one of its settings or one of its clients that has no figures, and why."""

    peer: str
    title: str
    setting: str
    client: str
    reason: str


@dataclass(frozen=True)
class Round:
    """All that was measured in turn."""

    when: str
    machine: str
    commit: str
    seconds: float
    rows: dict[str, Row]
    absent: list[Absent] = field(default_factory=list)

    @property
    def peers(self) -> set[str]:
        """Who was asked to take part."""
        own = {*OURS, *YARDSTICKS}
        return {key.split("/")[0] for key in self.rows if key not in own} | {
            absent.peer for absent in self.absent
        }

    def without(self, peers: set[str]) -> Round:
        """The round as if some had not taken part."""
        rows = {key: row for key, row in self.rows.items() if key.split("/")[0] not in peers}
        absent = [absent for absent in self.absent if absent.peer not in peers]
        return dataclasses.replace(self, rows=rows, absent=absent)


def dump(rounds: Iterable[Round]) -> str:
    """As JSON, a round a line."""
    return "[\n" + ",\n".join(json.dumps(dataclasses.asdict(r)) for r in rounds) + "\n]\n"


def parse(text: str) -> list[Round]:
    """From JSON."""
    return [
        Round(
            **{
                **found,
                "rows": {key: Row(**row) for key, row in found["rows"].items()},
                "absent": [Absent(**absent) for absent in found["absent"]],
            }
        )
        for found in json.loads(text)
    ]


def load(path: Path) -> list[Round]:
    """The rounds that are kept."""
    return parse(path.read_text()) if path.exists() else []


def replaced(kept: Iterable[Round], new: Iterable[Round]) -> list[Round]:
    """Keep of the older rounds only the peers that did not take part again."""
    new = list(new)
    again = {peer for each in new for peer in each.peers}
    older = [each.without(again) for each in kept]
    return [each for each in older if each.peers] + new


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None without values."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1]) if found else None


@dataclass(frozen=True)
class Line:
    """One contestant over all of its rounds, beside lunalog in the same rounds.

    Attributes:
        figures: by test and field, `("window 100B", "events_s")`.
        ahead: how many times its throughput lunalog's is, the better of its two ways, by test.
        lone: how many times lunalog's lone p50 its own is.
    """

    key: str
    row: Row
    rounds: int
    figures: dict[tuple[str, str], Spread]
    ahead: dict[str, Spread]
    lone: Spread | None

    @property
    def is_peer(self) -> bool:
        """Neither lunalog nor a yardstick."""
        return self.key not in (*OURS, *YARDSTICKS)


FIGURES = ((SMALL, "events_s"), (LARGE, "events_s"), (LONE, "p50_us"), (LONE, "p99_us"))


def lines(rounds: Iterable[Round]) -> list[Line]:
    """Sum up, in the order in which they were first seen."""
    rounds = list(rounds)
    keys = dict.fromkeys(key for each in rounds for key in each.rows)
    return [_line(key, [each for each in rounds if key in each.rows]) for key in keys]


def _line(key: str, rounds: list[Round]) -> Line:
    def figure(row: str, test: str, name: str) -> list[float | None]:
        return [
            each.rows[row].figures.get(test, {}).get(name) if row in each.rows else None
            for each in rounds
        ]

    def ratio(above: list[float | None], below: list[float | None]) -> Spread | None:
        return Spread.of(a / b for a, b in zip(above, below, strict=True) if a and b)

    def best(test: str) -> list[float | None]:
        ways = (figure(way, test, "events_s") for way in OURS)
        return [max((v for v in each if v), default=None) for each in zip(*ways, strict=True)]

    ahead = {test: ratio(best(test), figure(key, test, "events_s")) for test in (SMALL, LARGE)}
    spreads = {f: Spread.of(v for v in figure(key, *f) if v is not None) for f in FIGURES}
    return Line(
        key=key,
        row=rounds[-1].rows[key],
        rounds=len(rounds),
        figures={f: spread for f, spread in spreads.items() if spread},
        ahead={test: spread for test, spread in ahead.items() if spread},
        lone=ratio(figure(key, LONE, "p50_us"), figure(OURS[0], LONE, "p50_us")),
    )


def verdict(line: Line) -> str:
    """Whether the goals hold against a peer: what is missed, or `met`; empty for the others."""
    if not line.is_peer:
        return ""
    goal = AHEAD_OF_FSYNCING if line.row.fsyncs else AHEAD_OF_OTHERS
    missed = [
        f"{name}: {spread.median:.2f} of {goal:g} times"
        for test, name in ((SMALL, "100 B"), (LARGE, "1 KiB"))
        if (spread := line.ahead.get(test)) and spread.median < goal
    ]
    if line.row.fsyncs and line.lone and line.lone.median <= 1:
        missed.append(f"lone p50: {line.lone.median:.2f} of 1 times")
    return "missed, " + "; ".join(missed) if missed else "met"
