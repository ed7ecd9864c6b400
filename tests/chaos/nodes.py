"""The processes of one run: the real commands, each on a directory and an address of its own.

Every child dies with us (the kernel sees to it), whatever we die of, and whether it is stopped or not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from chaos import tools
from ports import free_port

TESTS = Path(__file__).parents[1]
PYTHON_PATH = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
END_GRACE_S = 60.0
EXTENT_BYTES = 36 << 20
"""Near the least, so that a soak fills and drops many."""


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Ending:
    """How a process ended, and what had been done to it."""

    code: int
    excuses: frozenset[str]


@dataclass
class Node:
    """One master, server or client: how it is started, and the process that runs now.

    Attributes:
        host: Its address.
        namespace: The network namespace that it lives in; empty: that of everybody.
        conditions: What is wrong around it now, whichever process runs.
        excuses: What was done to the process that runs: each may explain its death.
        is_wanted: Whether it is to run; the supervisor starts it again when it has died.
        clock: The file that shifts its wall clock; None: it has the true one.
    """

    name: str
    kind: str
    home: Path
    host: str
    port: int = 0
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    clock: Path | None = None
    is_wanted: bool = True
    disk: Path | None = None
    """A file system of its own that holds the data directory."""
    conditions: set[str] = field(default_factory=set)
    excuses: set[str] = field(default_factory=set)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    endings: list[Ending] = field(default_factory=list)

    @property
    def data(self) -> Path:
        """Its data directory."""
        return (self.disk or self.home) / self.name

    @property
    def log(self) -> Path:
        """What it says on stderr, all its lives one behind another."""
        return self.home / f"{self.name}.log"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    @property
    def pid(self) -> int:
        """Of the process that runs; 0: none does."""
        return self.process.pid if self.is_running and self.process else 0

    @property
    def is_running(self) -> bool:
        """True from its start to its end (also while it is stopped by a signal)."""
        return self.process is not None and self.process.poll() is None

    def command(self) -> list[str]:
        """The whole command line."""
        if self.kind == "client":
            command = [sys.executable, "-m", "chaos.workload", *self.arguments]
        else:
            command = [
                *(sys.executable, "-m", "lunalog", self.kind, "--data", str(self.data)),
                *("--host", self.host, "--port", str(self.port), *self.arguments),
            ]
        if self.namespace:
            net = f"--net={tools.NETNS_DIRECTORY / self.namespace}"
            command = ["nsenter", net, *command]
        return command

    def _environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LUNALOG_")}
        found = {**clean, "PYTHONPATH": PYTHON_PATH, **self.environment}
        if self.clock is not None:
            found["LD_PRELOAD"] = tools.faketime_library()
            found["FAKETIME_TIMESTAMP_FILE"] = str(self.clock)
            found["FAKETIME_NO_CACHE"] = "1"
            found["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        return found

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; a client's stdout is a pipe to us."""
        if self.process is not None and self.process.poll() is None:
            raise RuntimeError(f"{self.name} runs already")
        self.excuses = set(self.conditions)
        self.starts += 1
        is_client = self.kind == "client"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if is_client else subprocess.DEVNULL,
                stderr=log,
                preexec_fn=_die_with_parent,
                start_new_session=True,  # Ctrl-C is for us: we end them in order
            )
        return self.process

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self, excuse: str = "killed") -> None:
        """SIGKILL, and wait for the end."""
        self.excuses.add(excuse)
        self.signal(signal.SIGKILL)
        self.wait()

    def end(self) -> int:
        """SIGTERM, and wait; killed if it takes too long, which the code shows."""
        self.excuses.add("ended")
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = END_GRACE_S) -> int:
        """Wait for its end and return the code."""
        if self.process is None:
            return 0
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def text(self) -> str:
        """The whole log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def address_space_bytes(pid: int) -> int:
    """How much address space a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def server(name: str, home: Path, host: str, masters: tuple[str, int], **more: str) -> Node:
    """A journal server that is not started yet."""
    environment = {"LUNALOG_SERVER_EXTENT_BYTES": str(EXTENT_BYTES), **more}
    arguments = ("--name", name, "--masters", f"{masters[0]}:{masters[1]}")
    port = 7610 if host.startswith("10.") else free_port(host)
    return Node(name, "server", home, host, port, arguments, environment)


def master(home: Path, host: str, **more: str) -> Node:
    """A master that is not started yet."""
    port = 7600 if host.startswith("10.") else free_port(host)
    return Node("master", "master", home, host, port, environment=dict(more))
