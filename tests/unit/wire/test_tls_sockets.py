"""TLS on real sockets and both event loops: flow control holds, nothing is lost at a close."""

import asyncio
import os

import pytest
import uvloop
from tests.certificates import Authority

from lunalog.runtime import TcpNetwork
from lunalog.wire.certificates import node_contexts
from lunalog.wire.tls import TlsNetwork

HOST = "127.0.0.1"
MIB = 1 << 20
KERNEL_BYTES = 16 * MIB
"""What the two sockets may hold between them."""


class End(asyncio.BufferedProtocol):
    """Keeps what it gets, and tells what happens to it."""

    def __init__(self):
        self.got = bytearray()
        self.wanted = -1
        self.transport = None
        self.made, self.full, self.lost, self.paused, self.resumed = (
            asyncio.Event() for _ in range(5)
        )
        self._room = memoryview(bytearray(64 * 1024))

    def connection_made(self, transport):
        self.transport = transport
        self.made.set()

    def get_buffer(self, sizehint):
        return self._room

    def buffer_updated(self, nbytes):
        self.got += self._room[:nbytes]
        if len(self.got) == self.wanted:
            self.full.set()

    def connection_lost(self, error):
        self.lost.set()

    def pause_writing(self):
        self.paused.set()

    def resume_writing(self):
        self.resumed.set()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("authority"))
    issued = authority.issue(HOST)
    return node_contexts(issued.certificate, issued.key, authority.file, HOST)


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request, contexts):
    def run(story):
        async def main():
            network = TlsNetwork(TcpNetwork(), contexts)
            ours, theirs = End(), End()
            listener = await network.listen(lambda: theirs, (HOST, 0))
            async with asyncio.timeout(60):
                await network.connect(lambda: ours, listener.address)
                await theirs.made.wait()
                await story(ours, theirs)
            await listener.close()
            for end in (ours, theirs):
                end.transport.abort()
                await end.lost.wait()

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


def test_who_does_not_read_holds_the_sender_back_and_then_gets_everything(play):
    """What waits is counted at the sender, so that it can be paused, and cut off."""
    payload = os.urandom(MIB) * 64

    async def story(ours, theirs):
        theirs.wanted = len(payload)
        theirs.transport.pause_reading()
        ours.transport.set_write_buffer_limits(high=4 * MIB)
        ours.transport.writelines([payload])
        await ours.paused.wait()
        assert len(theirs.got) < MIB
        waiting = ours.transport.get_write_buffer_size()
        assert len(payload) - KERNEL_BYTES < waiting <= len(payload) * 1.01
        theirs.transport.resume_reading()
        await theirs.full.wait()
        await ours.resumed.wait()
        assert theirs.got == payload

    play(story)


def test_reading_that_pauses_all_the_time_loses_and_repeats_nothing(play):
    payload = os.urandom(8 * MIB)

    async def story(ours, theirs):
        theirs.wanted = len(payload)
        take = theirs.buffer_updated

        def pause(nbytes):
            take(nbytes)
            theirs.transport.pause_reading()
            asyncio.get_running_loop().call_soon(theirs.transport.resume_reading)

        theirs.buffer_updated = pause
        ours.transport.writelines([payload[at : at + 100_000] for at in range(0, 8 * MIB, 100_000)])
        await theirs.full.wait()
        assert theirs.got == payload

    play(story)


def test_what_was_written_before_a_close_arrives(play):
    payload = os.urandom(16 * MIB)

    async def story(ours, theirs):
        ours.transport.write(payload)
        ours.transport.close()
        ours.transport.write(b"too late")
        await theirs.lost.wait()
        await ours.lost.wait()
        assert theirs.got == payload

    play(story)


def test_both_sides_may_send_at_once(play):
    payload = os.urandom(4 * MIB)

    async def story(ours, theirs):
        ours.wanted = theirs.wanted = len(payload)
        for end in (ours, theirs):
            end.transport.writelines(
                [payload[at : at + 1000] for at in range(0, len(payload), 1000)]
            )
        await ours.full.wait()
        await theirs.full.wait()
        assert ours.got == theirs.got == payload

    play(story)
