"""Whole simulated schedules: a seed replays exactly, and seeds that once broke something stay whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lunalog.testing import sim
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import ScheduleResult, run_schedule
from lunalog.testing.shrink import shrink, violation_class

TRACE = """
import sys
from lunalog.testing import sim
from lunalog.testing.schedule import run_schedule
sim.hush()
result = run_schedule(int(sys.argv[1]))
print(result.trace, result.steps, result.acks)
"""

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
"""Plans that once failed, or reach what did: data, so that they survive changes of what a seed draws."""


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


def told(result: ScheduleResult) -> str:
    return f"{result.trace} {result.steps} {result.acks}"


def test_a_seed_replays_exactly_whatever_the_hash_seed() -> None:
    seed = 5
    runs = []
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", TRACE, str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(done.stdout.strip())
    assert runs[0] == runs[1]
    assert told(run_schedule(seed)) == runs[0]
    assert told(run_schedule(seed + 1)) != runs[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_plan_that_was_kept_stays_whole(case: Path) -> None:
    plan = Plan.decode(case.read_bytes())
    result = run_schedule(plan)
    assert not result.violations
    assert result.acks > 0
    assert result.checked["model"] > 0
    assert {fault.kind for fault in plan.faults} & set(result.faults)


def forget_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a bug: servers forget their promises at every start."""
    from lunalog.server import facts
    from lunalog.storage.records import PromiseRecord

    replay = facts.replay

    def forgetful(replica: object, record: object, damage: object) -> None:
        if type(record) is not PromiseRecord:
            replay(replica, record, damage)  # type: ignore[arg-type]

    monkeypatch.setattr(facts, "replay", forgetful)


def test_a_broken_rule_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: servers that forget their promises lose what was acknowledged."""
    forget_promises(monkeypatch)
    failing = next(r for seed in range(200) if (r := run_schedule(seed)).violations)
    plan = Plan.draw(failing.seed)
    found = shrink(plan, failing, trials_most=60)
    assert 0 < len(found.plan.faults) < len(plan.faults)
    assert found.plan.storm_s <= plan.storm_s
    assert violation_class(found.result) == violation_class(failing)
    again = run_schedule(Plan.decode(found.plan.encode()))
    assert (again.trace, again.violations) == (found.result.trace, found.result.violations)


def test_the_runner_sums_up_and_fails_for_a_violation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(seed: int) -> ScheduleResult:
        found = ["I2: gone"] if seed == 3 else []
        return ScheduleResult(seed, acks=60, elections=2, faults={"kill": 12}, violations=found)

    monkeypatch.setattr(sim, "run_all", lambda seeds, jobs: map(broken, seeds))
    assert sim.main(["--seeds", "3", "--jobs", "1"]) == 0
    assert "3 schedules, 36 faults, 6 elections, 180 acks" in capsys.readouterr().out
    assert sim.main(["--seeds", "5", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert "make sim SEED=3" in told
    assert "SHRINK=1" in told
    assert "FAILED: seeds 3" in told


def test_a_blind_workload_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def idle(seed: int) -> ScheduleResult:
        return ScheduleResult(seed, acks=1, elections=1, faults={"kill": 12}, checked={"I1": 0})

    monkeypatch.setattr(sim, "run_all", lambda seeds, jobs: map(idle, seeds))
    assert sim.main(["--seeds", "50", "--jobs", "1"]) == 1
    assert "BLIND: too little of I1, acks (1.0 a schedule, 50 wanted)" in capsys.readouterr().out
