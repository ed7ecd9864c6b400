"""An open connection: answers find who asked, and its end reaches everybody who waits."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.wire.peers import HELLO, Raw, Recorder, World, play
from tests.unit.wire.samples import SAMPLES

from lunalog import limits
from lunalog.errors import (
    DeadlineExceededError,
    FencedError,
    GapError,
    InvariantError,
    LunalogError,
    MasterUnavailableError,
    NotActiveError,
    OverloadedError,
    PeerError,
    ServerUnavailableError,
)
from lunalog.testing.transport import SimulatedTransport
from lunalog.wire import codec, frames
from lunalog.wire.codec import ENVELOPE, FramesHead, Kind, ReadStatus
from lunalog.wire.connection import BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, Connection, Handler
from lunalog.wire.messages import (
    Certified,
    CloseSlot,
    Done,
    GetStream,
    Hello,
    Ping,
    ReadPoint,
    Welcome,
)

READ = SAMPLES["Read"]
FRAME = frames.build(bytes(16), 0, 1, 0, [b"payload"])
HEAD = FramesHead(5, 4, 3, ReadStatus.HELD)


def start(work: object) -> "asyncio.Task[object]":
    return asyncio.ensure_future(work)  # type: ignore[arg-type]


async def failed(work: object) -> LunalogError:
    """The error that something ends with."""
    try:
        await work  # type: ignore[misc]
    except LunalogError as error:
        return error
    raise AssertionError("it did not fail")


# --------------------------------------------------------------------- requests and answers


def test_answers_find_who_asked_in_any_order():
    async def story(world: World) -> None:
        ours = await world.pair()
        asked = [start(ours.request(SAMPLES["AskLeader"], timeout=9.0)) for _ in range(5)]
        await asyncio.sleep(1)
        numbers = [number for _, number, _ in world.theirs.of("request")]
        assert len(set(numbers)) == 5
        for place in (3, 0, 4, 2, 1):
            world.accepted[0].reply(numbers[place], ReadPoint(place))
            await asyncio.sleep(0.1)
        assert [reply.committed for reply in await asyncio.gather(*asked)] == [0, 1, 2, 3, 4]

    play(story)


def test_both_sides_may_ask_at_once_with_the_same_numbers():
    async def story(world: World) -> None:
        mine = Recorder()
        ours = await world.pair(mine)
        theirs = world.accepted[0]
        mine.answer = lambda at, number, _: at.reply(number, Certified(True))
        world.theirs.answer = lambda at, number, _: at.reply(number, Certified(False))
        found = await asyncio.gather(
            ours.request(SAMPLES["Certify"], timeout=9.0),
            theirs.request(SAMPLES["Certify"], timeout=9.0),
        )
        assert found == [Certified(False), Certified(True)]
        assert mine.of("request")[0][1] == world.theirs.of("request")[0][1] == 1

    play(story)


def test_numbers_begin_again_and_never_are_0():
    async def story(world: World) -> None:
        ours = await world.pair()
        world.theirs.answer = lambda at, number, _: at.reply(number, Done())
        ours._next_request = 0xFFFFFFFE
        for _ in range(4):
            await ours.request(Ping(), timeout=9.0)
        assert [entry[1] for entry in world.theirs.of("request")] == [
            0xFFFFFFFE, 0xFFFFFFFF, 1, 2,
        ]  # fmt: skip

    play(story)


def test_an_error_comes_back_as_what_it_was():
    async def story(world: World) -> None:
        ours = await world.pair()
        world.theirs.answer = lambda at, number, _: at.fail(
            number, FencedError("epoch 5 is promised", epoch=5, incarnation=b"x")
        )
        error = await failed(ours.request(Ping(), timeout=9.0))
        assert isinstance(error, FencedError)
        assert (str(error), error.epoch, error.incarnation) == ("epoch 5 is promised", 5, b"x")
        assert ours.is_open

    play(story)


def test_frames_come_with_their_head_and_outlive_the_buffer():
    async def story(world: World) -> None:
        ours = await world.pair()
        world.theirs.answer = lambda at, number, _: at.reply_frames(number, HEAD, [FRAME, FRAME])
        head, run = await ours.request(READ, timeout=9.0)
        world.accepted[0].push(CloseSlot(1))
        await asyncio.sleep(1)
        assert head == HEAD
        assert type(run) is bytes
        assert run == FRAME * 2

    play(story)


# ----------------------------------------------------------------- deadlines, cancellation


def test_a_deadline_ends_the_waiting_and_nothing_else():
    async def story(world: World) -> None:
        ours = await world.pair()
        began = world.now()
        error = await failed(ours.request(Ping(), timeout=3.0))
        assert isinstance(error, DeadlineExceededError)
        assert isinstance(error, TimeoutError)
        assert error.maybe_applied
        assert 3.0 <= world.now() - began < 3.01
        assert "no answer to Ping within 3 s" in str(error)
        (_, late, _) = world.theirs.of("request")[0]
        world.accepted[0].reply(late, Done())
        world.theirs.answer = lambda at, number, _: at.reply(number, Certified(True))
        assert await ours.request(SAMPLES["Certify"], timeout=3.0) == Certified(True)
        assert ours.is_open

    play(story)


def test_each_request_has_a_deadline_of_its_own():
    async def story(world: World) -> None:
        ours = await world.pair()
        began = world.now()
        ended: list[tuple[float, float]] = []

        async def ask(timeout: float) -> None:
            await failed(ours.request(Ping(), timeout=timeout))
            ended.append((timeout, round(world.now() - began, 2)))

        await asyncio.gather(*(ask(timeout) for timeout in (4.0, 1.0, 2.5)))
        assert ended == [(1.0, 1.0), (2.5, 2.5), (4.0, 4.0)]

    play(story)


def test_cancelling_stops_the_waiting_and_a_late_answer_is_nobodys():
    async def story(world: World) -> None:
        ours = await world.pair()
        asking = start(ours.request(Ping(), timeout=9.0))
        await asyncio.sleep(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ours._pending == {}
        world.accepted[0].reply(1, Done())
        world.accepted[0].fail(1, NotActiveError("late"))
        world.accepted[0].reply_frames(1, HEAD, [])
        await asyncio.sleep(1)
        assert ours.is_open

    play(story)


# ------------------------------------------------------------------------------- the end


ENDINGS = {
    "close": lambda ours, theirs: ours.close(),
    "close with an error": lambda ours, theirs: ours.close(OverloadedError("too much")),
    "abort": lambda ours, theirs: ours.abort(),
    "closed by the peer": lambda ours, theirs: theirs.close(),
    "closed by the peer with an error": lambda ours, theirs: theirs.close(NotActiveError("ends")),
    "aborted by the peer": lambda ours, theirs: theirs.abort(),
}


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("kind", [ServerUnavailableError, MasterUnavailableError])
def test_every_end_fails_all_that_wait_and_is_told_once(name, kind):
    async def story(world: World) -> None:
        mine = Recorder()
        await world.listen()
        ours = await world.dial(mine, unreachable=kind)
        asked = [start(ours.request(Ping(), timeout=90.0)) for _ in range(3)]
        await asyncio.sleep(1)
        ENDINGS[name](ours, world.accepted[0])
        began = world.now()
        errors = await asyncio.gather(*map(failed, asked))
        assert world.now() - began < 1
        assert {type(error) for error in errors} == {kind}
        assert type(await failed(ours.request(Ping(), timeout=90.0))) is kind
        ours.close()
        ours.abort()
        await asyncio.sleep(1)
        for side in (mine, world.theirs):
            assert len(side.of("closed")) == 1
            assert side.seen[-1][0] == "closed"
        assert not ours.is_open
        assert "closed" in repr(ours)

    play(story)


@pytest.mark.parametrize("closer", ["ours", "theirs"])
def test_the_other_side_is_told_why(closer):
    async def story(world: World) -> None:
        mine = Recorder()
        ours = await world.pair(mine)
        sides = {"ours": (ours, world.theirs), "theirs": (world.accepted[0], mine)}
        closing, other = sides[closer]
        closing.close(GapError("no such place", end=4))
        await asyncio.sleep(1)
        assert other.of("closed") == [("closed", GapError, "no such place")]

    play(story)


def test_a_network_that_resets_is_an_end_like_any_other():
    async def story(world: World) -> None:
        mine = Recorder()
        ours = await world.pair(mine)
        asking = start(ours.request(Ping(), timeout=90.0))
        await asyncio.sleep(1)
        assert world.simulation.network.reset("harness", "harness") > 0
        lost = await failed(asking)
        assert isinstance(lost, ServerUnavailableError)
        assert str(lost).endswith("connection lost: the other side broke it off")
        await asyncio.sleep(1)
        assert len(mine.of("closed")) == len(world.theirs.of("closed")) == 1

    play(story)


def test_what_was_queued_before_the_end_still_arrives_and_nothing_after():
    async def story(world: World) -> None:
        mine = Recorder()
        await world.pair(mine)
        theirs = world.accepted[0]
        theirs.push(CloseSlot(1))
        theirs.push(CloseSlot(2))
        theirs.close(NotActiveError("enough"))
        theirs.push(CloseSlot(3))
        await asyncio.sleep(1)
        assert mine.of("push") == [("push", CloseSlot(1)), ("push", CloseSlot(2))]
        assert mine.of("closed") == [("closed", NotActiveError, "enough")]

    play(story)


def test_nothing_is_handled_behind_the_end():
    """A handler that closes gets none of what came in the same read."""

    async def story(world: World) -> None:
        ours = await world.pair()
        world.theirs.answer = lambda at, number, message: at.close()
        asked = [start(ours.request(Ping(), timeout=9.0)) for _ in range(3)]
        await asyncio.gather(*map(failed, asked))
        assert len(world.theirs.of("request")) == 1

    play(story)


# -------------------------------------------------------------------- pushes and data


def test_pushes_and_data_arrive_in_order_in_both_directions():
    async def story(world: World) -> None:
        mine = Recorder()
        ours = await world.pair(mine)
        for sender in (ours, world.accepted[0]):
            sender.push(CloseSlot(9))
            sender.send(codec.append_head(1, 4, len(FRAME)), FRAME)
            sender.send(codec.mark(1, 5))
            sender.send(codec.ack(2, 6))
            sender.push(SAMPLES["StreamGone"])
        await asyncio.sleep(1)
        for side in (mine, world.theirs):
            assert side.seen[1:] == [
                ("push", CloseSlot(9)),
                ("append", 1, 4, FRAME),
                ("mark", 1, 5),
                ("ack", 2, 6),
                ("push", SAMPLES["StreamGone"]),
            ]

    play(story)


def test_what_is_sent_in_one_turn_leaves_in_one_write():
    async def story(world: World) -> None:
        ours = await world.pair()
        writes: list[int] = []
        transport = ours._transport
        write, size = transport.write, len(codec.mark(1, 1))
        transport.write = lambda data: (writes.append(len(data) // size), write(data))
        for number in range(5):
            ours.send(codec.mark(1, number))
        assert writes == []
        await asyncio.sleep(1)
        assert writes == [5]
        ours.send(codec.mark(1, 9))
        ours.flush()
        assert writes == [5, 1]
        ours.flush()
        await asyncio.sleep(1)
        assert writes == [5, 1]
        ours.send(codec.mark(1, 10))
        ours.send_now(codec.mark(1, 11))
        assert writes == [5, 1, 2]
        await asyncio.sleep(1)
        assert writes == [5, 1, 2]
        assert len(world.theirs.of("mark")) == 8

    play(story)


class Silent(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True


def feed(connection: Connection, data: bytes) -> None:
    view = memoryview(data)
    while view and connection.closed_by is None:
        room = connection.get_buffer(-1)
        taken = min(len(room), len(view))
        room[:taken] = view[:taken]
        connection.buffer_updated(taken)
        view = view[taken:]


def served(connection: Connection, handler: Recorder) -> None:
    connection._welcome = lambda hello: (Welcome(1, "c", "server", "s"), handler)
    connection.connection_made(Silent())


def test_nothing_is_written_to_a_transport_that_has_ended_by_itself():
    """Its end is on the way; asyncio from 3.12 on would leave a socket that is gone in its selector."""

    async def story(world: World) -> None:
        connection = Connection(world.runtime, Recorder())
        served(connection, Recorder())
        feed(connection, codec.MAGIC + codec.control(Kind.HELLO, 0, HELLO))
        connection.flush()
        transport = connection._transport
        written = bytes(transport.written)
        assert written
        transport.close()  # as after a write that failed
        connection.push(CloseSlot(1))
        connection.close(OverloadedError("too much"))
        assert transport.written == written

    play(story)


STORY = b"".join(
    (
        codec.MAGIC,
        codec.control(Kind.HELLO, 0, HELLO),
        codec.append_head(1, 4, len(FRAME)) + FRAME,
        codec.ack(2, 6),
        codec.control(Kind.PUSH, 0, SAMPLES["StreamChanged"]),
        codec.control(Kind.REQUEST, 7, GetStream("orders")),
        codec.mark(1, 5),
    )
)
HEARD = [
    ("open",),
    ("append", 1, 4, FRAME),
    ("ack", 2, 6),
    ("push", SAMPLES["StreamChanged"]),
    ("request", 7, GetStream("orders")),
    ("mark", 1, 5),
]


@given(st.lists(st.integers(1, len(STORY)), max_size=40))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts):
    async def story(world: World) -> None:
        handler = Recorder()
        connection = Connection(world.runtime, handler)
        served(connection, handler)
        bounds = [0, *sorted(set(cuts)), len(STORY)]
        for first, end in itertools.pairwise(bounds):
            feed(connection, STORY[first:end])
        assert handler.seen == HEARD

    play(story)


def test_not_even_byte_by_byte():
    async def story(world: World) -> None:
        handler = Recorder()
        connection = Connection(world.runtime, handler)
        served(connection, handler)
        for at in range(len(STORY)):
            feed(connection, STORY[at : at + 1])
        assert handler.seen == HEARD

    play(story)


@given(st.binary(max_size=300))
def test_any_bytes_on_an_open_connection_close_it_or_are_messages(data):
    """Nothing but the typed error leaves it: a bug would fail the node, and the simulation with it."""

    async def story(world: World) -> None:
        handler = Recorder()
        connection = Connection(world.runtime, handler)
        served(connection, handler)
        feed(connection, codec.MAGIC + codec.control(Kind.HELLO, 0, HELLO))
        feed(connection, data)
        if connection.closed_by is not None:
            assert isinstance(connection.closed_by, LunalogError)

    play(story)


# ------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (Kind.REQUEST, limits.CONTROL_BYTES_MAX + 1),
        (Kind.PUSH, 0xFFFFFFFF),
        (Kind.APPEND, limits.MESSAGE_BYTES_MAX + 1),
        (Kind.FRAMES, 0xFFFFFFFF),
        (Kind.ACK, 11),
        (Kind.ACK, 12),
        (Kind.APPEND, 19),
    ],
)
def test_a_size_out_of_bounds_closes_before_anything_is_allocated(kind, size):
    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw(is_open=True)
        before = len(world.accepted[0]._buffer)
        raw.transport.write(ENVELOPE.pack(size, kind, 0, 0, 1) + bytes(7))
        await asyncio.sleep(1)
        assert raw.is_lost
        assert [message.code for _, _, message in raw.messages()] == ["corrupt_frame"]
        assert len(world.accepted[0]._buffer) == before

    play(story)


def test_one_large_message_does_not_keep_its_memory():
    async def story(world: World) -> None:
        large = frames.build(bytes(16), 0, 1, 0, [bytes(limits.PAYLOAD_BYTES_MAX)])
        handler = Recorder()
        connection = Connection(world.runtime, handler)
        served(connection, handler)
        feed(connection, codec.MAGIC + codec.control(Kind.HELLO, 0, HELLO))
        feed(connection, codec.append_head(1, 4, len(large)) + large)
        assert handler.seen[-1] == ("append", 1, 4, large)
        handler.seen.clear()
        for _ in range(3):
            feed(connection, codec.mark(1, 5))
        assert handler.seen == [("mark", 1, 5)] * 3
        assert len(connection._buffer) <= BUFFER_BYTES_MAX

    play(story)


@pytest.mark.parametrize("name", ENDINGS)
def test_a_connection_that_has_ended_keeps_no_large_buffer(name):
    """Its peer may take what is left as slowly as it likes, and others may hold the object."""

    async def story(world: World) -> None:
        ours = await world.pair()
        half = bytes(codec.append_head(1, 0, 8 * limits.MIB)) + bytes(5 * limits.MIB)
        ours.send(half)
        world.accepted[0].send(half)
        sides = (ours, world.accepted[0])
        await asyncio.sleep(5)
        assert all(len(side._buffer) > 5 * limits.MIB for side in sides)
        ENDINGS[name](*sides)
        await asyncio.sleep(5)
        assert [len(side._buffer) for side in sides] == [BUFFER_BYTES_MIN] * 2

    play(story)


def test_who_takes_too_little_is_cut_off(monkeypatch):
    monkeypatch.setattr(limits, "SEND_QUEUE_BYTES_MAX", 64 * limits.KIB)

    async def story(world: World) -> None:
        mine = Recorder()
        ours = await world.pair(mine)
        world.accepted[0].pause_reading()
        sent = 0
        while ours.is_open:
            ours.send(bytes(codec.append_head(1, 0, 4096 - 20)), bytes(4096 - 20))
            sent += 4096
            await asyncio.sleep(0.001)
            assert sent < 100 * limits.MIB
        assert mine.of("closed")[0][1] is OverloadedError
        assert isinstance(ours.closed_by, OverloadedError)

    play(story)


def test_who_waits_for_room_goes_on_when_the_peer_reads_again():
    async def story(world: World) -> None:
        ours = await world.pair()
        theirs = world.accepted[0]
        await ours.drained()
        theirs.pause_reading()
        while not ours.is_paused:
            ours.send(codec.append_head(1, 0, 1 << 20), bytes(1 << 20))
            await asyncio.sleep(0.01)
        assert ours.unsent_bytes > 0
        waiting = [start(ours.drained()) for _ in range(2)]
        await asyncio.sleep(5)
        assert not any(task.done() for task in waiting)
        theirs.resume_reading()
        await asyncio.gather(*waiting)
        await asyncio.sleep(5)
        assert not ours.is_paused
        assert ours.unsent_bytes == 0

    play(story)


@pytest.mark.parametrize("ends", [False, True], ids=["it drains", "it ends"])
def test_a_handler_hears_when_its_connection_has_enough_and_when_it_takes_more(ends):
    async def story(world: World) -> None:
        mine = Recorder()
        ours = await world.pair(mine)
        theirs = world.accepted[0]
        theirs.pause_reading()
        while not ours.is_paused:
            ours.send(codec.append_head(1, 0, 1 << 20), bytes(1 << 20))
            await asyncio.sleep(0.01)
        assert mine.seen[-1] == ("paused",)
        if ends:
            ours.abort()
            assert [entry[0] for entry in mine.seen[-2:]] == ["paused", "closed"]
        else:
            theirs.resume_reading()
            await asyncio.sleep(5)
            assert mine.seen[-1] == ("drained",)

    play(story)


def test_who_waits_for_room_on_a_connection_that_ends_waits_no_more():
    async def story(world: World) -> None:
        ours = await world.pair()
        world.accepted[0].pause_reading()
        while not ours.is_paused:
            ours.send(codec.append_head(1, 0, 1 << 20), bytes(1 << 20))
            await asyncio.sleep(0.01)
        waiting = start(ours.drained())
        await asyncio.sleep(1)
        ours.abort()
        await waiting
        await ours.drained()

    play(story)


# --------------------------------------------------------------------- broken rules


async def said_by(raw: Raw) -> list[str]:
    await asyncio.sleep(1)
    return [message.code for _, number, message in raw.messages() if number == 0]


@pytest.mark.parametrize(
    "data",
    [
        codec.control(Kind.HELLO, 0, HELLO),
        codec.control(Kind.WELCOME, 0, Welcome(1, "", "server", "s")),
        codec.control(Kind.REPLY, 1, SAMPLES["Failure"]),
        codec.control(Kind.ERROR, 1, Done()),
        codec.control(Kind.ERROR, 0, Done()),
    ],
)
def test_what_makes_no_sense_on_an_open_connection_closes_it(data):
    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw(is_open=True)
        raw.transport.write(data)
        assert await said_by(raw) == ["peer"]
        assert raw.is_lost

    play(story)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (Ping(), codec.control(Kind.REPLY, 1, Certified(True))),
        (Ping(), codec.frames_head(1, HEAD, 0)),
        (READ, codec.control(Kind.REPLY, 1, Done())),
    ],
)
def test_an_answer_to_something_else_closes_and_is_not_returned(asked, answer):
    async def story(world: World) -> None:
        ours = await world.pair()
        asking = start(ours.request(asked, timeout=90.0))
        other = start(ours.request(Ping(), timeout=90.0))
        await asyncio.sleep(1)
        world.accepted[0].send(answer)
        for task in (asking, other):
            error = await failed(task)
            assert isinstance(error, ServerUnavailableError)
            assert "does not answer what was asked" in str(error)
        assert isinstance(ours.closed_by, PeerError)

    play(story)


@pytest.mark.parametrize(
    "data",
    [
        codec.control(Kind.REQUEST, 1, Ping()),
        codec.control(Kind.PUSH, 0, CloseSlot(1)),
        codec.append_head(1, 0, len(FRAME)) + FRAME,
        codec.ack(1, 1),
        codec.mark(1, 1),
    ],
)
def test_who_handles_nothing_takes_nothing(data):
    """A handler's defaults refuse: what a role does not expect ends the connection."""

    async def story(world: World) -> None:
        world.theirs = Handler()  # type: ignore[assignment]
        await world.listen()
        raw = await world.dial_raw(is_open=True)
        raw.transport.write(data)
        assert await said_by(raw) == ["peer"]

    play(story)


