"""The master: one process that knows streams, leaders and servers, and decides who does what.

Requests arrive parsed on the loop.  What only looks is answered at once; what changes metadata runs as
a task under its stream's lock and is answered when its transaction is durable.  Time passes by one
tick for all leases; no stream has a task or timer of its own.

Source: design.md sections 3 and 4; R15, trap 49.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from lunalog.config import MasterConfig
from lunalog.core.lease import Leases, StallClock
from lunalog.errors import NotActiveError, UsageError
from lunalog.master import health
from lunalog.master.commands import Commands
from lunalog.master.doorway import Doorway
from lunalog.master.elections import Elections
from lunalog.master.locks import StreamLocks
from lunalog.master.metadata import Metadata
from lunalog.master.operations import Operations
from lunalog.master.publisher import Publisher
from lunalog.master.reconcile import Reconciler
from lunalog.master.rolls import ROLL_EVERY_S, Rolls
from lunalog.master.servers import Servers
from lunalog.master.sessions import Sessions
from lunalog.master.store import MetadataStore
from lunalog.orchestrator.base import Orchestrator
from lunalog.runtime import Address, Listener, Runtime, Tasks
from lunalog.wire.dialing import acceptor, cannot_listen
from lunalog.wire.messages import Done, Health, ScaleServers, ServerList

logger = logging.getLogger("lunalog.master")

TICK_S: Final = 0.1
SERVERS_WANTED_MAX: Final = 100
"""On one machine, where each takes a process, a disk's turn and some 20 MiB."""


