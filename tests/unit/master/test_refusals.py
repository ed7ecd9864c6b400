"""What a master refuses, and what it does not survive: of clients, of servers, of its own store."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lunalog.errors import (
    ClosedError,
    CorruptRecordError,
    InvariantError,
    LunalogError,
    NotActiveError,
    OverloadedError,
    PeerError,
    StorageError,
    StreamNotFoundError,
    UsageError,
)
from lunalog.master import Master, MemoryStore, SqliteStore, doorway, records, servers, sqlite
from lunalog.types import SealedSegment, SegmentId
from lunalog.wire.codec import VERSION_MAX, VERSION_MIN
from lunalog.wire.connection import Handler
from lunalog.wire.messages import (
    ClientBeat,
    CreateStream,
    DeleteStream,
    Hello,
    ListStreams,
    RegisterServer,
    ScaleServers,
    Transfer,
    WatchStream,
)


async def hello(world: Any, role: str, name: str = "somebody", purpose: str = "main") -> Any:
    return await world.dial(
        Hello(VERSION_MIN, VERSION_MAX, "", role, name, b"", b"nonce", purpose), Handler()
    )


async def failed(world: Any, kind: type[BaseException]) -> BaseException:
    """Wait until the master's process has ended for this."""
    async with asyncio.timeout(2):
        while not world.runtime.failures:
            await asyncio.sleep(0.001)
    found = world.runtime.failures.pop()
    assert isinstance(found, kind)
    return found  # type: ignore[no-any-return]


# ------------------------------------------------------------------ who may ask what


async def test_a_role_that_nobody_knows_is_refused(started: Any) -> None:
    with pytest.raises(PeerError, match="unknown role 'cook'"):
        await hello(started, "cook")


async def test_what_a_master_does_not_answer_ends_the_connection(started: Any) -> None:
    client = await started.client()
    with pytest.raises(LunalogError, match="does not answer RegisterServer"):
        await client.ask(RegisterServer("s1", 0, 1, 0, False, "127.0.0.1", 9000, (), ()))


async def test_who_has_no_incarnation_cannot_stand_for_election(started: Any) -> None:
    client = await started.client()
    head = await client.create()
    admin = await hello(started, "admin")
    with pytest.raises(UsageError, match="R2"):
        await admin.request(WatchStream(head.stream, is_candidate=True), timeout=2)


async def test_more_requests_under_way_than_are_allowed_are_refused(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorway, "REQUESTS_PER_CONNECTION_MAX", 1)
    client = await started.client()
    head = await client.create()
    waiting = asyncio.get_running_loop().create_task(client.ask(Transfer(head.stream, "x", 60_000)))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await client.ask(CreateStream("another", b"s" * 16, head.policy))
    await client.ask(ListStreams("", ""))  # an answer that needs no work is always given
    waiting.cancel()


# ------------------------------------------------------------------ requests without sense


async def test_streams_that_are_not_there_cannot_be_deleted(started: Any) -> None:
    client = await started.client()
    with pytest.raises(StreamNotFoundError):
        await client.ask(DeleteStream("orders", b"?" * 16))


@pytest.mark.parametrize("timeout_ms", [0, 86_400_001])
async def test_a_hand_over_takes_some_time_and_not_for_ever(started: Any, timeout_ms: int) -> None:
    client = await started.client()
    head = await client.create()
    with pytest.raises(UsageError, match="timeout_ms"):
        await client.ask(Transfer(head.stream, "", timeout_ms))


async def test_a_hand_over_of_a_stream_that_is_deleted_meanwhile_ends(started: Any) -> None:
    one, two = await started.client("one"), await started.client("two")
    await started.three()
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    await two.stand(head.stream)
    moving = asyncio.get_running_loop().create_task(one.ask(Transfer(head.stream, "two", 60_000)))
    await asyncio.sleep(0.01)
    await two.ask(DeleteStream("orders", head.stream))
    with pytest.raises(StreamNotFoundError):
        await moving


class NoOrchestrator:
    """It is there, and does nothing."""

    async def start(self, *_: Any) -> None: ...

    async def stop(self, *_: Any, **__: Any) -> None: ...

    async def list(self) -> list[Any]:
        return []


@pytest.mark.parametrize("wanted", [-1, 101])
async def test_a_wanted_number_of_servers_has_bounds(world: Any, wanted: int) -> None:
    await world.start(orchestrator=NoOrchestrator())
    client = await world.client()
    with pytest.raises(UsageError, match=f"{wanted} servers are not possible, 0 to 100 are"):
        await client.ask(ScaleServers(wanted))


async def test_a_server_with_too_many_labels_is_refused(started: Any) -> None:
    server = started.quiet_server("s1", *(f"label={n}" for n in range(servers.LABELS_MAX + 1)))
    with pytest.raises(UsageError, match="labels"):
        await server.register()


async def test_n8_a_registration_that_arrives_on_another_connection_costs_no_incarnation(
    started: Any,
) -> None:
    """R19: it was true of the disk once, and says now that the log became shorter."""
    server, late = started.quiet_server("s1"), started.quiet_server("s1")
    await server.register()
    late.incarnation, late_nonce = server.incarnation, server.nonce
    server.position = 100
    await server.beat()
    await late.connect()
    late.nonce = late_nonce
    with pytest.raises(NotActiveError, match="another connection"):
        await late.register_here()
    await server.beat()
    assert await server.register() == 1
    assert late_nonce not in (b"", server.nonce)


async def test_n8_no_other_start_of_the_master_gives_a_nonce_again(started: Any) -> None:
    server = started.quiet_server("s1")
    await server.connect()
    before = server.nonce
    await started.kill()
    await started.start()
    await server.connect()
    assert server.nonce != before


