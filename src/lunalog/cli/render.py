"""Print rows: aligned columns, JSON, or JSON lines."""

from __future__ import annotations

import datetime
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from lunalog.cli.options import Settings

Row = Mapping[str, Any]
NUMBER = re.compile(r"[0-9][0-9,.]*( [^\W\d]+(/s)?)?")
"""A number, perhaps with a unit: no address, and no "2 of 3"."""
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def echo(text: str = "") -> None:
    """Print a line on stdout; an `OSError` of that has its name."""
    try:
        click.echo(text)
    except OSError as error:
        error.filename = "standard output"
        raise


def show_rows(settings: Settings, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Print a list: `columns` of each row as a table, or whole rows as JSON."""
    found = list(rows)
    if settings.output == "json":
        echo(json.dumps(found, indent=2, default=_plain))
    elif settings.output == "jsonl":
        for row in found:
            echo(json.dumps(row, default=_plain))
    else:
        cells = [[text(row.get(column)) for column in columns] for row in found]
        show_table([c.replace("_", " ") for c in columns], cells)


def show_one(settings: Settings, row: Row) -> None:
    """Print one thing: a field a line, or a JSON object."""
    if settings.output == "json":
        echo(json.dumps(row, indent=2, default=_plain))
    elif settings.output == "jsonl":
        echo(json.dumps(row, default=_plain))
    else:
        width = max(map(len, row), default=0)
        for key, value in row.items():
            echo(f"{key.replace('_', ' '):{width}}  {text(value)}")


def show_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, numbers to the right; on a terminal the headers stand out."""
    head, *rows = plain_table(headers, cells)
    echo(f"{BOLD}{head}{PLAIN}" if _is_decorated() else head)
    for line in rows:
        echo(line)


def _is_decorated() -> bool:
    is_dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not is_dumb


def plain_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table without any decoration."""
    table = [[h.upper() for h in headers], *cells]
    widths = [max(len(row[i]) for row in table) for i in range(len(headers))]
    rights = [_is_number_column([row[i] for row in cells]) for i in range(len(headers))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, rights, strict=True)
        ).rstrip()
        for row in table
    ]


def _is_number_column(cells: Sequence[str]) -> bool:
    given = [c for c in cells if c not in ("", "-")]
    return bool(given) and all(map(NUMBER.fullmatch, given))


def text(value: Any) -> str:
    """Return a value as people read it in a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime.datetime):
        return value.astimezone().isoformat(sep=" ", timespec="seconds")
    if isinstance(value, list | tuple):
        return ", ".join(text(v) for v in value) or "-"
    return str(value)


def natural(name: str) -> list[str | int]:
    """Return by what names are sorted as people do it: s2 before s10."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split("([0-9]+)", name))]


def count(number: int, thing: str) -> str:
    """Return a number of things, in English."""
    return f"{number:,} {thing}" + ("s" if number != 1 else "")


def size(count: int) -> str:
    """Return a number of bytes with its unit."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), "B"
    for larger in UNITS:
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def moment(microseconds: int) -> datetime.datetime | None:
    """Return a stamp of the journal as a time; none for 0."""
    if not microseconds:
        return None
    return datetime.datetime.fromtimestamp(microseconds / 1e6, datetime.UTC)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
