"""The wish that a leader opens its next segment on a better set.

Told when a server is lost, in trouble or leaving, or a set is short of N, and only while N servers can
take a segment: a roll into another broken set helps nobody (R11, trap 42).  The wish is repeated, so
that a leader that was away hears it too; the leader keeps its rolls apart.

Source: design.md section 4; R11.
"""

from __future__ import annotations

from lunalog.master.elections import Elections
from lunalog.master.metadata import Metadata
from lunalog.master.servers import Servers
from lunalog.master.table import Stream
from lunalog.types import StreamId
from lunalog.wire.messages import RollWanted

ROLL_EVERY_S = 2.0


class Rolls:
    """Finds open segments that should move on, by server and by the short ones alone."""

    def __init__(self, metadata: Metadata, servers: Servers, elections: Elections) -> None:
        self._metadata = metadata
        self._table = metadata.table
        self._servers = servers
        self._elections = elections

    def tell(self) -> int:
        """Tell every leader whose set is not what it could be; returns how many were told."""
        placeable = self._servers.count_placeable()
        told = 0
        for name in self._servers.names():
            if self._servers.is_wanted_off(name):
                reason = self._reason(name)
                for stream in self._table.open_on(name):
                    told += self._tell(stream, reason, placeable)
        for stream in self._table.short():
            told += self._tell(stream, "set is short of servers", placeable)
        return told

    def _reason(self, name: str) -> str:
        server = self._servers.get(name)
        if server is None or server.is_lost:
            return f"server {name} lost"
        if server.trouble:
            return f"server {name}: {server.trouble}"
        return f"server {name} leaving"

    def _tell(self, stream_id: StreamId, reason: str, placeable: int) -> bool:
        stream: Stream | None = self._table.get(stream_id)
        if stream is None or stream.head.open is None or stream.lost:
            return False
        head = stream.head
        if placeable < head.policy.replicas or stream.head.open.id.epoch != head.epoch:
            return False
        return self._elections.tell_leader(
            stream, RollWanted(stream_id, stream.head.open.id, reason)
        )
