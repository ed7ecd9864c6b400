"""A deterministic asyncio event loop: stock tasks, futures and timeouts on virtual time.

A loop stands for a thread.  It works in turns, as a real one does: a turn runs what was ready when
it began, in order; the next one comes a little later, and how much later is the seed's choice, so
that threads and nodes interleave differently in every run.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar, TypeVarTuple

from lunalog.testing.clock import NodeClock
from lunalog.testing.scheduler import Scheduler
from lunalog.testing.tasks import (
    SimulatedFuture,
    SimulatedHandle,
    SimulatedTask,
    SimulatedTimer,
    settle,
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
NEVER = float("inf")
TIMER_SLACK_S = 1e-9
CANCELLED_TIMERS_KEPT = 100
set_running_loop = asyncio._set_running_loop


class LoopOwner(Protocol):
    """What a loop tells its node."""

    number: int
    clock: NodeClock

    def loop_complained(self, loop: SimulatedLoop, context: dict[str, Any]) -> None:
        """Somebody called the loop's exception handler: an error that nobody handles."""

    def loop_raised(self, loop: SimulatedLoop, error: BaseException) -> None:
        """A callback raised what ends a process (SystemExit and the like)."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """One thread's event loop on a simulated node.  Made by `SimulatedNode`, never directly.

    Calls from other loops than the running one must come through `call_soon_threadsafe`; anything
    else is a data race in production, and raises here.
    """

    turn_s = (1e-6, 20e-6)
    executor_s = (0.0, 200e-6)

    def __init__(self, scheduler: Scheduler, owner: LoopOwner, name: str) -> None:
        self.name = name
        self.owner = owner
        self.is_dead = False
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.late_tasks: list[asyncio.Task[Any]] = []
        self.late_generators: list[object] = []
        self._scheduler = scheduler
        self._clock = owner.clock
        self._chance = scheduler.stream("turns").random
        self._executor_chance = scheduler.stream("executor")
        self._ready: deque[SimulatedHandle | SimulatedTimer] = deque()
        self._timers: list[tuple[float, int, SimulatedTimer]] = []
        self._timers_cancelled = 0
        self._next_turn = NEVER
        self._next_wake = NEVER
        self._holds = 0
        self._actor = owner.number

    def __repr__(self) -> str:
        return f"<SimulatedLoop {self.name}>"

    # ------------------------------------------------------------ callbacks

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run `callback(*args)` in the next turn; only from this loop or from no loop."""
        handle = SimulatedHandle(callback, args, context)
        if self._scheduler.running is self:  # a running turn looks for itself at its end
            self._ready.append(handle)
        else:
            self._check_thread()
            self._add(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run `callback(*args)` in the next turn; from anywhere."""
        handle = SimulatedHandle(callback, args, context)
        if self._scheduler.running is self:
            self._ready.append(handle)
        else:
            self._add(handle)
        return handle

    def _add(self, handle: SimulatedHandle) -> None:
        if not self.is_dead:
            self._ready.append(handle)
            if self._next_turn == NEVER:
                self._plan_turn()

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run `callback(*args)` in `delay` seconds of this node's clock."""
        return self._call_at(self._clock.monotonic() + delay, callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run `callback(*args)` when `time()` has reached `when`."""
        return self._call_at(when, callback, args, context)

    def _call_at(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> asyncio.TimerHandle:
        scheduler = self._scheduler
        handle = SimulatedTimer(callback, args, self, context, when)
        if scheduler.running is not self:
            self._check_thread()
        if not self.is_dead:
            handle._scheduled = True
            scheduler.number = number = scheduler.number + 1
            heapq.heappush(self._timers, (when, number, handle))
            if scheduler.running is not self:
                self._wake_at(self._clock.when(when))
        return handle

    def _check_thread(self) -> None:
        running = self._scheduler.running
        if running is not self and running is not None and not self.is_dead:
            raise RuntimeError(f"{running!r} must use call_soon_threadsafe on {self!r}")

    def timer_was_cancelled(self) -> None:
        """Note one timer that will not run, and clear them out when they are many."""
        self._timers_cancelled += 1
        many = max(CANCELLED_TIMERS_KEPT, len(self._timers) // 2)
        if self._timers_cancelled > many:
            self._timers[:] = [entry for entry in self._timers if not entry[2]._cancelled]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    def time(self) -> float:
        """Seconds on the node's monotonic clock."""
        return self._clock.monotonic()

    # ------------------------------------------------------------ turns

    def hold(self) -> None:
        """Run no more turns until `release`; holds add up (a pause and a wedge)."""
        self._holds += 1

    def release(self) -> None:
        """Take one hold away."""
        self._holds -= 1
        self.look_again()

    def stand_still(self, seconds: float) -> None:
        """Block in the callback that runs now, while everybody else goes on.

        It takes longer if the loop is held meanwhile, and returns also when it is dead by then.
        """
        scheduler = self._scheduler
        task = asyncio.current_task(self)
        if task is not None:
            asyncio._leave_task(self, task)
        self._holds += 1
        scheduler.running = None
        set_running_loop(None)
        try:
            scheduler.run_beside(scheduler.now + seconds, self._is_held_by_others)
        finally:
            self._holds -= 1
            self._next_wake = NEVER  # whoever came meanwhile was turned away
            scheduler.running = self
            set_running_loop(self)
            if task is not None:
                asyncio._enter_task(self, task)

    def _is_held_by_others(self) -> bool:
        return self._holds > 1 and not self.is_dead

    def look_again(self) -> None:
        """Plan the next turn anew: the clock or the holds have changed."""
        self._next_turn = self._next_wake = NEVER
        self._plan()

    def _plan_turn(self) -> None:
        if not self._holds:
            scheduler, (low, high) = self._scheduler, self.turn_s
            self._next_turn = when = scheduler.now + low + self._chance() * (high - low)
            scheduler.at(when, self._actor, self._turn, when)

    def _wake_at(self, when: float) -> None:
        if when < self._next_wake and not self._holds:
            self._next_wake = when
            late = self._chance() * self.turn_s[1]
            self._scheduler.at(max(when, self._scheduler.now) + late, self._actor, self._wake, when)

    def _plan(self) -> None:
        if self.is_dead or self._next_turn != NEVER:
            return
        if self._ready:
            self._plan_turn()
        elif self._timers:
            self._wake_at(self._clock.when(self._timers[0][0]))

    def _turn(self, when: float) -> None:
        if when == self._next_turn and not self._holds and not self.is_dead:
            self._take_turn()

    def _wake(self, when: float) -> None:
        if when == self._next_wake and not self._holds and not self.is_dead:
            self._next_wake = NEVER
            self._take_turn()

    def _take_turn(self) -> None:
        """Take one turn, and those after it that come before anything else in the run."""
        scheduler, ready, timers = self._scheduler, self._ready, self._timers
        scheduler.running = self
        set_running_loop(self)
        low, high = self.turn_s
        try:
            while True:
                self._next_turn = NEVER
                if timers:
                    end = self._clock.monotonic() + TIMER_SLACK_S
                    if timers[0][0] <= end or timers[0][2]._cancelled:
                        self._take_due_timers(end)
                self._run_ready()
                if not ready or self.is_dead or self._holds:
                    break
                when = scheduler.now + low + self._chance() * (high - low)
                if not scheduler.skip_to(when, self._actor):
                    self._next_turn = when
                    scheduler.at(when, self._actor, self._turn, when)
                    break
        finally:
            set_running_loop(None)
            scheduler.running = None
        self._plan()

    def _run_ready(self) -> None:
        ready = self._ready
        count = len(ready)
        self._scheduler.steps += count
        for _ in range(count):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001
                self._raised(handle, error)
            del handle  # a traceback keeps this frame, and so would keep a task that has failed
            if self.is_dead:
                return

    def _raised(self, handle: asyncio.Handle, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            if not self.is_dead:
                self.owner.loop_raised(self, error)
        else:
            self.call_exception_handler(
                {"message": f"exception in callback {handle!r}", "exception": error}
            )

    def _take_due_timers(self, end: float) -> None:
        timers = self._timers
        while timers and (timers[0][0] <= end or timers[0][2]._cancelled):
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False
            if handle._cancelled:
                self._timers_cancelled -= 1
            else:
                self._ready.append(handle)

    # ------------------------------------------------------------ tasks and futures

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future that hashes by a counter."""
        future: SimulatedFuture[Any] = SimulatedFuture(loop=self)
        scheduler = self._scheduler
        scheduler.number = future.number = scheduler.number + 1
        return future

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        **options: Any,
    ) -> asyncio.Task[T]:
        """Run a coroutine as a task that hashes by a counter; named by it too if not named."""
        number = self._scheduler.next_number()
        if options.get("name") is None:
            options["name"] = f"Task-{number}"
        task = SimulatedTask(coro, loop=self, number=number, **options)
        self.tasks.add(task)
        if self.is_dead:
            self.late_tasks.append(task)  # by a callback that goes on after its node crashed
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call `func(*args)` after a little while, on this loop; a pause or wedge delays it."""
        future: asyncio.Future[T] = self.create_future()
        delay = self._executor_chance.uniform(*self.executor_s)
        self.call_later(delay, self._execute, future, func, args)
        return future

    def _execute(
        self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if future.cancelled():
            return
        try:
            settle(future, func(*args), None)
        except Exception as error:  # noqa: BLE001
            settle(future, None, error)

    # ------------------------------------------------------------ the rest of the interface

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an error that nobody handles; it fails the run."""
        if not self.is_dead:
            self.owner.loop_complained(self, context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Report as well."""
        self.call_exception_handler(context)

    def get_debug(self) -> bool:
        """Never: asyncio's debug mode has costs and messages that depend on real time."""
        return False

    def is_running(self) -> bool:
        """Whether this loop's turn is on."""
        return self._scheduler.running is self

    def is_closed(self) -> bool:
        """Whether it ran its last turn."""
        return self.is_dead

    def close(self) -> None:
        """Run nothing more; what was not run stays referenced until the run ends."""
        self.is_dead = True

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do."""