@pytest.mark.parametrize("kind", [ZeroDivisionError, InvariantError])
def test_an_error_of_ours_in_a_handler_fails_the_node_and_tells_the_peer_nothing(kind):
    """P5, R27: it is no answer of the protocol, and nothing is known of what it left half done."""

    class Failing:
        def __init__(self, world: World) -> None:
            self.network = world.runtime.network
            self.errors: list[BaseException] = []

        def fail(self, error: BaseException) -> None:
            self.errors.append(error)

    async def story(world: World) -> None:
        await world.listen()
        failing = Failing(world)
        world.runtime = failing  # type: ignore[assignment]
        handler = Recorder()

        def broken(*_: object) -> None:
            raise kind("ours")

        handler.answer = broken
        connection = Connection(failing, handler)  # type: ignore[arg-type]
        served(connection, handler)
        feed(connection, codec.MAGIC + codec.control(Kind.HELLO, 0, HELLO))
        feed(connection, codec.control(Kind.REQUEST, 1, Ping()))
        assert [type(error) for error in failing.errors] == [kind]
        connection.flush()
        assert b"ours" not in bytes(connection._transport.written)

    play(story)


def test_a_hello_of_a_later_version_may_have_more_to_say():
    async def story(world: World) -> None:
        await world.listen()
        later = Hello(1, 9, "", "client", "c", b"", b"", "main", ("compression", "future"))
        connection = await world.dial(hello=later)
        assert connection.is_open
        assert world.hellos == [later]

    play(story)


