"""Kill every mutant, and say what each took: `python -m tests.mutants [NAME ...] [--cap N]`.

For each mutant its workload is run with the fault in place, seed after seed, until a run finds
something wrong; the same seed must then be clean without the fault, or it counts for nothing.  First
the shipped code has to survive some seeds of every workload.  The exit status is 1 when it does not,
when a mutant survives its cap, or when nobody ever called what it replaces.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import time
from dataclasses import dataclass

from tests.mutants import faults
from tests.mutants.moments import WORKLOADS
from tests.mutants.registry import MUTANTS

from lunalog.testing.sim import hush

CAP = 2_000
CONTROLS = 5
"""Seeds of each workload that the shipped code must survive first."""


@dataclass(slots=True)
class Outcome:
    """What one mutant took."""

    name: str
    schedules: int = 0
    calls: int = 0
    killed_by: str = ""
    seed: int = -1
    spoiled: int = 0
    """Seeds that fail without the fault as well."""
    took_s: float = 0.0

    @property
    def is_killed(self) -> bool:
        return bool(self.killed_by) and self.calls > 0


def control(job: tuple[str, int]) -> tuple[str, int, list[str]]:
    """Run the shipped code."""
    workload, seed = job
    return workload, seed, WORKLOADS[workload](seed)


def hunt(job: tuple[str, int, int]) -> Outcome:
    """Run one mutant until it is killed, or its cap is reached."""
    name, first, cap = job
    mutant = MUTANTS[name]
    run = WORKLOADS[mutant.workload]
    outcome = Outcome(name)
    began = time.process_time()
    for seed in range(first, first + cap):
        outcome.schedules += 1
        with mutant.applied() as calls:
            found = run(seed)
        outcome.calls += calls.count
        if not found:
            continue
        if run(seed):
            outcome.spoiled += 1
            continue
        outcome.killed_by, outcome.seed = found[0], seed
        break
    outcome.took_s = time.process_time() - began
    return outcome


def show(outcome: Outcome) -> None:
    """Print one line of the table."""
    mutant = MUTANTS[outcome.name]
    what = " ".join(outcome.killed_by.split())[:90] or "SURVIVES"
    if not outcome.calls:
        what = "NEVER CALLED"
    print(
        f"{mutant.name:36} {mutant.rule:12} {mutant.workload:12} {outcome.schedules:5} "
        f"{outcome.calls:9} {outcome.took_s:7.1f}  {what}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, judge."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutants")
    parser.add_argument("--cap", type=int, default=CAP, help="most schedules for one mutant")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first seed")
    parser.add_argument(
        "--controls", type=int, default=CONTROLS, help="seeds that the shipped code must survive"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="only say which there are")
    wanted = parser.parse_args(arguments)
    names = wanted.names or [name for name in MUTANTS if name not in faults.OPEN]
    if unknown := set(names) - set(MUTANTS):
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    if wanted.list:
        for name in MUTANTS:
            print(f"{name:36} {MUTANTS[name].rule:12} {MUTANTS[name].breaks}")
        return 0
    workloads = sorted({MUTANTS[name].workload for name in names})
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(wanted.jobs, hush, maxtasksperchild=4) as pool:
        jobs = [(w, wanted.first + n) for n in range(wanted.controls) for w in workloads]
        failed = [found for found in pool.imap_unordered(control, jobs) if found[2]]
        for workload, seed, found in failed:
            print(f"the code as shipped fails {workload} {seed}: {found[0][:500]}", flush=True)
        print(f"{len(jobs) - len(failed)} of {len(jobs)} control runs are clean", flush=True)
        print(f"{'mutant':36} {'rule':12} {'workload':12} {'runs':>5} {'calls':>9} {'cpu s':>7}")
        outcomes = []
        for outcome in pool.imap_unordered(hunt, [(n, wanted.first, wanted.cap) for n in names]):
            outcomes.append(outcome)
            show(outcome)
    return conclude(outcomes, bool(failed), time.perf_counter() - began)


def conclude(outcomes: list[Outcome], has_failed: bool, took_s: float) -> int:
    """Print the sums; returns the exit status."""
    killed = [outcome for outcome in outcomes if outcome.is_killed]
    rules = collections.Counter(MUTANTS[outcome.name].rule.split(",")[0] for outcome in killed)
    print(
        f"{len(killed)} of {len(outcomes)} mutants killed in {sum(o.schedules for o in outcomes)} "
        f"schedules, {took_s:.0f} s; {len(rules)} rules and traps"
    )
    for outcome in outcomes:
        if outcome.spoiled:
            print(f"{outcome.name}: {outcome.spoiled} seeds fail without it as well")
    if faults.OPEN:
        print(f"not run, the workloads are blind there: {', '.join(sorted(faults.OPEN))}")
    alive = [outcome.name for outcome in outcomes if not outcome.is_killed]
    if alive:
        print(f"SURVIVED: {', '.join(alive)}")
    return 1 if alive or has_failed or not outcomes else 0


faults.load()
