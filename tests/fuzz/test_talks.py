"""Hostile talk against a whole simulated cluster: nobody ends, and a healthy client notices nothing.

Every schedule follows from its seed: replay one with `pytest tests/fuzz/test_talks.py -k SEED`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fuzz.talk import Talker, Victim

from lunalog.client.journal import SingleWriteJournal
from lunalog.testing.cluster import MASTER, MASTER_PORT, Shape, SimulatedCluster
from lunalog.testing.simulation import Simulation
from lunalog.wire import codec
from lunalog.wire.codec import Kind
from lunalog.wire.messages import Welcome

SEEDS = int(os.environ.get("LUNALOG_TALKS", "12"))
TALKS = 25
"""Connections of one seed."""
STREAM = "orders"


class Ear(asyncio.Protocol):
    """Sends what it is told, and checks that what comes back is the protocol."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.is_lost = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True

    def nonce(self) -> bytes:
        """Of the Welcome that came first."""
        if len(self.got) > codec.ENVELOPE_BYTES:
            size, kind, _ = codec.parse_envelope(self.got, 0, is_open=True)
            if kind == Kind.WELCOME and size <= len(self.got):
                message = codec.decode_control(memoryview(self.got)[codec.ENVELOPE_BYTES : size])
                assert isinstance(message, Welcome)
                return message.nonce
        return b""

    def messages(self) -> Iterator[int]:
        """The kinds of all whole messages that came; raises for anything else."""
        at = 0
        while at + codec.ENVELOPE_BYTES <= len(self.got):
            size, kind, _ = codec.parse_envelope(self.got, at, is_open=True)
            body = memoryview(self.got)[at + codec.ENVELOPE_BYTES : at + size]
            if at + size <= len(self.got) and kind not in codec.DATA_KINDS:
                codec.decode_control(body)
            yield kind
            at += size


class Scene:
    """A cluster, a healthy client that appends and follows, and somebody hostile."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.cluster = SimulatedCluster(simulation, Shape(clients=1))
        self.appended: list[bytes] = []
        self.heard: Counter[int] = Counter()
        """What the talk was answered with, by kind."""

    async def client(self, journal: SingleWriteJournal, name: str) -> None:
        await journal.create_stream(STREAM, exist_ok=True)
        async with journal.lead(STREAM) as writer:
            self.epoch = writer.epoch
            while True:
                event = b"event %d" % len(self.appended)
                await writer.append(event)
                self.appended.append(event)
                await asyncio.sleep(0.05)

    async def play(self, seed: int) -> None:
        self.cluster.start(self.client)
        async with asyncio.timeout(60):
            while len(self.appended) < 5:
                await asyncio.sleep(0.1)
        chance = self.simulation.stream("talks")
        for number in range(TALKS):
            role = chance.choice(("server", "server", "master"))
            await self.talk(seed * TALKS + number, role, chance)
        await self.check()
        await self.restart()
        await self.check()

    async def restart(self) -> None:
        """What hostile peers made the servers write is read again without a complaint."""
        for node in self.cluster.server_nodes:
            before = self.cluster.servers[node.name]
            node.crash()
            node.restart()
            async with asyncio.timeout(20):
                while (server := self.cluster.servers[node.name]) is before:
                    await asyncio.sleep(0.1)
                await server.registration.registered.wait()
            assert server.log.damage == []
            assert not server.log.may_have_lost

    def victims(self) -> tuple[Victim, ...]:
        assert self.cluster.master is not None
        found = self.cluster.master.metadata.table.named(STREAM)
        assert found is not None
        head = found.head
        assert head.open is not None
        return (Victim(STREAM, head.stream, head.open.id, head.epoch),)

    async def talk(self, seed: int, role: str, chance: Any) -> None:
        address: tuple[str, int] = (MASTER, MASTER_PORT)
        incarnation = 1
        if role == "server":
            server = self.cluster.servers[chance.choice(sorted(self.cluster.servers))]
            address, incarnation = server.address, server.replica.incarnation
        ear = Ear()
        victims = self.victims()
        await self.simulation.harness_runtime.network.connect(lambda: ear, address)
        talker = Talker(seed, role, incarnation, victims, tuple(sorted(self.cluster.servers)))
        for data in talker.steps():
            if ear.is_lost:
                break
            ear.transport.write(data)
            if not ear.got or chance.random() < 0.3:
                await asyncio.sleep(chance.choice((0.001, 0.03, 0.3)))
            talker.nonce = ear.nonce()
        await asyncio.sleep(chance.choice((0.01, 1.0)))
        for kind in ear.messages():
            self.heard[kind] += 1
        ear.transport.abort()

    async def check(self) -> None:
        """The healthy client still appends, under the same epoch, and all it was told is there."""
        before, count = self.epoch, len(self.appended)
        async with asyncio.timeout(20):
            while len(self.appended) < count + 5:
                await asyncio.sleep(0.1)
        assert self.epoch == before
        journal = await self.cluster.journal()
        async with asyncio.timeout(20):
            told = list(self.appended)
            found = [
                event.payload async for event in journal.read(STREAM, start=0, linearizable=True)
            ]
            assert found[: len(told)] == told
            await journal.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_hostile_talk_ends_nobody_and_touches_nobody(seed: int) -> None:
    with Simulation(seed) as simulation:
        scene = Scene(simulation)
        simulation.run(scene.play(seed), timeout_s=600)
        for kind in (Kind.WELCOME, Kind.REPLY, Kind.ERROR):
            assert scene.heard[kind] > 5, f"the talk was not heard: {scene.heard}"
