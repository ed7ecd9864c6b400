"""Where the tasks of crashed processes rest until the run ends.

A coroutine that is dropped runs its `finally` blocks, and a crashed process runs nothing: so all its
tasks stay referenced.  At the end they are closed while nothing they could call does anything.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from lunalog.testing.loop import SimulatedLoop

CLOSE_ATTEMPTS = 20


class Graveyard:
    """The loops and tasks of processes that ended."""

    def __init__(self) -> None:
        self._loops: list[SimulatedLoop] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def bury(self, loops: Iterable[SimulatedLoop]) -> None:
        """Keep closed loops and all their unfinished tasks."""
        for loop in loops:
            self._loops.append(loop)
            self._tasks += sorted((t for t in loop.tasks if not t.done()), key=hash)

    def discard(self) -> None:
        """Let go of all of them without a word."""
        hook = sys.unraisablehook
        sys.unraisablehook = _say_nothing
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for loop in self._loops:
                    self._tasks += loop.late_tasks
                for task in self._tasks:
                    _close(task.get_coro())
                self._tasks.clear()
                self._loops.clear()
                gc.collect(0)  # all that a run makes is in the youngest generation: gc was off
        finally:
            sys.unraisablehook = hook


class GeneratorKeeper:
    """What an event loop does about async generators that are dropped half-way: close them."""

    def __init__(self) -> None:
        self._loops: dict[int, SimulatedLoop] = {}

    def began(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Note on which loop a generator runs."""
        loop = asyncio._get_running_loop()
        if isinstance(loop, SimulatedLoop):
            self._loops[id(generator)] = loop

    def was_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close it by a task of its loop; a dead loop closes nothing."""
        loop = self._loops.pop(id(generator), None)
        if loop is not None:
            loop.call_soon_threadsafe(_close_generator, loop, generator)
            if loop.is_dead:
                loop.late_generators.append(generator)


def _close_generator(
    loop: SimulatedLoop, generator: AsyncGenerator[Any, Any]
) -> asyncio.Task[None]:
    return loop.create_task(generator.aclose(), name="close of an async generator")


def _close(work: Any) -> None:
    for _ in range(CLOSE_ATTEMPTS):
        try:
            work.close()
        except RuntimeError:  # it awaited something in a `finally`
            continue
        except BaseException:  # noqa: BLE001  its end is nobody's business any more
            return
        return


def _say_nothing(_: object) -> None:
    """Ignore what dying coroutines raise."""
