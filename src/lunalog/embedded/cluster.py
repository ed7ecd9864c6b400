"""A whole cluster inside one loop: a master and its journal servers, ended with their last journal.

    memory://NAME       three servers on disks in memory; one cluster a name and loop
    file:///DIRECTORY   DIRECTORY/metadata.sqlite and one server in DIRECTORY/server

Source: design.md section 8; R16.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lunalog import limits
from lunalog.client.url import FileUrl, MemoryUrl
from lunalog.config import MasterConfig, ServerConfig
from lunalog.embedded.disk import MemoryDisk
from lunalog.embedded.runtime import EmbeddedRuntime, MemoryRuntime
from lunalog.errors import DeadlineExceededError, LunalogError
from lunalog.master import Master
from lunalog.master.memory import MemoryStore
from lunalog.master.sqlite import SqliteStore
from lunalog.master.store import MetadataStore
from lunalog.runtime import Address
from lunalog.server import JournalServer
from lunalog.storage.files import Disk, SystemDisk
from lunalog.types import Policy

MEMORY_SERVERS: Final = 3
START_TIMEOUT_S: Final = 10.0
MASTER_CONFIG: Final = MasterConfig(
    host="master",
    lease_ms=600,
    heartbeat_ms=200,
    session_grace_ms=50,
)
"""All share one loop, so nobody can be stalled alone and a lease is only waited for after a crash."""


class EmbeddedCluster:
    """Master and servers of one URL."""

    def __init__(
        self,
        where: MemoryUrl | FileUrl,
        *,
        runtime: EmbeddedRuntime,
        store: MetadataStore,
        disks: Sequence[Disk],
        config: ServerConfig,
        policy: Policy,
    ) -> None:
        self.where = where
        self.runtime = runtime
        self.policy = policy
        """What a stream gets here unless it asks for more."""
        self.servers = [
            JournalServer(runtime, disk, [(MASTER_CONFIG.host, MASTER_CONFIG.port)], config)
            for disk in disks
        ]
        self.master = Master(runtime, store, MASTER_CONFIG)
        self.users = 0
        self.starting: asyncio.Lock = asyncio.Lock()
        self._started: list[Master | JournalServer] = []

    @property
    def masters(self) -> tuple[Address, ...]:
        """What the client dials."""
        return (self.master.address,)

    async def start(self) -> None:
        """Start what is not started yet; raises `DirectoryLockedError`, other `StorageError`."""
        async with self.starting:
            if self._started:
                return
            try:
                nodes: list[Master | JournalServer] = [self.master, *self.servers]
                for node in nodes:
                    await node.start()
                    self._started.append(node)
                await self._registered()
            except BaseException:
                await self.stop()
                raise

    async def _registered(self) -> None:
        """Wait until every server may take appends."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not all(server.is_registered for server in self.servers):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise DeadlineExceededError(
                f"{self.where}: its servers did not start within {START_TIMEOUT_S:g} s"
            ) from None

    async def stop(self) -> None:
        """Stop all, servers first; what is durable stays."""
        started, self._started = self._started, []
        async with contextlib.AsyncExitStack() as rest:  # all of it, also once this is cancelled
            rest.push_async_callback(self.runtime.stop)
            for node in started:
                rest.push_async_callback(_stop, node)


async def _stop(node: Master | JournalServer) -> None:
    with contextlib.suppress(LunalogError):
        await node.stop()


def make(where: MemoryUrl | FileUrl) -> EmbeddedCluster:
    """Build the cluster of a URL; nothing is started or touched yet."""
    if isinstance(where, MemoryUrl):
        config = ServerConfig(tail_cache_bytes=4 * limits.MIB, host="server")
        disks = [MemoryDisk(f"memory://{where.name}/{n + 1}") for n in range(MEMORY_SERVERS)]
        return EmbeddedCluster(
            where,
            runtime=MemoryRuntime(),
            store=MemoryStore(),
            disks=disks,
            config=config,
            policy=Policy(),
        )
    directory = Path(where.directory)
    runtime = EmbeddedRuntime()
    return EmbeddedCluster(
        where,
        runtime=runtime,
        store=SqliteStore(directory / "metadata.sqlite", runtime),
        disks=[SystemDisk(directory / "server")],
        config=ServerConfig(host="server"),
        policy=Policy(replicas=1, ack_quorum=1),
    )


def canonical(where: MemoryUrl | FileUrl) -> MemoryUrl | FileUrl:
    """One directory is one cluster, whatever its name."""
    return FileUrl(os.path.realpath(where.directory)) if isinstance(where, FileUrl) else where


class Clusters:
    """The embedded clusters of this process, by loop and URL: that is what sharing a name means."""

    def __init__(self) -> None:
        self._clusters: dict[
            tuple[asyncio.AbstractEventLoop, MemoryUrl | FileUrl], EmbeddedCluster
        ] = {}

    async def enter(self, where: MemoryUrl | FileUrl) -> EmbeddedCluster:
        """Find or start the cluster of a URL, for one more journal."""
        for key in [key for key in self._clusters if key[0].is_closed()]:
            del self._clusters[key]  # its loop ended under it
        where = canonical(where)
        key = (asyncio.get_running_loop(), where)
        found = self._clusters.get(key)
        if found is None or found.runtime.error is not None:
            found = self._clusters[key] = make(where)
        found.users += 1
        try:
            await found.start()
        except BaseException:
            await self.leave(found)
            raise
        return found

    async def leave(self, cluster: EmbeddedCluster) -> None:
        """One journal less; the last one ends the cluster."""
        cluster.users -= 1
        if cluster.users > 0:
            return
        key = (asyncio.get_running_loop(), cluster.where)
        if self._clusters.get(key) is cluster:
            del self._clusters[key]
        await cluster.stop()


CLUSTERS: Final = Clusters()
"""Process-wide by nature: `memory://NAME` names one cluster for everybody on a loop."""
