"""The nemesis breaks what it says, within its budget, and heals all of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

import pytest

from lunalog.errors import AvailabilityError, OutcomeUnknownError
from lunalog.testing.diskharm import KINDS as DISK
from lunalog.testing.metadata import SimulatedStore
from lunalog.testing.nemesis import Nemesis, Targets, all_kinds
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation


class Beat(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


class World:
    """Servers that append to a log and die of any disk error; clients that talk to them."""

    def __init__(self, simulation: Simulation, damages_most: int = 1) -> None:
        self.simulation = simulation
        self.beats: Counter[str] = Counter()
        names = ["server-1", "server-2", "server-3"]
        servers = [simulation.node(name) for name in names]
        clients = [simulation.node("client-1"), simulation.node("client-2")]
        master = simulation.node("master")
        for server in servers:
            server.disk()
            server.start(self.serve)
        for client in [master, *clients]:
            client.start(self.talk)
        self.store = SimulatedStore()
        self.targets = Targets(
            simulation,
            servers,
            [master],
            clients,
            damages_most=damages_most,
            store=self.store,
            leader=lambda: clients[0],
            allows_walls=True,
        )

    async def serve(self, runtime: SimulatedRuntime) -> None:
        await runtime.network.listen(Beat, ("", 1))

        async def beat() -> None:
            while True:
                await asyncio.sleep(0.1)
                self.beats[f"{runtime.node.name}/beat"] += 1

        runtime.start_loop("beat", beat)
        disk = runtime.node.disk()
        try:
            await disk.lock()
            names = await disk.names()
            file = await disk.open("log", create="log" not in names)
            await disk.sync_directory()
            while True:
                await file.write(await file.size(), [bytes(100)])
                await file.sync()
                self.beats[runtime.node.name] += 1
                await asyncio.sleep(0.05)
        except OSError as error:
            runtime.fail(error)

    async def talk(self, runtime: SimulatedRuntime) -> None:
        while True:
            if runtime.node.name == "master":
                with contextlib.suppress(AvailabilityError, OutcomeUnknownError):
                    await self.store.transact({}, {"key": b"value"})
            try:
                async with asyncio.timeout(1):
                    name = runtime.random.choice(["server-1", "server-2", "server-3"])
                    peer = Beat()
                    await runtime.network.connect(lambda peer=peer: peer, (name, 1))
                    await asyncio.sleep(0.1)
                    peer.transport.write(bytes(1000))
                    peer.transport.close()
            except OSError:
                await asyncio.sleep(0.1)
            self.beats[runtime.node.name] += 1

    def check_all_well(self, walls: Sequence[tuple[str, str]] = ()) -> None:
        """Every loop of every node makes progress, and every link is open."""
        nodes = self.targets.nodes
        before = self.beats.copy()
        self.simulation.run_for(3)
        for name in [*(n.name for n in nodes), *(f"{s.name}/beat" for s in self.targets.servers)]:
            assert self.beats[name] > before[name], name
        for one in nodes:
            assert one.clock.rate == 1.0
            for other in nodes:
                link = self.simulation.network.link(one.name, other.name)
                assert link.is_open or (one.name, other.name) in walls
                assert link.slowdown == 1.0
            for disk in one.disks.values():
                assert disk.capacity_bytes == 1 << 50


@pytest.mark.parametrize("kind", sorted(all_kinds()))
def test_each_kind_does_something_and_is_healed(kind: str) -> None:
    with Simulation(2) as simulation:
        world = World(simulation)
        simulation.run_for(1)
        nemesis = Nemesis(world.targets, {kind: 1.0}, 0.5)
        simulation.run(nemesis.run(10))
        assert simulation.counters[kind] > 0
        assert len(nemesis.story) >= simulation.counters[kind]
        nemesis.heal()
        simulation.run_for(10)
        world.check_all_well(nemesis.walls)
        for server in world.targets.servers:
            damage = server.disks["data"].damage
            assert not damage or server.name in nemesis.damaged
        assert len(nemesis.damaged) <= 1
        if kind not in {*DISK, "damage_promise"}:
            assert not nemesis.damaged


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_storm_is_survived_and_healed(seed: int) -> None:
    with Simulation(seed) as simulation:
        world = World(simulation)
        nemesis = Nemesis.draw(world.targets)
        simulation.run(nemesis.run(15))
        nemesis.heal()
        simulation.run_for(10)
        world.check_all_well(nemesis.walls)
        assert simulation.counters.total() > 0
        assert all(name in all_kinds() for name in nemesis.kinds)


def test_the_caller_hears_of_damage_before_the_crash_that_may_show_it() -> None:
    """Also when a lying sync is shown by the power cut of another kind."""
    heard: list[tuple[str, bool]] = []
    kinds = {"wipe": 1.0, "lie_sync": 1.0, "power_cut": 1.0, "kill_server": 1.0}
    with Simulation(4) as simulation:
        world = World(simulation)
        world.targets.damaged = lambda node: heard.append((node.name, node.is_running))
        nemesis = Nemesis(world.targets, kinds, 0.2)
        simulation.run(nemesis.run(10))
        nemesis.heal()
    assert {name for name, _ in heard} == nemesis.damaged
    assert len(heard) > simulation.counters["wipe"] + simulation.counters["lie_sync"]
    assert not nemesis.lying


def test_no_budget_means_no_damage() -> None:
    damaging = {"wipe": 1.0, "flip_bits": 1.0, "lose_file": 1.0, "lie_sync": 1.0}
    with Simulation(3) as simulation:
        world = World(simulation, damages_most=0)
        nemesis = Nemesis(world.targets, damaging, 0.2)
        simulation.run(nemesis.run(5))
        assert simulation.counters.total() == 0
        assert all(not s.disks["data"].damage for s in world.targets.servers)


def test_equal_seeds_tell_equal_stories() -> None:
    stories = []
    for _ in range(2):
        with Simulation(6) as simulation:
            nemesis = Nemesis.draw(World(simulation).targets)
            simulation.run(nemesis.run(10))
            nemesis.heal()
            simulation.run_for(1)
            stories.append((nemesis.story, simulation.trace_hash))
    assert stories[0] == stories[1]


def test_a_swarm_draws_every_kind_sooner_or_later() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(60):
        simulation = Simulation(seed)
        drawn.update(Nemesis.draw(Targets(simulation, [simulation.node("s")])).kinds)
    assert set(drawn) == set(all_kinds())
