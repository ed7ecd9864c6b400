"""The handshake: who speaks what to whom, and what a stranger can cost before it is over."""

import asyncio
import errno

import pytest
from tests.unit.wire.peers import HELLO, WELCOME, Recorder, World, play

from lunalog import limits
from lunalog.errors import (
    CorruptFrameError,
    MasterUnavailableError,
    PeerError,
    ServerUnavailableError,
    UnsupportedVersionError,
    WrongClusterError,
)
from lunalog.wire import codec
from lunalog.wire.codec import ENVELOPE, Kind
from lunalog.wire.connection import BUFFER_BYTES_MIN, HANDSHAKE_TIMEOUT_S
from lunalog.wire.dialing import cannot_listen
from lunalog.wire.messages import Done, Hello, Ping, Welcome


def test_both_sides_know_each_other_before_anything_else():
    async def story(world: World) -> None:
        ours = Recorder()
        connection = await world.pair(ours)
        assert connection.is_open
        assert connection.peer == WELCOME
        assert world.accepted[0].peer == HELLO
        assert ours.seen == world.theirs.seen == [("open",)]
        assert "server s1, open" in repr(connection)
        assert "client engine-1, open" in repr(world.accepted[0])

    play(story)


def test_the_bytes_are_the_magic_hello_and_welcome():
    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw()
        raw.transport.write(codec.MAGIC + codec.control(Kind.HELLO, 0, HELLO))
        await asyncio.sleep(1)
        assert raw.got == codec.control(Kind.WELCOME, 0, WELCOME)
        assert not raw.is_lost

    play(story)


def test_a_cluster_that_is_another_one_is_told_and_raised():
    async def story(world: World) -> None:
        world.refusal = WrongClusterError("server s1 belongs to cluster c0ffee, not decaf")
        await world.listen()
        with pytest.raises(WrongClusterError, match="c0ffee, not decaf"):
            await world.dial(hello=Hello(1, 1, "decaf", "client", "c", b"", b""))
        await asyncio.sleep(1)
        assert world.hellos[0].cluster == "decaf"
        assert world.theirs.seen == []
        assert isinstance(world.accepted[0].closed_by, WrongClusterError)

    play(story)


@pytest.mark.parametrize("asked", [(2, 9), (0, 0)])
def test_without_a_common_version_the_dialler_is_told_before_it_is_looked_at(asked):
    async def story(world: World) -> None:
        await world.listen()
        with pytest.raises(UnsupportedVersionError, match="versions 1 to 1, the other"):
            await world.dial(hello=Hello(*asked, "", "client", "c", b"", b""))
        assert world.hellos == []

    play(story)


@pytest.mark.parametrize("chosen", [0, 2, 7])
def test_a_version_that_was_not_offered_is_not_spoken(chosen):
    async def story(world: World) -> None:
        world.welcome = Welcome(chosen, "c0ffee", "server", "s1")
        await world.listen()
        ours = Recorder()
        with pytest.raises(UnsupportedVersionError, match=f"chose version {chosen}"):
            await world.dial(ours)
        await asyncio.sleep(1)
        assert ours.seen == []
        assert isinstance(world.accepted[0].closed_by, UnsupportedVersionError)

    play(story)


# -------------------------------------------------------------------------------- strangers


def errors_of(raw: object) -> list[str]:
    return [message.code for _, number, message in raw.messages() if number == 0]


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"LUNALOG2" + codec.control(Kind.HELLO, 0, HELLO),
        bytes(64),
        codec.control(Kind.HELLO, 0, HELLO),
    ],
)
def test_another_protocol_is_told_so_and_closed(first):
    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw()
        raw.transport.write(first)
        await asyncio.sleep(1)
        assert errors_of(raw) == ["corrupt_frame"]
        assert raw.is_lost
        assert world.hellos == []

    play(story)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Kind.REQUEST, Ping()),
        (Kind.PUSH, Ping()),
        (Kind.REPLY, Done()),
        (Kind.WELCOME, WELCOME),
        (Kind.HELLO, Ping()),
        (Kind.REQUEST, HELLO),
        (Kind.ERROR, Ping()),
    ],
)
def test_nothing_but_hello_opens_a_connection(kind, message):
    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw()
        raw.transport.write(codec.MAGIC + codec.control(kind, 1, message))
        await asyncio.sleep(1)
        assert errors_of(raw) == ["peer"]
        assert raw.is_lost
        assert world.hellos == []

    play(story)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("size", [limits.HELLO_BYTES_MAX + 1, 1 << 24, 0xFFFFFFFF])
