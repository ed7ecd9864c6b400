"""Pushes: what changed in a turn goes out once at its end, encoded once for all who watch.

Source: design.md section 4; R13.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from lunalog.master.table import Stream, Table
from lunalog.types import SealedSegment, SegmentId, ServerAddress, StreamId, StreamView
from lunalog.wire import codec
from lunalog.wire.codec import Kind
from lunalog.wire.connection import Connection
from lunalog.wire.messages import StreamChanged, StreamGone

Watchers = dict[Connection, None]
Addresses = Callable[[Iterable[str]], tuple[ServerAddress, ...]]


class Publisher:
    """Knows who watches which stream, and tells them."""

    def __init__(self, table: Table, addresses: Addresses) -> None:
        self._table = table
        self._addresses = addresses
        self._by_connection: dict[Connection, dict[StreamId, None]] = {}
        self._watched: dict[StreamId, None] = {}
        self._dirty: dict[StreamId, dict[SegmentId, SealedSegment]] = {}
        self._flush_is_due = False

    def view(self, stream: Stream) -> StreamView:
        """Return everything a client needs to know of a stream."""
        return StreamView(
            stream.head, stream.kept_rows(), self._addresses(sorted(stream.servers()))
        )

    def watch(self, connection: Connection, stream: Stream) -> None:
        """Push every change of `stream` to `connection` from now on."""
        if stream.watchers is None:
            stream.watchers = {}
        stream.watchers[connection] = None
        self._watched[stream.id] = None
        self._by_connection.setdefault(connection, {})[stream.id] = None

    def unwatch(self, connection: Connection, stream: StreamId) -> None:
        """Push no more of `stream` to `connection`."""
        watched = self._by_connection.get(connection)
        if watched is not None:
            watched.pop(stream, None)
            if not watched:
                del self._by_connection[connection]
        found = self._table.get(stream)
        if found is not None and found.watchers is not None:
            found.watchers.pop(connection, None)
            if not found.watchers:
                found.watchers = None
                self._watched.pop(stream, None)

    def closed(self, connection: Connection) -> list[StreamId]:
        """Forget a connection; returns what it watched."""
        streams = list(self._by_connection.get(connection, ()))
        for stream in streams:
            self.unwatch(connection, stream)
        return streams

    def changed(self, stream: Stream, rows: Iterable[SealedSegment] = ()) -> None:
        """Tell who watches at the end of this turn."""
        if stream.watchers is None:
            return
        self._dirty.setdefault(stream.id, {}).update((row.id, row) for row in rows)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def server_changed(self, server: str) -> None:
        """Tell who watches a stream that lists this server where it is now, or that it is lost."""
        for stream_id in self._watched:
            stream = self._table.get(stream_id)
            if stream is not None and server in stream.servers():
                self.changed(stream)

    def gone(self, stream: Stream) -> None:
        """Tell who watched that the stream was deleted."""
        self._dirty.pop(stream.id, None)
        self._watched.pop(stream.id, None)
        watchers, stream.watchers = stream.watchers, None
        if not watchers:
            return
        message = codec.control(Kind.PUSH, 0, StreamGone(stream.id))
        for connection in watchers:
            connection.send(message)
            watched = self._by_connection.get(connection)
            if watched is not None:
                watched.pop(stream.id, None)

    def _flush(self) -> None:
        self._flush_is_due = False
        dirty, self._dirty = self._dirty, {}
        for stream_id, rows in dirty.items():
            stream = self._table.get(stream_id)
            if stream is None or stream.watchers is None:
                continue
            names = stream.servers() | {m.server for row in rows.values() for m in row.members}
            view = StreamView(stream.head, tuple(rows.values()), self._addresses(sorted(names)))
            message = codec.control(Kind.PUSH, 0, StreamChanged(view))
            for connection in stream.watchers:
                connection.send(message)
