"""TLS between two ends, on simulated time: what passes, what is refused, what is bounded."""

import asyncio
import logging
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.certificates import Authority
from tests.unit.wire import peers
from tests.unit.wire.peers import ADDRESS, HELLO, Raw, Recorder, World

from lunalog import limits
from lunalog.errors import (
    LunalogError,
    OverloadedError,
    ServerUnavailableError,
    TlsError,
    TlsMismatchError,
    UntrustedPeerError,
)
from lunalog.wire import certificates, codec, frames, tls
from lunalog.wire.connection import HANDSHAKE_TIMEOUT_S, WRITE_HIGH_BYTES
from lunalog.wire.dialing import dial
from lunalog.wire.messages import Done, Ping
from lunalog.wire.tls import RECORD_BYTES, WRITE_BYTES, TlsNetwork, pieces

HOST = ADDRESS[0]
FRAME = frames.build(bytes(16), 0, 1, 0, [b"payload"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(authority):
    return contexts(authority, authority.issue(HOST))


def contexts(authority, issued):
    """Those of a node, whatever its certificate is worth."""
    dialling = certificates.client_contexts(authority.file)
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.minimum_version = certificates.OLDEST
    listening.load_cert_chain(issued.certificate, issued.key)
    return certificates.Contexts(dialling.dialling, authority.file, listening)


class TlsWorld(World):
    """Both ends speak TLS, unless a story takes the network below."""

    def __init__(self, simulation, node):
        super().__init__(simulation)
        self.node = node
        self.below = self.runtime.network
        self.runtime.network = TlsNetwork(self.below, node)

    async def raw_below(self):
        """Somebody who has connected and says any bytes."""
        raw = Raw()
        await self.below.connect(lambda: raw, ADDRESS)
        return raw

    def plain(self):
        self.runtime.network = self.below

    def secure(self, node):
        self.runtime.network = TlsNetwork(self.below, node)


@pytest.fixture
def play(node):
    def run(story):
        async def inner(world):
            await story(TlsWorld(world.simulation, node))

        peers.play(inner)

    return run


async def failure(world, **options):
    with pytest.raises(LunalogError) as caught:
        await world.dial(**options)
    return caught.value


# ------------------------------------------------------------------------------ what passes


def test_requests_appends_and_large_messages_pass_both_ways(play):
    async def story(world):
        world.theirs.answer = lambda connection, request, _: connection.reply(request, Done())
        ours = Recorder()
        connection = await world.pair(ours)
        large = [bytes([n]) * size for n, size in enumerate((1, 16_384, 16_385, 65_536, 3_000_000))]
        for number, payload in enumerate(large):
            frame = frames.build(bytes(16), number, 1, 0, [payload])
            connection.send(codec.append_head(number, 0, len(frame)), frame)
        assert await connection.request(Ping(), timeout=60) == Done()
        appended = [(entry[1], len(entry[3])) for entry in world.theirs.of("append")]
        assert [slot for slot, _ in appended] == [0, 1, 2, 3, 4]
        for (_, length), payload, entry in zip(
            appended, large, world.theirs.of("append"), strict=True
        ):
            assert length > len(payload)
            assert payload in entry[3]
        for slot in range(1000):
            world.theirs.connection.send(codec.ack(slot, slot + 7))
        await asyncio.sleep(5)
        assert ours.of("ack") == [("ack", slot, slot + 7) for slot in range(1000)]

    play(story)


def test_a_large_message_leaves_in_pieces_while_the_rest_is_encrypted(play):
    """Records that are kept for one call take fresh memory for each, at the price of the cipher."""

    async def story(world):
        connection = await world.pair()
        below, sizes = connection._transport._below, []
        write = below.write
        below.write = lambda records: (sizes.append(len(records)), write(records))
        frame = frames.build(bytes(16), 0, 1, 0, [bytes(1 << 20)])
        connection.send(codec.append_head(0, 0, len(frame)), frame)
        connection.flush()
        assert sum(sizes) > 1 << 20
        assert max(sizes) < WRITE_BYTES * 1.01
        await asyncio.sleep(5)
        assert len(world.theirs.of("append")) == 1

    play(story)


def test_what_is_queued_before_a_close_still_arrives(play):
    async def story(world):
        connection = await world.pair()
        connection.send(codec.append_head(1, 0, len(FRAME)), FRAME)
        connection.close()
        await asyncio.sleep(5)
        kinds = [entry[0] for entry in world.theirs.seen]
        assert kinds == ["open", "append", "closed"]
        assert connection._transport.is_closing()

    play(story)


def test_an_abort_ends_both_sides(play):
    async def story(world):
        connection = await world.pair()
        connection.abort()
        await asyncio.sleep(5)
        assert [entry[0] for entry in world.theirs.seen] == ["open", "closed"]

    play(story)


def test_a_reader_that_pauses_gets_nothing_and_then_everything(play):
    """And what it does not take waits at the sender, where it is counted."""

    async def story(world):
        connection = await world.pair()
        theirs = world.accepted[0]
        theirs.pause_reading()
        payload = bytes(1 << 20)
        frame = frames.build(bytes(16), 0, 1, 0, [payload])
        for slot in range(20):
            connection.send(codec.append_head(slot, 0, len(frame)), frame)
            await asyncio.sleep(0)
        await asyncio.sleep(60)
        seen = len(world.theirs.of("append"))
        assert seen == 0
        assert theirs.received_bytes < 10_000
        assert connection.unsent_bytes > 10 << 20
        assert connection.is_paused
        theirs.resume_reading()
        await connection.drained()
        await asyncio.sleep(60)
        assert [entry[1] for entry in world.theirs.of("append")] == list(range(20))
        assert connection.unsent_bytes == 0

    play(story)


class Nibbler(asyncio.BufferedProtocol):
    """Takes a hundred bytes, then pauses."""

    def __init__(self):
        self.got = bytearray()
        self._room = memoryview(bytearray(100))

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self._room

    def buffer_updated(self, nbytes):
        self.got += self._room[:nbytes]
        self.transport.pause_reading()


def test_pausing_inside_a_burst_leaves_the_rest_of_it_undelivered(play):
    payload = bytes(range(250)) * 40

    async def story(world):
        sender, nibbler = Nibbler(), Nibbler()
        network = world.runtime.network
        await network.listen(lambda: nibbler, ADDRESS)
        await network.connect(lambda: sender, ADDRESS)
        sender.transport.write(payload)
        for turn in range(1, 101):
            await asyncio.sleep(5)
            assert len(nibbler.got) == 100 * turn
            nibbler.transport.resume_reading()
        assert nibbler.got == payload

    play(story)


def test_a_sender_is_asked_to_pause_where_its_connection_wants_it(play):
    async def story(world):
        world.simulation.network.settings.write_high_bytes = 4 * WRITE_HIGH_BYTES
        connection = await world.pair()
        world.accepted[0].pause_reading()
        frame = frames.build(bytes(16), 0, 1, 0, [bytes(1 << 18)])
        paused = set()
        for slot in range(8):
            connection.send(codec.append_head(slot, 0, len(frame)), frame)
            connection.flush()
            await asyncio.sleep(1)
            assert connection.is_paused == (connection.unsent_bytes > WRITE_HIGH_BYTES)
            paused.add(connection.is_paused)
        assert paused == {False, True}

    play(story)


def test_a_peer_that_takes_nothing_is_cut_off_at_the_limit(play):
    async def story(world):
        connection = await world.pair()
        world.accepted[0].pause_reading()
        frame = frames.build(bytes(16), 0, 1, 0, [bytes(8 << 20)])
        for _ in range(2 * limits.SEND_QUEUE_BYTES_MAX // len(frame)):
            connection.send(codec.append_head(0, 0, len(frame)), frame)
            connection.flush()
            if connection.closed_by is not None:
                break
        assert isinstance(connection.closed_by, OverloadedError)

    play(story)


# ----------------------------------------------------------------------------- what is refused


def test_a_plain_client_is_told_that_the_port_speaks_tls(play, caplog):
    async def story(world):
        await world.listen()
        world.plain()
        error = await failure(world)
        assert isinstance(error, TlsMismatchError)
        assert error.code == "tls_mismatch"
        assert f"{HOST}:{ADDRESS[1]}: this port speaks TLS only" in str(error)
        assert "lunalogs://" in str(error)
        assert world.accepted == []

    with caplog.at_level(logging.WARNING, "lunalog.wire"):
        play(story)
    assert [record.message for record in caplog.records] == ["handshake_failed"]


def test_a_tls_client_is_told_that_the_port_does_not_speak_tls(play):
    async def story(world):
        world.plain()
        await world.listen()
        world.secure(world.node)
        error = await failure(world)
        assert isinstance(error, TlsMismatchError)
        assert f"{HOST}:{ADDRESS[1]}: this port does not speak TLS" in str(error)
        assert world.hellos == [], "the name of the peer did not travel in the clear"

    play(story)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16", b"\x16\x02", b"\x17\x03"]
)
def test_what_answers_with_other_bytes_does_not_speak_tls(play, said):
    async def story(world):
        raw = Raw()
        raw.data_received = lambda data: (raw.transport.write(said), raw.transport.close())
        await world.below.listen(lambda: raw, ADDRESS)
        error = await failure(world)
        wanted = ServerUnavailableError if said == b"\x16" else TlsMismatchError
        assert type(error) is wanted

    play(story)


def test_a_certificate_that_has_expired_is_refused(play, authority):
    async def story(world):
        world.secure(contexts(authority, authority.expired(HOST)))
        await world.listen()
        error = await failure(world)
        assert type(error) is UntrustedPeerError
        assert error.code == "untrusted_peer"
        assert f"the certificate of {HOST}:{ADDRESS[1]} has expired" in str(error)
        assert world.hellos == []

    play(story)


def test_a_certificate_for_another_host_is_refused(play, authority):
    async def story(world):
        world.secure(contexts(authority, authority.issue("elsewhere", name="elsewhere")))
        await world.listen()
        error = await failure(world)
        assert type(error) is UntrustedPeerError
        assert f"is not for {HOST}" in str(error)

    play(story)


def test_a_certificate_of_an_authority_that_is_not_trusted_is_refused(play, tmp_path, node, caplog):
    other = Authority(tmp_path)

    async def story(world):
        await world.listen()
        world.secure(contexts(other, other.issue(HOST)))
        error = await failure(world)
        assert type(error) is UntrustedPeerError
        assert other.file in str(error)
        await asyncio.sleep(1)

    with caplog.at_level(logging.WARNING, "lunalog.wire"):
        play(story)
    (record,) = caplog.records
    assert record.message == "handshake_failed"
    assert record.why == "TLSV1_ALERT_UNKNOWN_CA", "the alert has told the other side"


def test_an_older_version_of_tls_is_refused(play):
    async def story(world):
        await world.listen()
        old = certificates.client_contexts(world.node.authority)
        old.dialling.minimum_version = ssl.TLSVersion.TLSv1_2
        old.dialling.maximum_version = ssl.TLSVersion.TLSv1_2
        world.secure(old)
        error = await failure(world)
        assert type(error) is TlsError
        assert "both sides need TLS 1.3" in str(error)

    play(story)


def test_a_flipped_bit_ends_the_connection_and_nothing_of_its_record_is_delivered(play):
    async def story(world):
        connection = await world.pair()
        below = connection._transport._below
        write = below.write

        def harm(records):
            bad = bytearray(records)
            bad[len(bad) // 2] ^= 1
            write(bytes(bad))

        below.write = harm
        connection.send(codec.append_head(1, 0, len(FRAME)), FRAME)
        await asyncio.sleep(5)
        assert [entry[0] for entry in world.theirs.seen] == ["open", "closed"]
        assert "MAC" in world.theirs.seen[-1][2]
        assert connection.closed_by is not None

    play(story)


def test_a_record_that_cannot_be_encrypted_ends_the_connection_and_says_why(play):
    class Spent:
        def write(self, piece):
            raise ssl.SSLError(1, "no more records under this key")

    async def story(world):
        connection = await world.pair()
        connection._transport._tls = Spent()
        connection.send(codec.append_head(1, 0, len(FRAME)), FRAME)
        await asyncio.sleep(5)
        assert "no more records under this key" in str(connection.closed_by)
        assert [entry[0] for entry in world.theirs.seen] == ["open", "closed"]

    play(story)


def test_who_has_no_certificate_cannot_listen(play):
    async def story(world):
        world.secure(certificates.client_contexts(world.node.authority))
        with pytest.raises(OSError, match="no certificate to listen with"):
            await world.listen()
        world.plain()
        await world.listen()

    play(story)


def test_what_is_no_host_cannot_be_reached(play):
    async def story(world):
        await world.listen()
        for host in ("", ".a", "a\0b", "x" * 300):
            with pytest.raises(ServerUnavailableError, match="is no address"):
                await dial(world.runtime, (host, 1), HELLO, Recorder())

    play(story)


def test_a_handshake_may_come_in_crumbs(play):
    async def story(world):
        await world.listen()
        raw = await world.raw_below()
        outgoing = ssl.MemoryBIO()
        client = world.node.dialling.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        for crumb in (hello[:1], hello[1:5], hello[5:6], hello[6:]):
            raw.transport.write(crumb)
            await asyncio.sleep(0.5)
        assert raw.got[:2] == b"\x16\x03"
        assert not raw.is_lost

    play(story)


# ----------------------------------------------------------------------------- what is bounded


def test_a_handshake_that_never_comes_ends_in_time_and_made_no_connection(play):
    async def story(world):
        await world.listen()
        raw = await world.raw_below()
        await asyncio.sleep(HANDSHAKE_TIMEOUT_S - 1)
        assert not raw.is_lost
        other = await world.dial()  # meanwhile others are served
        await asyncio.sleep(2)
        assert raw.is_lost
        assert other.is_open
        assert len(world.accepted) == 1

    play(story)


def test_a_server_that_never_answers_the_handshake_is_given_up(play):
    async def story(world):
        raw = Raw()
        await world.below.listen(lambda: raw, ADDRESS)
        before = world.now()
        error = await failure(world, timeout=3)
        assert isinstance(error, ServerUnavailableError)
        assert world.now() - before < 4
        await asyncio.sleep(5)
        assert raw.is_lost, "nothing is left of the attempt"

    play(story)


def test_a_dial_that_nobody_waits_for_leaves_nothing(play):
    async def story(world):
        raw = Raw()
        await world.below.listen(lambda: raw, ADDRESS)
        dialling = asyncio.ensure_future(world.dial())
        await asyncio.sleep(1)
        dialling.cancel()
        await asyncio.wait([dialling])
        await asyncio.sleep(1)
        assert raw.is_lost

    play(story)


def test_a_peer_that_goes_during_the_handshake_is_told(play):
    async def story(world):
        raw = Raw()
        raw.data_received = lambda data: raw.transport.close()
        await world.below.listen(lambda: raw, ADDRESS)
        assert isinstance(await failure(world), ServerUnavailableError)

    play(story)


def test_too_many_handshakes_end_the_oldest_and_a_real_client_comes_in(play, monkeypatch):
    monkeypatch.setattr(tls, "HANDSHAKES_MAX", 3)

    async def story(world):
        await world.listen()
        idle = [await world.raw_below() for _ in range(5)]
        await asyncio.sleep(1)
        assert [raw.is_lost for raw in idle] == [True, True, False, False, False]
        assert (await world.dial()).is_open
        await asyncio.sleep(1)
        assert [raw.is_lost for raw in idle] == [True, True, True, False, False]

    play(story)


def test_the_same_refusal_again_is_not_worth_a_warning(play, caplog):
    async def story(world):
        await world.listen()
        for said in (b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n"):
            raw = await world.raw_below()
            raw.transport.write(said)
            await asyncio.sleep(1)
            assert raw.is_lost

    with caplog.at_level(logging.DEBUG, "lunalog.wire"):
        play(story)
    told = [r.levelname for r in caplog.records if r.message == "handshake_failed"]
    assert told == ["WARNING", "DEBUG"]


@settings(max_examples=30)
@given(
    said=st.binary(max_size=400), head=st.sampled_from([b"", b"\x16\x03\x01\x00\x80", b"\x15\x03"])
)
def test_hostile_bytes_end_in_a_closed_connection_and_nothing_else(node, said, head):
    async def story(outer):
        world = TlsWorld(outer.simulation, node)
        await world.listen()
        raw = await world.raw_below()
        raw.transport.write(head + said or b"\0")
        await asyncio.sleep(HANDSHAKE_TIMEOUT_S + 2)
        assert raw.is_lost
        assert world.accepted == []
        assert (await world.dial()).is_open

    peers.play(story)


# --------------------------------------------------------------------------------- records


@given(st.lists(st.integers(0, 3 * WRITE_BYTES), max_size=12))
def test_pieces_hold_what_they_were_made_of_and_none_is_too_large(sizes):
    buffers = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    found = list(pieces(buffers))
    assert b"".join(found) == b"".join(buffers)
    assert all(0 < len(piece) <= WRITE_BYTES for piece in found)


def test_many_small_buffers_share_records():
    acks = [bytes(20)] * 10_000
    assert len(list(pieces(acks))) == -(-len(acks) // (RECORD_BYTES // 20))


def test_a_large_buffer_is_not_copied():
    large = bytes(WRITE_BYTES)
    (piece,) = pieces([large])
    assert piece.obj is large
