"""Servers that register: who is the same as before, and when it takes segments (R19)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lunalog.errors import (
    LunalogError,
    NotActiveError,
    NotEnoughServersError,
    WrongIncarnationError,
)
from lunalog.master.servers import POSITION_EVERY_S
from lunalog.types import Policy, SegmentId
from lunalog.wire.messages import (
    Propose,
)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_server_gets_a_new_incarnation_whenever_its_disk_may_not_be_what_it_was(
    started: Any,
) -> None:
    server = started.quiet_server("s1")
    assert await server.register() == 1
    assert await server.register() == 1  # the same boot again: only the connection was lost
    server.boot = 2
    server.position = 1000
    assert await server.register() == 1
    await server.beat()
    server.position = 999
    assert await server.register() == 2  # the log ends below what it reported
    server.position = 999
    server.boot = 1
    assert await server.register() == 3  # an older boot
    assert await server.register(may_have_lost=True) == 4
    server.incarnation = 0
    assert await server.register() == 5  # an empty directory
    server.incarnation = 2
    assert await server.register() == 6  # an old image


async def test_a_server_takes_segments_once_it_knows_its_incarnation(started: Any) -> None:
    """R19: one that dies before has a new one, and no set may count on the one it never had."""
    client = await started.client()
    head = await client.create(policy=Policy(replicas=1, ack_quorum=1))
    await client.stand(head.stream)
    head = await client.led(head.stream)
    server = started.quiet_server("s1")
    await server.register()
    with pytest.raises(NotEnoughServersError):
        await client.ask(Propose(head.stream, head.promise, ()))
    await server.beat()
    found = await client.ask(Propose(head.stream, head.promise, ()))
    assert [s.member for s in found.servers] == [server.member]
    await server.register()  # the connection was lost, the disk knows
    assert (await client.ask(Propose(head.stream, head.promise, ()))).servers
    server.incarnation = 0  # it died before the answer was on its disk
    await server.register()
    with pytest.raises(NotEnoughServersError):
        await client.ask(Propose(head.stream, head.promise, ()))


async def test_a_registration_that_was_overtaken_says_nothing_of_the_disk(started: Any) -> None:
    """N3: the request of a process that died comes after its successor's."""
    old, new = started.quiet_server("s1"), started.quiet_server("s1")
    await old.connect()
    new.boot = 2
    assert await new.register() == 1
    with pytest.raises(NotActiveError):
        await old.register_here()
    assert await new.register() == 1


async def test_a_beat_that_was_overtaken_by_a_registration_says_nothing_of_the_disk(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the store, and the disk that it tells of was wiped meanwhile."""
    old, new = started.quiet_server("s1"), started.quiet_server("s1")
    await old.register()
    await old.beat()
    await new.connect()
    servers = started.master.servers
    servers.get("s1").position_at -= POSITION_EVERY_S
    taken: list[Any] = []
    monkeypatch.setattr(started.master.commands, "facts", lambda _, facts: taken.append(facts))
    old.position = 7
    async with servers._locks["s1"]:
        registering = asyncio.ensure_future(new.register_here())
        await turns()
        beating = asyncio.ensure_future(old.beat(old.fact(b"s" * 16, SegmentId(1, 0), "complete")))
        await turns()
    assert await registering == 2
    with pytest.raises(LunalogError):
        await beating
    await turns()
    assert servers._metadata.servers["s1"].synced_position == 0
    assert taken == [()], "the new one holds nothing"


async def test_a_beat_of_another_incarnation_must_register_again(started: Any) -> None:
    server = started.quiet_server("s1")
    await server.register()
    server.incarnation = 9
    with pytest.raises(WrongIncarnationError):
        await server.beat()
