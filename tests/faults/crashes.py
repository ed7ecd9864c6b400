"""Crash states by the thousand: `python -m tests.faults.crashes --states 20000`.

Every story of one and two operations gets its share of the states, then stories of three and longer
ones drawn by the seed.  `--story "used: roll kill"` tries one story alone.  The exit status is 1 when a
start did not find what it must, when no state was tried, or when the stories were blind.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tests.faults.explorer import DEPTH_MAX, CrashError, Explorer, small_steps
from tests.faults.stories import BASES, STEPS, Story, drawn, short

COLLAPSE_BYTES = (1 << 20, 1 << 10)
"""As shipped: a restart carries the whole of these small extents over; and one that carries a tail."""
STORIES_PER_PROCESS = 100


class Task(NamedTuple):
    """One story, and how many states to try of it."""

    story: Story
    collapse_bytes: int
    states: int
    seed: int


class Result(NamedTuple):
    """What came of it."""

    task: Task
    states: Counter[int]
    seen: Counter[str]
    failure: str | None


def explore(task: Task) -> Result:
    """Try one story."""
    explorer = Explorer(task.seed)
    failure = None
    try:
        with small_steps(task.collapse_bytes):
            explorer.explore(task.story, task.states)
    except CrashError as error:
        failure = str(error)
    finally:
        explorer.close()
    return Result(task, explorer.states, explorer.seen, failure)


def stories_of(states: int, seed: int) -> list[Story]:
    """All of one and two operations, then a share of those of three, and longer ones."""
    chance = random.Random(seed)
    three = short(3)
    found = [*short(1), *short(2)]
    found += chance.sample(three, min(len(three), states // 100))
    found += [drawn(seed + number) for number in range(max(1, states // 200))]
    chance.shuffle(found)
    return found


def tasks_of(states: int, seed: int) -> list[Task]:
    """Share the states out among the stories."""
    stories = stories_of(states, seed)
    share = max(4, 1 + states // len(stories))
    return [
        Task(story, COLLAPSE_BYTES[number % 2], share, seed + number)
        for number, story in enumerate(stories)
    ]


def run_all(tasks: list[Task], jobs: int) -> Iterator[Result]:
    """Yield results as they come."""
    if jobs == 1:
        hush()
        yield from map(explore, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, hush, maxtasksperchild=STORIES_PER_PROCESS) as pool:
        yield from pool.imap_unordered(explore, tasks, chunksize=4)


def hush() -> None:
    """Keep what the servers log to themselves."""
    logging.getLogger("lunalog").setLevel(logging.CRITICAL + 1)


def blind_spots(states: Counter[int], seen: Counter[str]) -> list[str]:
    """What was not tried, so that the run proves little."""
    wanted = ("frames", "promises", "certificates", "extents given back")
    found = [f"crash {depth} deep" for depth in range(1, DEPTH_MAX + 1) if not states[depth]]
    return found + [what for what in wanted if not seen[what]]


def run(tasks: list[Task], states: int, jobs: int) -> int:
    """Run until enough states were tried, and sum up."""
    totals: Counter[int] = Counter()
    seen: Counter[str] = Counter()
    failures: list[Result] = []
    stories = 0
    started = time.perf_counter()
    for result in run_all(tasks, jobs):
        stories += 1
        totals.update(result.states)
        seen.update(result.seen)
        if result.failure is not None:
            failures.append(result)
            print(f"{result.failure[:2000]}", flush=True)
            print(f'  again: make crashes STORY="{result.task.story}"', flush=True)
        if totals.total() >= states:
            break
    took_s = time.perf_counter() - started
    depths = ", ".join(f"{totals[depth]} {depth} deep" for depth in sorted(totals))
    print(f"{totals.total()} crash states ({depths}) of {stories} stories, {took_s:.0f} s")
    print("found again: " + ", ".join(f"{what} {count}" for what, count in sorted(seen.items())))
    if failures:
        print(f"FAILED: {len(failures)} stories")
        return 1
    if blind := blind_spots(totals, seen):
        print(f"BLIND: nothing tried of {', '.join(blind)}")
        return 1
    print("nothing told was lost")
    return 0


def parse_story(text: str) -> Story:
    """Read what a `Story` shows of itself."""
    base, _, rest = text.partition(":")
    rest, _, seed = rest.partition("(seed")
    steps = tuple(rest.split())
    if base not in BASES or not set(steps) <= {*STEPS, "kill"}:
        raise argparse.ArgumentTypeError(f"no such story: {text}")
    return Story(base, steps, int(seed.rstrip(") ") or 0))


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, sum up."""
    parser = argparse.ArgumentParser(prog="tests.faults.crashes", description=__doc__)
    parser.add_argument("--states", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--story", type=parse_story)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args(arguments)
    if wanted.states < 1:
        parser.error("--states must be at least 1")
    tasks = tasks_of(wanted.states, wanted.seed)
    if wanted.story is not None:
        tasks = [
            Task(wanted.story, size, wanted.states // 2, wanted.seed) for size in COLLAPSE_BYTES
        ]
    return run(tasks, wanted.states, wanted.jobs)


if __name__ == "__main__":
    sys.exit(main())
