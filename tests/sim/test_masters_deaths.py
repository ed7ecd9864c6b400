"""M1: a master dies right before and right after each kind of transaction that a schedule commits."""

from __future__ import annotations

import random
from itertools import count

from lunalog.testing import sim
from lunalog.testing.cluster import Shape, StreamShape
from lunalog.testing.harm import DIED, aim
from lunalog.testing.metadata import StoreFaults
from lunalog.testing.nemesis import Fault
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import run_schedule
from lunalog.testing.tempo import Tempo
from lunalog.testing.transitions import OF_STORMS
from lunalog.testing.workload import Mix

EVERY = [(when, name) for name in OF_STORMS for when in ("before", "after")]
STORM_S = 12.0
SLOW_STORE = StoreFaults(latency_s=(0.001, 0.002))
"""So slow that what strikes at the beginning is there before the first transaction is."""


def plan_of(seed: int) -> Plan:
    """A run in which everything happens that makes a master write, and it dies at each of it.

    A fault's number is its chance: it is what chooses the aim.
    """
    numbers = {aim(random.Random(f"{seed}/fault {number}")): number for number in range(1, 2000)}
    faults = [Fault(numbers[each], 0.0, "crash_at_transition") for each in EVERY]
    others = (("kill_server", 0.4), ("starve_leader", 1.1), ("wipe", 1.7), ("kill_server", 0.9))
    number = count(5000)
    for kind, every_s in others:
        faults += [
            Fault(next(number), step * every_s, kind) for step in range(1, int(STORM_S / every_s))
        ]
    return Plan(
        seed,
        Shape((StreamShape("stream-1", 3, 2, segment_bytes=2000),), spares=1),
        Mix(truncate_rate=0.1, transfer_rate=0.05, turn_s=1.0, churn_gap_s=0.1),
        Tempo(lease_ms=400, roll_ack_timeout_ms=50, session_grace_ms=20, extent_bytes=1 << 17),
        STORM_S,
        store=SLOW_STORE,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def test_masters_die_before_and_after_everything_that_they_write() -> None:
    """One run reaches most of it, since some is rare; a few reach all."""
    sim.hush()
    missed = {f"{DIED} {when} {name}" for when, name in EVERY}
    for seed in range(12):
        result = run_schedule(plan_of(seed))
        assert not result.violations
        missed -= set(result.noticed)
        if not missed:
            break
    assert not missed