async def test_a_server_registers_before_it_beats(started: Any) -> None:
    server = started.quiet_server("s1")
    await server.connect()
    with pytest.raises(NotActiveError, match="register first"):
        await server.beat()


async def test_a_master_that_is_not_started_has_no_address(world: Any) -> None:
    master = await world.start()
    assert master.address[1] > 0
    other = type(master)(world.runtime, MemoryStore(), world.config)
    with pytest.raises(NotActiveError):
        _ = other.address


# ------------------------------------------------------------------ sessions (R2)


async def test_who_was_replaced_is_not_let_in_again(started: Any) -> None:
    older = await started.client("engine", b"1" * 16)
    await started.client("engine", b"2" * 16)
    with pytest.raises(ClosedError, match="newer incarnation"):
        await started.dial(older.hello("beat"), older.beat_mail)


async def test_a_first_beat_that_comes_after_the_successors_ends_the_session(started: Any) -> None:
    older = await started.client("engine", b"1" * 16)
    await older.end()
    early = await started.dial(older.hello("beat"), older.beat_mail)
    await started.client("engine", b"2" * 16)
    with pytest.raises(LunalogError, match="newer incarnation"):
        await early.request(ClientBeat(0, (), early.peer.nonce), timeout=2)


async def test_a_beat_on_another_connection_than_the_sessions_is_refused(started: Any) -> None:
    client = await started.client()
    with pytest.raises(NotActiveError, match="connect again"):
        await client.ask(ClientBeat(0, (), client.main.peer.nonce))


async def test_n8_beats_that_arrive_on_another_connection_end_nobody(started: Any) -> None:
    """A master that was started since does not know that who said them is dead."""
    older = await started.client("engine", b"1" * 16)
    said = ClientBeat(0, (), older.beats.peer.nonce)
    older.die()
    await started.kill()
    await started.start()
    client = await started.client("engine", b"2" * 16)
    again = await started.dial(older.hello("beat"), older.beat_mail)
    with pytest.raises(NotActiveError, match="another connection"):
        await again.request(said, timeout=2)
    await client.beat()


# ------------------------------------------------------------------ broken rules end the master


async def test_a_rule_that_is_broken_in_an_answer_ends_the_master(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await started.client()

    def broken(*_: Any) -> None:
        raise InvariantError("I5: broken")

    monkeypatch.setattr(started.master.publisher, "watch", broken)
    head = await client.create()
    asking = asyncio.get_running_loop().create_task(client.ask(WatchStream(head.stream)))
    await failed(started, InvariantError)
    asking.cancel()


async def test_a_rule_that_is_broken_in_work_ends_the_master(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await started.client()

    async def broken(*_: Any) -> None:
        raise InvariantError("I5: broken")

    monkeypatch.setattr(started.master.metadata, "find_tombstone", broken)
    asking = asyncio.get_running_loop().create_task(client.ask(DeleteStream("orders", b"?" * 16)))
    await failed(started, InvariantError)
    asking.cancel()


# ------------------------------------------------------------------ stores that hold nonsense


class Forgetful(MemoryStore):
    """Says that it has written the cluster's name, and has not."""

    async def transact(self, compares: Any, puts: Any, deletes: Any = ()) -> int | None:
        if records.CLUSTER in puts:
            return 1
        return await super().transact(compares, puts, deletes)


async def test_a_store_that_keeps_nothing_is_not_used(world: Any) -> None:
    world.store = Forgetful()
    with pytest.raises(CorruptRecordError, match="does not keep"):
        await world.start()


async def test_rows_without_a_head_are_damage(world: Any) -> None:
    row = SealedSegment(SegmentId(1, 0), 0, 5, 0, (), 2, "p", "size", 0)
    key = records.row_key(b"s" * 16, row.id)
    await world.store.transact({}, {key: records.encode(row)})
    with pytest.raises(CorruptRecordError, match="without a head"):
        await world.start()


async def test_a_record_that_cannot_be_read_is_damage(world: Any) -> None:
    await world.store.transact({}, {records.HEADS + "00" * 16: b"\xc1"})
    with pytest.raises(CorruptRecordError, match="cannot be read"):
        await world.start()


# ------------------------------------------------------------------ the file


async def test_a_file_of_another_layout_is_left_alone(tmp_path: Path, world: Any) -> None:
    path = tmp_path / "metadata.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="has layout 99"):
        await SqliteStore(path, world.runtime).start()


async def test_a_file_that_cannot_be_used_is_an_error(
    tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite, "_prepare", refuse)
    with pytest.raises(StorageError, match="cannot use metadata file"):
        await SqliteStore(tmp_path / "metadata.sqlite", world.runtime).start()


async def test_r16_a_disk_that_fails_ends_the_master(
    tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "metadata.sqlite", world.runtime)
    await store.start()

    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite, "_run", fail)
    asking = asyncio.get_running_loop().create_task(store.get("a"))
    await failed(world, StorageError)
    asking.cancel()


def test_settings_that_do_not_fit_start_no_master(world: Any) -> None:
    with pytest.raises(UsageError, match="lease_ms"):
        Master(world.runtime, world.store, dataclasses.replace(world.config, lease_ms=1))


async def test_no_more_connections_than_allowed(world: Any) -> None:
    """H7: one that goes makes room; who is refused may try again."""
    world.config = dataclasses.replace(world.config, connections_max=3)
    await world.start()
    client = await world.client()  # on two: one of them beats
    second = await world.dial(client.hello("second"), client.mail)
    with pytest.raises(OverloadedError, match="as many connections as it may"):
        await world.dial(client.hello("third"), client.mail)
    second.close()
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while True:
            try:
                await world.dial(client.hello("third"), client.mail)
            except OverloadedError:
                await asyncio.sleep(0.01)
            else:
                break
