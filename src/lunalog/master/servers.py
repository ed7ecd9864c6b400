"""Journal servers as the master knows them: who is there, where, how loaded.

Source: design.md sections 4 and 12; R18, R19, P6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec

from lunalog import limits
from lunalog.core.placement import Site
from lunalog.errors import NotActiveError, UsageError, WrongIncarnationError
from lunalog.master.metadata import Metadata
from lunalog.master.records import ServerRecord
from lunalog.types import Member, ServerAddress, check_node_name
from lunalog.wire.connection import Connection
from lunalog.wire.messages import RegisterServer, ServerBeat, ServerStatus

POSITION_EVERY_S: Final = 5.0
"""The reported log position is made durable at most this often (R19)."""
LABELS_MAX: Final = 32


class Server:
    """One server: its durable record is in `Metadata.servers`, the rest is soft."""

    __slots__ = (
        "append_bytes_per_s", "beat_at", "connection", "free_bytes", "has_adopted", "is_lost",
        "member", "pid", "position_at", "synced_position", "total_bytes", "trouble",
    )  # fmt: skip

    def __init__(self, record: ServerRecord, now: float) -> None:
        self.member = Member(record.name, record.incarnation)
        self.connection: Connection | None = None
        self.beat_at = now
        """Last sign of life; the master's start for one that has not come yet."""
        self.is_lost = False
        self.has_adopted = False
        """True once its incarnation is on its disk; else it may come back without ever knowing it."""
        self.synced_position = record.synced_position
        self.position_at = now
        self.free_bytes = 0
        self.total_bytes = 0
        self.append_bytes_per_s = 0
        self.trouble = ""
        self.pid = 0


