"""One simulated run: nodes, network and time from one seed.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from lunalog.testing.burial import GeneratorKeeper, Graveyard
from lunalog.testing.disk import SimulatedDisk
from lunalog.testing.link import NetworkSettings
from lunalog.testing.loop import SimulatedLoop
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.network import SimulatedNetwork
from lunalog.testing.scheduler import Scheduler, SimulationError

T = TypeVar("T")
NEVER = float("inf")
STEP_BUDGET = 5_000_000
HARNESS = "harness"


class ViolationError(SimulationError):
    """The code under test broke a rule."""


class Simulation:
    """A whole run.  Use it as a context manager; the garbage collector is off inside.

    Example:
        with Simulation(7) as simulation:
            server = simulation.node("server-1")
            disk = server.disk()
            server.start(lambda runtime: serve(runtime, disk))
            answer = simulation.run(ask(simulation.harness_runtime.network))
            server.crash(power=True)
            simulation.run_for(5.0)
            server.restart()
        print(simulation.trace_hash, simulation.counters)

    The coroutine given to `run` lives on a node of its own, the harness, which no fault touches: it
    may use the network as a client, and crash other nodes in the middle of what they do.

    Args:
        seed: All chance comes from it: equal seeds give equal runs.
        step_budget: Heap entries and callbacks after which the run is called a livelock.
        settings: How the network behaves.
        is_blocking: Whether loops may wait in place for their disks, as real ones do.

    Attributes:
        violations: What went wrong so far; `run` raises at the first unless `keeps_going`.
        counters: How often which fault was injected; add with `count`.
        noticed: How often what else was seen that is worth knowing; add with `notice`.
    """

    def __init__(
        self,
        seed: int,
        *,
        step_budget: int = STEP_BUDGET,
        settings: NetworkSettings | None = None,
        keeps_going: bool = False,
        is_blocking: bool = False,
    ) -> None:
        self.seed = seed
        self.scheduler = Scheduler(seed, step_budget=step_budget)
        self.network = SimulatedNetwork(self.scheduler, settings)
        self.keeps_going = keeps_going
        self.is_blocking = is_blocking
        self.violations: list[str] = []
        self.counters: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        self._nodes: dict[str, SimulatedNode] = {}
        self._graveyard = Graveyard()
        self._first_error: BaseException | None = None
        self._is_open = False
        self._had_gc = False
        self._hooks = sys.get_asyncgen_hooks()
        self.harness = self.node(HARNESS)
        self.harness_runtime = self.harness.start(_idle)

    def __enter__(self) -> Self:
        self._is_open = True
        self._had_gc = gc.isenabled()
        gc.disable()
        keeper = GeneratorKeeper()
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(keeper.began, keeper.was_dropped)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_open = False
        for node in self._nodes.values():
            node.abandon()
        self._graveyard.discard()
        self.scheduler.clear()
        sys.set_asyncgen_hooks(*self._hooks)
        if self._had_gc:
            gc.enable()

    # ------------------------------------------------------------ making

    def node(self, name: str) -> SimulatedNode:
        """Return the machine called `name`, new or known; its host has the same name."""
        if name not in self._nodes:
            self._nodes[name] = SimulatedNode(self, name, len(self._nodes) + 1)
        return self._nodes[name]

    @property
    def nodes(self) -> list[SimulatedNode]:
        """All machines but the harness, in the order they were made."""
        return [node for name, node in self._nodes.items() if name != HARNESS]

    def make_disk(self, name: str) -> SimulatedDisk:
        """Return a disk that no node owns yet; `SimulatedNode.disk` is the usual way."""
        return SimulatedDisk(name, self.scheduler.stream(f"disk {name}"), self.scheduler)

    def stream(self, name: str) -> random.Random:
        """Return a stream of chance for one concern of the test."""
        return self.scheduler.stream(f"test {name}")

    # ------------------------------------------------------------ running

    @property
    def now(self) -> float:
        """Virtual seconds since the run began."""
        return self.scheduler.now

    @property
    def trace_hash(self) -> int:
        """Equal for equal runs; print it beside the seed."""
        return self.scheduler.trace_hash

    def run(self, work: Coroutine[Any, Any, T], *, timeout_s: float = NEVER) -> T:
        """Run a coroutine on the harness node to its end, and all else meanwhile.

        Raises:
            ViolationError: A rule was broken, by then or before.
            DeadlockError: Nothing can happen any more, and `work` waits.
            BudgetExceededError: The run spins.
            TimeoutError: `timeout_s` virtual seconds have passed.
        """
        task = self.harness.loop.create_task(work, name="harness work")
        is_done = self._run(self.now + timeout_s, task.done)
        if not is_done:
            task.cancel()
            raise TimeoutError(f"not done after {timeout_s} virtual seconds: {task.get_coro()!r}")
        return task.result()

    def run_until(self, when: float) -> None:
        """Let everything go on until virtual time `when`."""
        self._run(when, lambda: False)

    def run_for(self, seconds: float) -> None:
        """Let everything go on for a while."""
        self.run_until(self.now + seconds)

    def _run(self, limit: float, is_done: Callable[[], bool]) -> bool:
        if not self._is_open:
            raise SimulationError("use the simulation as a context manager")
        done = self.scheduler.run(limit, is_done)
        if self.scheduler.is_stopped:
            raise ViolationError("; ".join(self.violations)) from self._first_error
        return done

    # ------------------------------------------------------------ findings

    def violate(self, what: str, error: BaseException | None = None) -> None:
        """Note that a rule was broken; the run ends there unless `keeps_going`."""
        self.violations.append(f"seed {self.seed} at {self.now:.6f} s: {what}")
        if self._first_error is None:
            self._first_error = error
        self.scheduler.is_stopped = not self.keeps_going

    def count(self, what: str) -> None:
        """Count one fault injected; it goes into the trace."""
        self.counters[what] += 1
        self.scheduler.note(self.counters[what])

    def notice(self, what: str) -> None:
        """Count something worth knowing that is no fault by itself; it goes into the trace."""
        self.noticed[what] += 1
        self.scheduler.note(self.noticed[what])

    def bury(self, loops: Iterable[SimulatedLoop]) -> None:
        """Keep what a process leaves behind until the run ends."""
        self._graveyard.bury(loops)


async def _idle(_: object) -> None:
    await asyncio.get_running_loop().create_future()
