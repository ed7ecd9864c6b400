"""Run the command as a user does: real processes, a real shell's view of pipes and codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lunalog.orchestrator.dev import DevDirectory
from ports import free_port
from processes import PATIENCE_S

CHILDREN: list[subprocess.Popen[bytes]] = []
"""All that were started, so that a test that fails leaves none behind."""
PATIENT = {"LUNALOG_MASTER_LEASE_MS": "6000", "LUNALOG_MASTER_SERVER_LOST_MS": "5000"}
"""Nobody is given up who only had to wait for the processor."""
SOURCE = str(Path(__file__).parents[2] / "src")


def environment(**more: str) -> dict[str, str]:
    """The environment of a command."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LUNALOG_")}
    return {**clean, "PYTHONPATH": SOURCE, **PATIENT, **more}


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: bytes
    err: str


@dataclass
class Command:
    """`lunalog` on one cluster."""

    url: str = ""

    def arguments(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [sys.executable, "-m", "lunalog", "--timeout", "80", *arguments]

    def start(self, *arguments: str, **more: object) -> subprocess.Popen[bytes]:
        """Start it with pipes."""
        env = environment(LUNALOG_URL=self.url) if self.url else environment()
        options = {"stdin": -1, "stdout": -1, "stderr": -1, "env": env, **more}
        child = subprocess.Popen(self.arguments(*arguments), **options)
        CHILDREN.append(child)
        return child

    def run(self, *arguments: str, given: bytes = b"", **more: object) -> Done:
        """Run it to its end."""
        child = self.start(*arguments, **more)
        try:
            out, err = child.communicate(given, PATIENCE_S)
        except BaseException:
            child.kill()
            child.communicate()
            raise
        return Done(child.returncode, out, err.decode())

    def ok(self, *arguments: str, given: bytes = b"") -> bytes:
        """Run it, and it must work."""
        done = self.run(*arguments, given=given)
        assert done.code == 0, (arguments, done)
        return done.out


@contextmanager
def dev_cluster(home: Path) -> Iterator[Command]:
    """A cluster of `lunalog dev` on a directory of its own."""
    command = Command()
    done = command.run("dev", "up", "--detach", "--port", str(free_port()), "--dir", str(home))
    assert done.code == 0, done
    command.url = DevDirectory(home).url()
    yield command
    command.run("dev", "down", "--dir", str(home))
