"""One operating system process that outlives its parent: its pid file, its signals, its lifeline.

A pid file is written and locked by the process itself for as long as it lives, so that there is
never a second one on the same directory, and whoever comes later finds the first one: no moment
between a start and the note of it in which a crash of the parent could lose sight of a process.
The start time and the boot beside the pid guard against a pid that was given out again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from lunalog.errors import DirectoryLockedError, StorageError
from lunalog.wording import plainly

EXIT_GRACE_S = 5.0
"""How long a process may take to end by itself after its lifeline closed."""


class PidRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a pid file says about the process that wrote it."""

    pid: int
    started: int
    """Clock ticks since boot (field 22 of /proc/PID/stat)."""
    boot: str
    """Boot id of the kernel: pids and ticks of another boot mean nothing."""
    arguments: tuple[str, ...] = ()
    """What it was started for; a parent that wants something else restarts it."""

    @property
    def is_alive(self) -> bool:
        """True while this very process runs (a zombie does not)."""
        return self.boot == boot_id() and start_time(self.pid) == self.started

    def send(self, signum: int) -> bool:
        """Signal the process; false if it is gone."""
        if not self.is_alive:
            return False
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return False
        return True


def boot_id() -> str:
    """Return the kernel's id of this boot; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """Return when process `pid` started in clock ticks since boot; none if it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def read_pid_file(path: Path) -> PidRecord | None:
    """Return what a pid file says; none if there is none, or it was never finished."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PidRecord)
    except (OSError, msgspec.DecodeError):
        return None


def live_owner(path: Path) -> PidRecord | None:
    """Return the process that holds this pid file, if it runs."""
    record = read_pid_file(path)
    return record if record is not None and record.is_alive else None


class PidFile:
    """The pid file of this process: locked while it lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def take(self, arguments: Sequence[str] = ()) -> None:
        """Lock the file and write who we are; raises `DirectoryLockedError` if another one lives."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+b")
        except OSError as error:
            raise StorageError(
                f"cannot write {self._path}: {plainly(error)}; nothing was started; use a directory "
                "that can be written"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            owner = read_pid_file(self._path)
            raise DirectoryLockedError(
                f"{self._path.parent} is in use by process {owner.pid if owner else '?'}; "
                "nothing was changed; end that process or choose another directory"
            ) from error
        pid = os.getpid()
        record = PidRecord(
            pid=pid,
            started=start_time(pid) or 0,
            boot=boot_id(),
            arguments=tuple(arguments),
        )
        file.truncate(0)
        file.write(msgspec.json.encode(record))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Empty and unlock it; it is not removed, or a waiting one would lock a file without a name.

        Idempotent.
        """
        file, self._file = self._file, None
        if file is not None:
            file.truncate(0)
            file.close()


def spawn(
    arguments: Sequence[str],
    log: Path | None,
    *,
    pass_fds: Sequence[int] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its stderr appended to `log`.  Blocks for a fork.

    Without a log it keeps our stderr.  Its stdin and stdout are empty.  Raises `StorageError`.
    """
    stderr: BinaryIO | None = None
    try:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            stderr = log.open("ab")
        return subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            close_fds=True,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        what = f"start {arguments[0]}" if log is None or stderr is not None else f"write {log}"
        raise StorageError(
            f"cannot {what}: {error.strerror or error}; nothing was changed"
        ) from error
    finally:
        if stderr is not None:
            stderr.close()


def forget(child: subprocess.Popen[bytes]) -> None:
    """Let a child live on without us: no warning, no wait when its handle goes away."""
    if child.poll() is None:
        child.returncode = 0


def watch_lifeline(fd: int, at_end: Callable[[], None], grace_s: float = EXIT_GRACE_S) -> None:
    """Call `at_end` (on a thread) when the other end of the pipe `fd` closes, then end the process.

    Whoever holds the write end keeps us alive; when it dies, however it dies, we go.  `at_end` asks
    for an orderly end; a process that is not gone after the grace ends at once.  A crash is safe.
    """
    os.set_inheritable(fd, False)

    def wait() -> None:
        try:
            while os.read(fd, 4096):
                pass
        except OSError:
            pass
        at_end()
        threading.Event().wait(grace_s)
        os._exit(128 + signal.SIGHUP)

    threading.Thread(target=wait, name="lunalog-lifeline", daemon=True).start()
