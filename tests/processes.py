"""What tests of real processes share: to wait for what they say and do, to end them, to find them.

Pipes are of bytes.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")
PATIENCE_S = 100.0
"""What must happen may take this long, on a machine that has much else to do."""


def until(holds: Callable[[], T]) -> T:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def until_line(pipe: IO[bytes], *words: str) -> str:
    """Read up to a line that holds all words; returns all that was read."""
    seen = b""
    while True:
        line = pipe.readline()
        seen += line
        assert line, f"it ended before it said {words}: {seen.decode()}"
        if all(word.encode() in line for word in words):
            return seen.decode()


def end_by(
    child: subprocess.Popen[bytes], signum: int, patience_s: float = PATIENCE_S
) -> tuple[bytes, bytes]:
    """Send a signal, by which it must end, and its code must say so; returns what else it has said."""
    child.send_signal(signum)
    out, err = child.communicate(timeout=patience_s)
    said = (out or b"") + (err or b"")
    assert child.returncode == (-signum if signum == signal.SIGKILL else 128 + signum), (
        said.decode()
    )
    assert b"Traceback" not in said, said.decode()
    return out, err


def named(directory: Path) -> list[int]:
    """Return the processes whose command line names a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(directory).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended
    return found
