"""A whole cluster on one machine, held alive by this process: `lunalog dev up` and the demo.

Layout of the directory:

    dev.pid              the process that holds the cluster, and the cluster's URL
    master/              metadata, master.pid, master.log
    servers/             see local.py

This process starts the master; the master's orchestrator starts the servers.  All of them hold one
end of a socket pair whose other end only this process has: when it goes, by whatever death, all go;
and when all have gone, the pair tells it, of a process that has not yet written its pid file, too.
A master that dies is started again; the servers live on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lunalog.errors import ClosedError, StorageError
from lunalog.orchestrator.local import live_servers
from lunalog.orchestrator.process import PidFile, PidRecord, live_owner, spawn
from lunalog.runtime import Runtime, Tasks
from lunalog.wire.dialing import cannot_listen

logger = logging.getLogger("lunalog.orchestrator")

POLL_S = 0.05
END_GRACE_S = 8.0
"""How long master and servers may take to end before they are killed."""
MASTER_BACKOFF_S = 0.5
MASTER_FAILURES_MAX = 5
"""Starts of the master in a row that end early, after which the cluster gives up."""


class DevDirectory:
    """Where a one-machine cluster lies, and who lives in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def pid_file(self) -> Path:
        """Of the process that holds the cluster."""
        return self.path / "dev.pid"

    @property
    def log(self) -> Path:
        """Its stderr when it is detached."""
        return self.path / "dev.log"

    @property
    def master_log(self) -> Path:
        """The master's stderr."""
        return self.path / "master" / "master.log"

    @property
    def servers(self) -> Path:
        """Base directory of the local orchestrator."""
        return self.path / "servers"

    def holder(self) -> PidRecord | None:
        """Return the process that holds the cluster, if it is up."""
        return live_owner(self.pid_file)

    def url(self) -> str | None:
        """Return the cluster's URL while it is up."""
        holder = self.holder()
        return holder.arguments[0] if holder is not None and holder.arguments else None

    def members(self) -> dict[str, int]:
        """Return names and process ids of the master and servers that live."""
        master = live_owner(self.path / "master" / "master.pid")
        found = {"master": master.pid} if master is not None else {}
        return found | live_servers(self.servers)

    def kill(self, name: str) -> int:
        """Kill -9 the master or a server by name; returns its pid, 0 if no such process lives."""
        base = self.path / "master" if name == "master" else self.servers / name
        owner = live_owner(base / ("master.pid" if name == "master" else "server.pid"))
        return owner.pid if owner is not None and owner.send(signal.SIGKILL) else 0

    def last_words(self) -> str:
        """Return the last line of the master's log, to say why it does not start."""
        try:
            lines = self.master_log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].removeprefix("error: ") if lines else ""


class Lifeline:
    """A socket pair: one end is inherited by all who shall end with this process."""

    def __init__(self) -> None:
        self._mine, self._theirs = socket.socketpair()
        self._mine.setblocking(False)

    @property
    def fd(self) -> int:
        """The end that is inherited."""
        return self._theirs.fileno()

    def cut(self) -> None:
        """Tell all who hold it to end."""
        self._mine.shutdown(socket.SHUT_WR)
        self._theirs.close()

    @property
    def is_alone(self) -> bool:
        """True when nobody holds it any more."""
        try:
            return self._mine.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Forget it."""
        self._mine.close()


class DevCluster:
    """Master and servers for as long as this object is not stopped and this process lives."""

    def __init__(
        self,
        runtime: Runtime,
        directory: Path,
        *,
        servers: int,
        host: str = "127.0.0.1",
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = DevDirectory(directory)
        self._servers = servers
        self._host = host
        self._port = port
        self._environment = environment
        self._tasks = Tasks(runtime)
        self._runtime = runtime
        self._pid_file = PidFile(self.directory.pid_file)
        self._child: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self._stopping = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._was_up = False
        self.failed: str | None = None
        """Why the cluster gave up, once it has."""
        self.given_up = asyncio.Event()

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"lunalog://{self._host}:{self._port}"

    @property
    def lifeline(self) -> int:
        """What a process inherits that shall end with this one; raises `ClosedError` when stopped."""
        if self._lifeline is None:
            raise ClosedError("the cluster is not up")
        return self._lifeline.fd

    async def start(self) -> None:
        """Start the master and return at once.

        Raises `DirectoryLockedError` if the cluster is up already, `UsageError` if the port is taken.
        """
        self._port = free_port(self._host, self._port)
        self._pid_file.take((self.url,))
        self._lifeline = Lifeline()
        self._looking = self._tasks.start(self._look_after(), "dev-cluster")

    async def _look_after(self) -> None:
        """Start the master, and start it again whenever it dies."""
        failures = 0
        while not self._stopping.is_set():
            started = self._runtime.now()
            try:
                self._child = await asyncio.get_running_loop().run_in_executor(None, self._spawn)
            except StorageError as error:
                self._give_up(str(error))
                return
            while self._child.poll() is None and not self._stopping.is_set():
                await self._pause(POLL_S)
            if self._stopping.is_set():
                return
            failures = failures + 1 if self._runtime.now() - started < 5 else 0
            logger.warning("master_ended", extra={"exit_code": self._child.returncode})
            if self._child.returncode >= 0 and failures >= (1 if not self._was_up else 3):
                self._give_up(self.directory.last_words() or "the master does not start")
                return
            if failures > MASTER_FAILURES_MAX:
                self._give_up(f"the master dies again and again: see {self.directory.master_log}")
                return
            await self._pause(MASTER_BACKOFF_S * failures)

    def _give_up(self, why: str) -> None:
        self.failed = why
        self.given_up.set()

    def note_up(self) -> None:
        """Note that the cluster answered: from now on a dead master is started again."""
        self._was_up = True

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        home = self.directory.path / "master"
        arguments = [sys.executable, "-m", "lunalog", "master"]
        arguments += ["--data", str(home), "--pid-file", str(home / "master.pid")]
        arguments += ["--host", self._host, "--port", str(self._port)]
        arguments += ["--servers", str(self._servers)]
        arguments += ["--servers-dir", str(self.directory.servers)]
        arguments += ["--lifeline", str(self.lifeline)]
        environment = dict(self._environment) if self._environment is not None else None
        return spawn(
            arguments,
            self.directory.master_log,
            pass_fds=(self.lifeline,),
            environment=environment,
        )

    async def stop(self) -> None:
        """End master and servers in an orderly way, or kill them; data stay.  Idempotent."""
        self._stopping.set()
        if self._looking is not None:
            await self._looking
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            await self._until_dead(lambda: self._child is None or self._child.poll() is not None)
            if self._child.poll() is None:
                self._child.kill()
                await asyncio.get_running_loop().run_in_executor(None, self._child.wait)
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            lifeline.cut()
            await self._until_dead(lambda: lifeline.is_alone and not self.directory.members())
            for name in self.directory.members():
                self.directory.kill(name)
            await self._until_dead(lambda: lifeline.is_alone and not self.directory.members())
            lifeline.close()
        self._pid_file.release()

    async def _until_dead(self, is_dead: Callable[[], bool]) -> None:
        deadline = self._runtime.now() + END_GRACE_S
        while not is_dead() and self._runtime.now() < deadline:  # noqa: ASYNC110  processes
            await asyncio.sleep(POLL_S)


def free_port(host: str, port: int) -> int:
    """Return `port`, or any free one for 0; raises `UsageError` if nobody may listen there."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        raise cannot_listen((host, port), error) from error
