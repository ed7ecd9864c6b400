"""The fixture `lunalog_trial` runs a test by seed, and a failure says how to see it again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CALM = """
    import pytest

    async def idle(journal):
        await journal.create_stream("s", exist_ok=True)

    {marker}
    def test_calm(lunalog_trial, lunalog_seed):
        assert lunalog_trial.seed == lunalog_seed
        lunalog_trial.start(idle)
        lunalog_trial.storm(0.5)
        assert lunalog_seed != 3, "three is bad"
"""
MARKED = CALM.format(marker="@pytest.mark.lunalog(seeds=3, nodes=1, faults=())")
ORDERED = """
    import asyncio, os, pytest

    @pytest.mark.lunalog(seeds=1, nodes=1, faults=())
    def test_order(lunalog_trial):
        async def program(journal):
            for name in {{"a", "b", "c", "d", "e", "f", "g", "h"}} {order}:
                await journal.create_stream(name, exist_ok=True)
            {more}

        lunalog_trial.start(program)
        lunalog_trial.storm(2.0)
"""
OPTIONS = ("-p", "no:xdist", "-p", "no:asyncio")


def seeds(result: pytest.RunResult) -> list[str]:
    return [line.partition("[")[2].partition("]")[0] for line in result.outlines if "[seed" in line]


def collect(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    return seeds(pytester.runpytest_inprocess(*OPTIONS, "--collect-only", "-q", *arguments))


def test_a_test_runs_once_for_each_seed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CALM.format(marker=""))
    assert collect(pytester) == [f"seed{n}" for n in range(10)]
    assert collect(pytester, "--lunalog-seeds=2") == ["seed0", "seed1"]
    assert collect(pytester, "--lunalog-seeds=2", "--lunalog-from=40") == ["seed40", "seed41"]
    assert collect(pytester, "--lunalog-seed=7", "--lunalog-seed=99") == ["seed7", "seed99"]


def test_the_marker_says_how_many_seeds_unless_the_command_line_does(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(MARKED)
    assert collect(pytester) == ["seed0", "seed1", "seed2"]
    assert collect(pytester, "--lunalog-seeds=1") == ["seed0"]
    assert pytester.runpytest_inprocess(*OPTIONS, "--strict-markers").ret == pytest.ExitCode.OK


def test_no_seed_at_all_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(*OPTIONS, "--lunalog-seeds=0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*--lunalog-seeds: at least 1")


def test_a_failure_says_how_to_replay_it_and_what_happened(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(MARKED)
    result = pytester.runpytest_inprocess(*OPTIONS, "--lunalog-seed=2", "--lunalog-seed=3")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*three is bad*",
            f"replay: pytest '{path.name}::test_calm' --lunalog-seed 3",
            "seed 3, 0.500 virtual seconds, trace *",
            "happened: nothing",
            "node-1: returned",
        ]
    )


def test_the_command_of_a_failure_replays_it(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(MARKED)
    command = (f"{path.name}::test_calm", "--lunalog-seed", "3")
    runs = [pytester.runpytest_inprocess(*OPTIONS, *command) for _ in range(2)]
    traces = [[line for line in run.outlines if "virtual seconds" in line] for run in runs]
    assert traces[0] == traces[1] != []


def test_a_run_that_depends_on_the_order_of_a_set_is_found_by_running_it_twice(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    pytester.makepyfile(ORDERED.format(order="", more=""))
    result = pytester.runpytest_subprocess("--lunalog-twice")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("seed 0 is not deterministic: its trace was *, then *")


def test_a_run_that_is_a_function_of_its_seed_passes_twice(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ORDERED.format(order="and 'a'", more=""))
    pytester.makeini("[pytest]")
    pytester.runpytest_inprocess("-p", "no:asyncio", "--lunalog-twice").assert_outcomes(passed=1)


def test_a_run_that_fails_only_the_second_time_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    more = "assert os.environ['PYTHONHASHSEED'] == '1', 'another one'"
    pytester.makepyfile(ORDERED.format(order="and 'a'", more=more))
    result = pytester.runpytest_inprocess(*OPTIONS, "--lunalog-twice")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["seed 0 failed when it was run again:", "*ViolationError*another one*"]
    )


def test_a_test_without_a_trial_has_nothing_of_ours(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): assert False")
    result = pytester.runpytest_inprocess(*OPTIONS, "--lunalog-twice")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*replay:*")


def test_the_plugin_imports_nothing_of_lunalog_before_it_is_used() -> None:
    code = (
        "import pytest, sys, lunalog.testing.pytest_plugin; "
        "print(sorted(m for m in sys.modules if m.startswith(('lunalog', 'msgspec'))))"
    )
    unmeasured = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=unmeasured, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(
        ["lunalog", "lunalog.testing", "lunalog.testing.pytest_plugin"]
    )
