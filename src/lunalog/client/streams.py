"""The streams that one journal uses: found by name, shared by their users, watched while used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from lunalog.client.admin import Admin
from lunalog.client.session import Session
from lunalog.client.stream import LocalStream, Parts
from lunalog.errors import InvariantError
from lunalog.types import Sequence, StreamHead, StreamId, StreamView, check_stream_name

IDLE_STREAMS_MAX: Final = 16
"""Streams that nobody here uses and that are watched all the same."""


class LocalStreams:
    """Every stream of one journal."""

    def __init__(self, admin: Admin, session: Session, check: Callable[[], None]) -> None:
        self.parts: Parts | None = None
        """Set once the journal is connected."""
        self._admin = admin
        self._session = session
        self._check = check
        self._streams: dict[StreamId, LocalStream] = {}
        self._names: dict[str, LocalStream] = {}
        self._idle: dict[StreamId, LocalStream] = {}
        """Without a user, the longest unused first: watched a little longer, in case one comes."""

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[LocalStream]:
        return iter(list(self._streams.values()))

    def named(self, name: str) -> LocalStream | None:
        """The stream of that name, if it is at hand."""
        return self._names.get(name)

    async def open(self, name: str) -> LocalStream:
        """Find a stream by name, for one more user; raises `StreamNotFoundError`."""
        self._check()
        check_stream_name(name)
        found = self._names.get(name)
        if found is None or found.watch.gone is not None:
            reply = await self._admin.get(name, None)
            self._check()
            found = self._local(reply.view)
        self._idle.pop(found.watch.stream, None)
        found.users += 1
        return found

    def _local(self, view: StreamView) -> LocalStream:
        if self.parts is None:
            raise InvariantError("a journal is used after it was started")
        found = self._streams.get(view.head.stream)
        if found is None:
            found = LocalStream(self.parts, self.parts.link.watch(view))
            self._streams[view.head.stream] = found
        self._names[view.head.name] = found
        return found

    def close(self, local: LocalStream) -> None:
        """One user less; a few streams without one stay watched."""
        local.users -= 1
        if local.users > 0 or self._streams.get(local.watch.stream) is not local:
            return
        if local.watch.gone is not None:
            self._drop(local)
            return
        self._idle[local.watch.stream] = local
        while len(self._idle) > IDLE_STREAMS_MAX:
            self._drop(next(iter(self._idle.values())))

    def _drop(self, local: LocalStream) -> None:
        stream = local.watch.stream
        self._idle.pop(stream, None)
        self._streams.pop(stream, None)
        if self._names.get(local.watch.name) is local:
            del self._names[local.watch.name]
        self._session.forget_applied(stream)
        local.close()

    async def source(self, name: str) -> LocalSource:
        """What one more reader of `name` reads through."""
        return LocalSource(await self.open(name), self._session, self.close)


class LocalSource:
    """What one reader reads through."""

    def __init__(
        self, local: LocalStream, session: Session, close: Callable[[LocalStream], None]
    ) -> None:
        self._local = local
        self._session = session
        self._close = close
        self._loop = asyncio.get_running_loop()
        self.fetcher = local.new_fetcher()

    @property
    def head(self) -> StreamHead:
        """The newest head."""
        return self._local.head

    async def read_point(self, timeout: float | None) -> Sequence:
        """Ask the leader."""
        return await self._local.read_point(timeout)

    def note_applied(self, sequence: Sequence) -> None:
        """Tell the master with the next beat, if this client stands for election."""
        if self._local.watch.is_candidate:
            self._session.note_applied(self._local.watch.stream, sequence)

    def release(self) -> None:
        """End; a reader that was merely dropped does this from wherever it is collected."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close, self._local)
