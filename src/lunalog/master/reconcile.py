"""Keeping a wanted number of journal servers alive: the master decides, the orchestrator executes.

A server that is to go takes no new segments, its open ones are rolled away, and it stays while a
sealed segment lists it.  A crash anywhere leaves a server that is leaving, and the next round goes on.

Source: design.md section 4; O1, P6.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from lunalog.errors import LunalogError
from lunalog.master.commands import Commands
from lunalog.master.metadata import Metadata
from lunalog.master.servers import Servers
from lunalog.orchestrator.base import Orchestrator, ProcessInfo

logger = logging.getLogger("lunalog.master")

RECONCILE_EVERY_S: Final = 0.5
PROVISION_MAX: Final = 4
"""New servers in one round: the next one looks whether they are still wanted."""
DRAIN_GRACE_S: Final = 10.0
"""A leader that was named a server before it began to leave may still open a segment there."""


class ServerUse(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps a server of the orchestrator."""

    is_leaving: bool = False
    is_idle: bool = False
    """True when it has been leaving for a while and no segment lists it."""
    segments: int = 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do in this round."""

    provision: int = 0
    stay: tuple[str, ...] = ()
    """Leaving ones that are wanted again."""
    leave: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


def plan(wanted: int, processes: Sequence[ProcessInfo], uses: Mapping[str, ServerUse]) -> Plan:
    """Decide how to come from these processes to `wanted` that work.

    One that keeps failing does not count, so that another takes its place; it stays while it is listed,
    since its disk may hold what others lost.
    """
    nothing = ServerUse()
    named = sorted(processes, key=lambda process: process.name)
    staying = [p for p in named if not uses.get(p.name, nothing).is_leaving]
    leaving = [p for p in named if uses.get(p.name, nothing).is_leaving]
    working = [p for p in staying if not p.is_failing]
    missing = wanted - len(working)
    back = [p.name for p in leaving if not p.is_failing][: max(0, missing)]
    spare = sorted(working, key=lambda p: (uses.get(p.name, nothing).segments, -named.index(p)))[
        : max(0, -missing)
    ]
    failing = [p.name for p in staying if p.is_failing] if missing <= 0 else []
    return Plan(
        provision=max(0, missing - len(back)),
        stay=tuple(back),
        leave=tuple(sorted([p.name for p in spare] + failing)),
        end=tuple(
            p.name for p in leaving if p.name not in back and uses.get(p.name, nothing).is_idle
        ),
    )


class Reconciler:
    """Compares what runs with what is wanted, again and again."""

    def __init__(
        self,
        metadata: Metadata,
        servers: Servers,
        commands: Commands,
        orchestrator: Orchestrator,
        now: Callable[[], float],
    ) -> None:
        self._metadata = metadata
        self._servers = servers
        self._commands = commands
        self._orchestrator = orchestrator
        self._now = now
        self._idle_since: dict[str, float] = {}
        self._new: dict[str, None] = {}
        """Leaving ones that have not registered yet."""
        self.trouble = ""
        """What the orchestrator last failed with."""

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                await self.step()
                self.trouble = ""
            except LunalogError as error:
                if str(error) != self.trouble:
                    logger.warning("reconcile_failed", extra={"error": str(error)})
                self.trouble = str(error)
            await asyncio.sleep(RECONCILE_EVERY_S)

    async def step(self) -> None:
        """Do one round."""
        wanted = self._metadata.wanted
        if wanted is None:
            return
        processes = await self._orchestrator.list()
        uses = {process.name: self._use(process.name) for process in processes}
        todo = plan(wanted, processes, uses)
        for name in todo.stay:
            self._new.pop(name, None)
            if name in self._servers:
                await self._servers.leave(name, is_leaving=False)
        for _ in range(min(todo.provision, PROVISION_MAX)):
            await self._orchestrator.provision()
        for name in todo.leave:
            if name in self._servers:
                await self._servers.leave(name, is_leaving=True)
            else:
                self._new[name] = None
        for name in todo.end:
            await self._end(name)
        await self._forget_ended({process.name for process in processes})

    def _use(self, name: str) -> ServerUse:
        table = self._metadata.table
        if name not in self._servers:
            return ServerUse(is_leaving=name in self._new, is_idle=name in self._new)
        segments = table.count_open_on(name) + table.count_sealed_on(name)
        is_leaving = self._metadata.servers[name].is_leaving
        if not is_leaving and name in self._new:
            is_leaving = True
        if segments or not is_leaving:
            self._idle_since.pop(name, None)
            return ServerUse(is_leaving=is_leaving, segments=segments)
        since = self._idle_since.setdefault(name, self._now())
        return ServerUse(is_leaving=True, is_idle=self._now() - since >= DRAIN_GRACE_S)

    def may_exit(self, name: str) -> bool:
        """True when a leaving server is told that nothing needs it."""
        since = self._idle_since.get(name)
        return since is not None and self._now() - since >= DRAIN_GRACE_S

    async def _end(self, name: str) -> None:
        await self._orchestrator.deprovision(name)
        self._new.pop(name, None)
        self._idle_since.pop(name, None)
        if name in self._servers:
            await self._servers.retire(name)
            self._commands.forget_server(name)
        logger.info("server_retired", extra={"server": name})

    async def _forget_ended(self, running: set[str]) -> None:
        """Retire what an earlier master had ended but not yet written down."""
        for name in self._servers.names():
            server = self._servers.get(name)
            if name in running or server is None or server.connection is not None:
                continue
            if self._metadata.servers[name].is_leaving and self._use(name).is_idle:
                await self._end(name)
