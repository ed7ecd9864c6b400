"""The results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from peers.results import (
    AHEAD_OF_FSYNCING,
    AHEAD_OF_OTHERS,
    LARGE,
    LONE,
    SMALL,
    Absent,
    Line,
    Round,
    Spread,
    lines,
    verdict,
)

HEAD = (
    "system", "setting", "client", "fsync", "rounds",
    "100 B events/s", "lunalog is", "1 KiB events/s", "lunalog is",
    "lone p50 ms", "lone p99 ms", "verdict",
)  # fmt: skip


def spread_of(spread: Spread, show: Callable[[float], str], unit: str = "") -> str:
    """The median, and from where to where if it is not all one."""
    median, least, most = (show(value) for value in (spread.median, spread.least, spread.most))
    return f"{median}{unit}" if least == most else f"{median}{unit} ({least} to {most})"


def rate(spread: Spread | None) -> str:
    """Events a second: `451 k (440 to 470)`."""
    if spread is None:
        return "-"
    unit, letter = (1e3, " k") if spread.median >= 1e4 else (1.0, "")
    return spread_of(spread, lambda value: f"{value / unit:,.0f}", letter)


def milliseconds(spread: Spread | None) -> str:
    """Microseconds as milliseconds."""
    return "-" if spread is None else spread_of(spread, lambda value: f"{value / 1e3:.2f}")


def times(line: Line, test: str) -> str:
    """How far ahead lunalog is."""
    spread = line.ahead.get(test)
    if spread is None or line.row.title == "lunalog":
        return "-"
    return spread_of(spread, lambda value: f"{value:.2f}", "x")


def cells(line: Line) -> Sequence[str]:
    """A line of the table."""
    return (
        line.row.title,
        line.row.setting,
        line.row.client,
        "yes" if line.row.fsyncs else "no",
        str(line.rounds),
        rate(line.figures.get((SMALL, "events_s"))),
        times(line, SMALL),
        rate(line.figures.get((LARGE, "events_s"))),
        times(line, LARGE),
        milliseconds(line.figures.get((LONE, "p50_us"))),
        milliseconds(line.figures.get((LONE, "p99_us"))),
        verdict(line),
    )


def absences(rounds: Iterable[Round]) -> list[Absent]:
    """What could not be had, or failed in a round, once each."""
    return list(dict.fromkeys(absent for each in rounds for absent in each.absent))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns line up."""
    safe = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    safe.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in safe
    )


def table(rounds: Iterable[Round]) -> str:
    """All contestants, then who is missing and why."""
    rounds = list(rounds)
    rows = [cells(line) for line in lines(rounds)]
    rows += [
        (a.title, a.setting or "-", a.client or "-", *["-"] * 8, a.reason) for a in absences(rounds)
    ]
    return markdown(HEAD, rows)


def page(rounds: Iterable[Round], plot: str) -> str:
    """The page that is kept beside the plot."""
    rounds = list(rounds)
    runs = dict.fromkeys(
        f"- {each.when} UTC, commit {each.commit}, {each.seconds:g} s a figure, {each.machine}: "
        f"{', '.join(sorted(each.peers))}"
        for each in rounds
    )
    return f"""# Peers on the same work

Written by `make bench-peers`; what is measured and how is in `docs/performance.md`, section Peers.
Three nodes each on loopback, all on one machine; figures are medians over the rounds (least to most).
"lunalog is" compares with the better of its two ways in the same round.
Goals: {AHEAD_OF_FSYNCING:g} times the throughput of a peer that fsyncs before it acknowledges and a lower
lone p50; {AHEAD_OF_OTHERS:g} times the throughput of one that does not.

{table(rounds)}

![the same as a plot]({plot})

Rounds:

{chr(10).join(runs)}
"""
