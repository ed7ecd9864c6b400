"""The command that runs schedules: which plan it runs, what it prints, and its exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lunalog.testing import sim
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import ScheduleResult
from lunalog.testing.shrink import Shrunk, replay_arguments

DRAWN = next(
    plan for plan in map(Plan.draw, range(1000)) if len(plan.faults) > 2 and plan != plan.calm()
)
SEED = DRAWN.seed


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run; each breaks I2 while any fault is in it."""
    plans: list[Plan] = []

    def run(plan: Plan) -> ScheduleResult:
        plans.append(plan)
        violations = ["I2: gone", "I3: too"] if plan.faults else []
        return ScheduleResult(
            plan.seed, acks=7, elections=2, steps=9, trace=0xABC, faults={"kill": 3},
            checked={"I1": 4}, violations=violations, story=["0.1 kill server-1"],
        )  # fmt: skip

    monkeypatch.setattr(sim, "run_schedule", run)
    return plans


def test_a_seed_is_replayed_with_its_story(
    ran: list[Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sim.main(["--seed", str(SEED), "--only", "none"]) == 0
    assert ran == [DRAWN.only([])]
    assert capsys.readouterr().out.splitlines() == [
        "0.1 kill server-1",
        "trace 00000abc, 9 steps",
        "I1: 4 checked",
        "7 acks, 2 elections, 3 faults",
        "no violation",
    ]


def test_what_a_seed_breaks_is_shown_with_how_to_run_it_again(
    ran: list[Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    number = DRAWN.numbers[0]
    wanted = ["--seed", str(SEED), "--only", str(number), "--storm", "1.5", "--calm"]
    assert sim.main(wanted) == 1
    (plan,) = ran
    assert (plan.numbers, plan.storm_s) == ([number], 1.5)
    assert plan == plan.calm()
    told = capsys.readouterr().out
    assert f"seed {SEED}: 2 violations" in told
    assert "I2: gone" in told
    assert f"this one: python -m lunalog.testing.sim {replay_arguments(plan)}" in told
    assert replay_arguments(plan) == " ".join(wanted)


def test_a_plan_is_kept_and_run_from_what_was_kept(ran: list[Plan], tmp_path: Path) -> None:
    kept = tmp_path / "plan.json"
    assert sim.main(["--seed", str(SEED), "--only", "none", "--save", str(kept)]) == 0
    assert sim.main(["--plan", str(kept)]) == 0
    assert ran == [DRAWN.only([])] * 2


@pytest.mark.parametrize("is_broken", [True, False])
def test_only_what_breaks_something_is_made_smaller(
    monkeypatch: pytest.MonkeyPatch,
    ran: list[Plan],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    is_broken: bool,
) -> None:
    smaller = DRAWN.only(DRAWN.numbers[:1])
    asked: list[Plan] = []

    def shrink(plan: Plan, result: ScheduleResult) -> Shrunk:
        asked.append(plan)
        return Shrunk(smaller, result, trials=4)

    monkeypatch.setattr(sim, "shrink", shrink)
    kept = tmp_path / "plan.json"
    only = [] if is_broken else ["--only", "none"]
    assert sim.main(["--seed", str(SEED), "--shrink", "--save", str(kept), *only]) == is_broken
    told = capsys.readouterr().out
    before = len(DRAWN.faults)
    assert (f"shrunk from {before} faults to 1 in 4 runs: I2" in told) == is_broken
    assert asked == (ran if is_broken else [])
    assert Plan.decode(kept.read_bytes()) == (smaller if is_broken else ran[0])


def test_many_seeds_run_in_processes_of_their_own_and_add_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert sim.main(["--seeds", "2", "--from", "40", "--jobs", "1"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("2 schedules, ")
    assert told.out.endswith("no violation\n")
    assert told.err == "\r1/2\r2/2"


def test_no_seeds_at_all_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        sim.main(["--seeds", "0"])
    assert ended.value.code == 2
    assert "at least 1" in capsys.readouterr().err
