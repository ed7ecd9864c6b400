"""`lunalog bench failover`: how long nobody can append when a leader goes, or a server.

    transfer     the leader is asked to hand over
    kill         its process is killed with -9: its connections close
    freeze       its process stops, its connections stay: the lease has to lapse
    kill-server  a journal server of the open segment is killed with -9

The leaders are processes of the bench, on a stream of its own.  A server is killed only when that is
asked for, and only of a cluster of its own or one of `lunalog dev` on this machine.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from lunalog.cli import exits
from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.engines import Engine, Engines
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import KILL, KILL_SERVER, TRANSFER, WAYS_UNTOLD, Plan
from lunalog.cli.bench.recorder import Part, clock
from lunalog.cli.bench.verify import Written
from lunalog.errors import UsageError
from lunalog.orchestrator.dev import DevDirectory
from lunalog.runtime import SystemRuntime, Tasks

SETTLE_ACKS: Final = 20
"""A leader has acknowledged so many events before something is done to it."""
RETRY_S: Final = 0.05
RESTART_S: Final = 60.0
"""How long a server that was killed may take to be there again."""
SERVER_WINDOW_S: Final = 2.0
"""How long after a server's death the longest pause between acks is looked for."""


class Failing:
    """Two candidates append one event after another; things are done to who leads."""

    name = "failover"

    def __init__(self, ways: tuple[str, ...], dev: Path) -> None:
        self.parts: list[Part] = []
        self._ways = ways
        self._dev = dev
        self._stream = ""
        self._bodies: Bodies | None = None
        self._engines: Engines | None = None

    async def run(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        """Do each, so many rounds."""
        ways = self._ways or ((TRANSFER,) if ground.is_embedded else WAYS_UNTOLD)
        victim = self._victim(ground, ways)
        self._bodies = bodies
        self._stream = await ground.create("failover", plan)
        tasks = Tasks(SystemRuntime())
        engines = self._engines = Engines(ground, self._stream, bodies, tasks)
        append = Part("append", size=plan.size)
        self.parts += [append, *(Part(way, is_sampled=True) for way in ways)]
        append.start(clock())
        engines.on_ack = append.note
        try:
            await engines.start()
            await engines.start()
            for _ in range(plan.rounds or 1):
                for part in self.parts[1:]:
                    await self._round(part, ground, engines, victim)
        finally:
            append.stop(clock())
            try:
                await engines.end()
            finally:
                engines.kill()
                await tasks.cancel()

    def _victim(self, ground: Ground, ways: tuple[str, ...]) -> DevDirectory | None:
        """Where a server may be killed; raises `UsageError` for what cannot be done here."""
        if ground.is_embedded and set(ways) != {TRANSFER}:
            raise UsageError(
                f"{ground.url} lives in this process: only --how {TRANSFER} can be measured there"
            )
        if KILL_SERVER not in ways:
            return None
        if ground.cluster is not None:
            return ground.cluster.directory
        found = DevDirectory(self._dev)
        if found.url() != ground.url:
            raise UsageError(
                f"{ground.url} is no cluster of its own, nor the one of `lunalog dev` on this machine "
                "(LUNALOG_DEV_DIR): its servers are not killed; nothing was done"
            )
        return found

    async def _round(
        self, part: Part, ground: Ground, engines: Engines, victim: DevDirectory | None
    ) -> None:
        """Measure one way once."""
        before = engines.acknowledged
        await engines.until(lambda: engines.acknowledged >= before + SETTLE_ACKS)
        if part.began is None:
            part.start(clock())
        part.sent += 1
        old = engines.leader
        if part.name == KILL_SERVER and victim is not None:
            gap = await self._server_killed(ground, engines, victim)
        elif part.name == TRANSFER:
            gap = await self._taken_over(engines, lambda: self._transfer(ground, engines.other))
        else:
            signum = signal.SIGKILL if part.name == KILL else signal.SIGSTOP

            async def strike() -> None:
                engines.signal(old, signum)

            gap = await self._taken_over(engines, strike)
            await engines.bury(old)
            await engines.start()
        now = clock()
        part.note(now, 1, gap)
        part.extra.setdefault("samples_ms", []).append(round(gap * 1000, 3))

    @staticmethod
    async def _taken_over(engines: Engines, act: Callable[[], Awaitable[Any]]) -> float:
        """Do something to the leader; returns seconds from its last ack to the other's first."""
        old, new = engines.leader, engines.other
        epoch = old.epoch
        await act()
        await engines.until(lambda: new.epoch > epoch and engines.leader is new)
        first = engines.last[0] if engines.last is not None else 0.0
        return first - (old.last_ack or first)

    @staticmethod
    async def _transfer(ground: Ground, to: Engine) -> None:
        """Ask for the hand-over; a candidate that has just begun may not stand yet."""
        while True:
            try:
                await ground.control.transfer(ground.streams[-1], to=to.peer)
            except UsageError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    @staticmethod
    async def _server_killed(ground: Ground, engines: Engines, victim: DevDirectory) -> float:
        """Kill a server of the open segment; returns the longest pause between two acks."""
        described = await ground.control.describe(ground.streams[-1])
        opened = described.head.open
        if opened is None:
            raise exits.CommandError("the stream has no open segment", exits.UNAVAILABLE)
        name = opened.members[0].server
        boot = (await ground.boots()).get(name)
        acks: list[float] = []
        tell, at = engines.on_ack, clock()

        def on_ack(when: float) -> None:
            acks.append(when)
            tell(when)

        engines.on_ack = on_ack
        victim.kill(name)
        try:
            await engines.until(lambda: acks and acks[-1] - at >= SERVER_WINDOW_S)
        finally:
            engines.on_ack = tell
        try:
            async with asyncio.timeout(RESTART_S):
                while (await ground.boots()).get(name, boot) == boot:  # noqa: ASYNC110
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            why = f"server {name} was killed and is not back after {RESTART_S:g} s"
            raise exits.CommandError(why, exits.UNAVAILABLE) from None
        return max(b - a for a, b in zip([at, *acks], acks, strict=False))

    def written(self) -> list[Written]:
        """What was acknowledged to whoever led."""
        if self._bodies is None or self._engines is None:
            return []
        acknowledged = self._engines.acknowledged
        return [Written(self._stream, self._bodies, 0, acknowledged, None)]
