"""A result for people: one row a part, and sentences for the rest."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Any, Final

from lunalog.cli.bench.result import Ended, Result
from lunalog.cli.render import count, echo, plain_table, show_table, size

HEADERS: Final = ("part", "events", "per s", "bytes/s", "p50", "p90", "p99", "p99.9", "max")
SPARED: Final = ("bytes/s", "p99.9", "p90")
"""Columns that a narrow terminal goes without, the least missed first."""
PERCENTILES: Final = ("p50", "p90", "p99", "p99_9", "max")
CORRECTED: Final = "corrected: as if it had asked once every p50, whether or not answers were late"


def show(result: Result) -> None:
    """Print it on stdout, on a terminal no wider than that."""
    row = result.row()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    cells = [line for part in row["parts"] for line in rows_of(part)]
    said = [title(row), *sentences(result, row)]
    if width is not None:
        said = [textwrap.fill(text, width) for text in said]
    echo(said[0])
    show_table(*(fitting(cells, width) if width is not None else (HEADERS, cells)))
    for text in said[1:]:
        echo(text)


def fitting(
    cells: list[tuple[str, ...]], width: int
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headers and cells without the columns for which there is no room."""
    headers: tuple[str, ...] = HEADERS
    for spared in SPARED:
        if max(map(len, plain_table(headers, cells))) <= width:
            break
        at = headers.index(spared)
        headers = headers[:at] + headers[at + 1 :]
        cells = [line[:at] + line[at + 1 :] for line in cells]
    return headers, cells


def title(row: dict[str, Any]) -> str:
    """Return what was done, and where."""
    plan, cluster = row["parameters"], row["cluster"]
    events, window, each = f"events of {size(plan['size'])}", f"{plan['window'] or 0:,}", ""
    if plan["streams"] > 1:
        events, each = f"{events} to {count(plan['streams'], 'stream')}", " to each"
    if plan["batch"] > 1:
        events, window = f"{events}, {plan['batch']:,} in one append", f"{window} appends"
    way = {
        "open": f"open loop, {plan['rate'] or 0:,g} events/s due",
        "closed": f"closed loop, {window} in flight{each}",
        "lone": f"one at a time{each}",
    }[plan["mode"]]
    where = "a cluster of its own" if cluster["own"] else cluster["url"]
    return f"{row['workload']}: {events}, {way}, on {where}"


def rows_of(part: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the lines of one part: as measured; how late; corrected."""
    rate = f"{part['per_s']:,.0f}" if part["per_s"] is not None and part["seconds"] else "-"
    speed = f"{size(part['bytes_per_s'])}/s" if part["bytes_per_s"] else "-"
    found = [(part["name"], f"{part['done']:,}", rate, speed, *times(part["latency_us"]))]
    if part["corrected_us"]:
        found.append(("  corrected", "", "", "", *times(part["corrected_us"])))
    if part["late_us"]:
        found.append(("  left late by", "", "", "", *times(part["late_us"])))
    return found


def times(summary: dict[str, float] | None) -> tuple[str, ...]:
    """Return the cells of a latency."""
    if summary is None:
        return ("-",) * len(PERCENTILES)
    return tuple(duration(summary[key]) for key in PERCENTILES)


def duration(us: float) -> str:
    """Return microseconds as people read them: three digits, as many as are true."""
    for unit, name in ((1e6, "s"), (1e3, "ms")):
        if us >= unit:
            value = us / unit
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:,.{digits}f} {name}"
    return f"{us:.0f} us"


def tick(us: float) -> str:
    """Return a round number of microseconds."""
    for unit, name in ((1e6, "s"), (1e3, "ms")):
        if us >= unit:
            return f"{us / unit:,g} {name}"
    return f"{us:g} us"


def sentences(result: Result, row: dict[str, Any]) -> list[str]:
    """Return what the table cannot say."""
    found = []
    if result.ended is not Ended.FINISHED:
        found.append(f"ended early ({result.ended.value}): {result.why}")
    for part in row["parts"]:
        found += part_sentences(part)
    if any(part["corrected_us"] for part in row["parts"]):
        found.append(CORRECTED)
    found.append(verdict_sentence(row["verified"]))
    found += result.notes
    if result.streams_left:
        found.append(
            f"{count(len(result.streams_left), 'stream')} may be left behind: "
            f"`lunalog delete {result.streams_left[0]} --yes` deletes one"
        )
    return found


def part_sentences(part: dict[str, Any]) -> list[str]:
    """Return what a part has to say beside its figures."""
    found = []
    if part["unanswered"]:
        unsent = part.get("unsent", 0)
        what = f", of them {unsent:,} that were due and never left" if unsent else ""
        found.append(
            f"{part['name']}: {count(part['unanswered'], 'event')} had no answer at its end{what}; "
            "they count with the time they had waited"
        )
    return found


def verdict_sentence(verified: dict[str, Any]) -> str:
    """Return what reading back has proven."""
    events = count(verified["events"], "event")
    if verified["holds"] and not verified["events"]:
        return "nothing was written, so there is nothing to verify"
    if verified["holds"]:
        more = verified["unacknowledged"]
        kept = f", {more:,} of them never acknowledged" if more else ""
        return f"verified: {events} read back, all there, in order, every byte right{kept}"
    if verified["holds"] is None:
        return (
            f"not verified: {events} read back and right; {verified['why'] or 'it was cut short'}"
        )
    return f"BROKEN: {verified['why']}; {events} before it are right"
