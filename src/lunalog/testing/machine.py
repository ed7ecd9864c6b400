"""A simulated machine: its loops, clock and disks, and what may happen to them.

Source: docs/design.md "Seams"; R16, R27, P1 to P4, C1, C2, K5.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from lunalog.testing.clock import NodeClock
from lunalog.testing.loop import SimulatedLoop
from lunalog.testing.process import SimulatedRuntime

if TYPE_CHECKING:
    from lunalog.testing.disk import SimulatedDisk
    from lunalog.testing.simulation import Simulation

Main = Callable[[SimulatedRuntime], Coroutine[Any, Any, Any]]
MAIN_LOOP = "main"


class SimulatedNode:
    """One machine that runs one process, and what a test may do to it.

    Made by `Simulation.node`.  Its disks, clock, host name and number outlive crashes.  Example:

        node = simulation.node("server-1")
        disk = node.disk("data")
        node.start(lambda runtime: serve(runtime, disk))
        node.crash(power=True)
        node.restart()

    Attributes:
        has_finished: Whether `main` returned.
        result: What it returned.
        failure: What the process died of by its own doing; None after a crash from outside.
        expects_failure: May be set to say which errors of its process are right, in addition to
            those after an injected disk error.
        on_exit: Called with the node when its process ended by itself (failed or returned).
    """

    def __init__(self, simulation: Simulation, name: str, number: int) -> None:
        self.simulation = simulation
        self.name = name
        self.number = number
        self.clock = NodeClock(simulation.scheduler, name)
        self.disks: dict[str, SimulatedDisk] = {}
        self.generation = 0
        self.is_running = False
        self.is_paused = False
        self.has_finished = False
        self.failure: BaseException | None = None
        self.result: Any = None
        self.expects_failure: Callable[[BaseException], bool] = lambda error: False
        self.on_exit: Callable[[SimulatedNode], None] = lambda node: None
        self._main: Main | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._loops: dict[str, SimulatedLoop] = {}
        self._wedged: dict[str, SimulatedLoop] = {}
        self._bites_at_start = 0
        simulation.network.host(name)

    def __repr__(self) -> str:
        return f"<SimulatedNode {self.name}>"

    # ------------------------------------------------------------ life

    def disk(self, name: str = "data", *, capacity_bytes: int | None = None) -> SimulatedDisk:
        """Return one of the node's disks, new or known; they survive crashes."""
        if name not in self.disks:
            made = self.simulation.make_disk(f"{self.name}/{name}")
            self.disks[name] = made
            if capacity_bytes is not None:
                made.capacity_bytes = capacity_bytes
        return self.disks[name]

    def start(self, main: Main) -> SimulatedRuntime:
        """Start a process that runs `main(runtime)` on the node's main loop.

        It lives until `main` returns or raises, `runtime.fail` is called, or a crash.
        """
        if self.is_running:
            raise RuntimeError(f"{self.name} runs already")
        self._main = main
        self.generation += 1
        self.is_running = True
        self.has_finished = False
        self.failure = self.result = None
        self._bites_at_start = self._bites()
        self.simulation.network.set_power(self.name, is_up=True)
        runtime = SimulatedRuntime(self)
        loop = self.add_loop(MAIN_LOOP)
        loop.call_soon_threadsafe(self._start_main, loop, main, runtime)
        return runtime

    def restart(self) -> SimulatedRuntime:
        """Start the same `main` again, killing what runs."""
        if self._main is None:
            raise RuntimeError(f"{self.name} was never started")
        self.crash()
        return self.start(self._main)

    @property
    def can_restart(self) -> bool:
        """Whether it was started once and has not come to its end since."""
        return self._main is not None and not self.has_finished

    def crash(self, *, power: bool = False) -> None:
        """End the process at once; nothing of it runs any more, `finally` included.

        Without `power` it is a kill: the kernel keeps the page cache and tells peers.  With it the
        host is gone as well, until `start`: peers hear nothing, disks lose what was not synced, the
        boot clock starts anew.  A process that does not run may still lose its power.
        """
        if self.is_running:
            self._end(power=power)
        elif power:
            self.simulation.network.process_died(self.name, [], power=True)
        if power:
            self.clock.reboot()
        for disk in self.disks.values():
            disk.crash(power=power)

    def fail(self, error: BaseException) -> None:
        """End the process because it says so; use `SimulatedRuntime.fail` in its code."""
        if not self.is_running:
            return
        self.failure = error
        is_expected = self._bites() > self._bites_at_start or self.expects_failure(error)
        self.crash()
        if is_expected:
            self.simulation.notice("process failed as it should")
        else:
            self.simulation.violate(f"{self.name} failed: {error!r}", error)
        self.on_exit(self)

    # ------------------------------------------------------------ time

    def pause(self, *, suspend: bool = False) -> None:
        """Stop all loops (SIGSTOP); with `suspend` the monotonic clock stands still as well."""
        if not self.is_paused:
            self.is_paused = True
            if suspend:
                self.clock.suspend()
            for loop in self._loops.values():
                loop.hold()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self.is_paused:
            self.is_paused = False
            self.clock.wake()
            for loop in self._loops.values():
                loop.release()

    def wedge(self, loop: str = MAIN_LOOP) -> None:
        """Stop one loop while the others go on, as a callback that does not return would."""
        if loop in self._loops and loop not in self._wedged:
            self._wedged[loop] = self._loops[loop]
            self._loops[loop].hold()

    def unwedge(self, loop: str = MAIN_LOOP) -> None:
        """Let a wedged loop go on."""
        wedged = self._wedged.pop(loop, None)
        if wedged is not None:
            wedged.release()

    def set_clock_rate(self, rate: float) -> None:
        """Let the node's clock run faster or slower than true time."""
        self.clock.set_rate(rate)
        for loop in self._loops.values():
            loop.look_again()

    def heal(self) -> None:
        """Resume, unwedge, set the clock right, and take the delays off the disks."""
        self.resume()
        for name in list(self._wedged):
            self.unwedge(name)
        self.set_clock_rate(1.0)
        for disk in self.disks.values():
            disk.faults.heal()

    # ------------------------------------------------------------ for loops and runtime

    @property
    def loop(self) -> SimulatedLoop:
        """The main loop of the process that runs."""
        return self._loops[MAIN_LOOP]

    def abandon(self) -> None:
        """End the process without consequences: the run is over."""
        if self.is_running:
            self._end(power=True)

    @property
    def loop_names(self) -> list[str]:
        """The loops that `wedge` may take; the first is the main one."""
        return list(self._loops)

    def add_loop(self, name: str) -> SimulatedLoop:
        """Give the process one more loop; a second one of a name gets a number."""
        unique, number = name, 1
        while unique in self._loops:
            number += 1
            unique = f"{name}-{number}"
        loop = SimulatedLoop(  # type: ignore[abstract]  # only for type checkers: no files, signals
            self.simulation.scheduler, self, f"{self.name}/{unique}"
        )
        self._loops[unique] = loop
        if self.is_paused:
            loop.hold()
        return loop

    def loop_complained(self, loop: SimulatedLoop, context: dict[str, Any]) -> None:
        """Report an error nobody handles; it fails the run."""
        error = context.get("exception")
        self.simulation.violate(f"{loop.name}: {context.get('message')}: {error!r}", error)

    def loop_raised(self, loop: SimulatedLoop, error: BaseException) -> None:
        """End the process: SystemExit left a callback."""
        self.fail(error)

    def _start_main(self, loop: SimulatedLoop, main: Main, runtime: SimulatedRuntime) -> None:
        self._main_task = loop.create_task(
            self._run_main(main, runtime), name=f"main of {self.name}"
        )

    async def _run_main(self, main: Main, runtime: SimulatedRuntime) -> None:
        generation = self.generation
        try:
            result = await main(runtime)
            await cancel_others(asyncio.all_tasks())
        except Exception as error:  # noqa: BLE001
            runtime.fail(error)
            return
        if self.generation == generation:  # else it has failed, and only runs out
            self.result, self.has_finished = result, True
            self.crash()
            self.on_exit(self)

    def _end(self, *, power: bool) -> None:
        self.is_running = self.is_paused = False
        self.generation += 1
        loops, self._loops, self._wedged = self._loops, {}, {}
        self.clock.wake()
        for loop in loops.values():
            loop.close()
        self.simulation.bury(loops.values())
        self.simulation.network.process_died(self.name, loops.values(), power=power)

    def _bites(self) -> int:
        return sum(disk.faults.bites for disk in self.disks.values())


async def cancel_others(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel all tasks but the caller's own and wait for them, as `asyncio.run` does at its end."""
    current = asyncio.current_task()
    others = sorted((t for t in tasks if t is not current), key=hash)
    for task in others:
        task.cancel()
    for task in others:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
