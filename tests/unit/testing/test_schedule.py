"""How a run of a schedule fails: whatever ends it is a finding of its seed, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import MasterUnavailableError
from lunalog.testing import sim
from lunalog.testing.cluster import Shape, SimulatedCluster
from lunalog.testing.gray import GraySchedule
from lunalog.testing.schedule import Schedule, run_schedule
from lunalog.testing.simulation import Simulation


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


@pytest.mark.parametrize(
    ("error", "said"),
    [(ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"), (TimeoutError(), "not converge")],
    ids=["a bug", "too long"],
)
def test_what_ends_a_run_is_told_as_a_violation(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    async def storm(_: Schedule) -> None:
        raise error

    monkeypatch.setattr(Schedule, "storm", storm)
    result = run_schedule(1)
    assert said in result.violations[0]


def test_a_rule_that_breaks_in_a_run_is_told_as_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def storm(schedule: Schedule) -> None:
        schedule.simulation.violate("I1: two of them")

    monkeypatch.setattr(Schedule, "storm", storm)
    assert any("I1: two of them" in found for found in run_schedule(1).violations)


def test_a_gray_spell_that_its_leader_does_not_live_through_measures_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def once(schedule: Any, journal: Any, _: str) -> None:
        async with journal.lead("steady") as writer:
            await schedule._appender.lone(journal, writer)

    monkeypatch.setattr(GraySchedule, "_append", once)
    with pytest.raises(RuntimeError, match="the leader has gone"):
        GraySchedule(1, (2, 2), "disk", 10.0).run()


def test_a_client_that_finds_no_master_dials_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster starts all at once, and a master may take longer than a client waits."""
    connect, dialled = SingleWriteJournal.connect, []

    def flaky(*arguments: Any, **more: Any) -> Any:
        dialled.append(more["peer"])
        if len(dialled) > 1:
            return connect(*arguments, **more)

        async def refused() -> None:
            raise MasterUnavailableError("nobody there")

        return refused()

    came: list[str] = []

    async def work(journal: Any, name: str) -> None:
        came.append(name)

    with Simulation(1) as simulation:
        cluster = SimulatedCluster(simulation, Shape())
        monkeypatch.setattr(SingleWriteJournal, "connect", flaky)
        cluster.start(work)
        simulation.run_for(5)
    assert len(dialled) == len(set(dialled)) + 1
    assert sorted(came) == sorted(set(dialled))
