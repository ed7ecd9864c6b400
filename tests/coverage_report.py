"""Coverage by room against its bounds, from what `coverage json` wrote: see `make coverage`.

    python tests/coverage_report.py coverage.json

It prints lines and branches of each room, every `raise` and `except` outside `cli` that nothing reached,
and every exclusion with its reason.  Exit code 1: a room is below its bound, an error path was not
reached, or something is excluded without a reason.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
PACKAGE = Path("src") / "lunalog"
TOP = "(top)"
BOUNDS = {"core": 100.0}
BOUND = 95.0
"""Of lines and branches together, in every other room."""
ERRORS_OF_NO_INTEREST = {"cli"}
PRAGMA = re.compile(r"#\s*pragma: no (?:cover|branch)\b[\s:-]*(.*)")


@dataclass(slots=True)
class Room:
    """What was measured of one room."""

    lines: int = 0
    lines_run: int = 0
    branches: int = 0
    branches_taken: int = 0

    def add(self, summary: dict[str, int]) -> None:
        self.lines += summary["num_statements"]
        self.lines_run += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.branches_taken += summary["covered_branches"]

    @property
    def share(self) -> float:
        """Percent of lines and branches that were run."""
        return percent(self.lines_run + self.branches_taken, self.lines + self.branches)


def percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def room_of(path: str) -> str:
    inside = Path(path).relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else TOP


def rooms_of(files: dict[str, Any]) -> dict[str, Room]:
    found: dict[str, Room] = {}
    for path, measured in sorted(files.items()):
        found.setdefault(room_of(path), Room()).add(measured["summary"])
    return found


def below(rooms: dict[str, Room]) -> Iterator[str]:
    """Rooms that miss their bound; a room that was not measured misses it, too."""
    for name in sorted({*rooms, *BOUNDS}):
        bound, room = BOUNDS.get(name, BOUND), rooms.get(name)
        if room is None:
            yield f"{name} was not measured"
        elif room.share < bound:
            yield f"{name} has {room.share:.2f} %, {bound:g} are wanted"


def error_paths(source: str) -> Iterator[tuple[int, str]]:
    """Lines to reach: each `raise`, and the first statement under each `except`."""
    text = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise):
            yield node.lineno, text[node.lineno - 1].strip()
        elif isinstance(node, ast.ExceptHandler):
            yield node.body[0].lineno, text[node.lineno - 1].strip()


def unreached(path: str, source: str, missing: set[int]) -> Iterator[str]:
    for line, text in sorted(set(error_paths(source))):
        if line in missing:
            yield f"{path}:{line}  {text}"


def exclusions(path: str, source: str) -> Iterator[tuple[str, str]]:
    """Where something is excluded by hand, and why."""
    for number, line in enumerate(source.splitlines(), 1):
        if found := PRAGMA.search(line):
            yield f"{path}:{number}", found[1].strip()


def report(measured: dict[str, Any], home: Path) -> int:
    """Print all there is to say; return the exit code."""
    files: dict[str, Any] = measured["files"]
    rooms = rooms_of(files)
    print(f"{'room':14}{'lines':>8}{'run':>9}{'branches':>10}{'taken':>9}{'both':>9}")
    for name, room in sorted(rooms.items()):
        lines = percent(room.lines_run, room.lines)
        branches = percent(room.branches_taken, room.branches)
        print(
            f"{name:14}{room.lines:8}{lines:8.2f}%{room.branches:10}{branches:8.2f}%"
            f"{room.share:8.2f}%"
        )
    missed: list[str] = []
    excluded: list[tuple[str, str]] = []
    for path, found in sorted(files.items()):
        source = (home / path).read_text()
        excluded += exclusions(path, source)
        if room_of(path) not in ERRORS_OF_NO_INTEREST:
            missed += unreached(path, source, set(found["missing_lines"]))
    without_reason = [where for where, why in excluded if not why]
    print(f"\n{len(excluded)} excluded by hand")
    for where, why in excluded:
        print(f"  {where}  {why or 'WITHOUT A REASON'}")
    implied = sum(len(found["excluded_lines"]) for found in files.values()) - len(excluded)
    print(f"{implied} lines are not counted: imports for type checkers, bodies of protocols")
    print(f"\n{len(missed)} raise and except outside cli were not reached")
    for line in missed:
        print(f"  {line}")
    wrong = list(below(rooms))
    for line in wrong:
        print(f"BELOW: {line}")
    return 1 if wrong or missed or without_reason else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    return report(json.loads(parser.parse_args(arguments).json.read_text()), HOME)


if __name__ == "__main__":
    sys.exit(main())