def test_what_is_sent_to_a_transport_that_has_closed_is_dropped(monkeypatch):
    """uvloop raises then: the peer is gone before `connection_lost` has told so."""

    async def story(world: World) -> None:
        ours = await world.pair()
        transport = ours._transport

        def writelines(_: object) -> None:
            raise RuntimeError("the handler is closed")

        transport.abort()
        monkeypatch.setattr(type(transport), "writelines", writelines)
        ours.push(SAMPLES["CloseSlot"])
        ours.flush()
        await asyncio.sleep(0.1)
        assert ours.closed_by is not None

    play(story)


def test_n6_a_transport_that_forgets_its_limit_when_it_gets_lines_is_reminded(monkeypatch):
    """Of the selector loop, in some releases of Python 3.12 and 3.13."""

    def forgetful(self, lines):
        paused, self._has_paused_protocol = self._has_paused_protocol, True
        self.write(b"".join(lines))
        self._has_paused_protocol = paused

    def looks(self, high=None, low=None):
        limit(self, high, low)
        if self._backlog_bytes > self._limits[1] and not self._has_paused_protocol:
            self._has_paused_protocol = True
            self._tell("pause_writing")

    limit = SimulatedTransport.set_write_buffer_limits
    monkeypatch.setattr(SimulatedTransport, "writelines", forgetful)
    monkeypatch.setattr(SimulatedTransport, "set_write_buffer_limits", looks)

    async def story(world: World) -> None:
        mine = Recorder()
        ours = await world.pair(mine)
        world.accepted[0].pause_reading()
        for _ in range(4):
            ours.send(codec.append_head(1, 0, 1 << 20), bytes(1 << 20))
            await asyncio.sleep(0.01)
        assert ours.is_paused
        world.accepted[0].resume_reading()
        await asyncio.sleep(5)
        assert mine.seen[-1] == ("drained",)

    play(story)
