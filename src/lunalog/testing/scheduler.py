"""Virtual time: one heap of what happens next, shared by every simulated node.

An entry is (time, number, actor, action, argument).  The number breaks ties by the order of
scheduling, so that nothing is ever ordered by an address or a hash, and a run is a function of its
seed alone.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import heapq
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

Action = Callable[[Any], None]
TRACED_BYTES = 1024
_TRACE = struct.Struct("<dQI").pack


class SimulationError(Exception):
    """The run could not be brought to its end."""


class BudgetExceededError(SimulationError):
    """The run took more steps than it may: most likely something spins without waiting."""


class DeadlockError(SimulationError):
    """Nothing is left that could ever happen, and the run is not done."""


class Scheduler:
    """The heap, the clock of the whole run, its streams of chance and its trace.

    Attributes:
        now: Seconds since the run began.
        steps: Heap entries and loop callbacks run so far.
        running: The loop whose callback runs now; None in the harness, the network and the disks.
        number: The last one that `next_number` gave.
        is_stopped: Set to have `run` return at once, and ever after.
        is_beside: An action blocks, and all that happens now happens beside it.
    """

    def __init__(self, seed: int, *, step_budget: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.steps = 0
        self.step_budget = step_budget
        self.running: object | None = None
        self._heap: list[tuple[float, int, int, Action, Any]] = []
        self.number = 0
        self.is_stopped = False
        self.is_beside = False
        self._trace = 0
        self._limit = float("inf")
        self._is_done: Callable[[], bool] = bool
        self._streams: dict[str, random.Random] = {}

    def stream(self, name: str) -> random.Random:
        """Return the stream of chance called `name`, the same object each time.

        One stream a concern: a fault more in one place does not shift the draws of all others.
        """
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = random.Random(f"{self.seed}/{name}")
        return found

    def next_number(self) -> int:
        """Return a number that nothing else in this run has; it only grows."""
        self.number += 1
        return self.number

    def at(self, when: float, actor: int, action: Action, argument: Any = None) -> None:
        """Call `action(argument)` at time `when`; what lies in the past happens now."""
        self.number = number = self.number + 1
        heapq.heappush(self._heap, (when, number, actor, action, argument))

    def after(self, delay: float, actor: int, action: Action, argument: Any = None) -> None:
        """Call `action(argument)` in `delay` seconds."""
        self.number = number = self.number + 1
        heapq.heappush(self._heap, (self.now + delay, number, actor, action, argument))

    def clear(self) -> None:
        """Forget all that would still happen."""
        self._heap.clear()

    def note(self, *values: float) -> None:
        """Fold values into the trace, so that runs which differ in them have different hashes."""
        self._trace = zlib.crc32(struct.pack(f"<{len(values)}d", *values), self._trace)

    def note_bytes(self, data: bytes) -> None:
        """Fold the size and the first bytes of what was delivered into the trace."""
        self._trace = zlib.crc32(data[:TRACED_BYTES], self._trace + len(data))

    @property
    def trace_hash(self) -> int:
        """A checksum over (time, number, actor) of all that happened; equal for equal runs."""
        return self._trace

    def run(self, limit: float, is_done: Callable[[], bool]) -> bool:
        """Run until `is_done()`, or until nothing is left before `limit`, then set the clock to it.

        Returns:
            Whether `is_done()` ended the run.

        Raises:
            BudgetExceededError: The step budget of the whole run is used up.
            DeadlockError: The heap is empty and `limit` infinite.
        """
        self._limit, self._is_done = limit, is_done
        if self._go_on(limit, is_done):
            return True
        if limit == float("inf"):
            raise DeadlockError(f"nothing left to happen at {self.now:.6f} s")
        self.now = max(self.now, limit)
        return False

    def run_beside(self, when: float, is_held: Callable[[], bool]) -> None:
        """Let all else happen until `when`, and as long as `is_held()`; for an action that blocks.

        The end of the whole run comes before that of the wait, and so does that of the wait of another
        one beside which it blocks: who can do otherwise does not block while `is_beside`.
        """
        limit, is_done, was_beside = self._limit, self._is_done, self.is_beside
        until = self._limit = min(when, limit)
        self.is_beside = True
        try:
            is_over = self._go_on(until, is_done)
            self._limit = limit
            if not is_over:
                self.now = max(self.now, until)
                self._go_on(limit, lambda: is_done() or not is_held())
        finally:
            self._limit, self.is_beside = limit, was_beside

    def _go_on(self, limit: float, is_done: Callable[[], bool]) -> bool:
        """Do what happens up to `limit`; false if it came to that, true if it ended before."""
        heap, pop, pack, crc32 = self._heap, heapq.heappop, _TRACE, zlib.crc32
        while not self.is_stopped and not is_done():
            if not heap or heap[0][0] > limit:
                return False
            when, number, actor, action, argument = pop(heap)
            if when > self.now:
                self.now = when
            self._trace = crc32(pack(when, number, actor), self._trace)
            action(argument)
            self.steps += 1
            if self.steps > self.step_budget:
                raise BudgetExceededError(
                    f"{self.steps} steps in {self.now:.6f} virtual seconds: a livelock, or a "
                    f"budget ({self.step_budget}) too small"
                )
        return True

    def skip_to(self, when: float, actor: int) -> bool:
        """Move the clock to `when` if nothing else happens by then; for what `actor` does next.

        It is what `at` does, without the way through the heap.
        """
        heap = self._heap
        if (heap and heap[0][0] <= when) or when > self._limit or self.steps >= self.step_budget:
            return False
        if self.is_stopped or self._is_done():
            return False
        self.now = when
        self.number += 1
        self.steps += 1
        self._trace = zlib.crc32(_TRACE(when, self.number, actor), self._trace)
        return True
