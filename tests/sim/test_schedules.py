"""Whole simulated schedules: a seed replays exactly, and seeds that once broke something stay whole."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lunalog.testing import sim
from lunalog.testing.schedule import ScheduleResult, run_schedule

TRACE = """
import sys
from lunalog.testing import sim
from lunalog.testing.schedule import run_schedule
sim.hush()
result = run_schedule(int(sys.argv[1]))
print(result.trace, result.steps, result.acks)
"""

REGRESSIONS = {
    13: "a takeover compared the chain of a member that had never seen the segment",
    15: "a start took its own tail for damage",
    17: "a failed read made a range unknown for good",
    5568956100: "two failed reads in a row made a range unknown for good",
    46: "a late refused check was held against the segment that came after",
    7025: "a dead client's late beat ended its successor",
    7044: "a dead server's late registration made its successor a stranger",
    7271: "an older checkpoint did not trust two takeovers in a row",
    12036: "a segment that was carried over whole was taken for lost metadata",
    30989: "a head that was read before a certificate was given was held against it",
    50829: "an old disk image was put back before anything behind it had been reported",
    77: "a checkpoint forgot frames whose OPEN record was damaged",
}


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


@pytest.mark.parametrize("seed", sorted(REGRESSIONS))
def test_a_seed_that_once_failed_stays_whole(seed: int) -> None:
    result = run_schedule(seed)
    assert not result.violations, REGRESSIONS[seed]
    assert result.acks > 0
    assert result.checked["model"] > 0


def test_a_broken_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: servers that forget their promises at every start lose what was acknowledged."""
    from lunalog.server import facts
    from lunalog.storage.records import PromiseRecord

    replay = facts.replay

    def forgetful(replica: object, record: object, damage: object) -> None:
        if type(record) is not PromiseRecord:
            replay(replica, record, damage)  # type: ignore[arg-type]

    monkeypatch.setattr(facts, "replay", forgetful)
    assert any(run_schedule(seed).violations for seed in range(40))


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
    assert "FAILED: seeds 3" in told


def test_a_blind_workload_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def idle(seed: int) -> ScheduleResult:
        return ScheduleResult(seed, acks=1, elections=1, faults={"kill": 12}, checked={"I1": 0})

    monkeypatch.setattr(sim, "run_all", lambda seeds, jobs: map(idle, seeds))
    assert sim.main(["--seeds", "50", "--jobs", "1"]) == 1
    assert "BLIND: too little of I1, acks (1.0 a schedule, 50 wanted)" in capsys.readouterr().out
