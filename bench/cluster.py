"""One cluster of real processes on loopback, for the benchmarks: a master and journal servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from lunalog import SingleWriteJournal

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class BenchCluster:
    """Start with `async with`; every process ends with it."""

    def __init__(self, servers: int = 3, *, options: tuple[str, ...] = (), ca: str = "") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lunalog-bench-"))
        self.wanted = servers
        self.master: subprocess.Popen[bytes] | None = None
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.options = options
        """Every node's, such as those of TLS."""
        self.ca = ca
        """File of the authority, where those are given."""
        self.masters = ""
        self.url = ""

    async def __aenter__(self) -> BenchCluster:
        port = free_port()
        self.masters = f"127.0.0.1:{port}"
        self.url = (
            f"lunalogs://{self.masters}?ca={self.ca}" if self.ca else f"lunalog://{self.masters}"
        )
        self.master = self._start("master", "--port", str(port))
        for n in range(1, self.wanted + 1):
            self.start_server(f"s{n}")
        await self._wait_for_servers()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """All that were started."""
        return [p for p in (self.master, *self.servers.values()) if p is not None]

    def start_server(self, name: str) -> None:
        """Start one journal server on its own directory."""
        self.servers[name] = self._start("server", "--masters", self.masters, "--name", name)

    def kill_server(self, name: str) -> None:
        """End a server by SIGKILL."""
        self.servers[name].send_signal(signal.SIGKILL)

    def rss_kib(self, process: subprocess.Popen[bytes]) -> int:
        """Resident memory of a process."""
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError(f"process {process.pid} is gone")

    def _path(self, name: str) -> str:
        return str(self.directory / name)

    def _start(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        name = arguments[-1] if role == "server" else "master"
        command = [sys.executable, "-m", "lunalog", role, "--data", self._path(name)]
        with open(self.directory / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                [*command, *self.options, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "LUNALOG_URL": ""},
            )

    async def _wait_for_servers(self) -> None:
        async with (
            asyncio.timeout(START_TIMEOUT_S),
            SingleWriteJournal.connect(
                self.url, peer="bench-wait", timeout=START_TIMEOUT_S
            ) as journal,
        ):
            while True:
                listing = await journal.servers()
                if sum(s.state == "alive" for s in listing.servers) >= self.wanted:
                    return
                await asyncio.sleep(0.05)
