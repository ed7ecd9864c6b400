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

from lunalog import limits
from lunalog.client.journal import SingleWriteJournal
from lunalog.config import ClientConfig, MasterConfig, ServerConfig
from lunalog.errors import AvailabilityError, CorruptRecordError
from lunalog.master import records
from lunalog.master.service import Master
from lunalog.runtime import Address
from lunalog.server.process import JournalServer
from lunalog.testing.history import HeadChange, History, Restart, RowChange, ServerMemory
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.metadata import SimulatedStore
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation
from lunalog.types import Policy, SealedSegment

MASTER = "master"
MASTER_PORT = 7600
LEGAL_PAIRS = ((3, 2), (3, 2), (3, 2), (5, 3), (4, 2), (4, 3), (2, 2), (3, 3), (5, 4), (1, 1))
"""(N, A), the usual ones more often."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large one run's cluster is; drawn by seed."""

    replicas: int = 3
    ack_quorum: int = 2
    spares: int = 1
    """Servers beyond N."""
    clients: int = 3
    segment_age_s: float = 86400.0
    """When a leader rolls of itself."""

    @classmethod
    def draw(cls, chance: random.Random) -> Shape:
        """Draw a shape."""
        replicas, ack_quorum = chance.choice(LEGAL_PAIRS)
        return cls(
            replicas,
            ack_quorum,
            spares=chance.choice([0, 1, 2]),
            clients=chance.choice([2, 3]),
            segment_age_s=chance.choice([86400.0, 86400.0, 3.0, 0.5]),
        )

    @property
    def servers(self) -> int:
        """How many there are."""
        return self.replicas + self.spares


class SimulatedCluster:
    """The nodes of one run and what runs on them.

    Attributes:
        servers: The `JournalServer` that runs, or ran last, on each server's machine.
        journals: The same of clients.
        damaged: Servers whose disk has lost what it had said was durable, since their last start.
    """

    def __init__(self, simulation: Simulation, shape: Shape, history: History) -> None:
        self.simulation = simulation
        self.shape = shape
        self.history = history
        self.store = SimulatedStore(simulation.stream("metadata"))
        self.store.on_commit = self._committed
        self.master: Master | None = None
        self.servers: dict[str, JournalServer] = {}
        self.journals: dict[str, SingleWriteJournal] = {}
        self.damaged: set[str] = set()
        self.ever_damaged: set[str] = set()
        self.reported: dict[str, int] = {}
        """How far the masters know each server's log to reach."""
        self.server_config = ServerConfig(
            extent_bytes=2 * limits.MESSAGE_BYTES_MAX, tail_cache_bytes=limits.MIB
        )
        self.client_config = ClientConfig()
        self.master_config = MasterConfig(port=MASTER_PORT, host=MASTER)

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

    def picture(self) -> list[str]:
        """What everybody believes, for people who look at a run that is stuck."""
        lines = [f"head: {self.history.heads[-1].head}" if self.history.heads else "no head"]
        for name, server in sorted(self.servers.items()):
            node = self.simulation.node(name)
            lines.append(
                f"{name}: running={node.is_running} registered={server.is_registered} "
                f"incarnation={server.replica.incarnation} full={server.log.is_full}"
            )
            for state in server.replica.streams.values():
                lines.append(f"  promise {state.promise}")
                lines += [f"  {held!r}" for held in list(state.segments.values())[-2:]]
        lines += [f"incomplete: {found}" for found in self.incomplete()]
        for name, journal in sorted(self.journals.items()):
            node = self.simulation.node(name)
            lines.append(f"{name}: running={node.is_running} {journal!r}")
        return lines

    def incomplete(self) -> list[str]:
        """Replicas of sealed segments that lack events which their member was listed for (R21).

        A member that lives under another incarnation is repaired, not completed (R20).
        """
        if not self.history.heads:
            return []
        rows = {change.row.id: change.row for change in self.history.rows}
        head = self.history.heads[-1].head
        found = []
        for row in rows.values():
            for member in row.members:
                server = self.servers.get(member.server)
                if row.end <= head.truncated_before or member.server in self.ever_damaged:
                    continue
                if server is None or server.replica.incarnation != member.incarnation:
                    continue
                held = server.replica.find(head.stream, row.id)
                if held is None or not held.is_complete:
                    found.append(f"{row.id} at {member.server}: {held!r}")
        return found

    def position(self, node: SimulatedNode) -> int:
        """How far a server's log reaches."""
        server = self.servers.get(node.name)
        return server.log.synced_position if server is not None else 0

    def harmed(self, node: SimulatedNode) -> None:
        """Note that a server's disk may lose what it had said was durable."""
        self.damaged.add(node.name)
        self.ever_damaged.add(node.name)

    def _expects(self, server: str, error: BaseException) -> bool:
        return server in self.ever_damaged and isinstance(error, CorruptRecordError)

    def _committed(self, puts: Mapping[str, bytes], deletes: Run[str]) -> None:
        """Note every transaction on the stream's head and rows."""
        at = self.simulation.now
        for key, value in puts.items():
            if key.startswith(records.HEADS):
                head = records.decode(value, records.HeadRecord, key).head
                self.history.heads.append(HeadChange(at, head))
            elif key.startswith(records.SERVERS):
                known = records.decode(value, records.ServerRecord, key)
                self.reported[known.name] = known.synced_position
            elif key.startswith(records.ROWS):
                row = records.decode(value, SealedSegment, key)
                self.history.rows.append(RowChange(at, records.stream_of(key), row))

    async def _run_master(self, runtime: SimulatedRuntime) -> None:
        self.master = Master(runtime, self.store, self.master_config)
        await self.master.start()
        await _for_ever()

    async def _run_server(self, runtime: SimulatedRuntime, name: str) -> None:
        before = self.servers.get(name)
        masters: list[Address] = [(MASTER, MASTER_PORT)]
        config = replace(self.server_config, name=name, host=name)
        disk = runtime.node.disk()
        server = JournalServer(runtime, disk, masters, config)
        try:
            await server.start()
        except CorruptRecordError:
            if name in self.ever_damaged:
                disk.wipe()  # as an operator would: it starts again as a new server
            raise
        self.servers[name] = server
        if before is not None and name not in self.damaged:
            restart = Restart(name, memory_of(before), memory_of(server))
            self.history.restarts.append(restart)
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
            default_policy=Policy(segment_age_s=self.shape.segment_age_s),
        )
        await journal.start()
        return journal


def memory_of(server: JournalServer) -> ServerMemory:
    """What a server has promised and acked, as far as it is durable."""
    return ServerMemory(promises=server.replica.promises(), ends=server.replica.durable_ends())


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
