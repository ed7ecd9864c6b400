"""The seam between lunalog's code and the machine it runs on.

A node (master, journal server, client) meets the world through the running event loop (timers), this
object (clocks, chance, threads, the network) and a `Disk`.  Production passes `SystemRuntime`; the
simulator and the embedded modes pass their own, and run the same code.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from lunalog.errors import InvariantError, LunalogError

T = TypeVar("T")
Address = tuple[str, int]
ProtocolFactory = Callable[[], asyncio.BaseProtocol]

logger = logging.getLogger("lunalog.runtime")


class Listener(Protocol):
    """A listening endpoint."""

    @property
    def address(self) -> Address:
        """The address that peers dial; the port is the one really bound."""
        ...

    async def close(self) -> None:
        """Stop accepting; connections that exist stay open."""
        ...


class Network(Protocol):
    """Byte streams between nodes: TCP, memory, or simulated."""

    async def connect(self, factory: ProtocolFactory, address: Address) -> None:
        """Connect `factory()` to `address`; its `connection_made` has run when this returns.

        Raises `OSError` when the peer refuses or cannot be reached.
        """
        ...

    async def listen(self, factory: ProtocolFactory, address: Address) -> Listener:
        """Accept connections at `address` (port 0: any free port), one `factory()` for each.

        Raises `OSError` when the address is in use or not allowed.
        """
        ...


class Mailbox(Protocol[T]):
    """A queue from loops to one worker, which takes all that waits at once.

    The mailbox itself is unbounded: who puts holds the bound (in bytes) and checks it first.
    """

    def put(self, item: T) -> None:
        """Add an item, from any loop or thread; never blocks.  After `close` it is dropped."""
        ...

    async def take_all(self) -> list[T]:
        """Wait for at least one item, then take all of them; empty means closed and drained."""
        ...

    def close(self) -> None:
        """Let the worker finish what is queued, then give it an empty list."""
        ...


class Worker(Protocol):
    """A coroutine, or a whole event loop, that runs beside the loop that started it."""

    async def join(self) -> None:
        """Wait until it has ended; its exception has gone to `Runtime.fail`."""
        ...


class Runtime(Protocol):
    """What a node asks of its machine, besides the running event loop and its disk."""

    network: Network
    random: random.Random

    @property
    def is_blocking(self) -> bool:
        """True where `drive` may run a disk coroutine on the loop itself, now."""
        ...

    def now(self) -> float:
        """Seconds on a clock that only grows and counts suspended time; the start is arbitrary."""
        ...

    def wall_us(self) -> int:
        """Microseconds since 1970, for people to read; decides nothing (C1)."""
        ...

    def random_bytes(self, size: int) -> bytes:
        """Return bytes that nobody else draws: identities and nonces (R2)."""
        ...

    def process_id(self) -> int:
        """Return what the machine calls this process, for who must find it again."""
        ...

    def mailbox(self) -> Mailbox[Any]:
        """Make a queue whose other end is a worker of this runtime; call it on the putting loop."""
        ...

    def start_worker(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Worker:
        """Run a coroutine that only does disk and mailbox work beside the loop (the WAL writer)."""
        ...

    def start_loop(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Worker:
        """Run `main()` on an event loop of its own beside this one (the heartbeat, R15)."""
        ...

    async def offload(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one disk coroutine off the loop and return its result (reads of old data)."""
        ...

    def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a disk coroutine here and now; the loop stands still until it is done."""
        ...

    def fail(self, error: BaseException) -> None:
        """End this node because it may no longer be trusted (R16, R27).

        A process exits at once; an embedded journal ends, every later call raising; a simulated
        node crashes.  The caller must do nothing more afterwards.
        """
        ...


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, here and now, and return its result."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError(f"{work!r} suspended where it must not")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, however often the caller is cancelled; that is raised behind it.

    For what may not go on behind the caller's back and ends by itself: what a thread does to a directory
    must be over before its lock is given back.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    found = task.result()
    if cancelled is not None:
        raise cancelled
    return found


def end_on_bugs(loop: asyncio.AbstractEventLoop, runtime: Runtime) -> None:
    """Let a bug in a callback end the node, as one in a task does; for who owns the loop (P5, R27).

    The loop would log it, and what the callback was to do would never be done.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        is_ours = "handle" in context or "protocol" in context
        if is_ours and isinstance(error, Exception) and not isinstance(error, OSError):
            runtime.fail(error)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


