"""The processes of one peer on loopback: started on free ports, ended by their ids."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

START_TIMEOUT_S = 60.0
LOG_TAIL = 240
HERE = Path(__file__).resolve().parents[1]
IN_MEMORY = {"tmpfs", "ramfs"}


class PeerFailedError(Exception):
    """A peer did not start, did not do the work, or lost an event: its rows are missing."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def filesystem(path: Path, mounts: str) -> str:
    """The kind of file system that a path is on, by the text of /proc/mounts."""
    found = ("", "")
    for line in mounts.splitlines():
        _, at, kind, *_ = line.split()
        if path.is_relative_to(at) and len(at) >= len(found[0]):
            found = (at, kind)
    return found[1]


def directory_on_disk() -> Path:
    """A temporary directory that is not in memory, where an fsync would cost nothing."""
    mounts = Path("/proc/mounts").read_text()
    for parent in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()):
        if parent.is_dir() and filesystem(parent.resolve(), mounts) not in IN_MEMORY:
            return Path(tempfile.mkdtemp(prefix="lunalog-peers-", dir=parent))
    raise PeerFailedError("no temporary directory is on a disk")


class Nodes:
    """Start with `with`; every process ends with it, and the directory goes."""

    def __init__(self) -> None:
        self.directory = directory_on_disk()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Nodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def write(self, name: str, lines: Mapping[str, object], form: str = "{}={}") -> Path:
        """Write a file of settings."""
        path = self.directory / name
        path.write_text("".join(form.format(*pair) + "\n" for pair in lines.items()))
        return path

    def start(
        self, name: str, command: Sequence[object], env: Mapping[str, str] | None = None
    ) -> None:
        """Start a process that runs until the end."""
        with open(self._log(name), "ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
            )

    def finish(self, name: str) -> None:
        """Wait for the end of something that prepares a node."""
        code = self.processes.pop(name).wait()
        if code:
            raise PeerFailedError(f"{name} ended with {code}: {self.tail(name)}")

    def wait_for(self, name: str, port: int) -> None:
        """Wait until a process listens."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            code = self.processes[name].poll()
            if code is not None:
                raise PeerFailedError(f"{name} ended with {code}: {self.tail(name)}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            time.sleep(0.05)
        raise PeerFailedError(f"{name} did not listen in time: {self.tail(name)}")

    def tail(self, name: str) -> str:
        """The end of what a process has said."""
        return last_words(self._log(name).read_text(errors="replace"))

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def last_words(text: str) -> str:
    """The end of an output, as one line, without colours and without where our files are."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for place, name in ((HERE, "bench"), (HERE.parent, "."), (Path.home(), "~")):
        plain = plain.replace(str(place), name)
    return " ".join(plain.split())[-LOG_TAIL:]
