"""Journal servers as processes of this machine.

Layout under the base directory:

    cluster              id of the cluster that these servers belong to
    NAME/data/           the server's data directory
    NAME/server.pid      who runs it, written and locked by the server itself (process.py)
    NAME/server.log      its stderr
    retired/NAME-N/      what was de-provisioned; never read again, yours to delete

A server lives in a session of its own and outlives this process; the next orchestrator on the same
base directory adopts it.  With a `lifeline` (the read end of a pipe that somebody holds open) every
server inherits it and ends when that somebody dies.

A crash at any point leaves a directory with or without a live server; both are adopted by `start`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lunalog.errors import StorageError, WrongClusterError
from lunalog.orchestrator.base import LEFT_EXIT_CODE, ProcessInfo
from lunalog.orchestrator.process import PidRecord, forget, live_owner, spawn
from lunalog.runtime import Address, Runtime, Tasks
from lunalog.types import check_node_name
from lunalog.wording import plainly, shown

logger = logging.getLogger("lunalog.orchestrator")

POLL_S = 0.1
"""How often the servers are looked at."""
TERM_GRACE_S = 10.0
"""Between SIGTERM and SIGKILL."""
EARLY_END_S = 10.0
"""A server that ends sooner than this after its start has failed to start."""
BACKOFF_S = 0.2
BACKOFF_S_MAX = 30.0

Command = Callable[[str, Path, str], Sequence[str]]
"""(name, directory, masters) -> arguments of the process to start."""


def server_command(name: str, directory: Path, masters: str) -> list[str]:
    """Return the arguments that start `lunalog server` with this interpreter."""
    return [
        sys.executable,
        "-m",
        "lunalog",
        "server",
        *("--name", name, "--masters", masters),
        *("--data", str(directory / "data"), "--pid-file", str(directory / "server.pid")),
    ]


class LocalServer:
    """One server directory and the process on it, if one runs."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.child: subprocess.Popen[bytes] | None = None
        self.adopted: PidRecord | None = None
        self.started_at = 0.0
        self.failures = 0
        self.retry_at = 0.0
        self.has_left = False
        """It ended because the master has told it to: `deprovision` is about to come."""
        self.lock = asyncio.Lock()
        """Held by whoever starts or ends it."""

    @property
    def pid_file(self) -> Path:
        """Where the process says who it is."""
        return self.directory / "server.pid"

    @property
    def pid(self) -> int:
        """Process id; 0 while none runs.  Reaps a dead child."""
        if self.child is not None:
            if self.child.poll() is None:
                return self.child.pid
            self.has_left = self.child.returncode == LEFT_EXIT_CODE
            self.child = None
        if self.adopted is not None:
            if self.adopted.is_alive:
                return self.adopted.pid
            self.adopted = None
        return 0

    def send(self, signum: int) -> None:
        """Signal the process if it runs."""
        if self.child is not None:
            self.child.send_signal(signum)  # not yet reaped, so the pid is ours
        elif self.adopted is not None:
            self.adopted.send(signum)

    def ended(self, now: float) -> None:
        """Note that the process is gone and when to start it again."""
        self.failures = self.failures + 1 if now - self.started_at < EARLY_END_S else 0
        self.retry_at = now + min(BACKOFF_S * 2**self.failures, BACKOFF_S_MAX)