def test_a_stranger_makes_nobody_allocate(kind, size):
    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw()
        raw.transport.write(codec.MAGIC + ENVELOPE.pack(size, kind, 0, 0, 0))
        await asyncio.sleep(1)
        assert errors_of(raw) == ["corrupt_frame"]
        assert raw.is_lost
        assert len(world.accepted[0].get_buffer(-1)) <= BUFFER_BYTES_MIN

    play(story)


@pytest.mark.parametrize(
    "fields", [{"args": 5}, {"__class__": 1}, {"fields": 2}, {"end": -1}, {"code": "usage"}]
)
def test_an_error_in_place_of_a_hello_only_closes(fields):
    """Whatever its fields are called: they touch nothing here."""

    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw()
        failure = codec.Failure("gap", "hello", fields)
        raw.transport.write(codec.MAGIC + codec.control(Kind.ERROR, 0, failure))
        await asyncio.sleep(1)
        assert raw.is_lost
        assert str(world.accepted[0].closed_by) == "hello"

    play(story)


@pytest.mark.parametrize("said", [b"", codec.MAGIC[:5], codec.MAGIC + b"\x20\0\0"])
def test_who_does_not_finish_the_handshake_is_closed_in_time(said):
    async def story(world: World) -> None:
        await world.listen()
        raw = await world.dial_raw()
        raw.transport.write(said)
        await asyncio.sleep(HANDSHAKE_TIMEOUT_S - 0.5)
        assert not raw.is_lost
        await asyncio.sleep(1)
        assert raw.is_lost
        assert errors_of(raw) == ["peer"]
        assert "no handshake within 5 s" in str(world.accepted[0].closed_by)

    play(story)


def test_a_connection_that_is_open_outlives_the_deadline_of_its_handshake():
    async def story(world: World) -> None:
        connection = await world.pair()
        await asyncio.sleep(10 * HANDSHAKE_TIMEOUT_S)
        assert connection.is_open

    play(story)


# --------------------------------------------------------------------------- who dials in vain


@pytest.mark.parametrize("kind", [ServerUnavailableError, MasterUnavailableError])
def test_nobody_there_is_told_as_what_was_dialled(kind):
    async def story(world: World) -> None:
        with pytest.raises(kind, match=r"cannot reach harness:7000: nothing listens there$"):
            await world.dial(unreachable=kind)

    play(story)


def test_where_nobody_may_listen_is_told_in_words_with_what_to_choose():
    taken = cannot_listen(("::1", 7600), OSError(errno.EADDRINUSE, "for ('::1', 7600, 0, 0)"))
    assert str(taken) == (
        "cannot listen on [::1]:7600: Address already in use; nothing was started; "
        "choose another --port, or end the process that listens there"
    )
    elsewhere = cannot_listen(("192.0.2.1", 7600), OSError(errno.EADDRNOTAVAIL, "x"))
    assert str(elsewhere) == (
        "cannot listen on 192.0.2.1:7600: Cannot assign requested address; nothing was started; "
        "choose another --host or --port"
    )


def test_who_listens_and_says_nothing_is_given_up():
    async def story(world: World) -> None:
        raw = await world.listen_raw()
        began = world.now()
        with pytest.raises(ServerUnavailableError, match="within 2 s"):
            await world.dial(timeout=2.0)
        assert 2.0 <= world.now() - began < 2.1
        await asyncio.sleep(1)
        assert raw.is_lost

    play(story)


def test_who_closes_in_the_handshake_is_unreachable_or_says_why():
    async def story(world: World) -> None:
        raw = await world.listen_raw()
        dialling = asyncio.ensure_future(world.dial())
        await asyncio.sleep(1)
        assert raw.got == codec.MAGIC + codec.control(Kind.HELLO, 0, HELLO)
        raw.transport.close()
        with pytest.raises(PeerError, match="closed by the peer"):
            await dialling

    play(story)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", ENVELOPE.pack(1 << 20, Kind.WELCOME, 0, 0, 0)]
)
def test_who_answers_in_another_protocol_is_no_peer(answer):
    async def story(world: World) -> None:
        raw = await world.listen_raw()
        dialling = asyncio.ensure_future(world.dial())
        await asyncio.sleep(1)
        raw.transport.write(answer)
        with pytest.raises(
            CorruptFrameError, match=r"what answers at .+:\d+ does not speak lunalog"
        ):
            await dialling

    play(story)


def test_dialling_that_is_cancelled_leaves_no_connection():
    async def story(world: World) -> None:
        raw = await world.listen_raw()
        dialling = asyncio.ensure_future(world.dial())
        await asyncio.sleep(1)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await asyncio.sleep(1)
        assert raw.is_lost

    play(story)
