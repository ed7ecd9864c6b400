"""The public API as a user's type checker sees it; checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

from lunalog import (
    ClientConfig,
    EndState,
    Event,
    LeaderTurn,
    LunalogError,
    NotLeaderError,
    Peer,
    Role,
    RoleState,
    SingleWriteJournal,
    StreamDescription,
    StreamHead,
    StreamReader,
    StreamWriter,
    TruncatedError,
)
from lunalog.testing import Trial, fault_kinds


async def life() -> None:
    config = ClientConfig(read_wait_ms=100)
    async with SingleWriteJournal.connect("memory://x", peer="a", config=config) as journal:
        assert_type(journal.incarnation, bytes)
        assert_type(journal.peer, Peer)
        head = await journal.create_stream("s", replicas=3, ack_quorum=2, exist_ok=True)
        assert_type(head, StreamHead)
        await journal.delete_stream("s", timeout=1.0)
        async for found in journal.list_streams("s"):
            assert_type(found, StreamHead)
        assert_type(await journal.describe("s"), StreamDescription)
        assert_type(await journal.history("s"), list[LeaderTurn])
        assert_type(await journal.committed("s", timeout=2.0), int)
        await journal.transfer("s", to="b")
        await journal.scale(3)
        listing = await journal.servers()
        assert_type([server.state for server in listing.servers], list[str])
        assert_type((await journal.health()).errors, tuple[str, ...])
        assert_type(journal.stats(), dict[str, int | float])
    other = await SingleWriteJournal.connect()
    await other.aclose()


async def roles(journal: SingleWriteJournal) -> None:
    role, leader = await journal.state("s")
    assert_type(role, Role)
    assert_type(leader, Peer | None)
    async with journal.observe_state("s", candidate=False) as states:
        async for state in states:
            assert_type(state, RoleState)
            assert_type(state.is_confirmed, bool)


async def lead(journal: SingleWriteJournal) -> None:
    async with journal.lead("s", timeout=5.0) as writer:
        assert_type(writer, StreamWriter)
        assert_type(await writer.append(b"x"), int)
        assert_type(await writer.append(b"x", expected=3), int)
        assert_type(await writer.append_many([b"x"]), range)
        pending = writer.append_soon(b"x")
        assert_type(await pending, int)
        await writer.drain()
        await writer.flush()
        await writer.truncate(before=3)
        assert_type(writer.tail, int)
        assert_type(writer.committed, int)
        assert_type(writer.epoch, int)
        assert_type(writer.lease_remaining, float)
        await writer.resign()
    assert_type(await journal.open_stream_writer("s"), StreamWriter)


async def read(journal: SingleWriteJournal) -> None:
    reader = journal.read("s", start=-3, follow=True)
    assert_type(reader, StreamReader)
    async for event in reader:
        assert_type(event, Event)
        assert_type(event.payload, bytes)
    async for batch in journal.read("s", linearizable=True).batches():
        assert_type(batch, list[Event])
    async with await journal.open_stream_reader("s", start=None) as second:
        second.seek(3)
        assert_type(await second.try_next(), Event | None)
        assert_type(await second.wait_next(timeout=1.0), Event)
        assert_type(second.position, int | None)
        assert_type(second.is_complete, bool)
        assert_type(await second.end_state(), EndState)


def errors(error: LunalogError) -> None:
    if isinstance(error, NotLeaderError):
        assert_type(error.leader, str | None)
    if isinstance(error, TruncatedError):
        assert_type(error.start, int)
    assert_type(error.maybe_applied, bool)


def trials(trial: Trial) -> None:
    async def program(journal: SingleWriteJournal) -> None:
        await journal.create_stream("s")

    trial.start(program)
    trial.always(lambda: None)
    trial.storm(1.0)
    trial.converge(lambda: True, timeout=5.0)
    assert_type(trial.committed("s"), int)
    assert_type(trial.run(trial.connect()), SingleWriteJournal)
    with Trial(7, nodes=2, faults=["kill"], gap=0.5, damages_most=0) as other:
        assert_type(other, Trial)
    assert_type(fault_kinds(), dict[str, str])
