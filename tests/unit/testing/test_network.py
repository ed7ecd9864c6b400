"""The simulated network keeps TCP's promises and breaks connections in TCP's ways."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from lunalog.testing.link import NetworkSettings
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.network import SimulatedListener, running_loop
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation
from lunalog.testing.transport import SimulatedTransport

PORT = 7000
SERVER = ("server", PORT)


class Peer(asyncio.Protocol):
    """Notes all that its transport tells it."""

    transport: SimulatedTransport

    def __init__(self) -> None:
        self.got = bytearray()
        self.reads = 0
        self.calls: list[str] = []
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimulatedTransport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.reads += 1
        self.changed.set()

    def eof_received(self) -> bool | None:
        self.calls.append("eof")
        return None

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.calls.append("lost")
        self.lost.append(error)
        self.changed.set()


class EchoPeer(Peer):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """Echoes through a buffer smaller than most writes."""

    transport: SimulatedTransport

    def __init__(self) -> None:
        self.buffer = bytearray(300)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimulatedTransport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(memoryview(self.buffer)[:nbytes])


class World:
    """A server node whose accepted protocols are kept, and a client node's network."""

    def __init__(self, simulation: Simulation, factory: type = EchoPeer) -> None:
        self.simulation = simulation
        self.factory = factory
        self.accepted: list[Peer] = []
        self.server = simulation.node("server")
        self.server.start(self.serve)
        self.network = simulation.network
        simulation.run_for(0.1)

    async def serve(self, runtime: SimulatedRuntime) -> None:
        await runtime.network.listen(self.accept, ("", PORT))
        await asyncio.get_running_loop().create_future()

    def accept(self) -> Peer:
        peer: Peer = self.factory()
        self.accepted.append(peer)
        return peer

    async def connect(self) -> Peer:
        peer = Peer()
        await self.simulation.harness_runtime.network.connect(lambda: peer, SERVER)
        return peer

    def connected(self) -> tuple[Peer, Peer]:
        """A client's and a server's protocol, connected."""
        client = self.simulation.run(self.connect())
        self.simulation.run_for(0.5)
        return client, self.accepted[-1]


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(5) as made:
        yield made


async def until(peer: Peer, size: int) -> None:
    async with asyncio.timeout(60):
        while len(peer.got) < size:
            peer.changed.clear()
            await peer.changed.wait()


@pytest.mark.parametrize("factory", [EchoPeer, BufferedEcho])
@pytest.mark.parametrize("seed", range(5))
def test_bytes_come_back_whole_and_in_order(factory: type, seed: int) -> None:
    """Cut and merged at random, over a lossy network, by both kinds of protocol."""
    settings = NetworkSettings(loss_rate=0.05, fragment_rate=0.3)
    with Simulation(seed, settings=settings) as simulation:
        world = World(simulation, factory)
        sent = b"".join(i.to_bytes(4, "big") * (i % 50) for i in range(300))

        async def work() -> Peer:
            peer = await world.connect()
            at = 0
            chance = simulation.stream("sizes")
            while at < len(sent):
                size = chance.randint(1, 200)
                peer.transport.writelines([sent[at : at + 3], sent[at + 3 : at + size]])
                at += max(size, 3)
                if chance.random() < 0.5:
                    await asyncio.sleep(chance.random() / 1000)
            await until(peer, len(sent))
            return peer

        peer = simulation.run(work())
        assert peer.got == sent
        assert peer.reads > 1


def test_writes_of_a_moment_arrive_together(simulation: Simulation) -> None:
    world = World(simulation)
    client, server = world.connected()
    for _ in range(100):
        client.transport.write(b"x")
    simulation.run_for(1)
    assert len(server.got) == 100
    assert server.reads < 30


def test_a_reader_that_does_not_read_stops_the_writer(simulation: Simulation) -> None:
    """`pause_writing` comes once, and `resume_writing` when the reader has caught up."""
    world = World(simulation, Peer)
    client, server = world.connected()
    server.transport.pause_reading()
    assert not server.transport.is_reading()
    client.transport.set_write_buffer_limits(high=100_000)
    written = 0
    while "pause" not in client.calls:
        client.transport.write(bytes(50_000))
        written += 50_000
        simulation.run_for(0.01)
    assert 164_000 <= written <= 700_000
    client.transport.write(bytes(1_000_000))
    written += 1_000_000
    simulation.run_for(5)
    assert client.transport.get_write_buffer_size() > 500_000
    assert client.calls == ["made", "pause"]
    assert len(server.got) == 0
    server.transport.resume_reading()
    simulation.run_for(5)
    assert client.calls == ["made", "pause", "resume"]
    assert len(server.got) == written
    assert client.transport.get_write_buffer_size() == 0


