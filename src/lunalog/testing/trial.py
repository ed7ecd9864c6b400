"""`Trial`: code that uses lunalog, run on simulated machines beside a simulated cluster, with faults.

Source: docs/simulating.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from lunalog.config import ClientConfig
from lunalog.embedded import SingleWriteJournal
from lunalog.errors import (
    AvailabilityError,
    ClosedError,
    ConflictError,
    InvariantError,
    LunalogError,
    NotLeaderError,
    StreamNotFoundError,
    UsageError,
)
from lunalog.testing.cluster import Shape, SimulatedCluster
from lunalog.testing.nemesis import Nemesis, Targets, all_kinds
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.scheduler import SimulationError
from lunalog.testing.simulation import NEVER, Simulation
from lunalog.testing.standins import StandIns

T = TypeVar("T")
Program = Callable[[SingleWriteJournal], Coroutine[Any, Any, None]]
"""What a user's process does with its journal; it may run for ever."""

LOOK_EVERY_S = 0.05
"""How often a condition is looked at."""
MEAN_GAP_S = 1.0
STORY_LINES = 40
"""How much of what was done a report repeats."""


class NotConvergedError(SimulationError):
    """With all faults healed, what should have come true did not."""


class Trial:
    """One run of a user's program against a simulated cluster, from one seed.

    Use it as a context manager, outside of any event loop.  Example:

        counters = {}

        async def program(journal):
            counter = counters[journal.peer.name] = Counter()  # a new process remembers nothing
            await counter.run(journal)

        with Trial(seed=7) as trial:
            trial.always(lambda: check_that_none_is_ahead(counters))
            trial.start(program)
            trial.storm(20.0)
            trial.converge(lambda: len({counter.value for counter in counters.values()}) == 1)

    The program runs on every node, one process each.  A process that was crashed, and one that a
    `LunalogError` left, starts again after a while, as under a supervisor: with a new journal of the
    same peer name, and nothing that it had in memory.  Any other error that leaves it fails the run.

    Args:
        seed: All chance comes from it: equal seeds give equal runs.
        nodes: How many machines run the program; they are called node-1, node-2 and so on.
        servers: How many journal servers the cluster has.
        faults: Kinds of faults to choose from (`fault_kinds`); none if empty; drawn by seed if None.
        gap: Mean seconds between two faults; if None 1.0, or drawn by seed where the kinds are.
        damages_most: How many servers may lose what was durable on their disks.  Nobody promises
            anything beyond one less than the ack quorum of a stream: 1 for the usual 2 of 3.
        config: Settings of the journals.

    Attributes:
        seed: The run's.
        simulation, cluster, nemesis: What the trial is made of, for tests that need more.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        servers: int = 4,
        faults: Iterable[str] | None = None,
        gap: float | None = None,
        damages_most: int = 1,
        config: ClientConfig | None = None,
    ) -> None:
        self.seed = seed
        self.simulation = Simulation(seed, is_blocking=True)
        self.cluster = SimulatedCluster(
            self.simulation, Shape(streams=(), spares=servers, clients=0)
        )
        self.nodes = [self.simulation.node(f"node-{n + 1}") for n in range(nodes)]
        self.nemesis = _nemesis(
            Targets(
                self.simulation,
                self.cluster.server_nodes,
                [self.cluster.master_node],
                self.nodes,
                damages_most=damages_most,
                store=self.cluster.store,
                damaged=self.cluster.harmed,
                position=self.cluster.position,
                reported=lambda node: self.cluster.recorder.reported.get(node.name, 0),
            ),
            faults,
            gap,
        )
        self._config = config
        self._checks: list[Callable[[], object]] = []
        self._outside: SingleWriteJournal | None = None
        self._has_started = False
        self._stand_ins = StandIns(seed)
        self._log_level = logging.NOTSET

    def __repr__(self) -> str:
        return f"<Trial of seed {self.seed} at {self.now:.3f} s>"

    def __enter__(self) -> Self:
        if asyncio._get_running_loop() is not None:
            raise SimulationError("a trial runs loops of its own: use it outside of any event loop")
        logger = logging.getLogger("lunalog")
        self._log_level = logger.level
        logger.setLevel(logging.CRITICAL + 1)  # the story says it shorter
        self._stand_ins.install()
        self.simulation.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.simulation.__exit__(kind, error, trace)
        self._stand_ins.remove()
        logging.getLogger("lunalog").setLevel(self._log_level)

    # ------------------------------------------------------------ what a test does

    def start(self, program: Program) -> None:
        """Start the cluster, and `program` on every node."""
        if self._has_started:
            raise SimulationError("a trial starts one program, once")
        self._has_started = True
        self.cluster.start(_no_client)
        for node in self.nodes:
            node.expects_failure = is_restarted
            node.start(partial(self._run_process, program=program, name=node.name))
        _ = self.simulation.harness.loop.create_task(self._watch(), name="checks")

    def always(self, check: Callable[[], object]) -> None:
        """Have `check` called every 50 ms of the run from now on; what it raises fails the run.

        It looks at the state of processes between two turns of their loops.
        """
        self._checks.append(check)

    def storm(self, seconds: float = 20.0) -> None:
        """Let everything run, and break things meanwhile.

        Raises:
            ViolationError: A check failed, or an error left a program that may not.
        """
        if self.nemesis.kinds:
            self.simulation.run(self.nemesis.run(seconds))
        else:
            self.simulation.run_for(seconds)

    def heal(self) -> None:
        """End all faults, and start what does not run; what is damaged stays damaged."""
        self.nemesis.heal()

    def converge(self, until: Callable[[], object], timeout: float = 60.0) -> None:
        """Heal all, and let everything run until `until()` is true.

        Raises:
            NotConvergedError: It was not, within `timeout` virtual seconds.
            ViolationError: As for `storm`.
        """
        self.heal()

        async def wait() -> None:
            while not until():  # noqa: ASYNC110  it is a look at state, nobody tells of it
                await asyncio.sleep(LOOK_EVERY_S)

        try:
            self.run(wait(), timeout)
        except TimeoutError:
            raise NotConvergedError(
                f"seed {self.seed}: {timeout:g} s after all was healed this does not hold: "
                f"{getattr(until, '__name__', until)}"
            ) from None

    def run(self, work: Coroutine[Any, Any, T], timeout: float = NEVER) -> T:
        """Run a coroutine on a machine outside that no fault touches, and all else meanwhile.

        It runs on another loop than the programs: it looks at their state, and awaits nothing of it.

        Raises:
            TimeoutError: `timeout` virtual seconds have passed.
            ViolationError: As for `storm`.
        """
        return self.simulation.run(work, timeout_s=timeout)

    async def connect(self) -> SingleWriteJournal:
        """Return the journal of the machine outside; use it by `run`."""
        if self._outside is None:
            self._outside = await self._connected(self.simulation.harness_runtime, "outside")
        return self._outside

    def committed(self, stream: str, timeout: float = 60.0) -> int:
        """Return a stream's read point: what was acknowledged before this call lies below it."""

        async def ask() -> int:
            journal = await self.connect()
            while True:
                try:
                    return await journal.committed(stream, timeout=2.0)
                except (AvailabilityError, NotLeaderError, StreamNotFoundError):
                    await asyncio.sleep(LOOK_EVERY_S)

        return self.run(ask(), timeout)

    # ------------------------------------------------------------ what it tells

    @property
    def now(self) -> float:
        """Virtual seconds since the run began."""
        return self.simulation.now

    @property
    def trace(self) -> int:
        """A hash of all that happened; equal for equal runs."""
        return self.simulation.trace_hash

    @property
    def story(self) -> list[str]:
        """What was done to the cluster and the programs, and when."""
        return self.nemesis.story

    def report(self) -> list[str]:
        """Say what happened, for people who look at a run that failed."""
        counts = sorted(self.simulation.counters.items())
        told = [
            f"seed {self.seed}, {self.now:.3f} virtual seconds, trace {self.trace:08x}",
            "happened: " + (", ".join(f"{name} {count}" for name, count in counts) or "nothing"),
        ]
        left_out = len(self.story) - STORY_LINES
        if left_out > 0:
            told.append(f"({left_out} lines of its story are left out)")
        told += self.story[-STORY_LINES:]
        for node in self.nodes:
            ended = f"failed: {node.failure!r}" if node.failure else "returned"
            told.append(f"{node.name}: {'runs' if node.is_running else ended}")
        return told

    # ------------------------------------------------------------ the processes

    async def _run_process(self, runtime: SimulatedRuntime, program: Program, name: str) -> None:
        journal = self.cluster.journals[name] = await self._connected(runtime, name)
        async with journal:
            await program(journal)

    async def _connected(self, runtime: SimulatedRuntime, name: str) -> SingleWriteJournal:
        while True:
            try:
                return await SingleWriteJournal.connect(
                    self.cluster.url, peer=name, runtime=runtime, config=self._config
                )
            except AvailabilityError:
                continue

    async def _watch(self) -> None:
        while True:
            try:
                for check in self._checks:
                    check()
            except Exception as error:  # noqa: BLE001  whatever it is, the run has failed
                self.simulation.violate(f"{type(error).__name__}: {error}", error)
                return
            await asyncio.sleep(LOOK_EVERY_S)


def is_restarted(error: BaseException) -> bool:
    """Tell whether a supervisor would start a process again that died of this."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_restarted, error.exceptions))
    if isinstance(error, UsageError):  # of these two also who makes no mistake is not safe
        return isinstance(error, ClosedError | ConflictError)
    return isinstance(error, LunalogError) and not isinstance(error, InvariantError)


def fault_kinds() -> dict[str, str]:
    """Return every kind of fault, and what it does."""
    return {
        name: (kind.__doc__ or "").partition("\n")[0] for name, kind in sorted(all_kinds().items())
    }


def _nemesis(targets: Targets, faults: Iterable[str] | None, gap: float | None) -> Nemesis:
    if faults is None:
        nemesis = Nemesis.draw(targets)
    else:
        chosen = sorted(set(faults))
        unknown = [name for name in chosen if name not in all_kinds()]
        if unknown:
            raise ValueError(f"no kinds of faults: {unknown}; known: {sorted(all_kinds())}")
        nemesis = Nemesis(targets, dict.fromkeys(chosen, 1.0), MEAN_GAP_S)
    if gap is not None:
        nemesis.mean_gap_s = gap
    return nemesis


async def _no_client(journal: object, name: str) -> None:
    """Do nothing: the cluster is made without clients of its own."""
