"""One schedule: a cluster, a workload and faults, all drawn from one seed, and what the checkers say.

First a storm of faults (safety: nothing may ever be wrong), then everything is healed, the network's
delays fit the lease, and all must converge (liveness): a leader, acknowledged appends, every reader
at the end, every replica complete.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import traceback
from dataclasses import dataclass, field, replace

from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import UnknownDataError
from lunalog.server import JournalServer
from lunalog.testing.checkers import CHECKERS, FOCUSED
from lunalog.testing.churning import Churn
from lunalog.testing.cluster import SimulatedCluster
from lunalog.testing.history import Campaign, Delivery, HeldFrame, History, ReplicaEnd
from lunalog.testing.link import NetworkSettings
from lunalog.testing.model.trace import trace_check
from lunalog.testing.nemesis import Nemesis, Targets
from lunalog.testing.plan import Plan
from lunalog.testing.recording import is_sound
from lunalog.testing.simulation import Simulation, ViolationError
from lunalog.testing.tempo import USUAL_LEASE_MS
from lunalog.testing.transitions import OTHER
from lunalog.testing.workload import Workload
from lunalog.types import Member

CONVERGE_S = 60.0
LAST_APPENDS = 5
CHURNING = "client-1"


@dataclass(slots=True)
class ScheduleResult:
    """What one seed did; picklable."""

    seed: int
    acks: int = 0
    elections: int = 0
    steps: int = 0
    trace: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    noticed: dict[str, int] = field(default_factory=dict)
    checked: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)


class Schedule:
    """One run in the making."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stage = "begin"
        self.simulation = simulation = Simulation(
            plan.seed, settings=replace(plan.network), is_blocking=True
        )
        self.shape = plan.shape
        self.mix = plan.mix
        self.cluster = SimulatedCluster(simulation, self.shape, plan.tempo)
        self.cluster.store.faults = replace(plan.store)
        self.recorder = self.cluster.recorder
        self.workload = Workload(
            {name: self.recorder.of(stream) for name, stream in self.cluster.streams.items()},
            frozenset(stream.name for stream in self.shape.streams if stream.is_idle),
            simulation.stream("workload"),
            lambda: simulation.now,
            self.mix,
        )
        first = self.shape.streams[0]
        self.churn = Churn(
            self.recorder,
            simulation.stream("churn"),
            (first.replicas, first.ack_quorum),
            self.mix.churn_gap_s,
        )
        self.nemesis = Nemesis(
            Targets(
                simulation,
                self.cluster.server_nodes,
                [self.cluster.master_node],
                self.cluster.client_nodes,
                damages_most=self.shape.damages_most,
                store=self.cluster.store,
                damaged=self.cluster.harmed,
                position=self.cluster.position,
                reported=lambda node: self.recorder.reported.get(node.name, 0),
                pace=plan.tempo.pace,
                allows_walls=True,
                leader=self.cluster.leader,
            )
        )
        self.cluster.when_granted = self.nemesis.granted

    async def client(self, journal: SingleWriteJournal, name: str) -> None:
        """Everything that one client process does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.workload.client(journal, name))
            if name == CHURNING and self.mix.churn_gap_s:
                group.create_task(self.churn.run(journal))

    async def storm(self) -> None:
        """Let everybody loose, break things."""
        await self.nemesis.play(self.plan.faults, self.plan.storm_s)

    async def converge(self) -> None:
        """With all healed: append, read everything, and look at every replica."""
        self.nemesis.heal()
        self.simulation.network.settings.suit(self.cluster.master_config.lease_ms / 1000)
        healed = self.simulation.now
        for work in self.workload.streams:
            work.is_calm = True
        self.workload.is_calm = True
        journal = await self.cluster.journal("finisher")
        async with asyncio.timeout(CONVERGE_S):
            self.stage = "append"
            await self._progress(healed)
            self.stage = "flush"
            for work in self.workload.streams:
                work.stop()
            for work in self.workload.streams:
                await work.rests()
            self.stage = "delete what was made to be deleted"
            await self.churn.clear(journal)
            for work in self.workload.streams:
                self.stage = f"ask for a read point of {work.name}"
                committed = await journal.committed(work.name, timeout=CONVERGE_S)
                self.stage = f"read {work.name} up to {committed}"
                await self._read_all(journal, work.history, committed)
            self.stage = "complete every replica"
            while self.cluster.incomplete():  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        self._note_end()
        await journal.aclose()
        for name, server in sorted(self.cluster.servers.items()):
            if self.simulation.node(name).is_running:
                await self._inspect(server)

    async def _progress(self, healed: float) -> None:
        """Wait until appends to each stream are acknowledged that were called after the storm."""
        config, settings = self.cluster.master_config, self.simulation.network.settings
        for work in self.workload.streams:
            least = 1 if work.is_idle else LAST_APPENDS
            while len(late := _acked_after(work.history, healed)) < least:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            lease_s = max(config.lease_ms, USUAL_LEASE_MS) / 1000  # other timeouts do not shrink
            burst_bytes = self.plan.mix.burst_max * self.plan.mix.payload_bytes_max
            rtt_s = round_trip_s(settings, burst_bytes)
            campaign = Campaign(healed, min(late), lease_s, rtt_s)
            work.history.campaigns.append(campaign)

    def _note_end(self) -> None:
        alive = frozenset(
            journal.incarnation
            for name, journal in self.cluster.journals.items()
            if self.simulation.node(name).is_running
        )
        for history in self.recorder.histories.values():
            history.over_at, history.alive = self.simulation.now, alive

    async def _read_all(
        self, journal: SingleWriteJournal, history: History, committed: int
    ) -> None:
        description = await journal.describe(history.name)
        start = history.log_start = description.head.truncated_before
        while start < committed:
            async for event in journal.read(history.name, start=start, follow=True):
                history.log.append(Delivery(event.sequence, event.epoch, event.payload))
                start = event.sequence + 1
                if start >= committed:
                    break

    async def _inspect(self, server: JournalServer) -> None:
        """Note every end and every frame that a server holds, straight from its log."""
        member = Member(server.name, server.replica.incarnation)
        for stream, state in list(server.replica.streams.items()):
            for held in list(state.segments.values()):
                self.recorder.of(stream).replicas.append(
                    ReplicaEnd(
                        member,
                        stream,
                        held.id,
                        held.first,
                        held.durable,
                        min(held.committed, held.durable),
                        held.chain,
                        held.is_complete,
                        bool(held.unknown),
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
                    for head, frame in found:
                        if not head.first <= at < head.end:
                            what = f"R18: {member} gave frame {head.first} of {held.id} for {at}"
                            self.simulation.violate(what)
                            return
                        at = head.end
                        self.recorder.frame(
                            HeldFrame(
                                member,
                                stream,
                                held.id,
                                head.first,
                                head.count,
                                head.crc,
                                head.epoch,
                                is_sound(frame),
                            )
                        )


def _acked_after(history: History, at: float) -> list[float]:
    """When appends were acknowledged that were called after a time."""
    return [append.done for append in history.acked if append.invoked > at]


def round_trip_s(settings: NetworkSettings, burst_bytes: int = 0) -> float:
    """About the longest that a burst and its answer take on a run's usual network.

    What does not fit into the smallest window waits for the acknowledgement of what does.
    """
    one_way = settings.delay_s[1]
    if settings.slow_rate:
        one_way += settings.slow_s
    if settings.loss_rate:
        one_way += settings.retransmit_s
    return 2 * one_way * max(1.0, burst_bytes / settings.window_bytes[0])


def _trace(error: BaseException | None) -> list[str]:
    return ["".join(traceback.format_exception(error)[-6:])] if error is not None else []


def run_schedule(what: int | Plan) -> ScheduleResult:
    """Run one seed, or one plan, from nothing to its findings.

    The garbage collector rests from beginning to end: what it would look through again and again,
    the history of the run, is wanted until the last checker has read it.
    """
    plan = what if isinstance(what, Plan) else Plan.draw(what)
    had_gc = gc.isenabled()
    gc.disable()
    try:
        return _run(plan)
    finally:
        if had_gc:
            gc.enable()


def _run(plan: Plan) -> ScheduleResult:
    schedule = Schedule(plan)
    result = ScheduleResult(plan.seed)
    simulation = schedule.simulation
    with simulation:
        try:
            schedule.cluster.start(schedule.client)
            simulation.run(schedule.storm(), timeout_s=plan.storm_s + CONVERGE_S)
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
    if schedule.cluster.store.seen[OTHER]:
        result.violations.append("a transaction has no name in lunalog.testing.transitions")
    histories = list(schedule.recorder.histories.values())
    check_all(histories, result)
    result.acks = sum(len(history.acked) for history in histories)
    result.elections = sum(len({c.head.epoch for c in history.heads}) for history in histories)
    result.steps = simulation.scheduler.steps
    result.faults = dict(simulation.counters)
    appends = repr([history.appends for history in histories])
    outcome = hashlib.blake2b(appends.encode(), digest_size=4).digest()
    result.trace = simulation.trace_hash ^ int.from_bytes(outcome)
    result.noticed = dict(simulation.noticed)
    options = (plan.shape, plan.mix, plan.tempo, plan.network, plan.store)
    result.story = [*map(str, options), f"storm of {plan.storm_s} s", *schedule.nemesis.story]
    return result


def check_all(histories: list[History], result: ScheduleResult) -> None:
    """Let each checker look at each stream; a run that was cut short has no end to be judged by."""
    is_whole = not result.violations
    for name, check in {**CHECKERS, "model": trace_check}.items():
        if name in FOCUSED:
            continue
        findings = [check(history) for history in histories]
        result.checked[name] = sum(finding.checked for finding in findings)
        if is_whole:
            found = [violation for finding in findings for violation in finding.violations]
            result.violations += found[:5]