def test_limits_follow_asyncio_s_rules(simulation: Simulation) -> None:
    client, _ = World(simulation).connected()
    assert client.transport.get_write_buffer_limits() == (16384, 65536)
    client.transport.set_write_buffer_limits(low=10)
    assert client.transport.get_write_buffer_limits() == (10, 40)
    with pytest.raises(ValueError, match="high"):
        client.transport.set_write_buffer_limits(high=1, low=2)
    assert client.transport.get_extra_info("peername") == SERVER
    assert client.transport.get_extra_info("sockname")[0] == "harness"
    assert client.transport.get_extra_info("socket") is None
    assert client.transport.get_protocol() is client
    assert client.transport.can_write_eof()


def test_close_sends_what_waits_and_abort_does_not(simulation: Simulation) -> None:
    world = World(simulation, Peer)
    client, server = world.connected()
    client.transport.write(bytes(2_000_000))
    client.transport.close()
    client.transport.write(b"dropped")
    assert client.transport.is_closing()
    assert client.transport.get_write_buffer_size() > 1_000_000
    simulation.run_for(5)
    assert len(server.got) == 2_000_000
    assert (client.calls[-1], client.lost) == ("lost", [None])
    assert (server.calls, server.lost) == (["made", "eof", "lost"], [None])

    client, server = world.connected()
    client.transport.write(bytes(2_000_000))
    client.transport.abort()
    client.transport.abort()
    simulation.run_for(5)
    assert 0 < len(server.got) < 1_000_000
    assert client.lost == [None]
    assert len(server.lost) == 1


def test_half_a_connection_may_be_closed(simulation: Simulation) -> None:
    """`write_eof` ends one direction; the other goes on if `eof_received` says so."""

    class Answering(Peer):
        def eof_received(self) -> bool:
            super().eof_received()
            self.transport.write(b"answer")
            self.transport.loop.call_later(1, self.transport.close)
            return True

    client, server = World(simulation, Answering).connected()
    client.transport.write(b"question")
    client.transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        client.transport.write(b"more")
    simulation.run_for(0.9)
    assert (server.got, client.got) == (b"question", b"answer")
    simulation.run_for(1)
    assert (client.lost, server.lost) == ([None], [None])


def test_a_cut_holds_one_direction_and_loses_nothing(simulation: Simulation) -> None:
    client, server = World(simulation, Peer).connected()
    simulation.network.cut("harness", "server")
    client.transport.write(b"held")
    server.transport.write(b"passes")
    simulation.run_for(5)
    assert (server.got, client.got) == (b"", b"passes")
    simulation.network.mend("harness", "server")
    simulation.run_for(1)
    assert server.got == b"held"
    assert (client.lost, server.lost) == ([], [])


@pytest.mark.parametrize("way", [("harness", "server"), ("server", "harness")])
def test_bytes_never_acknowledged_break_the_connection_for_their_sender(
    simulation: Simulation, way: tuple[str, str]
) -> None:
    """Whether they or their acknowledgements are lost; the other side knows nothing."""
    client, server = World(simulation, Peer).connected()
    simulation.network.cut(*way)
    client.transport.write(b"lost")
    simulation.run_for(9)
    assert client.lost == []
    simulation.run_for(2)
    assert isinstance(client.lost[0], TimeoutError)
    assert server.lost == []
    simulation.network.mend()
    simulation.run_for(1)
    assert server.got == (b"" if way[0] == "harness" else b"lost")
    server.transport.write(b"anybody?")
    simulation.run_for(1)
    assert isinstance(server.lost[0], ConnectionResetError)


def test_a_full_window_waits_for_acknowledgements_behind_a_cut(simulation: Simulation) -> None:
    client, server = World(simulation, Peer).connected()
    simulation.network.cut("server", "harness")
    client.transport.write(bytes(2_000_000))
    simulation.run_for(5)
    assert 0 < len(server.got) < 600_000
    simulation.network.mend()
    simulation.run_for(5)
    assert len(server.got) == 2_000_000


