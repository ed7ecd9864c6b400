"""Bytes in memory: in order, whole, and an end that both sides hear of."""

import asyncio

import pytest

from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import PeerError, ServerUnavailableError
from lunalog.wire import codec
from lunalog.wire.connection import Handler
from lunalog.wire.dialing import acceptor, dial
from lunalog.wire.memory import MemoryNetwork
from lunalog.wire.messages import Done, Hello, Ping, Welcome


class Recorder(asyncio.BufferedProtocol):
    """A protocol with a small buffer."""

    def __init__(self, size=5):
        self.buffer = bytearray(size)
        self.got = bytearray()
        self.lost = None
        self.transport = None
        self.on_data = lambda: None
        self.heard = []
        self.on_room = lambda: None

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.got += self.buffer[:nbytes]
        self.on_data()

    def eof_received(self):
        self.got += b"$"

    def connection_lost(self, exc):
        self.lost = (exc,)

    def pause_writing(self):
        self.heard.append("pause")

    def resume_writing(self):
        self.heard.append("resume")
        self.on_room()


async def pair():
    network, theirs = MemoryNetwork(), Recorder()
    listener = await network.listen(lambda: theirs, ("a", 0))
    ours = Recorder()
    await network.connect(lambda: ours, listener.address)
    return ours, theirs


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_bytes_arrive_in_order_and_not_in_the_turn_they_were_sent():
    ours, theirs = await pair()
    ours.transport.write(b"hello ")
    ours.transport.writelines([memoryview(b"wor"), bytearray(b"ld"), b""])
    assert theirs.got == b""
    assert ours.transport.get_write_buffer_size() == 11
    await turns()
    assert theirs.got == b"hello world"
    assert ours.transport.get_write_buffer_size() == 0


async def test_a_buffer_may_change_after_it_was_sent():
    ours, theirs = await pair()
    buffer = bytearray(b"abc")
    ours.transport.write(buffer)
    buffer[:] = b"xyz"
    await turns()
    assert theirs.got == b"abc"


async def test_close_delivers_what_was_sent_before():
    ours, theirs = await pair()
    ours.transport.write(b"last")
    ours.transport.close()
    ours.transport.write(b"too late")
    await turns()
    assert theirs.got == b"last$"
    assert (ours.lost, theirs.lost) == ((None,), (None,))
    theirs.transport.write(b"nobody there")
    theirs.transport.close()
    await turns()
    assert ours.got == b""


async def test_abort_drops_what_was_not_taken():
    ours, theirs = await pair()
    ours.transport.write(b"lost")
    ours.transport.abort()
    await turns()
    assert theirs.got == b"$"
    assert ours.transport.is_closing()


async def test_a_receiver_that_closes_gets_no_more():
    ours, theirs = await pair()
    theirs.on_data = lambda: theirs.transport.close()
    ours.transport.write(b"0123456789")
    await turns()
    assert theirs.got == b"01234"
    assert ours.lost == (None,)


async def test_what_comes_while_nothing_is_read_waits():
    ours, theirs = await pair()
    theirs.transport.pause_reading()
    theirs.transport.pause_reading()
    assert not theirs.transport.is_reading()
    ours.transport.write(b"later")
    ours.transport.close()
    await turns()
    assert (theirs.got, theirs.lost) == (b"", None)
    theirs.transport.resume_reading()
    theirs.transport.resume_reading()
    assert theirs.got == b"", "not under whoever resumes"
    await turns()
    assert (theirs.got, theirs.lost) == (b"later$", (None,))
    theirs.transport.pause_reading()
    theirs.transport.resume_reading()
    assert not theirs.transport.is_reading()


async def test_a_receiver_pauses_in_the_middle_of_what_arrives():
    ours, theirs = await pair()
    theirs.on_data = lambda: theirs.transport.pause_reading()
    ours.transport.writelines([b"0123456", b"789"])
    for so_far in (b"01234", b"0123456", b"0123456789"):
        await turns()
        assert theirs.got == so_far
        assert ours.transport.get_write_buffer_size() == 10 - len(so_far)
        theirs.transport.resume_reading()


