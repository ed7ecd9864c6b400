"""The journal object: arguments, ends, and errors that say what to do next."""

import asyncio
from dataclasses import replace

import pytest

from lunalog.client import opening
from lunalog.client.admin import turns
from lunalog.client.journal import SingleWriteJournal
from lunalog.config import ClientConfig
from lunalog.errors import (
    BadAddressError,
    BadNameError,
    ClosedError,
    ConflictError,
    DeadlineExceededError,
    InvariantError,
    MasterUnavailableError,
    StreamExistsError,
    StreamNotFoundError,
    UsageError,
)
from lunalog.types import (
    LeaderTurn,
    OpenSegment,
    Peer,
    Policy,
    Role,
    SealedSegment,
    SegmentId,
    StreamHead,
    StreamView,
)
from lunalog.wire.messages import (
    CreateStream,
    DeleteStream,
    Done,
    EndSession,
    GetHealth,
    GetServers,
    GetStream,
    Health,
    ListStreams,
    ScaleServers,
    ServerList,
    StreamList,
    Transfer,
    UnwatchStream,
    ViewReply,
    WatchStream,
)

STREAM = b"s" * 16


async def until(condition):
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def journal(runtime, master, config):
    opened = SingleWriteJournal.connect(
        "lunalog://master:7600", peer="engine-1", config=config, runtime=runtime
    )
    async with opened as found:
        yield found


async def test_connecting_by_await_and_by_async_with(runtime, master, config):
    opening_ = SingleWriteJournal.connect("lunalog://master", runtime=runtime, config=config)
    journal = await opening_
    assert journal.peer.name == opening.peer_name(None)
    assert len(journal.incarnation) == 16
    await journal.aclose()
    async with SingleWriteJournal.connect(
        "lunalog://master", peer="p", runtime=runtime, config=config
    ) as other:
        assert other.peer.name == "p"
        assert other.incarnation != journal.incarnation
        assert "open" in repr(other)
    assert "ended" in repr(other)


async def test_a_close_that_is_cancelled_closes_all_the_same(runtime, master, config):
    """Else its session would beat on, and keep what it leads from everybody."""
    journal = await SingleWriteJournal.connect("lunalog://master", runtime=runtime, config=config)
    after = []

    async def closed():
        after.append("closed")

    journal.on_closed(closed)
    del master.answers[EndSession]
    closing = asyncio.ensure_future(journal.aclose())
    await until(lambda: bool(master.asked_for(EndSession)))
    assert master.connections
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await until(lambda: not master.connections)
    assert after == ["closed"]
    await journal.aclose()


async def test_without_a_url_the_environment_says_where(runtime, master, config, monkeypatch):
    monkeypatch.setenv("LUNALOG_URL", "lunalog://master")
    async with SingleWriteJournal.connect(runtime=runtime, config=config) as journal:
        assert journal.url == "lunalog://master"
    monkeypatch.delenv("LUNALOG_URL")
    with pytest.raises(BadAddressError, match="LUNALOG_URL is not set"):
        await SingleWriteJournal.connect()


async def test_what_is_refused_before_anything_is_dialled(runtime):
    with pytest.raises(BadNameError):
        await SingleWriteJournal.connect("lunalog://master", peer="a b", runtime=runtime)
    with pytest.raises(UsageError, match="heartbeat_ms"):
        await SingleWriteJournal.connect(
            "lunalog://master", config=ClientConfig(heartbeat_ms=0), runtime=runtime
        )
    with pytest.raises(BadAddressError, match=r"lunalog\.SingleWriteJournal"):
        await SingleWriteJournal.connect("memory://x")


async def test_an_unreachable_master_is_told_in_time(runtime, config):
    with pytest.raises(MasterUnavailableError, match=r"nowhere:1 within 0.1 s"):
        await SingleWriteJournal.connect(
            "lunalog://nowhere:1", timeout=0.1, runtime=runtime, config=config
        )


