"""One schedule: a cluster, a workload and faults, all drawn from one seed, and what the checkers say.

First a storm of faults (safety: nothing may ever be wrong), then everything is healed and must
converge (liveness): a leader, acknowledged appends, every reader at the end, every replica complete.
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from dataclasses import dataclass, field

from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import AvailabilityError, OutcomeUnknownError, UnknownDataError
from lunalog.server import JournalServer
from lunalog.testing.checkers import CHECKERS, FOCUSED
from lunalog.testing.cluster import Shape, SimulatedCluster
from lunalog.testing.history import Delivery, HeldFrame, History, ReplicaEnd
from lunalog.testing.nemesis import Nemesis, Targets
from lunalog.testing.simulation import Simulation, ViolationError
from lunalog.testing.workload import STREAM, Mix, Workload
from lunalog.types import Member

STORM_S = 20.0
CONVERGE_S = 60.0
LAST_APPENDS = 5


@dataclass(slots=True)
class ScheduleResult:
    """What one seed did; picklable."""

    seed: int
    acks: int = 0
    elections: int = 0
    steps: int = 0
    trace: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    checked: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)


class Schedule:
    """One run in the making."""

    def __init__(self, seed: int) -> None:
        self.history = History()
        self.stage = "create the stream"
        self.simulation = Simulation(seed)
        chance = self.simulation.stream("options")
        self.shape = Shape.draw(chance)
        self.mix = Mix.draw(chance)
        self.cluster = SimulatedCluster(self.simulation, self.shape, self.history)
        self.workload = Workload(
            self.history,
            self.simulation.stream("workload"),
            lambda: self.simulation.now,
            self.mix,
        )
        self.nemesis = Nemesis.draw(
            Targets(
                self.simulation,
                self.cluster.server_nodes,
                [self.cluster.master_node],
                self.cluster.client_nodes,
                damages_most=self.shape.ack_quorum - 1,
                store=self.cluster.store,
                damaged=self.cluster.harmed,
                position=self.cluster.position,
                reported=lambda node: self.cluster.reported.get(node.name, 0),
            )
        )

    async def client(self, journal: SingleWriteJournal, name: str) -> None:
        """Everything that one client process does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.workload.peer(journal, name))
            group.create_task(self.workload.reader(journal, f"{name}.reader"))
            group.create_task(self.workload.linear_reader(journal, name))

    async def storm(self) -> None:
        """Create the stream, let everybody loose, break things."""
        journal = await self.cluster.journal()
        while not self.history.stream:
            try:
                created = await journal.create_stream(
                    STREAM,
                    replicas=self.shape.replicas,
                    ack_quorum=self.shape.ack_quorum,
                    exist_ok=True,
                )
                self.history.stream = created.stream
            except (AvailabilityError, OutcomeUnknownError):
                await asyncio.sleep(0.2)
        await journal.aclose()
        await self.nemesis.run(STORM_S)

    async def converge(self) -> None:
        """With all healed: append, read everything, and look at every replica."""
        self.nemesis.heal()
        journal = await self.cluster.journal("finisher")
        async with asyncio.timeout(CONVERGE_S):
            self.stage = "append"
            await self._progress()
            self.stage = "flush"
            await self.workload.finish()
            self.stage = "ask for a read point"
            committed = await journal.committed(STREAM, timeout=CONVERGE_S)
            self.stage = f"read up to {committed}"
            await self._read_all(journal, committed)
            self.stage = "complete every replica"
            while self.cluster.incomplete():  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        await journal.aclose()
        for name, server in sorted(self.cluster.servers.items()):
            if self.simulation.node(name).is_running:
                await self._inspect(server)

    async def _progress(self) -> None:
        """Wait until appends are acknowledged that were called after the storm."""
        healed = self.simulation.now
        while sum(a.invoked > healed for a in self.history.acked) < LAST_APPENDS:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def _read_all(self, journal: SingleWriteJournal, committed: int) -> None:
        description = await journal.describe(STREAM)
        start = self.history.log_start = description.head.truncated_before
        while start < committed:
            async for event in journal.read(STREAM, start=start, follow=True):
                delivery = Delivery(event.sequence, event.epoch, event.payload)
                self.history.log.append(delivery)
                start = event.sequence + 1
                if start >= committed:
                    break

    async def _inspect(self, server: JournalServer) -> None:
        """Note every end and every frame that a server holds, straight from its log."""
        member = Member(server.name, server.replica.incarnation)
        for stream, state in list(server.replica.streams.items()):
            for held in list(state.segments.values()):
                self.history.replicas.append(
                    ReplicaEnd(
                        member,
                        stream,
                        held.id,
                        held.first,
                        held.durable,
                        min(held.committed, held.durable),
                        held.chain,
                    )
                )
                at = max(held.first, state.trimmed_before)
                while at < held.durable and not held.unknown:
                    try:
                        found = await server.log.read(stream, held.id, at, 1 << 20)
                    except UnknownDataError:
                        if server.name not in self.cluster.ever_damaged:
                            raise
                        break
                    if not found:
                        break
                    for head, _ in found:
                        self.history.held.append(
                            HeldFrame(member, stream, held.id, head.first, head.count, head.crc)
                        )
                    at = found[-1][0].end


def _trace(error: BaseException | None) -> list[str]:
    return ["".join(traceback.format_exception(error)[-6:])] if error is not None else []


def run_schedule(seed: int) -> ScheduleResult:
    """Run one seed from nothing to its findings."""
    schedule = Schedule(seed)
    result = ScheduleResult(seed)
    simulation, history = schedule.simulation, schedule.history
    with simulation:
        try:
            schedule.cluster.start(schedule.client)
            simulation.run(schedule.storm(), timeout_s=STORM_S + CONVERGE_S)
            simulation.run(schedule.converge(), timeout_s=2 * CONVERGE_S)
        except ViolationError as error:
            result.violations += simulation.violations or [str(error)]
            result.violations += _trace(error.__cause__)
        except TimeoutError:
            result.violations.append(
                "\n".join(
                    [
                        f"it does not converge: nobody could {schedule.stage}",
                        *schedule.cluster.picture(),
                    ]
                )
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the seed has failed
            result.violations += [f"{type(error).__name__}: {error}", *_trace(error)]
    is_whole = not result.violations
    for name, check in CHECKERS.items():
        if name in FOCUSED:
            continue
        finding = check(history)
        result.checked[name] = finding.checked
        if is_whole:
            result.violations += finding.violations[:5]
    result.acks = len(history.acked)
    result.elections = len({change.head.epoch for change in history.heads})
    result.steps = simulation.scheduler.steps
    result.faults = dict(simulation.counters)
    outcome = hashlib.blake2b(repr(history.appends).encode(), digest_size=4).digest()
    result.trace = simulation.trace_hash ^ int.from_bytes(outcome)
    result.story = [f"{schedule.shape}", f"{schedule.mix}", *schedule.nemesis.story]
    return result
