"""One lock a stream, there only while somebody holds or wants it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lunalog.types import StreamId


class StreamLocks:
    """Lets one change of a stream be under way at a time, first come first served."""

    def __init__(self) -> None:
        self._locks: dict[StreamId, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @contextlib.asynccontextmanager
    async def hold(self, stream: StreamId) -> AsyncIterator[None]:
        """Hold the stream's lock."""
        lock, users = self._locks.get(stream) or (asyncio.Lock(), 0)
        self._locks[stream] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[stream]
            if users == 1:
                del self._locks[stream]
            else:
                self._locks[stream] = (lock, users - 1)
