"""A cluster of real processes and what watches it: supervisor, reader, metadata, checkers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from chaos import net, nodes, tools
from chaos.events import EventFile
from chaos.monitor import Life, Monitor
from chaos.nodes import Ending, Node
from chaos.proxy import Link
from chaos.workload import Options, squeezed
from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import LunalogError, TruncatedError
from lunalog.testing.history import Delivery

STREAM: Final = "orders"
LEASE_S: Final = 2.0
NUMBERS: Final = range(1, 200)
LOCKS: Final = Path("/run/lock")
RESTART_S: Final = (0.1, 1.0)
BAD_WORDS: Final = ("InvariantError", "Traceback (most recent call last)", "never retrieved")
"""In a log of any process these are bugs, unless something was done to it that explains them."""
STARTING_S: Final = 120.0


@dataclass(frozen=True)
class Size:
    """How large a run's cluster is."""

    servers: int = 4
    clients: int = 3
    replicas: int = 3
    ack_quorum: int = 2
    rate: float = 300.0
    """Events a second that a leader appends, about."""
    keeps: int = 20_000
    small_bytes: int = 256 << 20
    """Of the disk that one server has for itself."""


class World:
    """All processes of one run.

    Attributes:
        undo: What is to be undone at the end, last first: mounts, namespaces, groups.
        lan: The namespaces; None: everybody is on loopback addresses of its own.
        faults: How often each fault was really inflicted.
    """

    def __init__(
        self, home: Path, seed: int, size: Size, *, has_lan: bool, numbers: range = NUMBERS
    ) -> None:
        self.home = home
        self.seed = seed
        self.size = size
        self.chance = random.Random(f"world {seed}")
        self.faults: Counter[str] = Counter()
        self.undo: list[Callable[[], object]] = []
        self.nodes: dict[str, Node] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self.monitor = Monitor(EventFile(home))
        self.number, self._lock = self._take_number(numbers)
        self.lan = net.Lan(self.number) if has_lan else None
        self.journal: SingleWriteJournal | None = None
        self.restarts = 0
        self.busy: set[str] = set()
        """Nodes to whom something is being done."""
        self.disks_lost = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._read_logs: dict[str, int] = {}
        self._pipes: dict[str, asyncio.Task[None]] = {}
        self._due: dict[str, float] = {}

    def _take_number(self, numbers: range) -> tuple[int, int]:
        """A number that no other run on this machine has; what a killed one left is removed."""
        LOCKS.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            fd = os.open(LOCKS / f"lunalog-chaos-{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                continue
            if os.geteuid() == 0:
                sweep(number, os.pread(fd, 4096, 0).decode())
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(self.home).encode(), 0)
            return number, fd
        raise RuntimeError("too many runs at once")

    # ------------------------------------------------------------------ up and down

    @property
    def servers(self) -> list[Node]:
        """The journal servers."""
        return [node for node in self.nodes.values() if node.kind == "server"]

    @property
    def clients(self) -> list[Node]:
        """The clients."""
        return [node for node in self.nodes.values() if node.kind == "client"]

    @property
    def master(self) -> Node:
        """The master."""
        return self.nodes["master"]

    @property
    def url(self) -> str:
        """How to reach the master without any fault in between."""
        return f"lunalog://{self.master.host}:{self.master.port}"

    @property
    def proxy_host(self) -> str:
        """Where the proxies listen."""
        return self.lan.root if self.lan else f"127.77.{self.number}.{net.ROOT_HOST}"

    def _place(self) -> tuple[str, str]:
        """A namespace (or none) and an address for one more node."""
        if self.lan:
            return self.lan.add()
        return "", f"127.77.{self.number}.{len(self.nodes) + 1}"

    async def up(self) -> None:
        """Start everything, and create the stream."""
        if self.lan:
            self.undo.append(self.lan.down)
            self.lan.up()
        namespace, host = self._place()
        lease = {"LUNALOG_MASTER_LEASE_MS": str(int(LEASE_S * 1000))}
        self._add(nodes.master(self.home, host, **lease), namespace)
        for n in range(1, self.size.servers + 1):
            namespace, host = self._place()
            name = f"s{n}"
            masters = await self._link(name, "master")
            reserve = {"LUNALOG_SERVER_RESERVE_BYTES": str(4 << 20)}
            node = nodes.server(name, self.home, host, masters.address, **reserve)
            self._add(node, namespace)
        self._small_disk(self.servers[-1])
        for node in self.nodes.values():
            node.start()
        self.journal = await self._connect()
        async with asyncio.timeout(STARTING_S):
            while await self.alive() < self.size.servers:
                await asyncio.sleep(0.1)
            policy = {"replicas": self.size.replicas, "ack_quorum": self.size.ack_quorum}
            await self.journal.create_stream(STREAM, **policy, timeout=STARTING_S)
        self._start(self._read(self.journal))
        self._start(self._sample(self.journal))
        self._start(self._supervise())
        for n in range(1, self.size.clients + 1):
            await self._add_client(f"c{n}")

    def _add(self, node: Node, namespace: str) -> None:
        node.namespace = namespace
        is_shifted = self.chance.random() < 0.5 or node.name == "s1"
        if is_shifted and not tools.why_not("faketime"):
            node.clock = self.home / f"{node.name}.clock"
            node.clock.write_text("+0")
        self.nodes[node.name] = node

    async def _link(self, source: str, target: str) -> Link:
        """A proxy between two nodes."""
        chance = random.Random(f"link {self.seed} {source} {target}")
        link = Link(f"{source}>{target}", self.nodes[target].address, chance)
        await link.start(self.proxy_host)
        self.links[source, target] = link
        return link

    async def _add_client(self, name: str) -> None:
        """Some clients dial through proxies, some directly: both kinds of faults have their prey."""
        namespace, host = self._place()
        targets = [self.master, *self.servers]
        is_proxied = len(self.clients) % 3 != 0 or self.lan is None
        routes = []
        for target in targets if is_proxied else ():
            link = await self._link(name, target.name)
            routes.append((target.address, link.address))
        options = Options(
            url=self.url,
            name=name,
            stream=STREAM,
            seed=self.chance.randrange(1 << 32),
            routes=routes,
            rate=self.size.rate,
            keeps=self.size.keeps,
        )
        text = msgspec.json.encode(options).decode()
        node = Node(name, "client", self.home, host, arguments=(text,))
        self._add(node, namespace)
        self.start(node)

    def _small_disk(self, node: Node) -> None:
        """Give one server a small disk of its own, where we may mount."""
        if tools.why_not("mount"):
            return
        node.disk = self.home / f"{node.name}.disk"
        node.disk.mkdir()
        disk = str(node.disk)
        size = f"size={self.size.small_bytes}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "chaos", disk], check=True)
        self.undo.append(
            lambda: subprocess.run(["umount", "-l", disk], capture_output=True, check=False)
        )

    async def _connect(self) -> SingleWriteJournal:
        return await SingleWriteJournal.connect(self.url, peer="harness", timeout=STARTING_S)

    async def alive(self) -> int:
        """How many servers the master hears from."""
        if self.journal is None:
            return 0
        with contextlib.suppress(LunalogError):
            found = await self.journal.servers(timeout=5.0)
            return sum(row.state == "alive" for row in found.servers)
        return 0

    def start(self, node: Node) -> None:
        """Start a node, and listen to a client."""
        process = node.start()
        if node.kind == "client":
            if process.stdout is None:
                raise RuntimeError(f"{node.name} has no pipe")
            self._pipes[node.name] = self._start(self._listen(Life(node.name), process.stdout))

    async def down(self) -> None:
        """End everything and put the machine back, whatever state it is in."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self.nodes.values():
            node.is_wanted = False
            node.kill()
        if self.journal is not None:
            with contextlib.suppress(LunalogError, TimeoutError):
                async with asyncio.timeout(10):
                    await self.journal.aclose()
        for link in self.links.values():
            await link.close()
        while self.undo:
            self.undo.pop()()
        self.monitor.log.close()
        os.close(self._lock)

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.monitor.violate(f"the harness itself failed: {error!r}")

    # ------------------------------------------------------------------ watching

    async def _listen(self, life: Life, pipe: Any) -> None:
        reader = asyncio.StreamReader(limit=4 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: protocol, pipe)
        try:
            while raw := await reader.readline():
                if raw.endswith(b"\n"):
                    self.monitor.line(life, raw)
            self.monitor.over(life)
        finally:
            transport.close()

    async def _read(self, journal: SingleWriteJournal) -> None:
        """The reference: follow the stream from its beginning, for ever."""
        monitor = self.monitor
        while True:
            try:
                async for event in journal.read(STREAM, start=monitor.log.end, follow=True):
                    monitor.events([Delivery(event.sequence, event.epoch, squeezed(event.payload))])
            except TruncatedError as error:
                monitor.violate(f"the reference reader was overtaken by truncation: {error}")
                return
            except LunalogError:
                await asyncio.sleep(0.1)

    async def _sample(self, journal: SingleWriteJournal) -> None:
        while True:
            with contextlib.suppress(LunalogError):
                found = await journal.describe(STREAM, timeout=5.0)
                self.monitor.described(time.monotonic(), found)
            await asyncio.sleep(0.5)

    async def _supervise(self) -> None:
        """Start again what has died, a little later; a death that nothing explains is a violation."""
        while True:
            now = time.monotonic()
            for node in list(self.nodes.values()):
                self.look_at(node)
                if node.is_running or not node.is_wanted:
                    self._due.pop(node.name, None)
                elif self._is_due(node, now):
                    self.restarts += 1
                    self.start(node)
            await asyncio.sleep(0.05)

    def _is_due(self, node: Node, now: float) -> bool:
        """Whether its pause is over, and all that its last process told was taken."""
        due = self._due.setdefault(node.name, now + self.chance.uniform(*RESTART_S))
        pipe = self._pipes.get(node.name)
        return now >= due and (pipe is None or pipe.done())

    def look_at(self, node: Node) -> None:
        """Note how a process ended, and read what it has said."""
        process = node.process
        if process is not None and (code := process.poll()) is not None:
            ending = Ending(code, frozenset(node.excuses))
            node.endings.append(ending)
            if not ending.excuses:
                self.monitor.violate(f"{node.name} ended with {code}: {node.text()[-1500:]}")
            self._read_log(node)
            node.process = None

    def _read_log(self, node: Node) -> None:
        """Look for what no process may ever say."""
        at = self._read_logs.get(node.name, 0)
        with node.log.open("rb") as log:
            log.seek(at)
            text = log.read().decode(errors="replace")
            self._read_logs[node.name] = log.tell()
        for word in BAD_WORDS:
            place = text.find(word)
            if place >= 0 and "memory" not in node.excuses:
                self.monitor.violate(
                    f"{node.name} says: {text[max(0, place - 800) : place + 1500]}"
                )

    def read_logs(self) -> None:
        """Look at what all processes have said."""
        for node in self.nodes.values():
            if node.log.exists():
                self._read_log(node)


def sweep(number: int, home: str) -> None:
    """Remove the namespaces, groups and mounts of a run that was killed."""
    if shutil.which("ip"):
        net.sweep(number)
    for group in tools.CGROUP_MEMORY.glob(f"lunalog-chaos-{number}-*"):
        with contextlib.suppress(OSError):
            group.rmdir()
    for line in Path("/proc/mounts").read_text().splitlines():
        place = line.split()[1]
        if home and place.startswith(f"{home}/"):
            subprocess.run(["umount", "-l", place], capture_output=True, check=False)