class Master:
    """One master.  Its durable state is the store's; start another on the same store to go on.

    Example:
        master = Master(runtime, SqliteStore(path, runtime), MasterConfig())
        await master.start()
    """

    def __init__(
        self,
        runtime: Runtime,
        store: MetadataStore,
        config: MasterConfig,
        orchestrator: Orchestrator | None = None,
    ) -> None:
        config.validate()
        self.runtime = runtime
        self.config = config
        self.metadata = Metadata(runtime, store)
        self.tasks = Tasks(runtime)
        self._orchestrator = orchestrator
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rolls_at = 0.0
        self._is_trusted = False
        self._is_running = False
        self._is_telling_rolls = False
        self._ending = contextlib.AsyncExitStack()
        """What undoes what was started so far, the newest first: all of it, whatever is cancelled."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        if self._listener is None:
            raise NotActiveError("the master is not started")
        return self._listener.address

    @property
    def cluster(self) -> str:
        """The cluster's id; made once, at the first start on a store."""
        return self.metadata.cluster

    def now(self) -> float:
        """Seconds that this master was awake for (trap 49)."""
        return self.clock.now(self.runtime.now())

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Load the metadata, then listen.

        Raises:
            StorageError: The store cannot be used; `DirectoryLockedError` when another master has it.
            UsageError: The address cannot be listened on.
        """
        try:
            await self._start()
        except BaseException:
            await self._ending.aclose()
            raise
        logger.info("master_started", extra={"streams": len(self.metadata.table)})

    async def _start(self) -> None:
        self._ending.push_async_callback(self.metadata.close)
        await self.metadata.load()
        self._assemble()
        if self._orchestrator is not None:
            self._ending.push_async_callback(self._orchestrator.stop, end_servers=False)
        self._ending.push_async_callback(self.tasks.cancel)
        self._ending.callback(self.doorway.close_all)
        await self._listen()
        self._is_running = True
        self._ending.callback(self._stop_ticking)
        self._tick()
        if self._orchestrator is not None and self.reconciler is not None:
            if self.metadata.wanted is None and self.config.servers is not None:
                await self.metadata.put_wanted(self.config.servers)
            await self._orchestrator.start(self.cluster, self.address)
            _ = self.tasks.start(self.reconciler.run(), "reconcile")

    def _assemble(self) -> None:
        config, metadata = self.config, self.metadata
        self.clock = StallClock(self.runtime.now(), TICK_S)
        self.leases = Leases(self.now(), config.lease_ms / 1000, config.session_grace_ms / 1000)
        self.locks = StreamLocks()
        self.servers = Servers(metadata, config.server_lost_ms / 1000, self.now())
        self.publisher = Publisher(metadata.table, self.servers.addresses)
        self.elections = Elections(
            metadata=metadata,
            leases=self.leases,
            publisher=self.publisher,
            locks=self.locks,
            tasks=self.tasks,
            now=self.now,
        )
        self.commands = Commands(
            runtime=self.runtime,
            metadata=metadata,
            servers=self.servers,
            publisher=self.publisher,
            locks=self.locks,
            tasks=self.tasks,
            now=self.now,
        )
        self.operations = Operations(
            runtime=self.runtime,
            metadata=metadata,
            servers=self.servers,
            publisher=self.publisher,
            elections=self.elections,
            commands=self.commands,
            locks=self.locks,
        )
        self.rolls = Rolls(metadata, self.servers, self.elections)
        self.sessions = Sessions(self)
        self.doorway = Doorway(self)
        self.reconciler: Reconciler | None = None
        if self._orchestrator is not None:
            self.reconciler = Reconciler(
                metadata, self.servers, self.commands, self._orchestrator, self.now
            )
        self.servers.on_changed = self._server_changed

    async def _listen(self) -> None:
        wanted = (self.config.host, self.config.port)
        try:
            self._listener = await self.runtime.network.listen(
                acceptor(self.runtime, self.doorway.welcome), wanted
            )
            self._ending.push_async_callback(self._listener.close)
        except OSError as error:
            raise cannot_listen(wanted, error) from error

    async def stop(self) -> None:
        """Stop listening, end what is under way, close the store.  Servers go on.  Idempotent.

        Cancelling cuts short only the step that it hits.  All others are done before it is raised: the
        store is free then.
        """
        if self._is_running:
            self._is_running = False
            await self._ending.aclose()

    # ------------------------------------------------------------------ time

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self.now()
        self._timer = loop.call_later(TICK_S, self._tick)
        self.judge_soon()

    def _stop_ticking(self) -> None:
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()

    def judge_soon(self) -> None:
        """Judge leases once every socket that is readable now has been read (R15)."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._judge)

    def _judge(self) -> None:
        if not self._is_running:
            return
        now = self.now()
        self.sessions.judge(now)
        self.servers.judge(now)
        if not self._is_trusted and now >= self.leases.trusted_from:
            self._is_trusted = True
            self.elections.consider_all()
        if now >= self._rolls_at:
            self._tell_rolls()

    def _server_changed(self, name: str) -> None:
        self.publisher.server_changed(name)
        if self._is_running and not self._is_telling_rolls:
            self._is_telling_rolls = True
            asyncio.get_running_loop().call_soon(self._tell_rolls)

    def _tell_rolls(self) -> None:
        self._is_telling_rolls = False
        self._rolls_at = self.now() + ROLL_EVERY_S
        self.rolls.tell()

    # ------------------------------------------------------------------ the cluster as a whole

    def list_servers(self) -> ServerList:
        """All servers, in order of name."""
        found = tuple(self.servers.status(name) for name in self.servers.names())
        return ServerList(found, self._wanted)

    @property
    def _wanted(self) -> int | None:
        return self.metadata.wanted if self._orchestrator is not None else None

    def health(self) -> Health:
        """Look for trouble."""
        sessions = len(self.leases)
        found = health.examine(self.metadata, self.servers, self.commands, sessions, self._wanted)
        if self.reconciler is None or not self.reconciler.trouble:
            return found
        warnings = (*found.warnings, f"orchestrator: {self.reconciler.trouble}")
        return Health(found.errors, warnings, found.numbers)

    async def scale(self, request: ScaleServers) -> Done:
        """Change the wanted number of servers, durably."""
        if self._orchestrator is None:
            raise UsageError("this master runs no journal servers: start and stop them yourself")
        if not 0 <= request.wanted <= SERVERS_WANTED_MAX:
            raise UsageError(
                f"{request.wanted} servers are not possible, 0 to {SERVERS_WANTED_MAX} are; "
                "nothing was changed"
            )
        await self.metadata.put_wanted(request.wanted)
        return Done()