class Tasks:
    """The background tasks of one owner: kept alive, named, and never failing in silence.

    An exception that leaves a task is a bug, and goes to `Runtime.fail` (P5).
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` as a task until it ends or `cancel` is called."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._runtime.fail(error)

    async def cancel(self) -> None:
        """Cancel what still runs (but not the caller's own task) and wait for it to end.

        Cancelling stops the waiting only.
        """
        current = asyncio.current_task()
        tasks = sorted((t for t in self._tasks if t is not current), key=lambda t: t.get_name())
        for task in tasks:
            task.cancel()
        if tasks:  # to await one of them would take a cancellation of ours for the end of it
            await asyncio.wait(tasks)


# ---------------------------------------------------------------- production


class TcpListener:
    """A listening TCP socket of asyncio or uvloop."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self._address: Address = server.sockets[0].getsockname()[:2]

    @property
    def address(self) -> Address:
        """Host and port really bound."""
        return self._address

    async def close(self) -> None:
        """Stop accepting."""
        self._server.close()


class TcpNetwork:
    """TCP with no delay; a dead peer is noticed by heartbeats above and by the kernel below (N5).

    The kernel looks on both sides and also when there is nothing to send: a server would else keep the
    connections of machines that have vanished, and what hangs on them, for as long as it lives.
    """

    USER_TIMEOUT_MS = 10_000
    IDLE_S = 10
    """A connection that has been silent for this long is probed."""
    PROBE_S = 5

    async def connect(self, factory: ProtocolFactory, address: Address) -> None:
        """Dial `address`; raises `OSError`, also for what a peer told and is no address (H1)."""
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(factory, *address)
        except (ValueError, OverflowError) as error:
            raise OSError(f"{address!r:.200} is no address: {error}") from error
        self._tune(transport.get_extra_info("socket"))

    async def listen(self, factory: ProtocolFactory, address: Address) -> TcpListener:
        """Listen on `address`; raises `OSError`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, *address, backlog=1024)
        for sock in server.sockets:  # what is accepted inherits it
            self._tune(sock)
        return TcpListener(server)

    @classmethod
    def _tune(cls, sock: Any) -> None:
        if sock is None:
            return
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (
                ("TCP_KEEPIDLE", cls.IDLE_S),
                ("TCP_KEEPINTVL", cls.PROBE_S),
                ("TCP_USER_TIMEOUT", cls.USER_TIMEOUT_MS),
            ):
                if hasattr(socket, name):  # not everywhere
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class ThreadMailbox:
    """A mailbox whose worker is a thread: `take_all` blocks that thread and never suspends."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False

    def put(self, item: Any) -> None:
        """Add an item."""
        if not self._closed:
            self._queue.put((item,))

    async def take_all(self) -> list[Any]:
        """Block this thread until there is something."""
        items = []
        got = self._queue.get()
        while got is not None:
            items.append(got[0])
            if self._queue.empty():
                return items
            got = self._queue.get()
        self._queue.put(None)  # stays closed for the next call
        return items

    def close(self) -> None:
        """End the worker after what is queued."""
        self._closed = True
        self._queue.put(None)


@dataclass(slots=True)
class ThreadWorker:
    """A daemon thread."""

    thread: threading.Thread

    async def join(self) -> None:
        """Wait for the thread without blocking the loop."""
        await asyncio.get_running_loop().run_in_executor(None, self.thread.join)


class SystemRuntime:
    """The real machine: threads, TCP, CLOCK_BOOTTIME, the kernel's random bytes."""

    is_blocking = True
    drive = staticmethod(drive)

    def __init__(self, network: Network | None = None) -> None:
        self.network: Network = network or TcpNetwork()
        self.random = random.Random(os.urandom(16))

    def now(self) -> float:
        """Seconds since boot, suspended time included (C2)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_us(self) -> int:
        """Microseconds since 1970."""
        return time.time_ns() // 1000

    def random_bytes(self, size: int) -> bytes:
        """Bytes from the kernel."""
        return os.urandom(size)

    def process_id(self) -> int:
        """The process id."""
        return os.getpid()

    def mailbox(self) -> ThreadMailbox:
        """A queue to a thread."""
        return ThreadMailbox()

    def start_worker(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Worker:
        """Run a coroutine that never suspends on a daemon thread."""
        return self._start(name, lambda: drive(main()))

    def start_loop(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Worker:
        """Run an event loop on a daemon thread."""
        return self._start(name, lambda: asyncio.run(main()))

    def _start(self, name: str, body: Callable[[], None]) -> Worker:
        def guarded() -> None:
            try:
                body()
            except BaseException as error:  # noqa: BLE001  a thread must not die in silence
                self.fail(error)

        thread = threading.Thread(target=guarded, name=f"lunalog-{name}", daemon=True)
        thread.start()
        return ThreadWorker(thread)

    async def offload(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a disk coroutine on a pool thread; cancelled before a thread is free, it never begins."""
        once = threading.Lock()

        def begin() -> T | None:
            return drive(work) if once.acquire(blocking=False) else None

        try:
            found = await asyncio.get_running_loop().run_in_executor(None, begin)
        except asyncio.CancelledError:
            if once.acquire(blocking=False):
                work.close()
            raise
        return cast(T, found)

    def fail(self, error: BaseException) -> None:
        """Log and end the process; buffers of the standard streams are flushed, nothing else."""
        if isinstance(error, LunalogError) and not isinstance(error, InvariantError):
            logger.critical("node_failed", extra={"code": error.code, "why": str(error)})
        else:
            logger.critical("node_failed", exc_info=error)
        logging.shutdown()
        os._exit(70)
