"""M1, M2, M5: a master that dies at any transaction, and a store that is slow, late or silent."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lunalog.errors import AvailabilityError, NotActiveError
from lunalog.testing.metadata import SimulatedStore, StoreFaults
from lunalog.types import Policy, StreamHead
from lunalog.wire.messages import (
    CreateStream,
    DeleteStream,
    GetStream,
    ListStreams,
    Truncate,
    WatchStream,
)

STREAM = b"s" * 16


class Script:
    """One life of a stream, each request asked again until it is answered."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.client: Any = None
        self.died = asyncio.Event()
        self.heads: list[StreamHead] = []

    def crash(self) -> None:
        self.died.set()

    async def revive(self) -> None:
        """Kill -9 and start again on the same store, a moment later."""
        self.died.clear()
        for client in self.world.clients:
            if client.beating is not None:
                client.die()
        for server in self.world.servers:
            with contextlib.suppress(AttributeError):
                server.connection.abort()
        await self.world.kill()
        await self.world.start()
        self.client = None

    async def insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            work = asyncio.get_running_loop().create_task(ask())  # type: ignore[arg-type]
            death = asyncio.get_running_loop().create_task(self.died.wait())
            await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
            death.cancel()
            if not self.died.is_set():
                with contextlib.suppress(AvailabilityError):
                    return await work
                continue
            work.cancel()
            with contextlib.suppress(AvailabilityError, asyncio.CancelledError):
                await work
            await self.revive()

    async def ask(self, make: Callable[[], Any]) -> Any:
        async def once() -> Any:
            if self.client is None:
                self.client = await self.world.client("engine", b"e" * 16)
            return await self.client.ask(make())

        return await self.insist(once)

    async def head(self) -> StreamHead:
        found = (await self.ask(lambda: GetStream("orders"))).view.head
        self.heads.append(found)
        return found

    async def lead(self, epoch: int) -> StreamHead:
        async def once() -> StreamHead:
            if self.client is None:
                self.client = await self.world.client("engine", b"e" * 16)
            view = await self.client.stand(STREAM)
            while view.head.epoch < epoch or view.head.released:
                await asyncio.sleep(0.01)
                view = (await self.client.ask(GetStream("orders"))).view
            return view.head

        head: StreamHead = await self.insist(once)
        self.heads.append(head)
        return head

    async def run(self) -> None:
        members = []
        for name in ("s1", "s2", "s3"):
            server = self.world.quiet_server(name)
            await self.insist(server.register)
            members.append(server.member)
        policy = Policy()
        await self.ask(lambda: CreateStream("orders", STREAM, policy))
        head = await self.lead(1)
        opening = self.client_requests(head).opens(head, tuple(members))
        await self.ask(lambda: opening)
        head = await self.head()
        roll = self.client_requests(head).opens(head, tuple(members), n=1, end=10, chain=5)
        await self.ask(lambda: roll)
        head = await self.head()
        truncate = Truncate(STREAM, head.promise, 4)
        await self.ask(lambda: truncate)
        head = await self.head()
        await self.ask(lambda: WatchStream(STREAM))
        closing = self.client_requests(head).closes(head, end=20, chain=6)
        await self.ask(lambda: closing)
        head = await self.head()
        assert (head.epoch, head.next, head.chain, head.open, head.released, head.version) == (
            1, 20, 6, None, True, 6,
        )  # fmt: skip
        assert head.truncated_before == 4
        view = (await self.ask(lambda: GetStream("orders"))).view
        assert [(row.first, row.end, row.leader) for row in view.rows] == [
            (0, 10, "engine"),
            (10, 20, "engine"),
        ]
        head = await self.lead(2)
        assert head.epoch == 2
        await self.ask(lambda: DeleteStream("orders", STREAM))
        assert (await self.ask(ListStreams)).heads == ()
        versions = [found.version for found in self.heads]
        assert versions == sorted(versions)

    def client_requests(self, head: StreamHead) -> Any:
        """Make requests as the client would, also when it is not connected now."""
        from lunalog.types import Peer

        assert head.leader is not None
        made = type(self.world.clients[0])(self.world, "engine", b"e" * 16)
        made.peer = Peer("engine", b"e" * 16)
        return made


async def transactions_of_a_script(world: Any) -> int:
    world.store = SimulatedStore()
    await world.start()
    await Script(world).run()
    return world.store.transactions


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 16))
async def test_a_crash_at_any_transaction_leaves_what_a_repeat_completes(
    world: Any, number: int, when: str
) -> None:
    world.store = SimulatedStore()
    script = Script(world)
    if number > 2:  # the first two are those of a start
        world.store.crash_at(number, when, script.crash)
        await world.start()
    else:
        world.store.crash_at(number, when, lambda: None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await world.start()
        await world.start()
    await script.run()


async def test_the_script_has_as_many_transactions_as_are_tried(world: Any) -> None:
    """Two of the start, three servers, create, two grants, open, roll, truncate, close, delete."""
    assert await transactions_of_a_script(world) == 13


@pytest.mark.parametrize("seed", range(12))
async def test_a_store_that_loses_replies_and_lands_late_changes_nothing_twice(
    world: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lunalog.master.metadata.RETRY_S", 0.001)
    monkeypatch.setattr("lunalog.master.metadata.RETRY_S_MAX", 0.002)
    world.store = SimulatedStore(random.Random(seed))
    world.store.faults = StoreFaults(
        latency_s=(0.0, 0.002), unavailable=0.1, lost_reply=0.2, late=0.2, never=0.1
    )
    heads: list[str] = []
    world.store.on_commit = lambda puts, deletes: heads.extend(
        key for key in puts if key.startswith("head/")
    )
    await world.start()
    await Script(world).run()
    assert len(heads) == 7  # create, two grants, open, roll, truncate, close


async def test_a_replaced_master_writes_nothing_and_ends(world: Any) -> None:
    world.store = SimulatedStore()
    await world.start()
    old = world.master
    client = await world.client()
    await world.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.create("orders")
    (failure,) = world.runtime.failures
    assert isinstance(failure, NotActiveError)
    world.runtime.failures.clear()
    assert (await (await world.client("two")).ask(ListStreams())).heads == ()
    await old.tasks.cancel()
