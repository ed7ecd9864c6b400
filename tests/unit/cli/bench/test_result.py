"""The fields of a result are those that docs/cli.md promises."""

import json
import re
from pathlib import Path

import pytest

from lunalog.cli.bench.histogram import Latencies
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Part
from lunalog.cli.bench.result import Result

PAGE = (Path(__file__).parents[4] / "docs" / "cli.md").read_text()
BENCH = PAGE.split("\n## bench\n")[1].split("\n## ")[0]
SOMETIMES = {"unsent", "behind_max", "samples_ms"}


def told(first_of_table):
    """Fields of the table with this head, in order, and what their cells name."""
    table = BENCH.split(f"| {first_of_table} |")[1].split("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    return {name: cell for names, cell in rows for name in re.findall(r"`(\w+)`", names)}


def codes(cell):
    return set(re.findall(r"`(\w+)`", cell))


@pytest.fixture
def row():
    part = Part("append", size=100, seconds=1)
    part.is_closed_loop, part.late = True, Latencies()
    part.start(0.0)
    part.note(0.5, 10, 0.001)
    part.late.note(0.001)
    part.stop(1.0)
    return Result("write", Plan(size=100), "memory://x", False, [part]).row()


def test_each_field_of_a_result_stands_in_the_page_and_no_other(row):
    fields = told("field")
    assert set(fields) == set(row)
    for name in ("parameters", "cluster", "machine", "verified"):
        assert codes(fields[name]) >= set(row[name]), name
    assert codes(fields["cluster"]) == set(row["cluster"])
    assert codes(fields["machine"]) == set(row["machine"])
    assert codes(fields["verified"]) == set(row["verified"])


def test_each_field_of_a_part_stands_in_the_page_and_no_other(row):
    fields, (part,) = told("field of a part"), row["parts"]
    assert set(fields) == set(part) | SOMETIMES
    assert codes(fields["latency_us"]) == set(part["latency_us"])
    assert codes(fields["timeline"]) == set(part["timeline"][0])
    assert set(part["late_us"]) == set(part["corrected_us"]) == set(part["latency_us"])


def test_a_result_is_plain_json(row):
    assert json.loads(json.dumps(row)).keys() == row.keys()
