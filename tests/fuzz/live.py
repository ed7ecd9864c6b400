"""A real cluster of processes under a memory ceiling, a healthy client on it, and raw connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

from tests.ports import free_port

from lunalog import limits
from lunalog.client.journal import SingleWriteJournal
from lunalog.wire import codec
from lunalog.wire.codec import ENVELOPE_BYTES, Kind
from lunalog.wire.messages import Hello

SOURCE = Path(__file__).resolve().parents[2] / "src"
CEILING_BYTES = 768 * limits.MIB
"""Address space that a process may take beyond what it has when all is quiet."""
PATIENCE_S = 90.0
"""What must come may take this long, on a machine that has much else to do."""
STREAM = "orders"
SETTINGS = {
    "LUNALOG_SERVER_TAIL_CACHE_BYTES": str(4 * limits.MIB),
    "LUNALOG_SERVER_WAL_QUEUE_BYTES_MAX": str(limits.MESSAGE_BYTES_MAX),
    "LUNALOG_SERVER_EXTENT_BYTES": str(2 * limits.MESSAGE_BYTES_MAX),
}


class Process:
    """One node, started as an operator does."""

    def __init__(self, name: str, home: Path, *arguments: str) -> None:
        self.name = name
        self.port = free_port()
        self.log = home / f"{name}.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LUNALOG_")}
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "lunalog", *arguments, "--data", str(home / name),
                 "--port", str(self.port)],
                env={**clean, **SETTINGS, "PYTHONPATH": str(SOURCE)},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} is gone:\n{self.log.read_text()[-3000:]}")

    @property
    def resident_bytes(self) -> int:
        return self._status("VmRSS:")

    @property
    def peak_bytes(self) -> int:
        """The most that was resident since `mark`."""
        return self._status("VmHWM:")

    def mark(self) -> None:
        """Forget the peak so far."""
        Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")

    def limit(self) -> None:
        """Lower the ceiling to a little above what it has."""
        most = self._status("VmSize:") + CEILING_BYTES
        resource.prlimit(self.child.pid, resource.RLIMIT_AS, (most, most))

    @property
    def is_alive(self) -> bool:
        return self.child.poll() is None

    def end(self) -> None:
        if self.is_alive:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait(20)


class LiveCluster:
    """A master and three servers.

    Attributes:
        acknowledged: Events of the healthy client, in order.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.acknowledged: list[bytes] = []
        self.epoch = 0
        self.slowest_s = 0.0
        self.processes: list[Process] = []

    async def __aenter__(self) -> LiveCluster:
        master = Process("master", self.home, "master")
        self.processes.append(master)
        masters = f"127.0.0.1:{master.port}"
        for number in (1, 2, 3):
            name = f"s{number}"
            self.processes.append(
                Process(name, self.home, "server", "--name", name, "--masters", masters)
            )
        self.url = f"lunalog://{masters}"
        try:
            async with asyncio.timeout(PATIENCE_S):
                self.journal = await self._connected()
            self._appending = asyncio.get_running_loop().create_task(self._append())
            await self.until_acknowledged(20)
        except BaseException:
            self.end()
            raise
        for process in self.processes:
            process.limit()
        return self

    async def _connected(self) -> SingleWriteJournal:
        while True:
            try:
                journal = await SingleWriteJournal.connect(self.url, peer="healthy")
                if len((await journal.servers()).servers) == 3:
                    return journal
                await journal.aclose()
            except Exception:  # noqa: BLE001  not up yet
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.1)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._appending.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._appending
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await self.journal.aclose()
        self.end()

    def end(self) -> None:
        for process in self.processes:
            process.end()

    async def _append(self) -> None:
        await self.journal.create_stream(STREAM, exist_ok=True)
        async with self.journal.lead(STREAM) as writer:
            self.epoch = writer.epoch
            while True:
                event = b"event %d " % len(self.acknowledged) + bytes(100)
                before = time.monotonic()
                await writer.append(event)
                self.slowest_s = max(self.slowest_s, time.monotonic() - before)
                self.acknowledged.append(event)
                await asyncio.sleep(0.02)

    async def until_acknowledged(self, more: int) -> None:
        """Wait until the healthy client has so many more events acknowledged."""
        wanted = len(self.acknowledged) + more
        async with asyncio.timeout(PATIENCE_S):
            while len(self.acknowledged) < wanted:
                if self._appending.done():
                    self._appending.result()
                await asyncio.sleep(0.05)

    async def check(self) -> None:
        """Everybody lives, the healthy client is served, and all it was told is there."""
        for process in self.processes:
            assert process.is_alive, process.log.read_text()[-3000:]
        await self.until_acknowledged(10)
        told = list(self.acknowledged)
        async with asyncio.timeout(PATIENCE_S):
            found = [
                event.payload
                async for event in self.journal.read(STREAM, start=0, linearizable=True)
            ]
        assert found[: len(told)] == told

    @contextlib.asynccontextmanager
    async def bounded(self, most: int) -> AsyncIterator[None]:
        """What happens inside makes no process grow by more than `most` bytes."""
        before = {}
        for process in self.processes:
            process.mark()
            before[process.name] = process.resident_bytes
        yield
        await self.check()
        grown = {p.name: p.peak_bytes - before[p.name] for p in self.processes}
        print({name: f"{size / limits.MIB:.1f} MiB" for name, size in grown.items()})
        assert max(grown.values()) < most, {n: size / limits.MIB for n, size in grown.items()}


