"""The system calls of one real server, by `strace` from outside; and the cluster that it is in.

One master, one server that holds every stream alone, and this process as their client, on loopback.
Heartbeats, idle batches and marks are put off, and a count looks only at the connections of clients
and the extents of the log, so that what is left is what the appends cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos import nodes
from lunalog import ClientConfig, SingleWriteJournal

NEVER_MS = 100_000
ATTACH_S = 20.0
READ = {"read", "readv", "recvfrom", "recvmsg"}
WRITE = {"write", "writev", "sendto", "sendmsg"}
ON_DISK = {
    "disk write": {"pwrite64", "pwritev", "pwritev2", "write", "writev"},
    "disk read": {"pread64", "preadv", "preadv2", "read", "readv"},
    "sync": {"fsync", "fdatasync", "sync_file_range"},
}
CALLS = set().union(READ, WRITE, *ON_DISK.values())
CALL = re.compile(r"(\w+)\((?:\d+<((?:->|[^<>])*)>)?.*= (-?\d+)")


@dataclass(frozen=True)
class Call:
    """One system call."""

    name: str
    on: str
    """What its descriptor is: a path, `TCP:[ours->theirs]`, `anon_inode:[eventfd]`."""
    result: int


class Trace:
    """What a process called.

    Args:
        port: Where it listens: connections that came there are its clients'.
    """

    def __init__(self, story: Path, port: int) -> None:
        self._ours = f":{port}->"
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        for path in story.parent.glob(f"{story.name}.*"):
            for call in _calls(path):
                kind = self._kind(call)
                self._counts[kind] += 1
                self._bytes[kind] += max(0, call.result)

    def _kind(self, call: Call) -> str:
        """What sort of work it is; empty: nothing that is counted here."""
        if "extent-" in call.on:
            return next((kind for kind, names in ON_DISK.items() if call.name in names), "")
        if call.on.startswith("TCP") and self._ours in call.on:
            return "read" if call.name in READ else "answer"
        return "wake" if call.name in WRITE and "[eventfd]" in call.on else ""

    def count(self, kind: str) -> int:
        """How many calls there were of a kind."""
        return self._counts[kind]

    def moved(self, kind: str) -> int:
        """How many bytes they moved."""
        return self._bytes[kind]


def _calls(path: Path) -> list[Call]:
    text = path.read_text(errors="replace")
    return [Call(m[1], m[2] or "", int(m[3])) for m in CALL.finditer(text)]


class Served:
    """The cluster, and its client."""

    def __init__(self, home: Path, server: nodes.Node, journal: SingleWriteJournal) -> None:
        self._story = home / "story"
        self._server = server
        self.journal = journal

    async def trace(self, work: Callable[[], Awaitable[object]], *, sync_us: int = 0) -> Trace:
        """Run `work` and see what it costs the server; with `sync_us`, each of its syncs takes that."""
        for path in self._story.parent.glob(f"{self._story.name}.*"):
            path.unlink()
        process = await asyncio.to_thread(self._attach, sync_us)
        try:
            await work()
        finally:
            await asyncio.to_thread(_detach, process)
        return Trace(self._story, self._server.port)

    def _attach(self, sync_us: int) -> subprocess.Popen[bytes]:
        command = ["strace", "-ff", "-yy", "-s", "0", "-o", str(self._story)]
        command += ["-p", str(self._server.pid), "-e", "trace=" + ",".join(sorted(CALLS))]
        if sync_us:
            command += ["-e", f"inject=fdatasync:delay_enter={sync_us}"]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        assert b"attached" in line, line
        return process


def _detach(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    with process.stderr:
        process.stderr.read()
    process.wait(ATTACH_S)


@contextlib.asynccontextmanager
async def served(home: Path, slowdown: str = "", **settings: Any) -> AsyncIterator[Served]:
    """Start everything; `slowdown` names what tests/guard/slowed.py does to the server."""
    master = nodes.master(
        home, "127.0.0.1",
        LUNALOG_MASTER_HEARTBEAT_MS=str(NEVER_MS), LUNALOG_MASTER_LEASE_MS=str(4 * NEVER_MS),
        LUNALOG_MASTER_SERVER_LOST_MS=str(4 * NEVER_MS),
    )  # fmt: skip
    master.start()
    defaults = {
        "heartbeat_ms": NEVER_MS, "idle_batch_ms": NEVER_MS, "inline_sync_ms_max": NEVER_MS,
        "reserve_bytes": 1 << 20,
    }  # fmt: skip
    environment = {
        f"LUNALOG_SERVER_{k.upper()}": str(v) for k, v in {**defaults, **settings}.items()
    }
    server = nodes.server("s1", home, "127.0.0.1", master.address, **environment)
    if slowdown:
        server.command = lambda: [
            sys.executable, "-m", "tests.guard.slowed", slowdown, *nodes.Node.command(server)[3:]
        ]  # fmt: skip
    server.start()
    config = ClientConfig(
        heartbeat_ms=NEVER_MS, commit_mark_ms=NEVER_MS, roll_ack_timeout_ms=NEVER_MS,
        leader_stall_ms=NEVER_MS, loop_stall_ms=NEVER_MS,
    )  # fmt: skip
    try:
        url = f"lunalog://127.0.0.1:{master.port}"
        async with SingleWriteJournal.connect(
            url, peer="guard", config=config, timeout=30
        ) as journal:
            while not (await journal.servers(timeout=30)).servers:
                await asyncio.sleep(0.02)
            yield Served(home, server, journal)
    finally:
        server.kill()
        master.kill()
