"""K2: a leader recovers what five before it began to recover, each of which died of it."""

from __future__ import annotations

import pytest

from lunalog.testing import sim
from lunalog.testing.cluster import Shape, StreamShape
from lunalog.testing.focus import CUT_SHORT
from lunalog.testing.link import NetworkSettings
from lunalog.testing.nemesis import Fault
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import run_schedule
from lunalog.testing.tempo import Tempo
from lunalog.testing.workload import Mix

PAIRS = ((3, 2), (4, 3), (3, 3))
STORM_S, EVERY_S = 9.0, 1.5


def plan_of(seed: int) -> Plan:
    """One stream on a cluster that lives fast, whose new leaders are hunted one after another."""
    hunts = range(1, int(STORM_S / EVERY_S))
    return Plan(
        seed,
        Shape((StreamShape("stream-1", *PAIRS[seed % len(PAIRS)]),), spares=1),
        Mix(truncate_rate=0.02, turn_s=30.0),
        Tempo(lease_ms=400, roll_ack_timeout_ms=50, session_grace_ms=20, extent_bytes=1 << 17),
        STORM_S,
        NetworkSettings(delay_s=(0.001, 0.003)),
        faults=tuple(Fault(number, number * EVERY_S, "hunt") for number in hunts),
    )


@pytest.mark.parametrize("seed", range(len(PAIRS)))
def test_a_recovery_behind_five_that_were_cut_short_loses_nothing(seed: int) -> None:
    sim.hush()
    result = run_schedule(plan_of(seed))
    assert not result.violations
    assert result.checked["model"] > 0
    assert result.noticed[CUT_SHORT] >= 1
