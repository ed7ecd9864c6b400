"""A small simulated cluster that lives fast, for faults that mixed schedules meet too seldom.

The shipped master, servers and clients on the simulated machines; a script on a machine that nothing
touches kills, cuts and damages at the moments it chooses, then all is healed and must converge.  What
happened is written into the same `History`, and judged by the same checkers, as that of a schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lunalog import limits
from lunalog.client.journal import SingleWriteJournal
from lunalog.client.writer import StreamWriter
from lunalog.config import ClientConfig, MasterConfig, ServerConfig
from lunalog.errors import (
    AvailabilityError,
    ConflictError,
    CorruptRecordError,
    LunalogError,
    NotActiveError,
    OutcomeUnknownError,
    TruncatedError,
    UnknownDataError,
    UsageError,
)
from lunalog.master import records
from lunalog.master.service import Master
from lunalog.server import JournalServer
from lunalog.testing.checkers import CHECKERS
from lunalog.testing.history import (
    Append,
    Delivery,
    HeadChange,
    HeldFrame,
    History,
    LinearRead,
    ReaderSession,
    Restart,
    RowChange,
    ServerMemory,
)
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.metadata import SimulatedStore
from lunalog.testing.simulation import Simulation, ViolationError
from lunalog.types import Member, Policy, SealedSegment, StreamHead

STREAM = "orders"
PORT = 7600
STEPS_MAX = 1_000_000
SCRIPT_S = 30.0
CONVERGE_S = 10.0
LAST_APPENDS = 3
POLL_S = 0.01


class SmallServerConfig(ServerConfig):
    """Settings whose extents need not hold the largest frame there can be."""

    __slots__ = ()

    def validate(self) -> None:
        """Accept them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a script plays on.

    Attributes:
        masters: Processes over one metadata store; the last that started is the active one.
        pause_s: About how long a leader waits between two appends.
        truncates: Now and then a leader forgets what it has committed.
        keeps_its_epoch: Nothing ends the first epoch; the grant of another ends the run as a finding.
    """

    replicas: int = 3
    ack_quorum: int = 2
    servers: int = 3
    clients: int = 2
    masters: int = 1
    lease_ms: int = 400
    roll_ack_timeout_ms: int = 100
    segment_age_s: float = 86_400.0
    extent_bytes: int = 256 * limits.KIB
    payload_bytes: int = 20
    pause_s: float = 0.01
    burst_max: int = 6
    truncates: float = 0.0
    loop_stall_ms: int = 30_000
    keeps_its_epoch: bool = False


Script = Callable[["Stage"], Coroutine[Any, Any, None]]


class Stage:
    """One run of one script.

    Attributes:
        chance: The script's.
        found: What the script itself found wrong.
        resigning: Clients that are to leave when they next look.
        is_held: Leaders append nothing for now.
        truncates_at_once: Leaders append one event, and truncate all as soon as that is committed.
        converges: Whether all must be well again at the end; else only the script's findings count.
        on_head: Called with each head that is written.
        on_ack: Called with each append at the moment that its client hears of its ack.
        images: Of servers' disks, as they first registered.
        lost: Servers whose disk has lost what it had said was durable, since their last start.
    """

    def __init__(self, seed: int, setting: Setting) -> None:
        self.setting = setting
        self.simulation = Simulation(seed, step_budget=STEPS_MAX)
        self.network = self.simulation.network
        self.chance = self.simulation.stream("script")
        self.history = History()
        self.found: list[str] = []
        self.stage = "start"
        self.store = SimulatedStore(self.simulation.stream("metadata"))
        self.store.on_commit = self._committed
        self.servers: dict[str, JournalServer] = {}
        self.journals: dict[str, SingleWriteJournal] = {}
        self.writers: dict[str, StreamWriter] = {}
        self.resigning: set[str] = set()
        self.lost: set[str] = set()
        self.ever_lost: set[str] = set()
        self.converges = True
        self.is_held = False
        self.truncates_at_once = False
        self.images: dict[str, Any] = {}
        self.on_head: Callable[[StreamHead], object] = lambda head: None
        self.on_ack: Callable[[Append], object] = lambda append: None
        self._is_over = False
        self._count = 0
        self._work = self.simulation.stream("work")
        self._started: dict[str, int] = {}
        self._rows: dict[Any, SealedSegment] = {}

    # ------------------------------------------------------------ nodes

    def nodes(self, role: str, count: int) -> list[SimulatedNode]:
        return [self.simulation.node(f"{role}-{n + 1}") for n in range(count)]

    @property
    def server_nodes(self) -> list[SimulatedNode]:
        return self.nodes("server", self.setting.servers)

    @property
    def client_nodes(self) -> list[SimulatedNode]:
        return self.nodes("client", self.setting.clients)

    @property
    def master_nodes(self) -> list[SimulatedNode]:
        return self.nodes("master", self.setting.masters)

    @property
    def leader(self) -> SimulatedNode | None:
        """The client that the metadata names, if its process runs."""
        head = self.history.heads[-1].head if self.history.heads else None
        if head is None or head.leader is None or head.released:
            return None
        node = self.simulation.node(head.leader.name)
        return node if node.is_running else None

    def member_nodes(self) -> list[SimulatedNode]:
        """The servers of the segment that is open now."""
        head = self.history.heads[-1].head
        members = head.open.members if head.open is not None else ()
        return [self.simulation.node(member.server) for member in members]

    def _start(self) -> None:
        addresses = [(node.name, PORT) for node in self.master_nodes]
        for node in self.master_nodes:
            node.expects_failure = lambda error: isinstance(error, NotActiveError)
        for node in self.master_nodes[:1]:
            node.start(partial(self._run_master, name=node.name))
        for node in self.server_nodes:
            node.disk()
            node.expects_failure = partial(self._expects, node.name)
            node.start(partial(self._run_server, name=node.name, masters=addresses))
        for node in self.client_nodes:
            node.start(partial(self._run_client, name=node.name, masters=addresses))

    def _expects(self, server: str, error: BaseException) -> bool:
        return server in self.ever_lost and isinstance(error, CorruptRecordError)

    async def _run_master(self, runtime: Any, name: str) -> None:
        lease_ms = self.setting.lease_ms
        config = MasterConfig(
            host=name,
            port=PORT,
            lease_ms=lease_ms,
            heartbeat_ms=lease_ms // 4,
            session_grace_ms=50,
            server_lost_ms=2 * lease_ms,
        )
        await Master(runtime, self.store, config).start()
        await asyncio.get_running_loop().create_future()

    def start_master(self, number: int) -> None:
        """Start one more master over the same store."""
        node = self.master_nodes[number - 1]
        node.start(partial(self._run_master, name=node.name))

    async def _run_server(self, runtime: Any, name: str, masters: list[tuple[str, int]]) -> None:
        disk = runtime.node.disk()
        config = SmallServerConfig(
            name=name,
            host=name,
            heartbeat_ms=self.setting.lease_ms // 4,
            extent_bytes=self.setting.extent_bytes,
            tail_cache_bytes=4 * limits.KIB,
        )
        server = JournalServer(runtime, disk, masters, config)
        try:
            await server.start()
        except CorruptRecordError:
            if name in self.ever_lost:
                disk.wipe()
            raise
        before = self.servers.get(name)
        self.servers[name] = server
        self._started[name] = runtime.node.generation
        if before is not None and name not in self.lost:
            self.history.restarts.append(Restart(name, memory_of(before), memory_of(server)))
        self.lost.discard(name)
        await server.wait_left()

    async def _run_client(self, runtime: Any, name: str, masters: list[tuple[str, int]]) -> None:
        lease_ms = self.setting.lease_ms
        config = ClientConfig(
            heartbeat_ms=lease_ms // 4,
            leader_stall_ms=5 * lease_ms,
            roll_ack_timeout_ms=self.setting.roll_ack_timeout_ms,
            planned_roll_gap_ms=lease_ms // 2,
            read_wait_ms=lease_ms // 2,
            retry_ms_max=100,
            loop_stall_ms=self.setting.loop_stall_ms,
            batch_bytes_max=self.setting.extent_bytes // 4,  # a put has to fit into an extent
        )
        url = "lunalog://" + ",".join(f"{host}:{port}" for host, port in masters)
        while True:
            try:
                journal = await SingleWriteJournal.connect(
                    url, peer=name, runtime=runtime, config=config
                )
                break
            except AvailabilityError:
                continue
        async with journal:
            self.journals[name] = journal
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lead(journal, name))
                group.create_task(self._follow(journal, name))
                group.create_task(self._ask(journal, name))

    # ------------------------------------------------------------ what clients do

    async def _pause(self, times: float = 1.0) -> None:
        await asyncio.sleep(self._work.expovariate(1 / (times * self.setting.pause_s)))

    async def _lead(self, journal: SingleWriteJournal, name: str) -> None:
        while True:
            try:
                async with journal.lead(STREAM) as writer:
                    self.writers[name] = writer
                    while name not in self.resigning:
                        await self._turn(journal, writer, name)
            except LunalogError as error:
                if isinstance(error, UsageError) and not isinstance(error, ConflictError):
                    raise
            if name in self.resigning:
                self.resigning.discard(name)
                await asyncio.sleep(0.3)
            await self._pause()

    async def _turn(self, journal: SingleWriteJournal, writer: StreamWriter, name: str) -> None:
        if self._is_over:
            await writer.flush()
            await asyncio.sleep(POLL_S)
            return
        if self.is_held:
            await asyncio.sleep(POLL_S)
            return
        if self.truncates_at_once:
            self.append(journal, writer, name)
            await writer.flush()
            await writer.truncate(before=writer.committed)
            return
        for _ in range(self._work.randint(1, self.setting.burst_max)):
            self.append(journal, writer, name)
        if self._work.random() < self.setting.truncates and writer.committed > 10:
            await writer.truncate(before=self._work.randrange(writer.committed))
        await self._pause()

    def append(self, journal: SingleWriteJournal, writer: StreamWriter, name: str) -> Append:
        """Append one event as soon as may be, and note what becomes of it."""
        self._count += 1
        payload = b"%s/%d/" % (name.encode(), self._count)
        payload = payload.ljust(self._work.randint(1, self.setting.payload_bytes), b".")
        append = Append(payload, name, journal.incarnation, writer.epoch, self.simulation.now)
        self.history.appends.append(append)
        try:
            pending = writer.append_soon(payload)
        except LunalogError as error:
            self._settle(append, error)
            raise
        pending.add_done_callback(partial(self._settled, append))
        return append

    def _settled(self, append: Append, done: asyncio.Future[int]) -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        self._settle(append, error, None if error is not None else done.result())

    def _settle(
        self, append: Append, error: BaseException | None, sequence: int | None = None
    ) -> None:
        append.done = self.simulation.now
        if error is None:
            append.outcome, append.sequence = "acked", sequence
            self.on_ack(append)
        elif isinstance(error, OutcomeUnknownError | asyncio.CancelledError) or getattr(
            error, "maybe_applied", True
        ):
            append.outcome = "unknown"
        else:
            append.outcome = "refused"

    async def _follow(self, journal: SingleWriteJournal, name: str) -> None:
        count = start = 0
        while True:
            count += 1
            session = ReaderSession(f"{name}.{count}", start)
            self.history.readers.append(session)
            with contextlib.suppress(TimeoutError, LunalogError):
                async with asyncio.timeout(self._work.uniform(0.05, 1.5)):
                    try:
                        async for event in journal.read(STREAM, start=start, follow=True):
                            found = Delivery(event.sequence, event.epoch, event.payload)
                            session.deliveries.append(found)
                    except TruncatedError as error:
                        if not session.deliveries:
                            session.start = error.start
            if session.deliveries and self._work.random() < 0.8:
                start = session.deliveries[-1].sequence
            else:
                start = session.start
            await self._pause(2)

    async def _ask(self, journal: SingleWriteJournal, name: str) -> None:
        while True:
            invoked = self.simulation.now
            with contextlib.suppress(LunalogError):
                committed = await journal.committed(STREAM, timeout=1.0)
                self.history.linear_reads.append(
                    LinearRead(name, invoked, self.simulation.now, committed)
                )
            await self._pause(3)

    # ------------------------------------------------------------ what scripts use

    @property
    def acks(self) -> int:
        return sum(append.outcome == "acked" for append in self.history.appends)

    async def sleep(self, least_s: float, most_s: float | None = None) -> None:
        """Let all go on for a while, between the two by chance."""
        await asyncio.sleep(self.chance.uniform(least_s, most_s or least_s))

    async def until(self, what: str, holds: Callable[[], object], limit_s: float = 8.0) -> None:
        """Wait for something that must come."""
        self.stage = what
        async with asyncio.timeout(limit_s):
            while not holds():
                await asyncio.sleep(POLL_S / 4)

    async def more_acks(self, count: int, limit_s: float = 8.0) -> None:
        """Wait for acks; nobody may be in their way."""
        enough = self.acks + count
        await self.until(f"acknowledge {count} appends", lambda: self.acks >= enough, limit_s)

    @property
    def epoch(self) -> int:
        """The newest that was granted."""
        return self.history.heads[-1].head.epoch

    async def led_after(self, epoch: int, limit_s: float = 8.0) -> None:
        """Wait until somebody leads under a later epoch."""

        def is_led() -> bool:
            head = self.history.heads[-1].head
            return head.open is not None and head.open.id.epoch > epoch

        await self.until(f"lead an epoch after {epoch}", is_led, limit_s)

    def kill(self, node: SimulatedNode, *, power: bool = False) -> None:
        """Take a process, or a host's power."""
        node.crash(power=power)

    def back(self, node: SimulatedNode) -> None:
        """Start a process again that does not run."""
        if not node.is_running and node.can_restart:
            node.restart()

    def loses(self, node: SimulatedNode) -> None:
        """Say that a disk is about to lose what it had said was durable."""
        self.lost.add(node.name)
        self.ever_lost.add(node.name)

    def cut(self, one: str, *others: str) -> None:
        """Cut a host from others, both ways."""
        self.network.partition([one], others)

    def heal(self) -> None:
        """Undo all that is not done to disks, and start all that does not run."""
        self.network.mend()
        self.store.heal()
        masters = self.master_nodes
        running = [node for node in masters if node.is_running]
        for node in [*self.server_nodes, *self.client_nodes, *([] if running else masters[:1])]:
            node.heal()
            self.back(node)
        for node in running:
            node.heal()

    def is_registered(self, node: SimulatedNode) -> bool:
        """Whether the process that runs there now has registered; one that was killed had as well."""
        is_this = node.is_running and self._started.get(node.name) == node.generation
        return is_this and self.servers[node.name].is_registered

    def readable(self, node: SimulatedNode) -> int:
        """How far the server lets the newest segment that it holds be read."""
        state = self.servers[node.name].replica.streams.get(self.history.stream)
        return max((held.readable for held in state.segments.values()), default=0) if state else 0

    def touch_head(self) -> None:
        """Write the head again as it is, as another transaction of a master would."""
        for key, record in list(self.store._records.items()):
            if key.startswith(records.HEADS):
                self.store.apply({}, {key: record.value}, ())

    def require_no_fork(self) -> None:
        """Note appends that were acknowledged with one sequence."""
        known: dict[int, Append] = {}
        for append in self.history.acked:
            held = known.setdefault(append.sequence or 0, append)
            self.require(held is append, f"one sequence, two events: {held} and {append}")

    def require(self, holds: object, text: str) -> None:
        """Note a finding of the script's own."""
        if not holds:
            self.found.append(text)

    # ------------------------------------------------------------ the run

    def run(self, script: Script) -> list[str]:
        """Play the script, then converge; returns what is wrong."""
        with self.simulation:
            for node in [*self.server_nodes, *self.client_nodes, *self.master_nodes]:
                node.on_exit = self._exited
            try:
                self._start()
                self.simulation.run(self._whole(script), timeout_s=SCRIPT_S + CONVERGE_S)
            except ViolationError as error:
                self.found += self.simulation.violations or [str(error)]
            except TimeoutError:
                self.found.append(f"it does not converge: nobody could {self.stage}")
            except Exception as error:  # noqa: BLE001  whatever it is, the run has failed
                self.found.append(f"{type(error).__name__}: {error}")
        if not self.found:
            checkers = CHECKERS if self.converges else {"I7": CHECKERS["I7"]}
            for check in checkers.values():
                self.found += check(self.history).violations[:3]
        return self.found

    def _exited(self, node: SimulatedNode) -> None:
        if node.failure is not None and not node.name.startswith("master"):
            delay = 0.05 + 0.2 * self.chance.random()
            self.simulation.scheduler.after(delay, 0, self.back, node)

    async def _whole(self, script: Script) -> None:
        setting = self.setting
        journal = SingleWriteJournal(
            self.simulation.harness_runtime,
            tuple((node.name, PORT) for node in self.master_nodes),
            url="lunalog://harness",
            peer="harness",
            config=ClientConfig(),
            default_policy=Policy(segment_age_s=setting.segment_age_s),
        )
        self.stage = "create the stream"
        await journal.start()
        self.journal = journal
        for node in self.server_nodes:
            await self.until("register", partial(self.is_registered, node))
            self.images[node.name] = node.disk().snapshot()
        made = await journal.create_stream(
            STREAM, replicas=setting.replicas, ack_quorum=setting.ack_quorum
        )
        self.history.stream = made.stream
        await self.more_acks(3)
        await script(self)
        if self.converges:
            self.heal()
            await self._converge(journal)
        await self._inspect_all()
        await journal.aclose()

    async def _converge(self, journal: SingleWriteJournal) -> None:
        healed = self.simulation.now
        async with asyncio.timeout(CONVERGE_S):
            await self.until(
                "append once all is healed",
                lambda: sum(a.invoked > healed for a in self.history.acked) >= LAST_APPENDS,
                CONVERGE_S,
            )
            self._is_over = True
            await self.until(
                "settle the last appends",
                lambda: not any(self._is_due(append) for append in self.history.appends),
            )
            self.stage = "ask for a read point"
            committed = await journal.committed(STREAM, timeout=CONVERGE_S)
            self.stage = f"read up to {committed}"
            await self._read_all(journal, committed)
            await self.until("complete every replica", lambda: not self.incomplete())

    async def _inspect_all(self) -> None:
        for name, server in sorted(self.servers.items()):
            if self.simulation.node(name).is_running:
                await self._inspect(server)

    def _is_due(self, append: Append) -> bool:
        journal = self.journals.get(append.peer)
        is_there = journal is not None and journal.incarnation == append.incarnation
        return append.outcome == "pending" and is_there

    async def _read_all(self, journal: SingleWriteJournal, committed: int) -> None:
        description = await journal.describe(STREAM)
        start = self.history.log_start = description.head.truncated_before
        if start < committed:
            async for event in journal.read(STREAM, start=start, follow=True):
                found = Delivery(event.sequence, event.epoch, event.payload)
                self.history.log.append(found)
                if event.sequence + 1 >= committed:
                    break

    def incomplete(self) -> list[str]:
        """Listed replicas of sealed segments that do not hold all of them (R21)."""
        head = self.history.heads[-1].head
        found = []
        for row in self._rows.values():
            for member in row.members:
                server = self.servers.get(member.server)
                if row.end <= head.truncated_before or member.server in self.ever_lost:
                    continue
                if server is None or server.replica.incarnation != member.incarnation:
                    continue
                held = server.replica.find(head.stream, row.id)
                if held is None or held.durable != row.end or held.unknown:
                    found.append(f"{row.id} at {member.server}: {held!r}")
        return found

    async def _inspect(self, server: JournalServer) -> None:
        member = Member(server.name, server.replica.incarnation)
        for stream, state in list(server.replica.streams.items()):
            for held in list(state.segments.values()):
                at = max(held.first, state.trimmed_before)
                while at < held.durable and not held.unknown:
                    try:
                        found = await server.log.read(stream, held.id, at, limits.MIB)
                    except UnknownDataError:
                        break
                    if not found:
                        break
                    for head, _ in found:
                        self.history.held.append(
                            HeldFrame(member, stream, held.id, head.first, head.count, head.crc)
                        )
                    at = found[-1][0].end

    def _committed(self, puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
        at = self.simulation.now
        for key, value in puts.items():
            if key.startswith(records.HEADS):
                head = records.decode(value, records.HeadRecord, key).head
                if head.name == STREAM:
                    self.history.heads.append(HeadChange(at, head))
                    if head.epoch > 1 and self.setting.keeps_its_epoch:
                        self.simulation.violate(f"epoch {head.epoch}, and nothing ended the first")
                    self.on_head(head)
            elif key.startswith(records.ROWS):
                row = records.decode(value, SealedSegment, key)
                if records.stream_of(key) == self.history.stream:
                    self._rows[row.id] = row
                    self.history.rows.append(RowChange(at, self.history.stream, row))


def memory_of(server: JournalServer) -> ServerMemory:
    """What a server has promised and acked, as far as it is durable."""
    return ServerMemory(promises=server.replica.promises(), ends=server.replica.durable_ends())


def draw_pair(chance: random.Random, *pairs: tuple[int, int]) -> tuple[int, int]:
    """Choose one (N, A)."""
    return chance.choice(pairs)
