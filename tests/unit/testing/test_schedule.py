"""How a run of a schedule fails: whatever ends it is a finding of its seed, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import MasterUnavailableError, UnknownDataError
from lunalog.testing import sim
from lunalog.testing.cluster import Shape, SimulatedCluster
from lunalog.testing.gray import GraySchedule
from lunalog.testing.plan import Plan
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


@pytest.mark.parametrize("is_damaged", [True, False])
def test_copies_that_cannot_be_read_at_the_end_must_have_been_damaged(
    monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    inspect = Schedule._inspect

    async def blindly(schedule: Schedule, server: Any) -> None:
        async def unknown(*_: Any) -> None:
            raise UnknownDataError("it cannot be read")

        monkeypatch.setattr(server.log, "read", unknown)
        if is_damaged:
            schedule.cluster.ever_damaged.add(server.name)
        await inspect(schedule, server)

    monkeypatch.setattr(Schedule, "_inspect", blindly)
    result = run_schedule(Plan(1, storm_s=0.5))
    told = any(found.startswith("UnknownDataError") for found in result.violations)
    assert told == (not is_damaged)


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