async def test_a_sender_is_paused_while_more_waits_than_it_likes():
    ours, theirs = await pair()
    ours.transport.set_write_buffer_limits(high=8)
    theirs.transport.pause_reading()
    ours.transport.write(b"12345678")
    assert ours.heard == []
    ours.transport.write(b"9")
    ours.transport.write(b"abc")
    assert ours.heard == ["pause"]
    theirs.on_data = lambda: theirs.transport.pause_reading()
    for left in (7, 4, 3):
        assert ours.heard == ["pause"]
        theirs.transport.resume_reading()
        await turns()
        assert ours.transport.get_write_buffer_size() == left
    theirs.transport.resume_reading()
    await turns()
    assert ours.heard == ["pause", "resume"]


async def test_a_sender_that_has_ended_is_not_asked_to_go_on():
    ours, theirs = await pair()
    ours.transport.set_write_buffer_limits(high=1)
    theirs.transport.pause_reading()
    ours.transport.write(b"12")
    ours.transport.close()
    await turns()
    theirs.transport.resume_reading()
    await turns()
    assert (theirs.got, ours.lost) == (b"12$", (None,))
    assert ours.heard == ["pause"]


async def test_a_sender_is_not_paused_for_what_is_taken_in_the_next_turn():
    ours, _ = await pair()
    ours.transport.set_write_buffer_limits(high=1)
    ours.transport.write(b"123456789")
    await turns()
    assert ours.heard == []


async def test_a_sender_is_paused_once_its_receiver_stops_in_the_middle():
    ours, theirs = await pair()
    ours.transport.set_write_buffer_limits(high=3)
    theirs.on_data = lambda: theirs.transport.pause_reading()
    ours.transport.write(b"123456789")
    await asyncio.sleep(0)
    assert (theirs.got, ours.heard) == (b"12345", []), "not under whoever pauses"
    await asyncio.sleep(0)
    assert ours.heard == ["pause"]


async def test_limits_count_for_what_waits_already():
    ours, theirs = await pair()
    theirs.transport.pause_reading()
    ours.transport.write(b"12345678")
    ours.transport.set_write_buffer_limits(low=2)
    assert ours.heard == []
    ours.transport.set_write_buffer_limits(high=7, low=0)
    assert ours.heard == ["pause"]
    with pytest.raises(ValueError, match="high"):
        ours.transport.set_write_buffer_limits(high=1, low=2)


async def test_what_is_sent_when_there_is_room_again_arrives_in_a_turn_of_its_own():
    ours, theirs = await pair()
    ours.transport.set_write_buffer_limits(high=1)
    ours.on_room = lambda: ours.transport.write(b"next")
    theirs.transport.pause_reading()
    ours.transport.write(b"first")
    theirs.transport.resume_reading()
    await asyncio.sleep(0)
    assert theirs.got == b"first"
    assert ours.transport.get_write_buffer_size() == 4
    await asyncio.sleep(0)
    assert theirs.got == b"firstnext"


async def test_addresses_are_taken_once_and_freed():
    network = MemoryNetwork()
    first = await network.listen(Recorder, ("a", 7))
    with pytest.raises(OSError, match="taken"):
        await network.listen(Recorder, ("a", 7))
    other = await network.listen(Recorder, ("a", 0))
    assert other.address != first.address
    await first.close()
    await first.close()
    with pytest.raises(ConnectionRefusedError):
        await network.connect(Recorder, ("a", 7))
    await network.listen(Recorder, ("a", 7))


class Answering(Handler):
    def on_request(self, connection, request, message):
        connection.reply(request, Done())


async def test_the_protocol_runs_over_it():
    runtime = MemoryRuntime()
    welcome = Welcome(1, "c", "server", "s1")
    listener = await runtime.network.listen(
        acceptor(runtime, lambda hello: (welcome, Answering())), ("s", 0)
    )
    hello = Hello(1, 1, "c", "client", "p", b"", b"n" * 16)
    connection = await dial(runtime, listener.address, hello, Handler())
    assert connection.peer == welcome
    assert await connection.request(Ping(), timeout=60) == Done()
    connection.close()
    with pytest.raises(ServerUnavailableError):
        await connection.request(Ping(), timeout=60)
    await turns()


async def test_a_refused_handshake_says_why():
    runtime = MemoryRuntime()

    def welcome(hello):
        raise PeerError("not you")

    listener = await runtime.network.listen(acceptor(runtime, welcome), ("s", 0))
    hello = Hello(codec.VERSION_MIN, codec.VERSION_MAX, "", "client", "p", b"", b"")
    with pytest.raises(PeerError, match="not you"):
        await dial(runtime, listener.address, hello, Handler())