async def test_streams_as_things(journal, master, view):
    def create(message):
        if any(v.head.name == message.name for v in master.views.values()):
            raise StreamExistsError("there is one")
        head = StreamHead(message.name, message.stream, message.policy)
        master.views[message.stream] = StreamView(head, (), ())
        return ViewReply(master.views[message.stream])

    master.answers[CreateStream] = create
    head = await journal.create_stream("new", replicas=5)
    assert (head.policy.replicas, head.policy.ack_quorum) == (5, 3)
    with pytest.raises(StreamExistsError):
        await journal.create_stream("new")
    with pytest.raises(UsageError, match="not a legal policy"):
        await journal.create_stream("bad", replicas=3, ack_quorum=1)
    with pytest.raises(BadNameError):
        await journal.create_stream("a b")
    assert (await journal.describe("orders")).head == view().head
    master.answers[DeleteStream] = lambda m: Done()
    watching = journal.observe_state("orders")
    await anext(watching)
    await journal.delete_stream("orders")
    assert master.asked_for(DeleteStream)[0].stream == STREAM
    with pytest.raises(StreamNotFoundError):
        await anext(watching)


async def test_listing_goes_page_by_page(journal, master):
    names = [f"s{n}" for n in range(5)]

    def page(message):
        rest = [n for n in names if n > message.after and n.startswith(message.prefix)]
        return StreamList(tuple(StreamHead(n, b"x" * 16, Policy()) for n in rest[:2]))

    master.answers[ListStreams] = page
    assert [head.name async for head in journal.list_streams()] == names
    assert [head.name async for head in journal.list_streams("s3")] == ["s3"]
    assert len(master.asked_for(ListStreams)) == 4 + 2
    async with journal.list_streams() as heads:
        await anext(heads)
    assert [head async for head in heads] == []


async def test_admin_calls(journal, master):
    master.answers[GetServers] = lambda m: ServerList((), 3)
    master.answers[GetHealth] = lambda m: Health((), ("one is away",), {})
    master.answers[ScaleServers] = lambda m: Done()
    master.answers[Transfer] = lambda m: Done()
    assert (await journal.servers()).wanted == 3
    assert (await journal.health()).warnings == ("one is away",)
    await journal.scale(5)
    assert master.asked_for(ScaleServers)[0].wanted == 5
    await journal.transfer("orders", to="engine-2", timeout=0.2)
    asked = master.asked_for(Transfer)[0]
    assert (asked.stream, asked.to, asked.timeout_ms) == (STREAM, "engine-2", 200)


async def test_state_asks_the_master(journal, master, view):
    assert await journal.state("orders") == (Role.FOLLOWER, None)
    other = Peer("engine-2", b"j" * 16)
    master.views[STREAM] = view(version=2, epoch=1, leader=other, released=False)
    assert await journal.state("orders") == (Role.FOLLOWER, other)
    master.answers[GetStream] = lambda m: ViewReply(master.views[STREAM], is_vacant=True)
    assert await journal.state("orders") == (Role.FOLLOWER, None)  # it died


async def test_a_missing_stream_is_told_as_such(journal):
    with pytest.raises(StreamNotFoundError, match="no stream 'none'"):
        await journal.state("none")


async def test_a_reader_of_a_missing_stream(journal):
    with pytest.raises(StreamNotFoundError):
        await anext(journal.read("none"))
    with pytest.raises(StreamNotFoundError):
        await journal.open_stream_reader("none")
    with pytest.raises(BadNameError):
        journal.read("a b")
    with pytest.raises(UsageError, match="choose follow or linearizable"):
        journal.read("orders", follow=True, linearizable=True)
    with pytest.raises(UsageError, match="start is a sequence"):
        journal.read("orders", start="0")


async def test_unused_streams_are_watched_a_little_longer_and_not_for_ever(
    journal, master, monkeypatch
):
    monkeypatch.setattr("lunalog.client.streams.IDLE_STREAMS_MAX", 1)
    for n in range(3):
        stream = bytes([n]) * 16
        master.views[stream] = StreamView(StreamHead(f"n{n}", stream, Policy()), (), ())
    await journal.state("n0")
    await journal.state("n0")
    assert len(master.asked_for(WatchStream)) == 1
    await journal.state("n1")
    await until(lambda: len(master.asked_for(UnwatchStream)) == 1)
    assert journal.stats()["streams"] == 1
    reader = journal.read("n2")
    assert [event async for event in reader] == []
    await journal.state("n1")
    assert journal.stats()["streams"] == 2  # n2 has a reader
    await reader.aclose()
    await until(lambda: journal.stats()["streams"] == 1)


