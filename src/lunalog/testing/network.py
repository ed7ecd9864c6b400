"""A network in memory between simulated hosts, with TCP's promises and its ways to fail.

`SimulatedNetwork` is the whole of it, and what a test injects faults with; each node gets a
`NodeNetwork` of it, which is the `lunalog.runtime.Network` that its code uses.

Source: docs/design.md "Seams"; N1 to N5, N7, N8.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Iterable, Iterator

from lunalog.runtime import Address, ProtocolFactory
from lunalog.testing.dialing import Dial
from lunalog.testing.link import Link, NetworkSettings, spread
from lunalog.testing.loop import SimulatedLoop
from lunalog.testing.pipe import End, Pipe
from lunalog.testing.scheduler import Scheduler
from lunalog.testing.transport import SimulatedTransport

FIRST_FREE_PORT = 32768
OWN_NAMES = ("", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1")
ACTOR = 0


class Host:
    """What one machine's kernel knows: its listeners, its connections, whether it has power."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_up = True
        self.next_port = FIRST_FREE_PORT
        self.listeners: dict[int, SimulatedListener] = {}
        self.transports: dict[SimulatedTransport, None] = {}

    def free_port(self) -> int:
        """Return a port nobody has used on this host yet."""
        self.next_port += 1
        return self.next_port


class SimulatedListener:
    """A listening port."""

    def __init__(
        self, host: Host, address: Address, loop: SimulatedLoop, factory: ProtocolFactory
    ) -> None:
        self._host = host
        self._address = address
        self.loop = loop
        self.factory = factory

    @property
    def address(self) -> Address:
        """Host name and port, as others dial it."""
        return self._address

    async def close(self) -> None:
        """Stop accepting."""
        if self._host.listeners.get(self._address[1]) is self:
            del self._host.listeners[self._address[1]]


