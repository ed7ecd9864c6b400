"""D9: a server loses its disk, and has its copies again without an operator (R19, R21)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lunalog.master.commands import Commands
from lunalog.master.servers import Server
from lunalog.testing import sim
from lunalog.testing.cluster import Shape, StreamShape
from lunalog.testing.nemesis import Fault
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import ScheduleResult, run_schedule
from lunalog.testing.tempo import Tempo
from lunalog.testing.workload import Mix
from lunalog.wire.messages import SegmentFact

WIPED_AT_S = 3.0
"""Some segments are sealed by then, and all their replicas have confirmed that they are complete."""
SEED = 3


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


def run_with_one_wipe() -> ScheduleResult:
    """Nothing else goes wrong; no master starts anew, which would ask everybody for everything."""
    shape = Shape((StreamShape("stream-1", 3, 2, segment_bytes=2000),))
    faults = (Fault(1, WIPED_AT_S, "wipe"),)
    return run_schedule(Plan(SEED, shape, Mix(), Tempo(), WIPED_AT_S + 1.0, faults=faults))


def test_r19_a_wiped_server_gets_back_what_it_had_confirmed() -> None:
    result = run_with_one_wipe()
    assert not result.violations
    assert result.faults["wipe"] == 1


def test_canary_a_master_that_counts_on_what_was_confirmed_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take_facts_only(self: Commands, server: Server, facts: Iterable[SegmentFact]) -> None:
        duties = self._of(server.member.server)
        for told in (duties.ids, duties.sent, duties.trimmed):
            told.clear()
        self.facts(server, facts)

    monkeypatch.setattr(Commands, "registered", take_facts_only)
    (violation,) = run_with_one_wipe().violations
    assert "nobody could complete every replica" in violation
