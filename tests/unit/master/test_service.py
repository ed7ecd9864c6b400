"""The master as its clients and servers see it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lunalog.errors import (
    ClosedError,
    ConflictError,
    DeadlineExceededError,
    FencedError,
    MetadataLostError,
    NotEnoughServersError,
    ServerUnavailableError,
    StreamExistsError,
    StreamNotFoundError,
    UsageError,
    WrongClusterError,
)
from lunalog.master import SqliteStore, commands
from lunalog.types import Policy, Promise, SegmentId
from lunalog.wire.messages import (
    CreateStream,
    DeleteStream,
    DropSegment,
    DropStream,
    GetHealth,
    GetServers,
    GetStream,
    ListStreams,
    Ping,
    Propose,
    Release,
    ResignWanted,
    RollWanted,
    ScaleServers,
    SealSegment,
    StreamChanged,
    StreamGone,
    Transfer,
    TrimCommand,
    Truncate,
    UnwatchStream,
    WatchStream,
)

# ---------------------------------------------------------------- streams


async def test_a_stream_is_made_found_and_listed(started: Any) -> None:
    client = await started.client()
    head = await client.create("orders")
    assert (head.epoch, head.open, head.released, head.next) == (0, None, True, 0)
    assert await client.head("orders") == head
    for name in ("a/1", "a/2", "b"):
        await client.create(name)
    page = await client.ask(ListStreams("a/"))
    assert [found.name for found in page.heads] == ["a/1", "a/2"]
    page = await client.ask(ListStreams("", "a/2"))
    assert [found.name for found in page.heads] == ["b", "orders"]
    with pytest.raises(StreamNotFoundError):
        await client.head("none")
    with pytest.raises(UsageError):
        await client.head("bad name")


async def test_create_repeated_finds_its_own_and_another_finds_it_taken(started: Any) -> None:
    client = await started.client()
    request = CreateStream("orders", b"x" * 16, Policy())
    first = await client.ask(request)
    assert await client.ask(request) == first
    with pytest.raises(StreamExistsError):
        await client.create("orders")
    assert (await client.create("orders", exist_ok=True)).stream == b"x" * 16
    with pytest.raises(UsageError):
        await client.create("other", stream=b"x" * 16)
    with pytest.raises(UsageError):
        await client.create("bad", policy=Policy(3, 1))
    with pytest.raises(ServerUnavailableError, match="length >= 16"):  # no such message: it closes
        await client.create("bad", stream=b"short")


async def test_a_deleted_stream_frees_its_name_and_ends_its_watchers(started: Any) -> None:
    client = await started.client()
    members = await started.three()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    await client.ask(client.opens(head, members))
    request = DeleteStream("orders", head.stream)
    await client.ask(request)
    await client.ask(request)
    gone = await client.pushed(lambda push: isinstance(push, StreamGone))
    assert gone.stream == head.stream
    other = await client.create("orders")
    assert other.stream != head.stream
    with pytest.raises(StreamNotFoundError):
        await client.ask(client.opens(head, members))
    with pytest.raises(StreamNotFoundError):
        await client.ask(CreateStream("elsewhere", head.stream, Policy()))


async def test_a_tombstone_is_told_to_every_holder_until_it_confirms(started: Any) -> None:
    client = await started.client()
    servers = [started.quiet_server(f"s{n}") for n in (1, 2, 3)]
    for server in servers:
        await server.register()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    await client.ask(client.opens(head, tuple(s.member for s in servers)))
    await client.ask(DeleteStream("orders", head.stream))
    for server in servers:
        (command,) = (await server.beat()).commands
        assert isinstance(command, DropStream)
        assert command.promise == Promise(head.epoch + 1, b"")
        assert (await server.beat()).commands == (command,)
        assert (await server.beat(confirmed=(command.id,))).commands == ()
    await asyncio.sleep(0.01)
    assert started.master.metadata.tombstones == {}
    # one more turns up, after all had confirmed
    late = started.quiet_server("s4")
    late.facts = (late.fact(head.stream, SegmentId(1, 7)),)
    await late.register()
    await asyncio.sleep(0.01)
    (command,) = (await late.beat()).commands
    assert isinstance(command, DropStream)


# ---------------------------------------------------------------- elections


async def test_a_candidate_is_granted_an_epoch_and_opens_a_segment(started: Any) -> None:
    client = await started.client()
    members = await started.three()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    assert (head.epoch, head.released) == (1, False)
    proposal = await client.ask(Propose(head.stream, head.promise, ()))
    assert {found.member for found in proposal.servers} == set(members)
    opened = (await client.ask(client.opens(head, members))).head
    assert opened.open.members == members
    assert opened.version == head.version + 1
    push = await client.pushed(
        lambda p: isinstance(p, StreamChanged) and p.view.head.open is not None
    )
    assert {found.member for found in push.view.servers} == set(members)


async def test_an_observer_is_never_granted_anything(started: Any) -> None:
    client = await started.client()
    head = await client.create()
    observer = await started.client("watcher")
    await observer.ask(WatchStream(head.stream))
    await asyncio.sleep(0.1)
    assert (await client.head()).epoch == 0
    await client.stand(head.stream)
    await client.led(head.stream)
    push = await observer.pushed(lambda p: isinstance(p, StreamChanged))
    assert push.view.head.leader == client.peer


async def test_a_closed_session_is_followed_by_the_next_leader_after_the_grace(
    started: Any,
) -> None:
    one, two = await started.client("one"), await started.client("two")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    await two.stand(head.stream)
    start = asyncio.get_running_loop().time()
    one.die()
    head = await two.led(head.stream)
    took = asyncio.get_running_loop().time() - start
    assert head.epoch == 2
    assert 0.06 <= took < 0.4  # the grace, not the lease


async def test_a_session_that_comes_back_within_the_grace_keeps_the_epoch(started: Any) -> None:
    one, two = await started.client("one"), await started.client("two")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    await two.stand(head.stream)
    one.silence()
    one.beats.abort()
    await asyncio.sleep(0.02)
    await one.connect()
    await asyncio.sleep(0.25)
    assert (await one.head()).epoch == 1


async def test_a_silent_leader_is_replaced_after_its_lease(started: Any) -> None:
    one, two = await started.client("one"), await started.client("two")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    await two.stand(head.stream)
    await one.beat()
    one.silence()
    start = asyncio.get_running_loop().time()
    await two.led(head.stream)
    assert 0.55 <= asyncio.get_running_loop().time() - start < 1.2


async def test_a_late_renewal_keeps_the_epoch_when_nobody_else_stands(started: Any) -> None:
    one = await started.client("one")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    one.silence()
    await asyncio.sleep(0.8)
    await one.beat()
    assert (await one.head()).epoch == 1
    two = await started.client("two")
    await two.stand(head.stream)
    await one.beat()
    await asyncio.sleep(0.1)
    assert (await one.head()).epoch == 1


async def test_a_client_that_ends_its_session_is_followed_at_once(started: Any) -> None:
    one, two = await started.client("one"), await started.client("two")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    await two.stand(head.stream)
    await one.end()
    await two.led(head.stream, timeout=0.05 + 0.3)


async def test_resigning_leaves_nothing_open_and_the_next_one_fences_nobody(started: Any) -> None:
    one, two = await started.client("one"), await started.client("two")
    members = await started.three()
    head = await one.create()
    await one.stand(head.stream)
    head = await one.led(head.stream)
    head = (await one.ask(one.opens(head, members))).head
    await two.stand(head.stream)
    request = one.closes(head, end=10, chain=77)
    closed = (await one.ask(request)).head
    assert (closed.next, closed.chain, closed.open, closed.released) == (10, 77, None, True)
    head = await two.led(head.stream)
    assert (head.epoch, head.open, head.next, head.chain) == (2, None, 10, 77)
    view = await two.view()
    assert [(row.first, row.end, row.leader, row.reason) for row in view.rows] == [
        (0, 10, "one", "resign")
    ]
    with pytest.raises(FencedError) as caught:
        await one.ask(request)
    assert caught.value.epoch == 2
    assert caught.value.leader == "two"


async def test_the_longest_applied_candidate_wins_and_who_gave_up_queues_last(
    started: Any,
) -> None:
    one, two, three = [await started.client(name) for name in ("one", "two", "three")]
    head = await one.create()
    await one.stand(head.stream)
    head = await one.led(head.stream)
    await two.stand(head.stream)
    await three.stand(head.stream)
    await two.beat((head.stream, 5))
    await three.beat((head.stream, 9))
    await one.ask(Release(head.stream, head.promise))
    head = await three.led(head.stream)
    await three.ask(Release(head.stream, head.promise))
    head = await two.led(head.stream)
    assert head.epoch == 3
    await two.ask(Release(head.stream, head.promise))
    assert (await one.led(head.stream, epoch=4)).epoch == 4  # gave up longest ago


async def test_a_newer_incarnation_replaces_the_older_for_good(started: Any) -> None:
    one = await started.client("engine")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    newer = await started.client("engine")
    async with asyncio.timeout(1):
        await one.mail.news.wait()
    assert isinstance(one.mail.closed, ClosedError)
    assert isinstance(one.beat_mail.closed, ClosedError)
    with pytest.raises(ClosedError):
        await one.connect()
    await newer.stand(head.stream)
    assert (await newer.led(head.stream, timeout=0.3)).epoch == 2


async def test_transfer_waits_until_the_candidate_leads(started: Any) -> None:
    one, two, three = [await started.client(name) for name in ("one", "two", "three")]
    members = await started.three()
    head = await one.create()
    await one.stand(head.stream)
    head = await one.led(head.stream)
    head = (await one.ask(one.opens(head, members))).head
    await two.stand(head.stream)
    await three.stand(head.stream)
    await two.beat((head.stream, 100))
    with pytest.raises(UsageError, match="candidates: three, two"):
        await one.ask(Transfer(head.stream, "nobody", 1000))
    asking = asyncio.get_running_loop().create_task(two.ask(Transfer(head.stream, "three", 2000)))
    wish = await one.pushed(lambda p: isinstance(p, ResignWanted))
    assert wish.epoch == 1
    await one.ask(one.closes(head, end=3, chain=9))
    head = await three.led(head.stream)
    await asyncio.sleep(0.02)
    assert not asking.done()
    await three.ask(three.opens(head, members))
    await asking
    await two.ask(Transfer(head.stream, "three", 1000))  # leads already


async def test_transfer_that_nobody_heeds_ends_in_a_deadline(started: Any) -> None:
    one, two = await started.client("one"), await started.client("two")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    with pytest.raises(UsageError, match="nobody else"):
        await one.ask(Transfer(head.stream, "", 1000))
    await two.stand(head.stream)
    with pytest.raises(DeadlineExceededError):
        await two.ask(Transfer(head.stream, "", 50))


async def test_a_transfer_to_one_who_left_asks_no_later_leader_to_go(started: Any) -> None:
    one, two, three = [await started.client(name) for name in ("one", "two", "three")]
    head = await one.create()
    await one.stand(head.stream)
    head = await one.led(head.stream)
    await two.stand(head.stream)
    asking = asyncio.get_running_loop().create_task(two.ask(Transfer(head.stream, "two", 500)))
    await one.pushed(lambda p: isinstance(p, ResignWanted))
    await three.ask(WatchStream(head.stream))
    wishes = [p for p in one.mail.pushes if isinstance(p, ResignWanted)]
    assert [wish.epoch for wish in wishes] == [1, 1]  # it is reminded, whoever comes to watch
    await two.ask(UnwatchStream(head.stream))
    await three.stand(head.stream)
    await one.ask(one.closes(head))
    await three.led(head.stream)
    await two.ask(WatchStream(head.stream))
    await three.ask(GetStream("orders"))
    assert not asking.done()
    assert not [p for p in three.mail.pushes if isinstance(p, ResignWanted)]
    with pytest.raises(DeadlineExceededError):
        await asking


# ---------------------------------------------------------------- seals


async def test_an_identical_seal_finds_itself_applied(started: Any) -> None:
    client = await started.client()
    members = await started.three()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    first = client.opens(head, members)
    opened = (await client.ask(first)).head
    assert (await client.ask(first)).head == opened
    roll = client.opens(opened, members[:2], n=1, end=5, chain=55, reason="server")
    rolled = (await client.ask(roll)).head
    assert (await client.ask(roll)).head == rolled
    assert rolled.next == 5
    assert rolled.open.id == SegmentId(1, 1)
    with pytest.raises(ConflictError):
        await client.ask(first)
    close = client.closes(rolled, end=5)
    closed = (await client.ask(close)).head
    assert (await client.ask(close)).head == closed
    await client.ask(UnwatchStream(head.stream))
    view = await client.view()
    assert [(row.first, row.end) for row in view.rows] == [(0, 5)]  # the empty one left no row


async def test_propose_excludes_and_says_how_many_are_missing(started: Any) -> None:
    client = await started.client()
    await started.three()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    found = await client.ask(Propose(head.stream, head.promise, ("s2",)))
    assert sorted(s.member.server for s in found.servers) == ["s1", "s3"]
    with pytest.raises(NotEnoughServersError) as caught:
        await client.ask(Propose(head.stream, head.promise, ("s1", "s2")))
    assert (caught.value.have, caught.value.need) == (1, 2)
    with pytest.raises(FencedError):
        await client.ask(Propose(head.stream, Promise(0, b"")))


# ---------------------------------------------------------------- servers


async def test_a_server_that_falls_silent_is_lost_and_takes_no_segments(started: Any) -> None:
    client = await started.client()
    await started.three()
    started.servers[1].beating.cancel()
    await asyncio.sleep(0.6)
    states = [(s.address.member.server, s.state) for s in (await client.ask(GetServers())).servers]
    assert states == [("s1", "alive"), ("s2", "lost"), ("s3", "alive")]
    health = await client.ask(GetHealth())
    assert health.errors == ()
    assert any("s2 is lost" in warning for warning in health.warnings)
    await client.create("orders")
    started.servers[0].beating.cancel()
    await asyncio.sleep(0.6)
    assert "to append to orders" in (await client.ask(GetHealth())).errors[0]
    await started.servers[0].beat()
    await started.servers[1].beat()
    assert (await client.ask(GetHealth())).errors == ()
    states = [s.state for s in (await client.ask(GetServers())).servers]
    assert states == ["alive"] * 3


async def test_a_leader_is_told_to_roll_when_a_server_is_lost_and_another_is_there(
    started: Any,
) -> None:
    client = await started.client()
    members = await started.three()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    started.servers[0].die()
    await asyncio.sleep(0.6)
    assert not [p for p in client.mail.pushes if isinstance(p, RollWanted)]  # only two are left
    changed = [p for p in client.mail.pushes if isinstance(p, StreamChanged)][-1]
    assert [s.is_alive for s in changed.view.servers] == [False, True, True]
    await started.server("s4")
    wish = await client.pushed(lambda p: isinstance(p, RollWanted))
    assert wish.segment == head.open.id
    assert "s1" in wish.reason


async def test_a_set_that_is_short_is_rolled_when_enough_are_there(started: Any) -> None:
    client = await started.client()
    one, two = await started.server("s1"), await started.server("s2")
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    await client.ask(client.opens(head, (one.member, two.member)))
    await started.server("s3")
    wish = await client.pushed(lambda p: isinstance(p, RollWanted))
    assert "short" in wish.reason


async def test_certificates_are_told_until_complete(started: Any) -> None:
    client = await started.client()
    servers = [started.quiet_server(f"s{n}") for n in (1, 2, 3)]
    members = tuple([await s.register() and s.member for s in servers])
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    await client.ask(client.opens(head, members, n=1, end=4, chain=44))
    (one,) = (await servers[0].beat()).commands
    assert (one.certificate.row.end, one.certificate.promise) == (4, head.promise)
    assert [found.member for found in one.sources] == list(members[1:])
    assert (await servers[0].beat()).commands == (one,)
    assert (await servers[0].beat(confirmed=(one.id,))).commands == ()
    complete = servers[1].fact(head.stream, SegmentId(1, 0), "complete", end=4, committed=4)
    assert (await servers[1].beat(complete)).commands == ()
    # after a restart of the master: facts say who is complete
    await started.kill()
    await started.start()
    servers[1].facts = (complete,)
    await servers[1].register()
    await servers[2].register()
    assert (await servers[1].beat()).commands == ()
    assert len((await servers[2].beat()).commands) == 1


async def test_a_wiped_server_is_listed_again_once_complete(started: Any) -> None:
    client = await started.client()
    servers = [started.quiet_server(f"s{n}") for n in (1, 2, 3)]
    members = tuple([await s.register() and s.member for s in servers])
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    await client.ask(client.closes(head, end=4, chain=44))
    servers[0].incarnation = 0
    assert await servers[0].register() == 2
    (command,) = (await servers[0].beat()).commands
    await servers[0].beat(confirmed=(command.id,))
    push = await client.pushed(
        lambda p: isinstance(p, StreamChanged) and any(r.version == 2 for r in p.view.rows)
    )
    assert push.view.rows[0].members == (servers[0].member, *members[1:])


async def test_truncated_rows_are_forgotten_when_all_have_dropped_them(started: Any) -> None:
    client = await started.client()
    servers = [started.quiet_server(f"s{n}") for n in (1, 2, 3)]
    members = tuple([await s.register() and s.member for s in servers])
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    head = (await client.ask(client.opens(head, members, n=1, end=4, chain=44))).head
    head = (await client.ask(Truncate(head.stream, head.promise, 5))).head
    assert head.truncated_before == 5
    assert (await client.ask(Truncate(head.stream, head.promise, 2))).head == head
    assert (await client.view()).rows == ()
    for server in servers:
        (command,) = (await server.beat()).commands
        assert isinstance(command, TrimCommand)
        assert (command.before, command.version) == (5, head.version)
        assert len(started.master.metadata.table.get(head.stream).rows) == 1
        await server.beat(confirmed=(command.id,))
        await asyncio.sleep(0.005)
    assert started.master.metadata.table.get(head.stream).rows == ()
    await started.kill()
    await started.start()
    assert started.master.metadata.table.get(head.stream).rows == ()


# ---------------------------------------------------------------- lost metadata (R25)


@pytest.mark.parametrize(
    ("segment", "state", "fields"),
    [
        (SegmentId(1, 0), "open", {"promise_epoch": 9}),
        (SegmentId(1, 0), "open", {"generation": 2}),
        (SegmentId(1, 0), "complete", {"end": 3, "committed": 3}),
        (SegmentId(1, 5), "open", {"first": 2, "end": 4, "committed": 3}),
    ],
)
async def test_proof_that_the_metadata_went_back_makes_a_stream_read_only(
    started: Any, segment: SegmentId, state: str, fields: dict[str, int]
) -> None:
    client = await started.client()
    server = started.quiet_server("s1")
    await server.register()
    others = [(await started.server(name)).member for name in ("s2", "s3")]
    members = (server.member, *others)
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    fine = server.fact(head.stream, SegmentId(1, 0), end=7, committed=7, promise_epoch=1)
    orphan = server.fact(head.stream, SegmentId(1, 3), first=7, end=9, committed=7)
    await server.beat(fine, orphan)
    await asyncio.sleep(0.01)
    assert (await client.ask(GetHealth())).errors == ()
    await server.beat(server.fact(head.stream, segment, state, **fields))
    await asyncio.sleep(0.01)
    roll = client.opens(head, members, n=1, end=4, chain=4)
    with pytest.raises(MetadataLostError):
        await client.ask(roll)
    (error,) = (await client.ask(GetHealth())).errors
    assert "read-only" in error
    assert (await client.head()) == head
    await started.kill()
    await started.start()
    again = await started.client()
    with pytest.raises(MetadataLostError):
        await again.ask(roll)


async def test_a_segment_that_was_carried_over_whole_proves_nothing(started: Any) -> None:
    """R7, R25: only a member that no takeover heard knew that some of it was committed."""
    client = await started.client()
    server = started.quiet_server("s1")
    await server.register()
    members = (server.member, *[(await started.server(name)).member for name in ("s2", "s3")])
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    head = (await client.ask(client.opens(head, members, n=1))).head  # it left no row
    await started.kill()
    await started.start()
    await server.register()
    old = server.fact(head.stream, SegmentId(1, 0), end=7, committed=5, promise_epoch=1)
    await server.beat(old)
    await asyncio.sleep(0.01)
    again = await started.client()
    assert not any("read-only" in error for error in (await again.ask(GetHealth())).errors)


async def test_a_stream_that_nobody_knows_is_never_dropped(started: Any) -> None:
    client = await started.client()
    server = started.quiet_server("s1")
    server.facts = (server.fact(b"?" * 16, SegmentId(3, 0)),)
    await server.register()
    await asyncio.sleep(0.01)
    assert (await server.beat()).commands == ()
    (error,) = (await client.ask(GetHealth())).errors
    assert (b"?" * 16).hex() in error


async def test_a_leader_with_an_epoch_that_was_never_granted_is_told_so(started: Any) -> None:
    client = await started.client()
    head = await client.create()
    with pytest.raises(MetadataLostError):
        await client.ask(Truncate(head.stream, Promise(7, client.peer.incarnation), 1))


# ---------------------------------------------------------------- handshake and the rest


async def test_another_cluster_and_nameless_clients_are_refused(started: Any) -> None:
    client = await started.client()
    with pytest.raises(WrongClusterError):
        await started.dial(client.hello("main", "f" * 32), client.mail)
    await started.dial(client.hello("main", started.master.cluster), client.mail)
    client.peer = type(client.peer)("engine", b"short")
    with pytest.raises(UsageError):
        await started.dial(client.hello("main"), client.mail)


async def test_ping_and_scale_without_an_orchestrator(started: Any) -> None:
    client = await started.client()
    await client.ask(Ping())
    with pytest.raises(UsageError):
        await client.ask(ScaleServers(3))
    assert (await client.ask(GetServers())).wanted is None


async def test_a_port_in_use_is_a_usage_error(started: Any) -> None:
    import dataclasses

    port = started.master.address[1]
    started.config = dataclasses.replace(started.config, port=port)
    started.store = type(started.store)()
    with pytest.raises(UsageError, match=f":{port}: Address already in use; .* another --port"):
        await started.start()


# ---------------------------------------------------------------- restarts


async def test_a_new_master_on_the_same_file_goes_on(world: Any, tmp_path: Path) -> None:
    world.store = SqliteStore(tmp_path / "metadata.sqlite", world.runtime)
    await world.start()
    cluster = world.master.cluster
    client = await world.client()
    members = await world.three()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    head = (await client.ask(client.opens(head, members[:2], n=1, end=6, chain=66))).head
    client.silence()
    before = await client.view()
    await world.kill()
    await world.start()
    assert world.master.cluster == cluster
    assert world.master.metadata.servers["s1"].incarnation == 1
    again = await world.client("second")
    after = await again.view()
    assert (after.head, after.rows) == (before.head, before.rows)
    # the old leader has a full lease of grace, and keeps the epoch when it comes back
    await again.stand(head.stream)
    await asyncio.sleep(0.3)
    await client.connect()
    await client.stand(head.stream)
    await asyncio.sleep(0.7)
    assert (await again.head()).epoch == 1


async def test_a_leader_that_does_not_come_back_is_followed_after_a_full_lease(
    world: Any,
) -> None:
    await world.start()
    one = await world.client("one")
    head = await one.create()
    await one.stand(head.stream)
    await one.led(head.stream)
    one.die()
    await world.kill()
    await world.start()
    start = asyncio.get_running_loop().time()
    two = await world.client("two")
    await two.stand(head.stream)
    await two.led(head.stream)
    assert asyncio.get_running_loop().time() - start > 0.55


async def test_many_changes_in_one_turn_are_one_push(started: Any) -> None:
    client = await started.client()
    members = await started.three()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    await asyncio.sleep(0.05)
    client.mail.pushes.clear()
    stream = started.master.metadata.table.get(head.stream)
    for _ in range(5):
        started.master.publisher.changed(stream)
    await client.ask(Ping())
    assert len(client.mail.pushes) == 1
    await client.ask(UnwatchStream(head.stream))
    started.master.publisher.changed(stream)
    await client.ask(Ping())
    assert len(client.mail.pushes) == 1
    assert members


async def test_seal_and_get_are_typed_wrong_for_strangers(started: Any) -> None:
    client = await started.client()
    with pytest.raises(StreamNotFoundError):
        await client.ask(
            SealSegment(b"?" * 16, Promise(1, b""), None, None, None, 0, 0, release=True)
        )
    with pytest.raises(UsageError):
        await client.ask(GetStream("a b"))


# ---------------------------------------------------------------- garbage (R10)


async def test_an_unlisted_copy_of_a_past_epoch_is_dropped_after_its_quarantine(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await started.client()
    server = started.quiet_server("s1")
    await server.register()
    members = (server.member, *[(await started.server(n)).member for n in ("s2", "s3")])
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    opened = (await client.ask(client.opens(head, members, n=5))).head
    orphan = server.fact(head.stream, SegmentId(1, 2), promise_epoch=1)
    assert (await server.beat(orphan)).commands == ()
    monkeypatch.setattr(commands, "QUARANTINE_S", 0.0)
    assert (await server.beat()).commands == ()  # its epoch may still commit it
    await client.ask(client.closes(opened, end=1, chain=1))
    (row,) = (await server.beat()).commands
    await server.beat(confirmed=(row.id,))
    await client.led(head.stream, epoch=2)
    (drop,) = (await server.beat()).commands
    assert isinstance(drop, DropSegment)
    assert (drop.segment, drop.promise.epoch) == (SegmentId(1, 2), 2)
    assert (await server.beat(confirmed=(drop.id,))).commands == ()


async def test_an_unlisted_copy_is_kept_during_its_quarantine(started: Any) -> None:
    client = await started.client()
    server = started.quiet_server("s1")
    await server.register()
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    await client.ask(Release(head.stream, head.promise))
    await client.led(head.stream, epoch=2)
    orphan = server.fact(head.stream, SegmentId(1, 2), promise_epoch=1)
    assert (await server.beat(orphan)).commands == ()
    assert (await server.beat()).commands == ()
