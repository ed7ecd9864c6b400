"""Where a bench takes place: a cluster of its own or a given one, its connections, its streams."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lunalog.cli import exits
from lunalog.cli.bench.plan import Plan
from lunalog.cli.dev import end_in_peace, ready
from lunalog.cli.options import Settings
from lunalog.cli.render import size
from lunalog.cli.running import connected, note, peer_name
from lunalog.config import ServerConfig
from lunalog.errors import AvailabilityError, DiskFullError, LunalogError, StreamNotFoundError

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal
    from lunalog.orchestrator.dev import DevCluster

PARALLEL: Final = 32
"""Streams that are made or deleted at once."""
DELETE_S: Final = 10.0
"""One stream may take so long to be deleted."""
PREFIX: Final = "bench/"


def space_of_a_server() -> int:
    """Return what a journal server takes before its first event, and what it keeps free."""
    config = ServerConfig()
    return config.extent_bytes + config.reserve_bytes


class Ground:
    """Open it, use it, close it: nothing of it is left then, or it is told what is."""

    def __init__(self, settings: Settings, *, servers: int, directory: Path | None) -> None:
        self._settings = settings
        self._servers = servers
        self._base = directory
        self._journals = contextlib.AsyncExitStack()
        self.streams: list[str] = []
        """What was made, or may have been."""
        self._run = ""
        self._keeps = False
        """The cluster did not start: its logs say why."""
        self.cluster: DevCluster | None = None
        """The cluster of its own."""
        self.directory: Path | None = None
        """Where that one lies."""
        self._control: SingleWriteJournal | None = None

    @property
    def url(self) -> str:
        """What the bench talks to."""
        return self._settings.cluster

    @property
    def is_embedded(self) -> bool:
        """True when the cluster lives in this process."""
        return "cluster" in self._settings.given and not self.url.startswith(
            ("lunalog://", "lunalogs://")
        )

    async def open(self) -> None:
        """Start a cluster unless one is given, and connect to it."""
        from lunalog.runtime import SystemRuntime

        self._run = SystemRuntime().random_bytes(4).hex()
        if "cluster" not in self._settings.given:
            await self._start_cluster()
        self._control = await self.journal("bench")

    async def _start_cluster(self) -> None:
        from lunalog.orchestrator.dev import DevCluster
        from lunalog.runtime import SystemRuntime

        try:
            if self._base is not None:
                self._base.mkdir(parents=True, exist_ok=True)
            self.directory = Path(tempfile.mkdtemp(prefix="lunalog-bench-", dir=self._base))
            free = shutil.disk_usage(self.directory).free
        except OSError as error:
            raise exits.from_os_error(error, "cannot make a directory for the cluster") from error
        need = self._servers * space_of_a_server()
        if free < need:
            raise DiskFullError(
                f"{self.directory.parent} has {size(free)} free, {self._servers} servers need "
                f"{size(need)} before the first event; nothing was started; choose another --dir"
            )
        cluster = self.cluster = DevCluster(SystemRuntime(), self.directory, servers=self._servers)
        try:
            await cluster.start()
            await ready(self._settings, cluster, self._servers)
        except LunalogError:
            self._keeps = True
            note(f"note: its logs stay in {self.directory}")
            raise
        old = self._settings
        self._settings = Settings(cluster.url, old.output, old.timeout, old.verbose)
        note(f"a master and {self._servers} servers are up, data in {self.directory}")

    async def journal(self, role: str) -> SingleWriteJournal:
        """Connect under a peer name of its own; it is closed with the ground."""
        return await self._journals.enter_async_context(connected(self._settings, peer_name(role)))

    async def create(self, label: str, plan: Plan) -> str:
        """Make a stream that is deleted with the ground; returns its name."""
        name = f"{PREFIX}{self._run}/{label}"
        self.streams.append(name)
        await self.control.create_stream(name, replicas=plan.replicas, ack_quorum=plan.ack_quorum)
        return name

    @property
    def control(self) -> SingleWriteJournal:
        """The connection for all that is not measured."""
        if self._control is None:
            raise exits.CommandError("the bench is not connected", exits.UNAVAILABLE)
        return self._control

    async def delete(self) -> list[str]:
        """Delete the streams; returns those of which it is not known."""
        if self._control is None or self.cluster is not None:
            self.streams.clear()  # of its own cluster nothing stays
            return []
        left, self.streams = self.streams, []
        kept: list[str] = []
        names = iter(left)

        async def worker(journal: SingleWriteJournal) -> None:
            for name in names:
                try:
                    await journal.delete_stream(name, timeout=DELETE_S)
                except StreamNotFoundError:
                    continue
                except LunalogError:
                    kept.append(name)
                    if len(kept) >= PARALLEL:
                        break  # nobody answers

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(PARALLEL, len(left))):
                    group.create_task(worker(self._control))
        finally:
            kept.extend(names)
        return kept

    async def close(self) -> None:
        """Close the connections and end the cluster, if it is its own."""
        try:
            await self._journals.aclose()
        except (LunalogError, OSError) as error:
            note(f"note: closing a connection failed: {error}")
        finally:
            if self.cluster is not None:
                await end_in_peace(self.cluster)
            if self.directory is not None and not self._keeps:
                shutil.rmtree(self.directory, ignore_errors=True)

    async def boots(self) -> dict[str, tuple[int, int]]:
        """Return incarnation and boot of every server; nothing when the master does not answer."""
        try:
            listed = await self.control.servers(timeout=2.0)
        except AvailabilityError:
            return {}
        return {
            s.address.member.server: (s.address.member.incarnation, s.boot) for s in listed.servers
        }

    async def ailments(self) -> list[str]:
        """Return what the master finds wrong, or that it does not answer."""
        try:
            health = await self.control.health(timeout=2.0)
        except LunalogError as error:
            return [f"the master does not answer: {error.message}"]
        return [*health.errors, *health.warnings]