RAWS: list[Raw] = []
"""All that were dialled, so that a test leaves none behind."""


async def hang_up() -> None:
    """End all connections of a test."""
    while RAWS:
        RAWS.pop().abort()
    await asyncio.sleep(0.05)


class Raw:
    """One raw connection; what comes back is counted and thrown away, or left unread.

    A bare socket: what the other side said before it hung up is heard, whatever else was sent to it.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.got = 0
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def dial(cls, address: tuple[str, int], *, role: str = "", name: str = "eve") -> Raw:
        """Connect, and shake hands if a role is given."""
        found = cls(socket.socket())
        RAWS.append(found)
        found.socket.setblocking(False)
        await found._loop.sock_connect(found.socket, address)
        if role:
            linc = name.encode().ljust(16, b"!")[:16]
            hello = Hello(1, 1, "", role, name, linc, b"n" * 16)
            assert await found.send(codec.MAGIC + codec.control(Kind.HELLO, 0, hello))
            await found.message(Kind.WELCOME, 0)
        return found

    async def send(self, data: bytes, seconds: float = 15.0) -> bool:
        """Send all of it; false when the other side takes no more, or is gone."""
        try:
            async with asyncio.timeout(seconds):
                await self._loop.sock_sendall(self.socket, data)
        except (OSError, TimeoutError):
            return False
        return True

    async def _some(self, most: int = 1 << 16) -> bytes:
        """What came next; raises `EOFError` when the other side has ended the connection."""
        with contextlib.suppress(ConnectionError):
            if data := await self._loop.sock_recv(self.socket, most):
                self.got += len(data)
                return data
        raise EOFError(f"the connection was ended after {self.got} bytes")

    async def hear_past(self, count: int) -> None:
        """Read until more than so many bytes came, since it was dialled."""
        async with asyncio.timeout(PATIENCE_S):
            while self.got <= count:
                await self._some()

    async def message(self, kind: Kind, number: int) -> bytes:
        """Read up to a message of this kind and id, and return its body."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                head = await self._exactly(ENVELOPE_BYTES)
                size, found, name = codec.parse_envelope(head, 0, is_open=True)
                body = await self._exactly(size - ENVELOPE_BYTES)
                if (found, name) == (kind, number):
                    return body

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self._some(size - len(data))
        return data

    async def closed(self) -> None:
        """Wait until the other side ends the connection."""
        with contextlib.suppress(EOFError):
            await self.hear_past(sys.maxsize)

    def abort(self) -> None:
        """End it without waiting for what was sent; a second time does nothing."""
        if self.socket.fileno() < 0:
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
