"""The report on coverage fails for each thing it is there to find, and only for those."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = """def work(x):
    try:
        return int(x)
    except ValueError as error:
        raise KeyError(x) from error
    if x:  # pragma: no cover  a reason
        return 1
"""


@pytest.fixture
def tool() -> ModuleType:
    path = Path(__file__).with_name("coverage_report.py")
    spec = importlib.util.spec_from_file_location("coverage_report", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def measured(
    home: Path, room: str, source: str = SOURCE, *, missing: tuple[int, ...] = (), taken: int = 100
) -> dict[str, Any]:
    """One file of a room with 100 lines and 100 branches."""
    path = Path("src") / "lunalog" / room / "work.py"
    (home / path).parent.mkdir(parents=True, exist_ok=True)
    (home / path).write_text(source)
    summary = {
        "num_statements": 100, "covered_lines": 100 - len(missing), "num_branches": 100,
        "covered_branches": taken,
    }  # fmt: skip
    return {
        str(path): {
            "summary": summary, "missing_lines": list(missing), "excluded_lines": [6, 7]
        }
    }  # fmt: skip


def told(tool: ModuleType, home: Path, capsys: Any, *files: dict[str, Any]) -> tuple[int, str]:
    merged: dict[str, Any] = measured(home, "core")
    for found in files:
        merged |= found
    code = tool.report({"files": merged}, home)
    return code, capsys.readouterr().out


def test_all_is_well_when_all_was_run(tool: ModuleType, tmp_path: Path, capsys: Any) -> None:
    code, out = told(tool, tmp_path, capsys, measured(tmp_path, "client", taken=91))
    assert code == 0
    assert "work.py:6  a reason" in out
    assert "0 raise and except outside cli were not reached" in out
    assert "95.50%" in out


@pytest.mark.parametrize(("room", "taken"), [("core", 99), ("client", 89), ("cli", 89)])
def test_a_room_below_its_bound_fails(
    tool: ModuleType, tmp_path: Path, capsys: Any, room: str, taken: int
) -> None:
    code, out = told(tool, tmp_path, capsys, measured(tmp_path, room, taken=taken))
    assert code == 1
    assert f"BELOW: {room} has" in out


def test_a_room_that_was_not_measured_fails(tool: ModuleType, tmp_path: Path, capsys: Any) -> None:
    assert tool.report({"files": measured(tmp_path, "client")}, tmp_path) == 1
    assert "BELOW: core was not measured" in capsys.readouterr().out


def test_an_error_path_that_nothing_reached_fails_except_in_the_command(
    tool: ModuleType, tmp_path: Path, capsys: Any
) -> None:
    code, out = told(tool, tmp_path, capsys, measured(tmp_path, "client", missing=(5,)))
    assert code == 1
    assert "work.py:5  except ValueError as error:" in out
    assert "work.py:5  raise KeyError(x) from error" in out
    code, _ = told(tool, tmp_path, capsys, measured(tmp_path, "cli", missing=(5,)))
    assert code == 0


def test_an_exclusion_without_a_reason_fails(tool: ModuleType, tmp_path: Path, capsys: Any) -> None:
    bare = SOURCE.replace("no cover  a reason", "no cover")
    code, out = told(tool, tmp_path, capsys, measured(tmp_path, "client", bare))
    assert code == 1
    assert "WITHOUT A REASON" in out


def test_the_command_reads_what_coverage_wrote(
    tool: ModuleType, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "HOME", tmp_path)
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"files": measured(tmp_path, "core")}))
    assert tool.main([str(path)]) == 0
    assert "core" in capsys.readouterr().out