class Servers:
    """All servers that were ever registered here and are not retired.

    Args:
        metadata: Loaded.
        lost_s: Without a beat for this long a server is lost.
        now: By the clock that all times here are of.
    """

    def __init__(self, metadata: Metadata, lost_s: float, now: float) -> None:
        self._metadata = metadata
        self._lost_s = lost_s
        self._servers: dict[str, Server] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._arrivals: dict[str, int] = {}
        self.on_changed: Callable[[str], None] = lambda name: None
        """Called with the name of a server that came, moved, was lost, or began to leave."""
        for name in sorted(metadata.servers):
            if not metadata.servers[name].is_retired:
                self._servers[name] = Server(metadata.servers[name], now)

    def __contains__(self, name: str) -> bool:
        return name in self._servers

    def get(self, name: str) -> Server | None:
        """Return a server that is not retired."""
        return self._servers.get(name)

    def names(self) -> list[str]:
        """All names, in order."""
        return sorted(self._servers)

    def is_known(self, name: str) -> bool:
        """True when a server of this name was ever registered."""
        return name in self._metadata.servers

    # ------------------------------------------------------------------ registration

    async def register(
        self, connection: Connection, arrival: int, request: RegisterServer, now: float
    ) -> Server:
        """Admit a server, under a new incarnation where its disk may not be what it was (R18, R19).

        What it learns is durable before it does: a crash before the answer leaves an incarnation that
        nobody uses, and the repeated request gets one more.

        `arrival` orders connections by their hello.  The request of a process that died meanwhile may
        come after its successor's (N3), and says nothing of the disk: it is refused.
        """
        name = check_node_name(request.name)
        numbers = request.incarnation, request.boot, request.synced_position
        if max(numbers) >= limits.SEQUENCE_MAX:  # one more must fit
            raise UsageError(f"server {name!r} registers with senseless numbers")
        if len(request.labels) > LABELS_MAX:
            raise UsageError(f"server {name!r} has more than {LABELS_MAX} labels")
        async with self._locks.setdefault(name, asyncio.Lock()):
            if arrival < self._arrivals.get(name, 0):
                raise NotActiveError(f"a newer start of server {name!r} has registered")
            self._arrivals[name] = arrival
            while True:
                record = self._admit(request)
                if record == self._metadata.servers.get(name):
                    break
                if await self._metadata.put_server(record):
                    break
        server = self._servers.get(name)
        if server is None:
            server = self._servers[name] = Server(record, now)
        before, server.connection = server.connection, connection
        if before is not None and before is not connection:
            before.close(NotActiveError(f"server {name!r} has registered again"))
        server.member = Member(name, record.incarnation)
        server.has_adopted = request.incarnation == record.incarnation
        server.synced_position = request.synced_position
        server.beat_at = now
        server.is_lost = False
        server.pid = request.pid
        self.on_changed(name)
        return server

    def _admit(self, request: RegisterServer) -> ServerRecord:
        known = self._metadata.servers.get(request.name)
        fresh = ServerRecord(
            request.name,
            1,
            request.boot,
            request.synced_position,
            request.host,
            request.port,
            request.labels,
        )
        if known is None:
            return msgspec.structs.replace(fresh, incarnation=max(1, request.incarnation + 1))
        soft = self._servers.get(request.name)
        position = max(known.synced_position, soft.synced_position if soft is not None else 0)
        is_the_same = (
            request.incarnation == known.incarnation
            and request.boot >= known.boot
            and request.synced_position >= position
            and not request.may_have_lost
            and not known.is_retired
        )
        return msgspec.structs.replace(
            fresh,
            incarnation=known.incarnation
            if is_the_same
            else max(known.incarnation, request.incarnation) + 1,
            is_leaving=known.is_leaving and not known.is_retired,
        )

    async def beat(self, server: Server, beat: ServerBeat, now: float) -> None:
        """Take a sign of life in."""
        name = server.member.server
        known = self._metadata.servers[name]
        if beat.incarnation != server.member.incarnation or beat.boot != known.boot:
            raise WrongIncarnationError(
                f"server {name!r} is registered as incarnation {server.member.incarnation}, boot "
                f"{known.boot}: register again",
                incarnation=server.member.incarnation,
            )
        server.beat_at = now
        server.free_bytes, server.total_bytes = beat.free_bytes, beat.total_bytes
        server.append_bytes_per_s = beat.append_bytes_per_s
        server.trouble = beat.trouble[:64]
        server.synced_position = max(server.synced_position, beat.synced_position)
        if server.is_lost or not server.has_adopted:
            server.is_lost, server.has_adopted = False, True
            self.on_changed(name)
        if server.synced_position > known.synced_position and (
            now - server.position_at >= POSITION_EVERY_S
        ):
            server.position_at = now
            await self._keep_position(known, server.synced_position)

    async def _keep_position(self, known: ServerRecord, position: int) -> None:
        """Make durable how far a log reaches, unless a registration has said more of it meanwhile."""
        name = known.name
        async with self._locks.setdefault(name, asyncio.Lock()):
            while True:
                record = self._metadata.servers[name]
                is_the_same = (record.incarnation, record.boot) == (known.incarnation, known.boot)
                if not is_the_same or record.synced_position >= position:
                    return
                newer = msgspec.structs.replace(record, synced_position=position)
                if await self._metadata.put_server(newer):
                    return

    async def _change(self, name: str, **fields: object) -> None:
        async with self._locks.setdefault(name, asyncio.Lock()):
            while True:
                record = msgspec.structs.replace(self._metadata.servers[name], **fields)
                if await self._metadata.put_server(record):
                    return

    # ------------------------------------------------------------------ liveness

    def closed(self, connection: Connection) -> None:
        """Note that a server's connection is gone; it takes no new segments until it is back."""
        for name, server in self._servers.items():
            if server.connection is connection:
                server.connection = None
                self.on_changed(name)

    def judge(self, now: float) -> None:
        """Find out who is lost."""
        for name, server in self._servers.items():
            if not server.is_lost and now - server.beat_at >= self._lost_s:
                server.is_lost = True
                self.on_changed(name)

    def is_placeable(self, name: str) -> bool:
        """True when new segments may go there."""
        server = self._servers.get(name)
        return (
            server is not None
            and server.connection is not None
            and server.has_adopted
            and not server.is_lost
            and not server.trouble
            and not self._metadata.servers[name].is_leaving
        )

    def is_wanted_off(self, name: str) -> bool:
        """True when open segments should roll away from this server."""
        server = self._servers.get(name)
        return (
            server is None
            or server.is_lost
            or bool(server.trouble)
            or self._metadata.servers[name].is_leaving
        )

    def count_placeable(self) -> int:
        """How many servers take new segments now."""
        return sum(map(self.is_placeable, self._servers))

    def sites(self, exclude: Collection[str] = ()) -> list[Site]:
        """Return what placement may choose from."""
        found = []
        for name in self.names():
            if name in exclude or not self.is_placeable(name):
                continue
            server = self._servers[name]
            found.append(
                Site(
                    member=server.member,
                    labels=self._metadata.servers[name].labels,
                    open_segments=self._metadata.table.count_open_on(name),
                    append_bytes_per_s=server.append_bytes_per_s,
                    free_bytes=server.free_bytes,
                    total_bytes=server.total_bytes,
                )
            )
        return found

    # ------------------------------------------------------------------ leaving

    async def leave(self, name: str, *, is_leaving: bool) -> None:
        """Begin to leave, or stay after all; durable."""
        if self._metadata.servers[name].is_leaving != is_leaving:
            await self._change(name, is_leaving=is_leaving)
            self.on_changed(name)

    async def retire(self, name: str) -> None:
        """Forget a server that nothing needs; its name comes back as a new incarnation only."""
        await self._change(name, is_retired=True, is_leaving=False)
        server = self._servers.pop(name, None)
        if server is not None and server.connection is not None:
            server.connection.close()

    # ------------------------------------------------------------------ for others

    def address(self, name: str) -> ServerAddress | None:
        """Where a server listens, and whether it is heard from."""
        record = self._metadata.servers.get(name)
        if record is None:
            return None
        server = self._servers.get(name)
        is_alive = server is not None and not server.is_lost
        return ServerAddress(Member(name, record.incarnation), record.host, record.port, is_alive)

    def addresses(self, names: Iterable[str]) -> tuple[ServerAddress, ...]:
        """Addresses of those that are known, in the given order."""
        return tuple(found for name in names if (found := self.address(name)) is not None)

    def status(self, name: str) -> ServerStatus:
        """What people are shown of a server."""
        record, server = self._metadata.servers[name], self._servers[name]
        state = "alive"
        if server.is_lost:
            state = "lost"
        elif record.is_leaving:
            state = "leaving"
        table = self._metadata.table
        return ServerStatus(
            ServerAddress(server.member, record.host, record.port, not server.is_lost),
            record.labels,
            state,
            server.free_bytes,
            server.total_bytes,
            server.append_bytes_per_s,
            table.count_open_on(name),
            table.count_sealed_on(name),
            record.boot,
            server.pid,
        )
