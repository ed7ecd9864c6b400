"""A whole simulated cluster: master, journal servers and clients, each on a machine of its own.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from collections.abc import Sequence as Run
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import AvailabilityError, CorruptRecordError
from lunalog.master import records
from lunalog.master.service import Master
from lunalog.runtime import Address
from lunalog.testing.checkers import lacking
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.metadata import SimulatedStore
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.recording import Recorder, WatchedServer
from lunalog.testing.simulation import Simulation
from lunalog.testing.tempo import Tempo
from lunalog.types import Policy, StreamHead, StreamId

MASTER = "master"
MASTER_PORT = 7600
USUAL = Tempo()
USUAL_PAIRS = ((3, 2),) * 4 + ((2, 2), (3, 3), (5, 3), (1, 1))
REPLICAS_MOST = 5
LEGAL_PAIRS = ((1, 1), *((n, a) for n in range(2, REPLICAS_MOST + 1) for a in range(2, n + 1)))
"""(N, A) of every replica set of up to five servers."""
ROLLING_AGES_S = (86400.0, 86400.0, 1.0, 0.2)
ROLLING_BYTES = (1 << 30, 1 << 30, 20_000, 2_000)


@dataclass(frozen=True, slots=True)
class StreamShape:
    """One stream: how it is replicated, when its leader rolls of itself, how much it is used."""

    name: str = "orders"
    replicas: int = 3
    ack_quorum: int = 2
    segment_age_s: float = ROLLING_AGES_S[0]
    segment_bytes: int = ROLLING_BYTES[0]
    is_idle: bool = False
    """Led and read as others are, and hardly ever appended to."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large one run's cluster is, and its streams; drawn by seed."""

    streams: tuple[StreamShape, ...] = (StreamShape(),)
    spares: int = 1
    """Servers beyond the largest N."""
    clients: int = 3

    @classmethod
    def draw(cls, chance: random.Random) -> Shape:
        """Draw a shape: the first stream's A is the least, since it bounds what damage is promised."""
        count = chance.choice((1, 2, 2, 3))
        first = chance.choice(chance.choice((USUAL_PAIRS, LEGAL_PAIRS)))
        others = [(n, a) for n, a in LEGAL_PAIRS if a >= first[1] and n <= max(3, first[0])]
        pairs = [first, *(chance.choice(others) for _ in range(count - 1))]
        return cls(
            tuple(
                StreamShape(
                    f"stream-{number}",
                    *pair,
                    chance.choice(ROLLING_AGES_S),
                    chance.choice(ROLLING_BYTES),
                    is_idle=number > 1 and chance.random() < 0.3,
                )
                for number, pair in enumerate(pairs, 1)
            ),
            spares=chance.choice((0, 1, 1, 2)),
            clients=chance.choice((2, 3)),
        )

    @property
    def servers(self) -> int:
        """How many there are."""
        return max((stream.replicas for stream in self.streams), default=0) + self.spares

    @property
    def damages_most(self) -> int:
        """How many servers may lose durable bytes, so that every stream must survive it."""
        return min(stream.ack_quorum for stream in self.streams) - 1