class LocalOrchestrator:
    """Keeps the journal servers below one directory running."""

    def __init__(
        self,
        runtime: Runtime,
        base: Path,
        *,
        lifeline: int | None = None,
        command: Command = server_command,
        options: Sequence[str] = (),
    ) -> None:
        self._runtime = runtime
        self._base = base
        self._lifeline = lifeline
        self._command = command
        self._options = tuple(options)
        """What every server is started with besides; one that was started with others is restarted."""
        self._masters = ""
        self._servers: dict[str, LocalServer] = {}
        self._tasks = Tasks(runtime)
        self._looking: asyncio.Task[None] | None = None
        self._naming = asyncio.Lock()
        self._stopping = asyncio.Event()

    async def start(self, cluster: str, master_address: Address) -> None:
        """Adopt what runs below the base directory and begin to look after it."""
        self._masters = shown(master_address)
        for name in await self._blocking(self._open_base, cluster):
            server = self._servers[name] = LocalServer(name, self._base / name)
            server.adopted = await self._blocking(live_owner, server.pid_file)
            if server.adopted is None:
                continue
            logger.info("server_adopted", extra={"server": name, "pid": server.adopted.pid})
            if server.adopted.arguments != (self._masters, *self._options):
                # It does not find its master, or in words it does not speak.
                await self._end(server)
        self._looking = self._tasks.start(self._look_after(), "local-orchestrator")

    def _open_base(self, cluster: str) -> list[str]:
        note = self._base / "cluster"
        try:
            self._base.mkdir(parents=True, exist_ok=True)
            found = note.read_text().strip() if note.exists() else ""
            if not found:
                note.write_text(cluster)
            names = sorted(p.name for p in self._base.iterdir() if (p / "data").is_dir())
        except OSError as error:
            raise StorageError(
                f"cannot use {self._base} for journal servers: {error.strerror or error}; "
                "no server was started"
            ) from error
        if found and found != cluster:
            raise WrongClusterError(
                f"the servers below {self._base} belong to cluster {found}, not {cluster}; "
                "nothing was changed; start the master on its own metadata or use another directory"
            )
        return names

    async def provision(self, name: str | None = None) -> str:
        """Start a server, on a new directory unless one of that name exists."""
        async with self._naming:
            if name is None:
                name = self._free_name()
            server = self._servers.get(check_node_name(name))
            if server is None:
                server = LocalServer(name, self._base / name)
                await self._blocking(self._create, server)
                self._servers[name] = server
        async with server.lock:
            if server.pid == 0:
                await self._start(server)
        return name

    def _free_name(self) -> str:
        number = 1
        while f"s{number}" in self._servers or (self._base / f"s{number}").exists():
            number += 1
        return f"s{number}"

    @staticmethod
    def _create(server: LocalServer) -> None:
        try:
            (server.directory / "data").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot create {server.directory}: {error.strerror or error}; nothing was started"
            ) from error

    async def list(self) -> list[ProcessInfo]:
        """All servers in order of name."""
        return [
            ProcessInfo(name=name, pid=server.pid, alive=server.pid != 0, failures=server.failures)
            for name, server in sorted(self._servers.items())
        ]

    async def deprovision(self, name: str) -> None:
        """End a server for good and move its directory aside."""
        server = self._servers.get(name)
        if server is None:
            return
        async with server.lock:
            if self._servers.pop(name, None) is None:
                return
            await self._end(server)
            await self._blocking(self._retire, server)
        logger.info("server_deprovisioned", extra={"server": name})

    def _retire(self, server: LocalServer) -> None:
        retired = self._base / "retired"
        try:
            retired.mkdir(exist_ok=True)
            number = 1
            while (retired / f"{server.name}-{number}").exists():
                number += 1
            shutil.move(server.directory, retired / f"{server.name}-{number}")
        except OSError as error:
            raise StorageError(
                f"{server.name} has ended, but {server.directory} cannot be moved aside: "
                f"{plainly(error)}"
            ) from error

    async def stop(self, end_servers: bool) -> None:
        """Leave the servers alone from now on, or end them all."""
        self._stopping.set()
        if self._looking is not None:
            await asyncio.wait([self._looking])  # not cancelled: it may be starting one
        servers = [server for _, server in sorted(self._servers.items())]
        self._servers.clear()
        if end_servers:
            ends = [self._tasks.start(self._end(s), f"end-{s.name}") for s in servers]
            for end in ends:
                await end
        for server in servers:
            if server.child is not None:
                forget(server.child)

    # ------------------------------------------------------------------ one process

    async def _start(self, server: LocalServer) -> None:
        """Start a process unless one is there that we do not know."""
        server.adopted = await self._blocking(live_owner, server.pid_file)
        if server.adopted is not None:
            return
        arguments = [*self._command(server.name, server.directory, self._masters), *self._options]
        pass_fds: tuple[int, ...] = ()
        if self._lifeline is not None:
            arguments += ["--lifeline", str(self._lifeline)]
            pass_fds = (self._lifeline,)
        log = server.directory / "server.log"
        server.has_left = False
        server.started_at = self._runtime.now()
        server.child = await self._blocking(lambda: spawn(arguments, log, pass_fds=pass_fds))
        logger.info("server_started", extra={"server": server.name, "pid": server.child.pid})

    async def _end(self, server: LocalServer) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when the process is gone."""
        if server.pid == 0:
            return
        server.send(signal.SIGTERM)
        deadline = self._runtime.now() + TERM_GRACE_S
        while server.pid != 0:
            if self._runtime.now() >= deadline:
                logger.warning("server_killed", extra={"server": server.name})
                server.send(signal.SIGKILL)
                deadline += TERM_GRACE_S
            await asyncio.sleep(POLL_S / 2)

    async def _look_after(self) -> None:
        """Restart what died, each on its own directory and with backoff."""
        running: dict[str, int] = {}
        while not self._stopping.is_set():
            for name, server in sorted(self._servers.items()):
                now, pid = self._runtime.now(), server.pid
                if pid == 0 and not server.lock.locked():
                    if running.pop(name, 0):
                        server.ended(now)
                        logger.warning(
                            "server_ended", extra={"server": name, "failures": server.failures}
                        )
                    if now >= server.retry_at and not server.has_left:
                        await self._try_start(server)
                        pid = server.pid or -1
                if pid:
                    running[name] = pid
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._stopping.wait()

    async def _try_start(self, server: LocalServer) -> None:
        async with server.lock:
            if self._servers.get(server.name) is not server or server.pid != 0:
                return
            try:
                await self._start(server)
            except StorageError as error:
                server.ended(self._runtime.now())
                logger.error(
                    "server_start_failed", extra={"server": server.name, "why": str(error)}
                )

    @staticmethod
    async def _blocking(work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def live_servers(base: Path) -> dict[str, int]:
    """Return names and process ids of the servers that live below `base`."""
    if not base.is_dir():
        return {}
    owners = {p.name: live_owner(p / "server.pid") for p in sorted(base.iterdir())}
    return {name: owner.pid for name, owner in owners.items() if owner is not None}
