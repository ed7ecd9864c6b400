"""Run simulated schedules by seed: `python -m lunalog.testing.sim --seeds 1000 --from 0`.

`--seed 7` replays one and shows what it did.  The exit status is 1 when an invariant was broken, a
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

from lunalog.testing.schedule import ScheduleResult, run_schedule

SCHEDULES_PER_PROCESS = 50
"""What dead processes of a run leave behind is only given back with the process that ran it."""
LEAST_ACKS, LEAST_FAULTS, LEAST_ELECTIONS = 50, 10, 1
"""What schedules must reach on average, or they prove little."""


def run_all(seeds: range, jobs: int) -> Iterator[ScheduleResult]:
    """Yield results as they come, in order of seed."""
    context = multiprocessing.get_context("spawn")
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
        self.checked: Counter[str] = Counter()
        self.failed: list[ScheduleResult] = []

    def add(self, result: ScheduleResult) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.acks += result.acks
        self.elections += result.elections
        self.steps += result.steps
        self.faults.update(result.faults)
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

    def show(self, took_s: float) -> None:
        """Print the sums."""
        print(
            f"{self.schedules} schedules, {self.faults.total()} faults, {self.elections} elections, "
            f"{self.acks} acks, {self.steps} steps, {self.schedules / took_s:.1f} schedules/s"
        )
        print("faults:   " + ", ".join(f"{k} {n}" for k, n in sorted(self.faults.items())))
        print("checked:  " + ", ".join(f"{k} {n}" for k, n in self.checked.items()))


def show_failure(result: ScheduleResult, limit: int = 1000) -> None:
    """Print what one schedule broke and how to see it again."""
    print(f"seed {result.seed}: {len(result.violations)} violations")
    for violation in result.violations[:5]:
        print(f"  {violation[:limit]}")
    print(f"  replay: make sim SEED={result.seed}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, sum up."""
    parser = argparse.ArgumentParser(prog="lunalog.testing.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many schedules")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="replay this one and show its story")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args(arguments)
    if wanted.seed is not None:
        return replay(wanted.seed)
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


def replay(seed: int) -> int:
    """Run one seed and print its options, story and findings."""
    result = run_schedule(seed)
    for line in result.story:
        print(line)
    print(f"trace {result.trace:08x}, {result.steps} steps")
    for name, count in result.checked.items():
        print(f"{name}: {count} checked")
    if result.violations:
        show_failure(result, limit=100_000)
        return 1
    print(f"{result.acks} acks, {result.elections} elections, {sum(result.faults.values())} faults")
    print("no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