class SimulatedNetwork:
    """All hosts, the links between them, and the faults of both.

    Hosts are named; a link is one direction between two of them.  `settings` may be changed before
    the first connection of a run.  Example:

        network.cut("server-1", "server-2")  # one way: 1 is no longer heard by 2
        network.partition(["master"], ["client-1", "server-1"])  # both ways, each with each
        network.mend()  # all links
    """

    def __init__(self, scheduler: Scheduler, settings: NetworkSettings | None = None) -> None:
        self.scheduler = scheduler
        self.settings = settings or NetworkSettings()
        self._hosts: dict[str, Host] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._chance = scheduler.stream("network connections")
        self._read_chance = scheduler.stream("network reads")

    def host(self, name: str) -> Host:
        """Return the host called `name`, new or known."""
        if name not in self._hosts:
            self._hosts[name] = Host(name)
        return self._hosts[name]

    def link(self, source: str, target: str) -> Link:
        """Return the way from one host to another, to slow it or to ask about it."""
        key = (source, target)
        if key not in self._links:
            link = self._links[key] = Link(self.scheduler, self.settings, ACTOR)
            link.set_target_down(not self.host(target).is_up)
        return self._links[key]

    # ------------------------------------------------------------ faults

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass from `source` to `target`; the other direction is untouched."""
        self.link(source, target).cut()

    def partition(self, left: Iterable[str], right: Iterable[str]) -> None:
        """Cut both directions between each of `left` and each of `right`."""
        others = list(right)
        for a in left:
            for b in others:
                if a != b:
                    self.cut(a, b)
                    self.cut(b, a)

    def isolate(self, name: str) -> None:
        """Cut a host off from all others known by now."""
        self.partition([name], list(self._hosts))

    def mend(self, source: str | None = None, target: str | None = None) -> None:
        """Undo cuts and clogs: of one direction, of all links from or to a host, or of all."""
        for (a, b), link in list(self._links.items()):
            if source in (None, a) and target in (None, b):
                link.mend()

    def clog(self, source: str, target: str, seconds: float) -> None:
        """Hold back all that goes from `source` to `target` for a while."""
        self.link(source, target).clog(seconds)

    def reset(self, one: str, other: str, *, share: float = 1.0) -> int:
        """Break connections between two hosts with RST, each with a chance of `share`.

        Returns:
            How many were broken.
        """
        broken = 0
        for transport in list(self.host(one).transports):
            if transport.peer_host == other and self._chance.random() < share:
                transport.outgoing.end(End.RESET, loses=self._chance.random() < 0.5)
                transport.broke(ConnectionResetError(errno.ECONNRESET, "connection reset"))
                broken += 1
        return broken

    def strand(self, one: str, other: str, seconds: float) -> int:
        """Let one host give up its connections to another, which hears of it only in a while.

        What was on its way arrives then, with a reset behind it.

        Returns:
            How many were given up.
        """
        stranded = 0
        for transport in list(self.host(one).transports):
            if transport.peer_host == other:
                transport.outgoing.postpone(seconds)
                transport.outgoing.end(End.RESET)
                transport.broke(ConnectionResetError(errno.ECONNRESET, "connection reset"))
                stranded += 1
        return stranded

    # ------------------------------------------------------------ for nodes

    def process_died(self, name: str, loops: Iterable[SimulatedLoop], *, power: bool) -> None:
        """Close what a process had open: its kernel tells the peers, unless the power went too."""
        host, dead = self.host(name), list(loops)
        for port, listener in list(host.listeners.items()):
            if listener.loop in dead:
                del host.listeners[port]
        for transport in list(host.transports):
            if transport.loop in dead:
                del host.transports[transport]
                transport.vanish(tell_peer=not power)
        if power:
            self.set_power(name, is_up=False)

    def set_power(self, name: str, *, is_up: bool) -> None:
        """Note that a host went down or came back; bytes for it wait, and meet a reset then."""
        self.host(name).is_up = is_up
        for (_, target), link in list(self._links.items()):
            if target == name:
                link.set_target_down(not is_up)

    def open_between(
        self,
        client: tuple[SimulatedLoop, Address],
        server: tuple[SimulatedLoop, Address],
    ) -> tuple[SimulatedTransport, SimulatedTransport]:
        """Make both ends of a connection; neither has a protocol yet."""
        there = self._pipe(client[1][0], server[1][0])
        back = self._pipe(server[1][0], client[1][0])
        ends = []
        for (loop, address), (_, peer), out, into in (
            (client, server, there, back),
            (server, client, back, there),
        ):
            extra = {"sockname": address, "peername": peer}
            end = SimulatedTransport(loop, self._read_chance, out, into, extra)
            end.fragment_rate = self.settings.fragment_rate
            end.write_high_bytes = self.settings.write_high_bytes
            out.sender, into.receiver, out.reverse = end, end, into
            self.host(address[0]).transports[end] = None
            ends.append(end)
        for end in ends:
            end.when_closed = self._closed
        return ends[0], ends[1]

    def _closed(self, transport: SimulatedTransport) -> None:
        self.host(transport.own_host).transports.pop(transport, None)

    def _pipe(self, source: str, target: str) -> Pipe:
        window = spread(self._chance, *self.settings.window_bytes)
        pipe = Pipe(
            self.scheduler, self.link(source, target), self.link(target, source), window=window
        )
        pipe.user_timeout_s = self.settings.user_timeout_s
        return pipe

    def draw(self) -> random.Random:
        """The stream of chance for connections."""
        return self._chance

    def hosts(self) -> Iterator[Host]:
        """All hosts in the order they were named."""
        yield from self._hosts.values()


class NodeNetwork:
    """The network as the code on one host sees it."""

    def __init__(self, network: SimulatedNetwork, host: str) -> None:
        self._network = network
        self._host = network.host(host)

    async def connect(self, factory: ProtocolFactory, address: Address) -> None:
        """Dial a host by name; raises `OSError` when refused or without an answer."""
        loop = running_loop()
        name = self._host.name if address[0] in OWN_NAMES else address[0]
        here = (self._host.name, self._host.free_port())
        dial = Dial(self._network, loop, factory, here, (name, address[1]))
        dial.start()
        try:
            await dial.done
        except asyncio.CancelledError:
            dial.give_up()
            raise

    async def listen(self, factory: ProtocolFactory, address: Address) -> SimulatedListener:
        """Accept at one of this host's ports; raises `OSError` when it is taken."""
        name, port = address
        if name not in OWN_NAMES and name != self._host.name:
            raise OSError(errno.EADDRNOTAVAIL, f"{name} is not {self._host.name}")
        if port in self._host.listeners:
            raise OSError(errno.EADDRINUSE, f"port {port} of {self._host.name} is in use")
        bound = (self._host.name, port or self._host.free_port())
        listener = SimulatedListener(self._host, bound, running_loop(), factory)
        self._host.listeners[bound[1]] = listener
        return listener


def running_loop() -> SimulatedLoop:
    """Return the simulated loop that runs."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, SimulatedLoop):
        raise TypeError(f"{loop!r} is no simulated loop")
    return loop
