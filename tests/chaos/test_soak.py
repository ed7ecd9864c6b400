"""The command: what it refuses, what it says, and what it leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import __main__ as command
from chaos import nodes, tools
from chaos.faults import FAULTS
from chaos.world import sweep
from processes import end_by, named, until_line

HERE = Path(__file__).parents[2]


def test_every_fault_says_what_it_is_and_what_it_needs():
    assert len(FAULTS) >= 25
    for name, fault in FAULTS.items():
        assert fault.name == name
        assert fault.inflict.__doc__
        assert set(fault.needs) <= set(tools.PROBES)


def test_a_fault_that_does_not_exist_is_refused(capsys):
    assert command.run(["--faults", "kill-server,earthquake"]) == 2
    assert "earthquake" in capsys.readouterr().err


def test_a_demanded_fault_that_cannot_run_fails_before_anything_starts(capsys, monkeypatch):
    monkeypatch.setattr(tools, "why_not", lambda tool: f"{tool} is not here")
    monkeypatch.setattr(command, "main", None)
    assert command.run(["--faults", "kill-server,sync-error"]) == 3
    assert "NOT RUN sync-error: strace is not here" in capsys.readouterr().out


def test_the_list_says_what_cannot_run(capsys, monkeypatch):
    monkeypatch.setattr(tools, "why_not", lambda tool: f"{tool} is not here")
    assert command.run(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(FAULTS)
    assert all(("NOT RUN" in line) == bool(FAULTS[line.split()[0]].needs) for line in lines)


def soak(tmp_path, *arguments):
    """Start one, with a number that no other test takes meanwhile."""
    env = {**os.environ, "PYTHONPATH": nodes.PYTHON_PATH, "TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, "-m", "chaos", "--number", str(20 + os.getpid() % 150), *arguments],
        cwd=HERE,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def left_behind(tmp_path):
    """Processes, mounts and directories that name the run's directory."""
    found = [str(path) for path in tmp_path.iterdir()]
    found += [m for m in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in m]
    return found + named(tmp_path)


def number_of(home):
    """The number of the run that has this directory; it must still run."""
    locks = Path("/run/lock").glob("lunalog-chaos-*")
    lock = next(path for path in locks if path.read_text() == str(home))
    return int(lock.name.rpartition("-")[2])


def machine(number):
    """Namespaces, links and memory groups of one run."""
    names = [p.name for p in tools.NETNS_DIRECTORY.glob(f"lc{number}-*")]
    names += [p.name for p in Path("/sys/class/net").glob(f"lc{number}[v]*")]
    names += [p.name for p in Path("/sys/class/net").glob(f"lc{number}")]
    return {*names, *(p.name for p in tools.CGROUP_MEMORY.glob(f"lunalog-chaos-{number}-*"))}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_soak_ends_well_and_leaves_nothing(tmp_path):
    child = soak(tmp_path, "--minutes", "0.15", "--seed", "4", "--faults", "kill-server")
    out = child.communicate(timeout=550)[0].decode()
    assert child.returncode == 0, out
    assert "make chaos MINUTES=0.15 SEED=4 FAULTS=kill-server" in out
    assert "read back" in out
    assert "VIOLATION" not in out
    assert left_behind(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_interrupted_soak_leaves_nothing_behind(tmp_path):
    child = soak(tmp_path, "--minutes", "5", "--seed", "4", "--keep")
    until_line(child.stdout, "faults")
    (home,) = tmp_path.iterdir()
    number = number_of(home)
    end_by(child, signal.SIGINT, patience_s=250)
    assert [p for p in left_behind(tmp_path) if p != str(home)] == []
    assert machine(number) == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_killed_soak_leaves_is_removed_by_the_next(tmp_path):
    """SIGKILL: the processes go at once, with the harness; the rest when its number is taken again."""
    child = soak(tmp_path, "--minutes", "5", "--seed", "4")
    until_line(child.stdout, "up: ")
    (home,) = tmp_path.iterdir()
    number = number_of(home)
    child.kill()
    child.communicate(timeout=100)
    sweep(number, str(home))
    assert [p for p in left_behind(tmp_path) if p != str(home)] == []
    assert machine(number) == set()