def test_a_clog_delays_everything_behind_it(simulation: Simulation) -> None:
    client, server = World(simulation, Peer).connected()
    simulation.network.clog("harness", "server", 3)
    client.transport.write(b"late")
    simulation.run_for(2.9)
    assert server.got == b""
    simulation.run_for(0.5)
    assert server.got == b"late"


def test_isolate_and_partition_cut_both_ways(simulation: Simulation) -> None:
    client, server = World(simulation, Peer).connected()
    simulation.network.isolate("server")
    client.transport.write(b"a")
    server.transport.write(b"b")
    simulation.run_for(1)
    assert (client.got, server.got) == (b"", b"")
    assert not simulation.network.link("server", "harness").is_open


def test_a_killed_process_s_kernel_tells_its_peers(simulation: Simulation) -> None:
    world = World(simulation)
    client, server = world.connected()
    world.server.crash()
    simulation.run_for(1)
    assert client.calls[-1] == "lost"
    assert server.calls == ["made"], "a crashed process hears nothing"
    with pytest.raises(ConnectionRefusedError):
        world.connected()


def test_a_host_without_power_tells_nobody(simulation: Simulation) -> None:
    """The peer learns by a reset when the host is back, or by a timeout."""
    world = World(simulation)
    client, _ = world.connected()
    other, _ = world.connected()
    world.server.crash(power=True)
    simulation.run_for(100)
    assert client.lost == []
    client.transport.write(b"anybody?")
    simulation.run_for(11)
    assert isinstance(client.lost[0], TimeoutError)
    world.server.restart()
    simulation.run_for(1)
    assert other.lost == []
    other.transport.write(b"still you?")
    simulation.run_for(1)
    assert isinstance(other.lost[0], ConnectionResetError)


def test_bytes_of_a_dead_connection_arrive_late(simulation: Simulation) -> None:
    """After their sender is gone, and a new one speaks on another connection."""
    world = World(simulation, Peer)
    client = simulation.node("client")
    sent: list[bytes] = []

    async def speak(runtime: SimulatedRuntime) -> None:
        peer = Peer()
        await runtime.network.connect(lambda: peer, SERVER)
        sent.append(b"message %d" % len(sent))
        peer.transport.write(sent[-1])
        await asyncio.sleep(100)

    simulation.network.link("client", "server").slowdown = 10_000
    client.start(speak)
    while not sent:
        simulation.run_for(0.1)
    client.crash()
    simulation.network.link("client", "server").slowdown = 1
    client.restart()
    simulation.run_for(20)
    assert [bytes(peer.got) for peer in world.accepted] in ([b"message 0", b"message 1"],)


def test_reset_breaks_connections_for_both_sides(simulation: Simulation) -> None:
    client, server = World(simulation, Peer).connected()
    assert simulation.network.reset("harness", "server") == 1
    simulation.run_for(1)
    assert isinstance(client.lost[0], ConnectionResetError)
    assert isinstance(server.lost[0], ConnectionResetError)
    assert simulation.network.reset("harness", "server") == 0
    assert all(not host.transports for host in simulation.network.hosts())


def test_a_paused_reader_learns_of_a_reset_when_it_writes_or_reads(simulation: Simulation) -> None:
    client, _ = World(simulation, Peer).connected()
    client.transport.pause_reading()
    simulation.network.reset("harness", "server")
    simulation.run_for(1)
    assert client.lost == []
    client.transport.write(b"x")
    simulation.run_for(1)
    assert isinstance(client.lost[0], ConnectionResetError)


def test_dialing_is_refused_without_a_listener_and_times_out_behind_a_cut(
    simulation: Simulation,
) -> None:
    world = World(simulation)
    network = simulation.harness_runtime.network

    async def dial(port: int) -> None:
        await network.connect(Peer, ("server", port))

    with pytest.raises(ConnectionRefusedError):
        simulation.run(dial(1))
    simulation.network.cut("server", "harness")
    started = simulation.now
    with pytest.raises(TimeoutError):
        simulation.run(dial(PORT))
    assert simulation.now - started == pytest.approx(10, abs=0.1)

    async def dial_and_mend() -> None:
        simulation.harness.loop.call_later(2, simulation.network.mend)
        await dial(PORT)

    simulation.run(dial_and_mend())
    simulation.network.settings.refuse_rate = 1.0
    with pytest.raises(ConnectionRefusedError):
        simulation.run(dial(PORT))
    assert len(world.accepted) == 1


