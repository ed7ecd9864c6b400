"""The pytest plugin: `lunalog_trial`, a test that runs once for each seed.

pytest loads it where lunalog is installed; nothing else of lunalog is imported before a test asks for a
trial.

Source: docs/simulating.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lunalog.testing.trial import Trial

SEEDS = 10
"""How many a test runs with unless it or the command line says otherwise."""
TAIL_LINES = 30
_TRIAL: pytest.StashKey[Trial] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("lunalog", "simulated clusters (lunalog)")
    add = group.addoption
    add("--lunalog-seeds", type=_count, metavar="N", help=f"seeds of each test; default {SEEDS}")
    add("--lunalog-from", type=int, metavar="SEED", default=0, help="the first of them; default 0")
    add(
        "--lunalog-seed",
        type=int,
        metavar="SEED",
        action="append",
        help="run this seed alone, as a failure tells it; may be given several times",
    )
    add(
        "--lunalog-twice",
        action="store_true",
        help="run each seed once more, in a new interpreter with another hash seed, and compare",
    )
    add("--lunalog-trace-to", metavar="FILE", help=argparse.SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"lunalog(seeds={SEEDS}, **options): how many seeds a test with `lunalog_trial` runs with, "
        "and options of `lunalog.testing.Trial`",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each seed."""
    if "lunalog_seed" in metafunc.fixturenames:
        seeds = _seeds(metafunc.config, metafunc.definition.get_closest_marker("lunalog"))
        metafunc.parametrize("lunalog_seed", seeds, indirect=True, ids="seed{}".format)


@pytest.fixture
def lunalog_seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this run."""
    seed: int = request.param
    return seed


@pytest.fixture
def lunalog_trial(request: pytest.FixtureRequest, lunalog_seed: int) -> Iterator[Trial]:
    """Return a simulated cluster to try a program on, once for each seed."""
    from lunalog.testing.trial import Trial

    marker = request.node.get_closest_marker("lunalog")
    options = dict(marker.kwargs) if marker is not None else {}
    options.pop("seeds", None)
    with Trial(lunalog_seed, **options) as trial:
        request.node.stash[_TRIAL] = trial
        yield trial


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Keep the trace of a run for who compares it, or compare it."""
    result = yield
    trial = pyfuncitem.stash.get(_TRIAL, None)
    if trial is not None:
        trace_to = pyfuncitem.config.getoption("lunalog_trace_to")
        if trace_to:
            Path(trace_to).write_text(f"{trial.trace:08x}")
        elif pyfuncitem.config.getoption("lunalog_twice"):
            _run_again(pyfuncitem, trial)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """Say with a failure what happened, and how to see it again."""
    report: pytest.TestReport = yield
    trial = item.stash.get(_TRIAL, None)
    if report.when == "call" and report.failed and trial is not None:
        lines = [f"replay: {_replay(item, trial.seed)}", *trial.report()]
        report.sections.append(("lunalog", "\n".join(lines)))
    return report


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def _seeds(config: pytest.Config, marker: pytest.Mark | None) -> Sequence[int]:
    chosen: list[int] | None = config.getoption("lunalog_seed")
    if chosen:
        return chosen
    wanted: int | None = config.getoption("lunalog_seeds")
    if wanted is None:
        wanted = int(marker.kwargs.get("seeds", SEEDS)) if marker is not None else SEEDS
    first: int = config.getoption("lunalog_from")
    return range(first, first + wanted)


def _replay(item: pytest.Item, seed: int) -> str:
    name = item.nodeid.replace(f"[seed{seed}]", "")
    return f"pytest '{name}' --lunalog-seed {seed}"


def _run_again(item: pytest.Item, trial: Trial) -> None:
    """Run the same seed in another interpreter, and fail unless it does the same."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    environment["PYTHONHASHSEED"] = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    with tempfile.TemporaryDirectory() as directory:
        trace_to = Path(directory) / "trace"
        command = [sys.executable, "-m", "pytest", item.nodeid, "--rootdir", "."]
        command += [f"--lunalog-seed={trial.seed}", f"--lunalog-trace-to={trace_to}"]
        if item.config.inipath is not None:
            command.append(f"--config-file={item.config.inipath}")
        if item.config.pluginmanager.hasplugin("xdist"):
            command += ["-n", "0"]
        done = subprocess.run(
            command, cwd=item.config.rootpath, env=environment, capture_output=True, text=True
        )
        told = trace_to.read_text() if trace_to.exists() else None
    if done.returncode or told is None:
        tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
        pytest.fail(f"seed {trial.seed} failed when it was run again:\n{tail}", pytrace=False)
    if told != f"{trial.trace:08x}":
        pytest.fail(
            f"seed {trial.seed} is not deterministic: its trace was {trial.trace:08x}, then {told}; "
            "the program takes time, chance or an order of sets from outside the simulation",
            pytrace=False,
        )
