"""Failing, slow and deadly system calls of a process that runs: `strace -e inject=` from outside."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

ATTACH_S = 20.0


class Injection:
    """`async with Injection(pid, "fdatasync", "error=EIO:when=3", story) as injection`.

    Args:
        pid: Of the process; all its threads are meant.  strace counts `when` a thread.
        call: The system call, or several with commas between.
        what: `error=EIO`, `signal=KILL`, `delay_enter=MICROSECONDS`, with `:when=N` or `:when=N+`.
        story: A file for what strace sees.
        paths: Only calls on these files.
    """

    def __init__(
        self, pid: int, call: str, what: str, story: Path, paths: Iterable[Path] = ()
    ) -> None:
        self._command = ["strace", "-f", "-p", str(pid), "-o", str(story), "-e", f"trace={call}"]
        self._command += ["-e", f"inject={call}:{what}"]
        for path in paths:
            self._command += ["-P", str(path)]
        self._story = story
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bites(self) -> int:
        """Calls that were tampered with so far."""
        if not self._story.exists():
            return 0
        text = self._story.read_text(errors="replace")
        return text.count("(INJECTED)") + text.count("(DELAYED)") + text.count("killed by SIGKILL")

    async def __aenter__(self) -> Self:
        self._story.unlink(missing_ok=True)
        self._process = await asyncio.to_thread(self._attach)
        return self

    def _attach(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        if process.stderr is None:
            raise RuntimeError("no pipe")
        line = process.stderr.readline()
        if b"attached" not in line:
            process.kill()
            process.wait()
            process.stderr.close()
            raise ProcessLookupError(f"strace: {line.decode().strip()}")
        return process

    async def __aexit__(self, *_: Any) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        waiting = asyncio.create_task(asyncio.to_thread(self._wait, process))
        await asyncio.shield(waiting)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()  # the kernel lets go of what it held
            process.wait()
        if process.stderr is not None:
            process.stderr.close()