def test_a_dial_that_is_cancelled_leaves_no_connection(simulation: Simulation) -> None:
    world = World(simulation, Peer)
    simulation.network.settings.delay_s = (0.1, 0.1)

    async def work(patience_s: float) -> None:
        peer = Peer()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(patience_s):
                await simulation.harness_runtime.network.connect(lambda: peer, SERVER)
        await asyncio.sleep(1)
        assert peer.calls == []

    for patience_s in (0.05, 0.15, 0.199):
        simulation.run(work(patience_s))
    assert all(peer.calls[-1] == "lost" for peer in world.accepted)


def test_a_paused_server_s_kernel_accepts_and_buffers(simulation: Simulation) -> None:
    world = World(simulation)
    world.server.pause()
    client = simulation.run(world.connect())
    client.transport.write(b"hello")
    simulation.run_for(5)
    assert client.got == b""
    world.server.resume()
    simulation.run_for(1)
    assert client.got == b"hello"


def test_listening_follows_the_rules_of_ports(simulation: Simulation) -> None:
    network = simulation.harness_runtime.network

    async def work() -> None:
        first: SimulatedListener = await network.listen(Peer, ("0.0.0.0", 80))
        assert first.address == ("harness", 80)
        with pytest.raises(OSError, match="in use") as taken:
            await network.listen(Peer, ("harness", 80))
        assert taken.value.errno == errno.EADDRINUSE
        await first.close()
        await first.close()
        await network.listen(Peer, ("localhost", 80))
        free = await network.listen(Peer, ("", 0))
        assert free.address[1] > 1024
        with pytest.raises(OSError, match="is not"):
            await network.listen(Peer, ("elsewhere", 80))
        await network.connect(Peer, ("localhost", 80))

    simulation.run(work())


def test_a_protocol_that_raises_fails_the_run_and_loses_its_connection() -> None:
    class Bad(Peer):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    with Simulation(1, keeps_going=True) as simulation:
        client, server = World(simulation, Bad).connected()
        client.transport.write(b"x")
        simulation.run_for(1)
        assert (len(simulation.violations), server.calls[-1]) == (1, "lost")


class RaisingWhenFull(Peer):
    def pause_writing(self) -> None:
        raise ZeroDivisionError


class WithoutRoom(BufferedEcho):
    def get_buffer(self, sizehint: int) -> bytearray:
        return bytearray()


def test_a_buffer_without_room_fails_the_run_and_loses_the_connection() -> None:
    with Simulation(1, keeps_going=True) as simulation:
        world = World(simulation, WithoutRoom)
        client, _ = world.connected()
        client.transport.write(b"x")
        simulation.run_for(1)
        assert "empty buffer" in simulation.violations[0]
        assert client.calls[-1] == "lost"


def test_a_protocol_that_raises_when_it_shall_pause_fails_the_run() -> None:
    with Simulation(1, keeps_going=True) as simulation:
        _, server = World(simulation, RaisingWhenFull).connected()
        server.transport.write(b"x" * (1 << 20))
        simulation.run_for(1)
        assert len(simulation.violations) == 1
        assert server.calls[-1] == "lost"


def test_before_a_connection_has_begun_nothing_is_delivered_to(simulation: Simulation) -> None:
    pipe = SimpleNamespace(scheduler=simulation.scheduler)
    ends = {"sockname": SERVER, "peername": ("client", 1)}
    transport = SimulatedTransport(None, random.Random(1), pipe, pipe, ends)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not begun"):
        transport.get_protocol()
    peer = Peer()
    transport.set_protocol(peer)
    assert transport.get_protocol() is peer


def test_a_transport_refuses_another_loop(simulation: Simulation) -> None:
    world = World(simulation, Peer)
    world.connected()

    async def work(node: SimulatedNode) -> None:
        with pytest.raises(RuntimeError, match="touched"):
            world.accepted[0].transport.write(b"x")
        assert node.is_running

    simulation.run(work(world.server))


async def test_only_simulated_code_has_a_simulated_loop() -> None:
    with pytest.raises(TypeError, match="is no simulated loop"):
        running_loop()
