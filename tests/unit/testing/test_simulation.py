"""A run is a function of its seed, whatever the hash seed of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lunalog.testing.simulation import Simulation, SimulationError

SCHEDULE = Path(__file__).with_name("busy_schedule.py")


def traces(hash_seed: str) -> list[str]:
    """Run the schedule for some seeds in another interpreter."""
    environment = dict(os.environ, PYTHONHASHSEED=hash_seed, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, str(SCHEDULE), "1", "2", "3"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")


@pytest.mark.slow
def test_equal_seeds_give_equal_traces_under_any_hash_seed() -> None:
    """The traces hold times, bytes and counters; different seeds give different ones."""
    first, *others = [traces(hash_seed) for hash_seed in ("0", "1", "4711")]
    assert len(set(first)) == 4  # three seeds and the end of the output
    assert all(found == first for found in others)


def test_a_run_needs_its_context() -> None:
    simulation = Simulation(1)
    with pytest.raises(SimulationError, match="context manager"):
        simulation.run_for(1)


def test_streams_do_not_shift_each_other() -> None:
    """Drawing more for one concern changes nothing for the next."""
    one, other = Simulation(4), Simulation(4)
    one.stream("a").random()
    assert one.stream("b").random() == other.stream("b").random()
    assert one.stream("a") is one.stream("a")


def test_counters_and_clock_are_told() -> None:
    with Simulation(1) as simulation:
        before = simulation.trace_hash
        simulation.count("flips")
        assert simulation.counters == {"flips": 1}
        assert simulation.trace_hash != before
        simulation.run_until(3)
        assert simulation.now == 3
