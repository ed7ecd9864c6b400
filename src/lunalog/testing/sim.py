"""Run simulated schedules by seed: `python -m lunalog.testing.sim --seeds 1000 --from 0`.

`--seed 7` replays one and shows what it did; `--shrink` then looks for fewer faults that break the same,
and `--only 3,7 --storm 1.5 --calm` runs what it found: some of the seed's faults, a shorter storm, a
good network and store.  `--save FILE` keeps the plan as data, which `--plan FILE` runs whatever a seed
has come to mean since.  The exit status is 1 when an invariant was broken, a
schedule did not converge, or the workload was blind (a checker had nothing to look at in all runs).
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lunalog.testing.harm import DIED
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import ScheduleResult, run_schedule
from lunalog.testing.shrink import replay_arguments, shrink, violation_class
from lunalog.testing.transitions import OF_STORMS

SCHEDULES_PER_PROCESS = 50
"""What dead processes of a run leave behind is only given back with the process that ran it."""
LEAST_ACKS, LEAST_FAULTS, LEAST_ELECTIONS = 50, 10, 1
"""What schedules must reach on average, or they prove little."""


def run_all(seeds: range, jobs: int) -> Iterator[ScheduleResult]:
    """Yield results as they come, in order of seed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lunalog.testing.schedule"])
    with context.Pool(jobs, hush, maxtasksperchild=SCHEDULES_PER_PROCESS) as pool:
        yield from pool.imap(run_schedule, seeds, chunksize=1)


def hush() -> None:
    """Keep what the simulated processes log to themselves."""
    logging.getLogger("lunalog").setLevel(logging.CRITICAL + 1)


class Totals:
    """What many schedules add up to."""

    def __init__(self) -> None:
        self.schedules = self.acks = self.elections = self.steps = 0
        self.faults: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self.failed: list[ScheduleResult] = []

    def add(self, result: ScheduleResult) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.acks += result.acks
        self.elections += result.elections
        self.steps += result.steps
        self.faults.update(result.faults)
        self.noticed.update(result.noticed)
        self.checked.update(result.checked)
        if result.violations:
            self.failed.append(result)

    def blind_spots(self) -> list[str]:
        """What the workload did not exercise enough to prove anything."""
        found = [name for name, count in sorted(self.checked.items()) if count == 0]
        for name, total, least in (
            ("acks", self.acks, LEAST_ACKS),
            ("faults", self.faults.total(), LEAST_FAULTS),
            ("elections", self.elections, LEAST_ELECTIONS),
        ):
            if total < least * self.schedules:
                found.append(f"{name} ({total / self.schedules:.1f} a schedule, {least} wanted)")
        return found

    def deaths(self) -> str:
        """At which transactions a master died that was aimed at them, and at which none did."""
        found = {
            name: [self.noticed[f"{DIED} {when} {name}"] for when in ("before", "after")]
            for name in OF_STORMS
        }
        hit = [f"{name} {b}/{a}" for name, (b, a) in found.items() if a or b]
        missed = [name for name, counts in found.items() if not any(counts)]
        return "; ".join(", ".join(names) for names in (hit, ["never at", *missed]) if names)

    def show(self, took_s: float) -> None:
        """Print the sums."""
        print(
            f"{self.schedules} schedules, {self.faults.total()} faults, {self.elections} elections, "
            f"{self.acks} acks, {self.steps} steps, {self.schedules / took_s:.1f} schedules/s"
        )
        print("faults:   " + ", ".join(f"{k} {n}" for k, n in sorted(self.faults.items())))
        print(f"died:     the master before/after {self.deaths()}")
        rest = {k: n for k, n in self.noticed.items() if not k.startswith(DIED)}
        print("noticed:  " + ", ".join(f"{k} {n}" for k, n in sorted(rest.items())))
        print("checked:  " + ", ".join(f"{k} {n}" for k, n in self.checked.items()))


def show_failure(result: ScheduleResult, limit: int = 1000) -> None:
    """Print what one schedule broke and how to see it again."""
    print(f"seed {result.seed}: {len(result.violations)} violations")
    for violation in result.violations[:5]:
        print(f"  {violation[:limit]}")
    print(f"  replay: make sim SEED={result.seed}, smaller: add SHRINK=1", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, sum up."""
    parser = argparse.ArgumentParser(prog="lunalog.testing.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many schedules")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="replay this one and show its story")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    one = parser.add_argument_group("one schedule")
    one.add_argument("--plan", type=Path, help="run what --save has kept")
    one.add_argument("--only", type=_numbers, help="faults to keep, by number, or none")
    one.add_argument("--storm", type=float, help="seconds of faults")
    one.add_argument("--calm", action="store_true", help="a good network and metadata store")
    one.add_argument("--shrink", action="store_true", help="look for a smaller one that fails")
    one.add_argument("--save", type=Path, help="keep the plan, the smaller one if it was shrunk")
    wanted = parser.parse_args(arguments)
    if wanted.seed is not None or wanted.plan is not None:
        return replay(_plan(wanted), shrinks=wanted.shrink, save=wanted.save)
    seeds = range(wanted.first, wanted.first + wanted.seeds)
    if not seeds:
        parser.error("--seeds must be at least 1")
    totals = Totals()
    started = time.perf_counter()
    for result in run_all(seeds, wanted.jobs):
        totals.add(result)
        if result.violations:
            show_failure(result)
        if sys.stderr.isatty():
            print(f"\r{totals.schedules}/{len(seeds)}", end="", file=sys.stderr, flush=True)
    totals.show(time.perf_counter() - started)
    if totals.failed:
        print(f"FAILED: seeds {', '.join(str(result.seed) for result in totals.failed)}")
        return 1
    if len(seeds) >= 50 and (blind := totals.blind_spots()):
        print(f"BLIND: too little of {', '.join(blind)}")
        return 1
    print("no violation")
    return 0


def _numbers(text: str) -> list[int]:
    return [] if text == "none" else [int(number) for number in text.split(",")]


def _plan(wanted: argparse.Namespace) -> Plan:
    plan = Plan.draw(wanted.seed) if wanted.plan is None else Plan.decode(wanted.plan.read_bytes())
    if wanted.only is not None:
        plan = plan.only(wanted.only)
    if wanted.storm is not None:
        plan = replace(plan, storm_s=wanted.storm)
    return plan.calm() if wanted.calm else plan


def replay(plan: Plan, *, shrinks: bool = False, save: Path | None = None) -> int:
    """Run one plan and print its options, story and findings; make it smaller first if asked."""
    result = run_schedule(plan)
    if shrinks and result.violations:
        hush()
        before = len(plan.faults)
        smaller = shrink(plan, result)
        plan, result = smaller.plan, smaller.result
        print(
            f"shrunk from {before} faults to {len(plan.faults)} in {smaller.trials} runs: "
            f"{violation_class(result)}"
        )
    if save is not None:
        save.write_bytes(plan.encode())
    for line in result.story:
        print(line)
    print(f"trace {result.trace:08x}, {result.steps} steps")
    for name, count in result.checked.items():
        print(f"{name}: {count} checked")
    if result.violations:
        show_failure(result, limit=100_000)
        print(f"  this one: python -m lunalog.testing.sim {replay_arguments(plan)}")
        return 1
    print(f"{result.acks} acks, {result.elections} elections, {sum(result.faults.values())} faults")
    print("no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