async def test_a_closed_journal_says_so_everywhere(journal, master):
    states = journal.observe_state("orders")
    await anext(states)
    reader = await journal.open_stream_reader("orders")
    writer = await journal.open_stream_writer("orders")
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0.01)
    await asyncio.gather(journal.aclose(), journal.aclose())
    await journal.aclose()
    assert master.asked_for(EndSession)
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await anext(states)
    with pytest.raises(ClosedError):
        await writer.append(b"x")
    for call in (
        journal.create_stream("x"),
        journal.describe("orders"),
        journal.committed("orders"),
        journal.state("orders"),
        journal.servers(),
        journal.open_stream_writer("orders"),
        journal.__aenter__(),
    ):
        with pytest.raises(ClosedError, match="connect again"):
            await call
    with pytest.raises(ClosedError):
        journal.read("orders")
    with pytest.raises(ClosedError):
        journal.lead("orders")


async def test_a_newer_journal_of_the_same_name_ends_this_one(journal, master):
    reader = journal.read("orders", follow=True)
    waiting = asyncio.create_task(anext(reader))
    await until(lambda: master.asked_for(WatchStream))
    main = next(c for c in master.connections if c.peer.purpose == "main")
    main.close(ConflictError("peer engine-1 has a newer incarnation: choose another peer name"))
    with pytest.raises(ConflictError, match="newer incarnation"):
        await waiting
    with pytest.raises(ConflictError, match="choose another peer name"):
        await journal.describe("orders")
    await reader.aclose()


async def test_a_bug_ends_the_journal_and_not_the_process(journal, runtime, master):
    """R27: whatever broke here, nothing of it is acknowledged or sent any more."""
    runtime.fail(ZeroDivisionError("oops"))
    await until(lambda: not master.connections)
    with pytest.raises(InvariantError, match=r"because of a bug.*oops"):
        await journal.describe("orders")
    runtime.error = None


@pytest.mark.parametrize(
    ("replicas", "ack_quorum", "expected"),
    [
        (None, None, (3, 2)),
        (5, None, (5, 3)),
        (4, 2, (4, 2)),
        (1, None, (1, 1)),
        (2, None, (2, 2)),
        (None, 3, (3, 3)),
        (None, 5, (5, 5)),
    ],
)
def test_policies_are_filled_in(replicas, ack_quorum, expected):
    found = opening.choose_policy(Policy(), replicas, ack_quorum)
    assert (found.replicas, found.ack_quorum) == expected


def test_policies_are_numbers():
    with pytest.raises(UsageError, match="whole numbers"):
        opening.choose_policy(Policy(), 2.5, None)


def test_turns_join_the_segments_of_an_epoch():
    def row(epoch, n, first, end, leader):
        return SealedSegment(SegmentId(epoch, n), first, end, 0, (), 2, leader, "size", 0)

    rows = (row(1, 0, 0, 5, "a"), row(1, 1, 5, 9, "a"), row(2, 0, 9, 12, "b"))
    head = StreamHead("x", STREAM, Policy(), epoch=2, next=12)
    assert turns(StreamView(head, rows, ())) == [
        LeaderTurn(1, "a", 0, 9),
        LeaderTurn(2, "b", 9, 12),
    ]
    opened = OpenSegment(SegmentId(2, 1), 12, 0, (), 2)
    head = StreamHead("x", STREAM, Policy(), epoch=2, leader=Peer("b", b""), open=opened)
    assert turns(StreamView(head, rows, ()))[-1] == LeaderTurn(2, "b", 9, None)
    assert turns(StreamView(head, rows[:2], ()))[-1] == LeaderTurn(2, "b", 12, None)


async def test_the_stream_is_asked_for_by_name_once(journal, master):
    await journal.state("orders")
    before = len(master.asked_for(GetStream))
    await journal.open_stream_writer("orders")
    assert len(master.asked_for(GetStream)) == before


async def test_l2_the_limit_of_a_read_point_covers_the_finding_of_the_stream(journal, master):
    """The master is silent: an operation's time is longer than what the caller gave."""
    master.answers.clear()
    with pytest.raises(DeadlineExceededError, match=r"not found within 0\.05 s"):
        await journal.committed("orders", timeout=0.05)


async def test_l2_a_read_point_without_a_limit_waits_as_long_as_an_operation(
    runtime, master, config
):
    """The master answers everything but this question, whose own limit says so."""
    opened = SingleWriteJournal.connect(
        "lunalog://master", runtime=runtime, config=replace(config, operation_timeout_ms=30)
    )
    async with opened as journal:
        del master.answers[GetStream]
        with pytest.raises(DeadlineExceededError, match="GetStream") as found:
            await journal.committed("orders")
        assert "was not found within" not in str(found.value)
