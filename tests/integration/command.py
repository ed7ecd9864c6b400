"""Run the command as a user does: real processes, a real shell's view of pipes and codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 100.0
"""What must happen may take this long, on a machine that has much else to do."""
CHILDREN: list[subprocess.Popen[bytes]] = []
"""All that were started, so that a test that fails leaves none behind."""
PATIENT = {"LUNALOG_MASTER_LEASE_MS": "6000", "LUNALOG_MASTER_SERVER_LOST_MS": "5000"}
"""Nobody is given up who only had to wait for the processor."""
SOURCE = str(Path(__file__).parents[2] / "src")


def environment(**more: str) -> dict[str, str]:
    """The environment of a command."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LUNALOG_")}
    return {**clean, "PYTHONPATH": SOURCE, **PATIENT, **more}


def until(holds: Callable[[], T]) -> T:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


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
        pipes = {"stdin": -1, "stdout": -1, "stderr": -1, **more}
        env = environment(LUNALOG_URL=self.url) if self.url else environment()
        child = subprocess.Popen(self.arguments(*arguments), env=env, **pipes)
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
