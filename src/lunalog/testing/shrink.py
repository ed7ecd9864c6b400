"""Makes a failing plan smaller, as long as it fails in the same way.

What is left out changes nobody else's choices (see `plan`), but it does change when things happen, so
a smaller plan is a failing run of its own, not a part of the first one.  The search is the usual one:
leave out half of the faults, then quarters, down to single ones, and begin again after each success.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from lunalog.testing.plan import Plan
from lunalog.testing.schedule import ScheduleResult, run_schedule

TRIALS_MOST: Final = 200
MARGIN_S: Final = 0.001


@dataclass(slots=True)
class Shrunk:
    """The smallest plan that was found, what it breaks, and how many runs that took."""

    plan: Plan
    result: ScheduleResult
    trials: int = 0
    steps: list[str] = field(default_factory=list)


def violation_class(result: ScheduleResult) -> str:
    """Say in what way a run failed, so that two runs can be compared; empty for a run that passed.

    It is the invariant that was broken, the stage that did not end, or the error of whom.
    """
    if not result.violations:
        return ""
    first = result.violations[0].partition("\n")[0]
    first = re.sub(r"^seed \d+ at [\d.]+ s: ", "", first)
    invariant = re.match(r"[ILZ]\d+\b", first)
    if invariant:
        return invariant[0]
    return re.sub(r"\d+", "N", first)[:80]


def shrink(
    plan: Plan,
    result: ScheduleResult | None = None,
    *,
    run: Callable[[Plan], ScheduleResult] = run_schedule,
    trials_most: int = TRIALS_MOST,
) -> Shrunk:
    """Find a smaller plan that fails as `plan` does.

    Args:
        plan: It fails.
        result: What `run(plan)` gave, if that is known.
        run: Runs a plan.
        trials_most: Runs after which the smallest so far is good enough.

    Raises:
        ValueError: `plan` does not fail.
    """
    best = Shrunk(plan, result if result is not None else run(plan))
    wanted = violation_class(best.result)
    if not wanted:
        raise ValueError(f"the plan of seed {plan.seed} does not fail")
    found = True
    while found and best.trials < trials_most:
        found = False
        for what, smaller in _smaller(best.plan):
            if best.trials >= trials_most:
                break
            best.trials += 1
            outcome = run(smaller)
            if violation_class(outcome) == wanted:
                best.plan, best.result, found = smaller, outcome, True
                best.steps.append(what)
                break
    return best


def _smaller(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans a step smaller, the boldest first."""
    last = max((fault.at for fault in plan.faults), default=0.0) + MARGIN_S
    for storm_s in (last, (last + plan.storm_s) / 2):
        if storm_s < plan.storm_s - 2 * MARGIN_S:
            yield f"storm of {storm_s:.3f} s", replace(plan, storm_s=round(storm_s, 3))
    calm = plan.calm()
    if calm != plan:
        yield "calm", calm
    kinds = sorted({fault.kind for fault in plan.faults})
    if len(kinds) > 1:
        for kind in kinds:
            yield f"no {kind}", plan.only(f.number for f in plan.faults if f.kind != kind)
    numbers, size = plan.numbers, (len(plan.faults) + 1) // 2
    while size:
        for start in range(0, len(numbers), size):
            dropped = set(numbers[start : start + size])
            yield f"without {sorted(dropped)}", plan.only(set(numbers) - dropped)
        size //= 2


def replay_arguments(plan: Plan) -> str:
    """Say how to run a cut-down plan of a seed again, as arguments of `lunalog.testing.sim`."""
    drawn, parts = Plan.draw(plan.seed), [f"--seed {plan.seed}"]
    if plan.numbers != drawn.numbers:
        parts.append(f"--only {','.join(map(str, plan.numbers)) or 'none'}")
    if plan.storm_s != drawn.storm_s:
        parts.append(f"--storm {plan.storm_s}")
    if plan.network != drawn.network or plan.store != drawn.store:
        parts.append("--calm")
    return " ".join(parts)
