"""One bench from its first process to its last: phases, signals, stalls, the verdict, the cleaning.

    open      start or find the cluster, connect
    measure   the workload; ends by itself, by a signal, an error or a stall
    verify    read everything back; after an early end for a few seconds only
    clean     delete the streams, close, end the own cluster

A signal ends the phase that runs, not the session: the first one while it measures still gives a result,
the next one gives up on reading back, one more kills what would end in an orderly way.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final

from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.progress import Progress
from lunalog.cli.bench.recorder import Part, clock
from lunalog.cli.bench.result import Ended, Result
from lunalog.cli.bench.verify import Verdict, Written, read_back
from lunalog.cli.bench.workload import Workload, progress_of, running
from lunalog.cli.exits import TerminatedError
from lunalog.errors import LunalogError
from lunalog.runtime import SystemRuntime, Tasks

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_S: Final = 0.05
"""How often a phase is looked at."""
VERIFY_EARLY_S: Final = 5.0
"""Reading back after an early end takes at most so long."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a phase ended."""

    ended: Ended
    why: str | None = None
    error: BaseException | None = None


class Session:
    """Runs one workload on one ground."""

    def __init__(self, plan: Plan, workload: Workload, ground: Ground, seed: int) -> None:
        self._plan = plan
        self._workload = workload
        self._ground = ground
        self._bodies = Bodies(seed, plan.size)
        self._tasks = Tasks(SystemRuntime())
        self._progress = Progress()
        self._phase: asyncio.Task[BaseException | None] | None = None
        self._signal_count = 0
        self._boots: dict[str, tuple[int, int]] = {}
        """Of each server, when the run began."""
        self._ailments: list[str] = []
        """What the master found wrong when the run stalled."""
        self.signum: int | None = None
        """The first signal that came."""
        self.error: BaseException | None = None
        """Why it failed."""

    async def run(self) -> Result:
        """Run all phases; returns the result, also of a run that ended early.

        Raises only what leaves nothing to tell: the ground could not be had, or a signal came before.
        """
        with self._signals():
            try:
                opening = await self._watched("starting", self._open())
                self._raise_early(opening)
                result = await self._measured()
                result.streams_left = await self._deleted()
            finally:
                self._progress.stop()
                closing = await self._watched("ending", self._ground.close())
            if closing.error is not None:
                raise closing.error
            return result

    def _raise_early(self, opening: Ending) -> None:
        if opening.error is not None:
            raise opening.error
        if self.signum is not None:
            raise TerminatedError(self.signum)

    # ------------------------------------------------------------------ phases

    async def _open(self) -> None:
        await self._ground.open()
        self._boots = await self._ground.boots()

    async def _measured(self) -> Result:
        ground, plan, workload = self._ground, self._plan, self._workload
        before = self._boots
        result = Result(
            workload.name,
            plan,
            ground.url,
            ground.cluster is not None,
            workload.parts,
            directory=str(ground.directory) if ground.directory is not None else None,
            servers=len(before) or None,
        )
        self._progress.start()
        ending = await self._watched(
            workload.name,
            workload.run(ground, plan, self._bodies),
            parts=workload.parts,
            patience_s=plan.patience_s,
        )
        for part in workload.parts:
            part.stop(clock())
        result.ended, result.why, self.error = ending.ended, ending.why, ending.error
        if ending.ended in (Ended.STALLED, Ended.FAILED):
            told = dict.fromkeys([*self._ailments, *await ground.ailments()])
            result.notes += [f"the cluster says: {ailment}" for ailment in told]
        result.notes += restarts(before, await ground.boots())
        await self._verify(result)
        return result

    async def _verify(self, result: Result) -> None:
        written, verdict = self._workload.written(), result.verdict
        part = Part("read back", size=self._plan.size)
        is_early = result.ended is not Ended.FINISHED or self.signum is not None
        ending = await self._watched(
            "verifying",
            self._read_back(written, verdict, part),
            parts=[part],
            patience_s=self._plan.stall_s,
            time_s=VERIFY_EARLY_S if is_early else None,
        )
        if not verdict.is_over and verdict.broken is None and verdict.unknown is None:
            verdict.unknown = ending.why or "it was cut short"

    async def _read_back(self, written: list[Written], verdict: Verdict, part: Part) -> None:
        journal = await self._ground.journal("bench-verifier")
        await read_back(journal, written, verdict, part)

    async def _deleted(self) -> list[str]:
        left: list[str] = []

        async def work() -> None:
            left.extend(await self._ground.delete())

        names = list(self._ground.streams)
        ending = await self._watched("deleting", work())
        return names if ending.ended is not Ended.FINISHED else left

    # ------------------------------------------------------------------ one phase

    async def _watched(
        self,
        what: str,
        work: Coroutine[Any, Any, Any],
        *,
        parts: list[Part] | None = None,
        patience_s: float | None = None,
        time_s: float | None = None,
    ) -> Ending:
        """Run `work` until it ends, a signal comes, or it does not get on for `patience_s`."""
        parts = [] if parts is None else parts
        task = self._phase = self._tasks.start(_caught(work), what)
        began = moved_at = clock()
        signals, progress, why = self._signal_count, 0, None
        while not task.done():
            try:
                await asyncio.wait([task], timeout=LOOK_S)
            except asyncio.CancelledError:
                task.cancel()
                raise
            now = clock()
            self._progress.show(what, list(running(parts)), now)
            if (found := progress_of(parts)) != progress:
                progress, moved_at = found, now
            if patience_s is not None and now - moved_at >= patience_s and why is None:
                why = f"nothing was acknowledged or read for {patience_s:g} s"
                self._ailments = await self._ground.ailments()  # it may heal until we are back
                task.cancel()
            if time_s is not None and now - began >= time_s and why is None:
                why = f"it was given {time_s:g} s, because the run had ended early"
                task.cancel()
        self._phase = None
        if why is not None:
            return Ending(Ended.STALLED, why)
        if task.cancelled() or self._signal_count > signals:
            name = signal.Signals(self.signum).name if self.signum is not None else "a cancellation"
            return Ending(Ended.INTERRUPTED, f"by {name}")
        error = task.result()
        if error is None:
            return Ending(Ended.FINISHED)
        told = error.message if isinstance(error, LunalogError) else repr(error)
        return Ending(Ended.FAILED, told, error)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let each signal end the phase that runs."""
        loop = asyncio.get_running_loop()

        def stop(signum: int) -> None:
            self._signal_count += 1
            self.signum = self.signum or signum
            if self._phase is not None:
                self._phase.cancel()

        for signum in SIGNALS:
            loop.add_signal_handler(signum, stop, signum)
        try:
            yield
        finally:
            for signum in SIGNALS:
                loop.remove_signal_handler(signum)


async def _caught(work: Coroutine[Any, Any, Any]) -> BaseException | None:
    """Return an error instead of raising it: it is part of the result."""
    try:
        await work
    except Exception as error:  # noqa: BLE001  told to people, and raised when all is clean
        return error
    return None


def restarts(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Say which servers died or came back between two looks."""
    if not after:
        return []
    found = []
    for name, boot in sorted(before.items()):
        if name not in after:
            found.append(f"server {name} went away meanwhile")
        elif after[name] != boot:
            found.append(f"server {name} was started again meanwhile")
    return found