class SimulatedCluster:
    """The nodes of one run and what runs on them.

    Attributes:
        recorder: What is written down.
        servers: The `JournalServer` that runs, or ran last, on each server's machine.
        journals: The same of clients.
        streams: The id of each stream of the shape, by name.
        damaged: Servers whose disk has lost what it had said was durable, since their last start.
    """

    def __init__(self, simulation: Simulation, shape: Shape, tempo: Tempo = USUAL) -> None:
        self.simulation = simulation
        self.shape = shape
        self.recorder = Recorder(lambda: simulation.now)
        self.heads: dict[str, StreamHead] = {}
        """The newest head of each stream, by its key."""
        self.when_granted: Callable[[StreamHead], None] = lambda head: None
        """Called when the master has granted an epoch."""
        self.store = SimulatedStore(simulation.stream("metadata"))
        self.store.on_commit = self._committed
        self.streams = {stream.name: self._made_before(stream) for stream in shape.streams}
        self.master: Master | None = None
        self.servers = self.recorder.servers
        self.journals: dict[str, SingleWriteJournal] = {}
        self.damaged: set[str] = set()
        self.ever_damaged: set[str] = set()
        self.server_config = tempo.server
        self.client_config = tempo.client
        self.master_config = tempo.master(MASTER, MASTER_PORT)

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"lunalog://{MASTER}:{MASTER_PORT}"

    @property
    def master_node(self) -> SimulatedNode:
        """The master's machine."""
        return self.simulation.node(MASTER)

    @property
    def server_nodes(self) -> list[SimulatedNode]:
        """The servers' machines."""
        return [self.simulation.node(f"server-{n + 1}") for n in range(self.shape.servers)]

    @property
    def client_nodes(self) -> list[SimulatedNode]:
        """The clients' machines."""
        return [self.simulation.node(f"client-{n + 1}") for n in range(self.shape.clients)]

    def start(self, work: Callable[[SingleWriteJournal, str], Coroutine[Any, Any, None]]) -> None:
        """Start every machine; each client runs `work(journal, name)` until it is crashed."""
        self.master_node.start(self._run_master)
        for node in self.server_nodes:
            node.disk()
            node.expects_failure = partial(self._expects, node.name)
            node.start(partial(self._run_server, name=node.name))
        for node in self.client_nodes:
            node.start(partial(self._run_client, name=node.name, work=work))

    def _made_before(self, shape: StreamShape) -> StreamId:
        """Put a stream into the store as a master left it that had created it, and return its id.

        Its segments may be smaller than any client may ask for, so that size rolls happen.
        """
        stream = self.simulation.stream(f"id of {shape.name}").randbytes(16)
        policy = Policy(shape.replicas, shape.ack_quorum, shape.segment_bytes, shape.segment_age_s)
        head = StreamHead(shape.name, stream, policy)
        self.store.apply(
            {},
            {
                records.name_key(shape.name): stream,
                records.head_key(stream): records.encode(records.HeadRecord(head)),
            },
            (),
        )
        return stream

    def picture(self) -> list[str]:
        """What everybody believes, for people who look at a run that is stuck."""
        histories = self.recorder.histories.values()
        lines = [f"head: {history.heads[-1].head}" for history in histories if history.heads]
        for name, server in sorted(self.servers.items()):
            node = self.simulation.node(name)
            lines.append(
                f"{name}: running={node.is_running} registered={server.is_registered} "
                f"incarnation={server.replica.incarnation} full={server.log.is_full}"
            )
            for stream, state in server.replica.streams.items():
                lines.append(f"  {self.recorder.of(stream).name}: promise {state.promise}")
                lines += [f"  {held!r}" for held in list(state.segments.values())[-2:]]
        lines += [f"incomplete: {found}" for found in self.incomplete()]
        for name, journal in sorted(self.journals.items()):
            node = self.simulation.node(name)
            lines.append(f"{name}: running={node.is_running} {journal!r}")
        return lines

    def incomplete(self) -> list[str]:
        """Replicas of sealed segments that lack events which their member was listed for (R21)."""
        found = []
        for history in self.recorder.histories.values():
            if not history.heads or not history.has_log:
                continue
            complete = {
                (member, change.row.id)
                for change in history.rows
                for member in change.row.members
                if (held := self.recorder.held(history.stream, change.row.id, member)) is not None
                and held.is_complete
            }
            damaged = {
                (name, change.row.id)
                for change in history.rows
                for name, server in self.servers.items()
                if (held := server.replica.find(history.stream, change.row.id)) and held.unknown
            }
            start = history.heads[-1].head.truncated_before
            found += [
                f"{history.name} {row.id} at {member}"
                for row, member in lacking(history, complete, damaged, start)
            ]
        return found

    def leader(self) -> SimulatedNode | None:
        """The client that the metadata names as the leader of a stream, if any."""
        for head in self.heads.values():
            if head.leader is not None and not head.released:
                return self.simulation.node(head.leader.name)
        return None

    def position(self, node: SimulatedNode) -> int:
        """How far a server's log reaches."""
        server = self.servers.get(node.name)
        return server.log.synced_position if server is not None else 0

    def harmed(self, node: SimulatedNode) -> None:
        """Note that a server's disk may lose what it had said was durable."""
        self.damaged.add(node.name)
        self.ever_damaged.add(node.name)
        self.recorder.harmed(node.name)

    def _expects(self, server: str, error: BaseException) -> bool:
        return server in self.ever_damaged and isinstance(error, CorruptRecordError)

    def _committed(self, puts: Mapping[str, bytes], deletes: Run[str]) -> None:
        self.recorder.committed(puts, deletes)
        for key, value in puts.items():
            if key.startswith(records.HEADS):
                head = records.decode(value, records.HeadRecord, key).head
                before = self.heads.get(key)
                self.heads[key] = head
                if head.epoch > (before.epoch if before is not None else 0):
                    self.when_granted(head)

    async def _run_master(self, runtime: SimulatedRuntime) -> None:
        self.master = Master(runtime, self.store, self.master_config)
        await self.master.start()
        await _for_ever()

    async def _run_server(self, runtime: SimulatedRuntime, name: str) -> None:
        before = self.servers.get(name)
        masters: list[Address] = [(MASTER, MASTER_PORT)]
        config = replace(self.server_config, name=name, host=name)
        disk = runtime.node.disk()
        server = WatchedServer(runtime, disk, masters, config, self.recorder)
        bites = disk.faults.bites
        try:
            await server.start()
        except CorruptRecordError:
            if name in self.ever_damaged:
                disk.wipe()  # as an operator would: it starts again as a new server
            raise
        self.servers[name] = server
        could_read = disk.faults.bites == bites  # else it may take for damaged what it could not
        if before is not None and name not in self.damaged and could_read:
            self.recorder.restarted(name, before, server)
        self.damaged.discard(name)
        await server.wait_left()

    async def _run_client(
        self,
        runtime: SimulatedRuntime,
        name: str,
        work: Callable[[SingleWriteJournal, str], Coroutine[Any, Any, None]],
    ) -> None:
        while True:
            connecting = SingleWriteJournal.connect(
                self.url, peer=name, runtime=runtime, config=self.client_config
            )
            try:
                journal = await connecting
                break
            except AvailabilityError:
                continue
        async with journal:
            self.journals[name] = journal
            await work(journal, name)

    async def journal(self, name: str = "harness") -> SingleWriteJournal:
        """Connect from the harness's machine, which no fault touches."""
        journal = SingleWriteJournal(
            self.simulation.harness_runtime,
            ((MASTER, MASTER_PORT),),
            url=self.url,
            peer=name,
            config=self.client_config,
        )
        await journal.start()
        return journal


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
