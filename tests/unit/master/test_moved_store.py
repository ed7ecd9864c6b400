"""A write of before may land in the store late (M5): decisions are made again on what is there."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog.errors import StreamExistsError, StreamNotFoundError
from lunalog.master import records
from lunalog.wire.messages import DeleteStream, GetServers, GetStream


async def touch(world: Any, key: str) -> None:
    """Write a record again as it is: its version moves."""
    found = await world.store.get(key)
    assert found is not None
    assert await world.store.transact({}, {key: found.value}) is not None


async def test_a_name_that_the_store_has_and_the_master_does_not_is_taken(started: Any) -> None:
    client = await started.client()
    await started.store.transact({}, {records.name_key("orders"): b"t" * 16})
    with pytest.raises(StreamExistsError, match="just made by somebody else"):
        await client.create()


async def test_a_stream_whose_head_moved_is_deleted_all_the_same(started: Any) -> None:
    client = await started.client()
    stream = (await client.create()).stream
    await touch(started, records.head_key(stream))
    await client.ask(DeleteStream("orders", stream))
    assert await started.store.get(records.head_key(stream)) is None
    with pytest.raises(StreamNotFoundError):
        await client.ask(GetStream("orders"))


async def test_a_stream_that_the_store_has_lost_is_not_found_any_more(started: Any) -> None:
    client = await started.client()
    stream = (await client.create()).stream
    await started.store.transact({}, {}, [records.head_key(stream)])
    with pytest.raises(StreamNotFoundError):
        await client.ask(DeleteStream("orders", stream))


async def test_a_server_whose_record_moved_registers_on_the_newer_one(started: Any) -> None:
    server = await started.server("s1")
    await touch(started, records.server_key("s1"))
    server.boot += 1
    assert await server.register() == server.member.incarnation
    client = await started.client()
    (status,) = (await client.ask(GetServers())).servers
    assert status.address.member == server.member
    found = await started.store.get(records.server_key("s1"))
    assert records.decode(found.value, records.ServerRecord, "s1").boot == server.boot
