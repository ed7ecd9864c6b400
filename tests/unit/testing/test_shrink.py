"""A failing plan becomes smaller, fails in the same way, and says how to run it again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lunalog.testing import sim
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import ScheduleResult
from lunalog.testing.shrink import replay_arguments, shrink, violation_class


def fails_if(plan: Plan, needed: set[int]) -> ScheduleResult:
    broken = ["I2: acked, and lost"] if needed <= set(plan.numbers) else []
    return ScheduleResult(plan.seed, violations=broken or ["it does not converge: append"])


def drawn(least: int) -> Plan:
    return next(p for seed in range(100) if len((p := Plan.draw(seed)).faults) >= least)


def test_only_the_faults_that_are_needed_are_left() -> None:
    plan = drawn(20)
    needed = {plan.numbers[3], plan.numbers[15]}
    found = shrink(plan, run=lambda smaller: fails_if(smaller, needed))
    assert set(found.plan.numbers) == needed
    assert found.plan.storm_s == pytest.approx(plan.faults[15].at, abs=0.01)
    assert found.trials < 100


def test_another_failure_is_not_taken_for_the_same() -> None:
    plan = drawn(10)
    found = shrink(plan, run=lambda smaller: fails_if(smaller, set(plan.numbers)))
    assert found.plan.numbers == plan.numbers


def test_the_search_ends() -> None:
    plan = drawn(20)
    found = shrink(plan, run=lambda smaller: fails_if(smaller, set()), trials_most=3)
    assert found.trials == 3
    assert len(found.plan.faults) < len(plan.faults)


def test_what_passes_is_not_shrunk() -> None:
    with pytest.raises(ValueError, match="does not fail"):
        shrink(drawn(1), run=lambda plan: ScheduleResult(plan.seed))


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("I2: acked 7, lost", "I2: acked 9, lost", True),
        ("I2: acked 7, lost", "I3: twice", False),
        ("seed 1 at 0.5 s: server-2 failed: X", "seed 2 at 9.5 s: server-3 failed: X", True),
        ("seed 1 at 0.5 s: server-2 failed: X", "seed 1 at 0.5 s: master failed: X", False),
        ("it does not converge: nobody could append\nhead", "it does not converge: flush", False),
    ],
)
def test_failures_are_compared_by_what_broke(first: str, second: str, is_same: bool) -> None:
    one = violation_class(ScheduleResult(1, violations=[first]))
    other = violation_class(ScheduleResult(2, violations=[second]))
    assert one
    assert (one == other) == is_same


def test_what_is_left_can_be_run_again_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = drawn(5)
    smaller = replace(plan.only(plan.numbers[1:3]), storm_s=0.5).calm()
    ran: list[Plan] = []

    def run(plan: Plan) -> ScheduleResult:
        ran.append(plan)
        return ScheduleResult(plan.seed)

    monkeypatch.setattr(sim, "run_schedule", run)
    assert sim.main(replay_arguments(smaller).split()) == 0
    assert ran == [smaller]
    assert replay_arguments(plan) == f"--seed {plan.seed}"
