"""Standard input and output beside the event loop, in big pieces and bounded.

Each has a daemon thread of its own: a pool thread that hangs in a read of a terminal would keep the
process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import threading
from collections.abc import AsyncIterator, Callable

CHUNK_BYTES = 256 * 1024
CHUNKS_MAX = 8
"""Chunks that wait between the thread and the loop."""


class InputPump:
    """Reads a descriptor ahead of who processes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(CHUNKS_MAX)
        threading.Thread(target=self._pump, name="lunalog-stdin", daemon=True).start()

    def _pump(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            while True:
                self._room.acquire()
                try:
                    chunk: bytes | OSError = os.read(self._fd, CHUNK_BYTES)
                except OSError as error:
                    error.filename = "standard input"
                    chunk = error
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
                if not chunk or isinstance(chunk, OSError):
                    return

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what was read until the end of the input; raises its `OSError`."""
        while True:
            chunk = await self._chunks.get()
            self._room.release()
            if isinstance(chunk, OSError):
                raise chunk
            if not chunk:
                return
            yield chunk


class OutputPump:
    """Writes to a descriptor behind who produces; a reader that stops slows the producer down.

    When nobody reads it any more, although there is nothing to write, `on_broken` is called; `check`
    says so, too.
    """

    def __init__(self, fd: int, on_broken: Callable[[], object] = lambda: None) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(CHUNKS_MAX)
        self._ended: asyncio.Future[None] = self._loop.create_future()
        until, self._until = os.pipe()
        """Closed at the end, so that nobody looks at the descriptor any more."""
        threading.Thread(target=self._pump, name="lunalog-stdout", daemon=True).start()
        threading.Thread(
            target=self._watch, args=(until,), name="lunalog-stdout-watch", daemon=True
        ).start()

    def _watch(self, until: int) -> None:
        """Wait until the other end of a pipe is closed, of a file it never is, or all is written."""
        other_end = select.poll()
        other_end.register(self._fd, 0)
        other_end.register(until, 0)
        with contextlib.suppress(OSError, RuntimeError):
            if dict(other_end.poll()).get(self._fd, 0) & select.POLLERR:
                self._loop.call_soon_threadsafe(self._end, BrokenPipeError())
        os.close(until)

    def _pump(self) -> None:
        error: OSError | None = None
        try:
            while chunk := self._chunks.get():
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
                self._loop.call_soon_threadsafe(self._room.release)
        except OSError as raised:
            raised.filename = "standard output"
            error = raised
        except RuntimeError:
            return  # the loop is closed: nobody waits any more
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: OSError | None) -> None:
        if self._ended.done():
            return
        os.close(self._until)
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
            self._ended.exception()  # seen: whoever writes next raises it
            self._on_broken()
        for _ in range(CHUNKS_MAX):
            self._room.release()

    async def write(self, chunk: bytes) -> None:
        """Queue a chunk; raises the `OSError` of an earlier one (`BrokenPipeError`)."""
        if chunk:
            await self._room.acquire()
            self.check()
            self._chunks.put(chunk)

    def check(self) -> None:
        """Raise the error of an earlier write."""
        if self._ended.done():
            self._ended.result()

    async def close(self) -> None:
        """Wait until all is written; raises `OSError`."""
        self._chunks.put(b"")
        await asyncio.shield(self._ended)
