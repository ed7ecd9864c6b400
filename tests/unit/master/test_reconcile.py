"""Keeping a wanted number of servers alive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lunalog.errors import StorageError
from lunalog.master import reconcile
from lunalog.master.reconcile import Plan, ServerUse, plan
from lunalog.orchestrator.base import ProcessInfo
from lunalog.wire.messages import GetHealth, GetServers, RollWanted, ScaleServers


def process(name: str, *, failures: int = 0) -> ProcessInfo:
    return ProcessInfo(name=name, pid=1, alive=failures == 0, failures=failures)


THREE = [process("s1"), process("s2"), process("s3")]


def test_nothing_to_do() -> None:
    assert plan(3, THREE, {}) == Plan()


def test_missing_ones_are_provisioned() -> None:
    assert plan(5, THREE, {}) == Plan(provision=2)


def test_one_that_was_leaving_stays_before_a_new_one_is_made() -> None:
    uses = {"s2": ServerUse(is_leaving=True)}
    assert plan(4, THREE, uses) == Plan(provision=1, stay=("s2",))


def test_the_ones_with_least_on_them_leave() -> None:
    uses = {"s1": ServerUse(segments=0), "s2": ServerUse(segments=9), "s3": ServerUse(segments=1)}
    assert plan(2, THREE, uses) == Plan(leave=("s1",))
    assert plan(1, THREE, {}) == Plan(leave=("s2", "s3"))


def test_a_leaving_one_ends_when_nothing_lists_it() -> None:
    uses = {"s3": ServerUse(is_leaving=True, segments=2)}
    assert plan(2, THREE, uses) == Plan()
    uses = {"s3": ServerUse(is_leaving=True, is_idle=True)}
    assert plan(2, THREE, uses) == Plan(end=("s3",))


def test_one_that_keeps_failing_is_replaced_and_leaves_only_then() -> None:
    processes = [*THREE[:2], process("s3", failures=5)]
    assert plan(3, processes, {}) == Plan(provision=1)
    assert plan(3, [*processes, process("s4")], {}) == Plan(leave=("s3",))


class FakeOrchestrator:
    """Remembers what it was asked; its servers are those of the world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.names: list[str] = []
        self.is_broken = False
        self.started: list[Any] = []

    async def start(self, cluster: str, master_address: tuple[str, int]) -> None:
        self.started.append((cluster, master_address))

    async def provision(self, name: str | None = None) -> str:
        if self.is_broken:
            raise StorageError("no room for servers")
        name = name or f"auto-{len(self.names) + 1}"
        self.names.append(name)
        await self.world.server(name)
        return name

    async def list(self) -> list[ProcessInfo]:
        return [process(name) for name in sorted(self.names)]

    async def deprovision(self, name: str) -> None:
        self.names.remove(name)
        next(s for s in self.world.servers if s.name == name).die()

    async def stop(self, end_servers: bool) -> None:
        self.started.append(end_servers)


async def until(holds: Any, timeout: float = 3.0) -> None:
    async with asyncio.timeout(timeout):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "RECONCILE_EVERY_S", 0.02)
    monkeypatch.setattr(reconcile, "DRAIN_GRACE_S", 0.1)


async def test_servers_are_scaled_up_drained_and_ended(world: Any) -> None:
    import dataclasses

    orchestrator = FakeOrchestrator(world)
    world.config = dataclasses.replace(world.config, servers=3)
    master = await world.start(orchestrator=orchestrator)
    assert orchestrator.started == [(master.cluster, master.address)]
    await until(lambda: len(orchestrator.names) == 3)
    client = await world.client()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    members = tuple(s.member for s in world.servers)
    head = (await client.ask(client.opens(head, members))).head
    await client.ask(ScaleServers(4))
    await until(lambda: len(orchestrator.names) == 4)
    assert (await client.ask(GetServers())).wanted == 4
    # the idle one goes first, the next one must be rolled away from and keeps its sealed segment
    await client.ask(ScaleServers(3))
    await until(lambda: len(orchestrator.names) == 3)
    assert orchestrator.names == ["auto-1", "auto-2", "auto-3"]
    await client.ask(ScaleServers(2))
    await asyncio.sleep(0.2)
    states = {s.address.member.server: s.state for s in (await client.ask(GetServers())).servers}
    assert states == {"auto-1": "alive", "auto-2": "alive", "auto-3": "leaving"}
    assert not [
        p for p in client.mail.pushes if isinstance(p, RollWanted)
    ]  # no full set without it
    await client.ask(ScaleServers(4))  # it stays after all, and another comes
    await until(lambda: len(orchestrator.names) == 4)
    await world.server("by-hand")
    world_leaving = "auto-3"
    await master.servers.leave(world_leaving, is_leaving=True)
    wish = await client.pushed(lambda p: isinstance(p, RollWanted))
    assert world_leaving in wish.reason
    assert wish.segment == head.open.id
    # durable: the next master wants the same
    await world.kill()
    assert orchestrator.started[-1] is False
    master = await world.start(orchestrator=orchestrator)
    assert master.metadata.wanted == 4
    assert master.metadata.servers[world_leaving].is_leaving


async def test_what_is_no_longer_wanted_is_not_made(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip of the finger must not start a hundred processes that the next word cannot stop."""
    monkeypatch.setattr(reconcile, "PROVISION_MAX", 2)
    monkeypatch.setattr(reconcile, "RECONCILE_EVERY_S", 0.2)
    orchestrator = FakeOrchestrator(world)
    await world.start(orchestrator=orchestrator)
    client = await world.client()
    await client.ask(ScaleServers(100))
    await until(lambda: len(orchestrator.names) == 2)
    await client.ask(ScaleServers(2))
    await asyncio.sleep(0.5)
    assert len(orchestrator.names) == 2


async def test_a_broken_orchestrator_is_told_by_health_and_tried_again(world: Any) -> None:
    import dataclasses

    orchestrator = FakeOrchestrator(world)
    orchestrator.is_broken = True
    world.config = dataclasses.replace(world.config, servers=1)
    await world.start(orchestrator=orchestrator)
    client = await world.client()
    await asyncio.sleep(0.05)
    warnings = (await client.ask(GetHealth())).warnings
    assert any("no room for servers" in warning for warning in warnings)
    orchestrator.is_broken = False
    await until(lambda: orchestrator.names)
    await asyncio.sleep(0.05)
    assert (await client.ask(GetHealth())).warnings == ()
