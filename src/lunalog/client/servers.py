"""One connection per journal server, shared by every stream of this client.

A connection is dialled when somebody needs it, and again with jittered backoff after it failed.
APPEND, ACK and MARK name a segment by slot; whoever opened a slot owns it and hears of its acks, of
its refusal and of the loss of its connection.

Source: design.md sections 5 and 10; R3, R14, N5, N8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from lunalog.client.backoff import Backoff
from lunalog.client.pulse import Pulse
from lunalog.client.wanting import ServersWanted
from lunalog.config import ClientConfig
from lunalog.core.rolling import LeaderSettings
from lunalog.errors import (
    ClosedError,
    LunalogError,
    NotLeaderError,
    PeerError,
    ServerUnavailableError,
    WrongClusterError,
)
from lunalog.runtime import Runtime, Tasks
from lunalog.types import ServerAddress, StreamId
from lunalog.wire import codec, dialing
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.messages import AppendRefused, Hello, LeaderAnswer, LeaderAsked, Message


class SlotOwner(Protocol):
    """Whoever opened a slot on a connection; called on the loop."""

    def on_ack(self, end: int) -> None:
        """Everything of the slot's segment below `end` is durable at the server."""
        ...

    def on_paused(self) -> None:
        """The connection has more to send than it likes."""
        ...

    def on_drained(self) -> None:
        """The connection takes more again."""
        ...

    def on_refused(self, error: LunalogError) -> None:
        """The server takes no more frames of this slot before it is opened again."""
        ...

    def on_lost(self, error: LunalogError) -> None:
        """The connection is gone, and the slot with it."""
        ...


class StreamLeader(Protocol):
    """Whoever leads a stream here."""

    def on_leader_asked(self, connection: Connection, message: LeaderAsked) -> None:
        """A follower asks for a read point, through this server (R14)."""
        ...


class Dialling:
    """What all who want a connection to one server wait for, and what dials it for them now."""

    __slots__ = ("attempt", "found")

    def __init__(self) -> None:
        self.found: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self.attempt: asyncio.Task[None] | None = None
        """What dials now; replaced when the server has moved."""


class ServerLink(Handler):
    """The connection to one server, or the attempts at one."""

    def __init__(self, links: ServerLinks, server: ServerAddress) -> None:
        self.links = links
        self.server = server
        self.connection: Connection | None = None
        self.slots: dict[int, SlotOwner] = {}
        self.has_acked = False
        """True once the server has acknowledged anything since that was asked last."""
        self.retry_at = 0.0
        """No dialling before this time."""
        self.error: LunalogError | None = None
        """Why the last attempt failed."""
        self.dialling: Dialling | None = None
        self.backoff = Backoff(links.runtime, links.config.retry_ms_max)

    def __repr__(self) -> str:
        return f"<ServerLink to {self.server.member}, {self.connection or 'not connected'}>"

    def on_ack(self, connection: Connection, slot: int, end: int) -> None:
        """Tell the slot's owner; acks of slots that were closed come late and say nothing."""
        self.has_acked = True
        owner = self.slots.get(slot)
        if owner is not None:
            owner.on_ack(end)

    def on_push(self, connection: Connection, message: Message) -> None:
        """Route what a server says unasked."""
        if isinstance(message, AppendRefused):
            owner = self.slots.pop(message.slot, None)
            if owner is not None:
                owner.on_refused(codec.error_of(message.failure))
        elif isinstance(message, LeaderAsked):
            leader = self.links.leaders.get(message.stream)
            if leader is not None:
                leader.on_leader_asked(connection, message)
            else:
                nobody = NotLeaderError("this client does not lead that stream")
                connection.push(LeaderAnswer(message.token, 0, codec.failure_of(nobody)))
        else:
            super().on_push(connection, message)

    def on_paused(self, connection: Connection) -> None:
        """Tell all owners to send no more for now."""
        if self.connection is connection:
            for owner in self.slots.values():
                owner.on_paused()

    def on_drained(self, connection: Connection) -> None:
        """Tell all owners that they may go on, each time another one first: it may be enough for one."""
        if self.connection is not connection:
            return
        owners = list(self.slots.values())  # one of them may close its slot at that
        for number in list(self.slots)[:1]:
            self.slots[number] = self.slots.pop(number)
        for owner in owners:
            owner.on_drained()

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """Tell all owners that their slots are gone."""
        if self.connection is not connection:
            return
        self.connection = None
        self.error = error
        slots, self.slots = self.slots, {}
        for owner in slots.values():
            owner.on_lost(error)


class ServerLinks:
    """Every journal server that this client talks to."""

    def __init__(
        self,
        runtime: Runtime,
        cluster: str,
        peer: str,
        incarnation: bytes,
        config: ClientConfig,
    ) -> None:
        self.runtime = runtime
        self.config = config
        self.leaders: dict[StreamId, StreamLeader] = {}
        self.queued_bytes = 0
        """Of frames since connections were last flushed, also what left with its turn."""
        self.wanted = ServersWanted()
        self.pulse = Pulse(
            LeaderSettings(config.roll_ack_timeout_ms).tick_s, self.take_silent, runtime.fail
        )
        self._cluster = cluster
        self._peer = peer
        self._incarnation = incarnation
        self._links: dict[str, ServerLink] = {}
        self._tasks = Tasks(runtime)
        self._next_slot = 1
        self._is_closed = False

    def learn(self, servers: Iterable[ServerAddress]) -> None:
        """Note where servers listen now; an older incarnation's address changes nothing."""
        for server in servers:
            link = self._links.get(server.member.server)
            if link is None:
                self._links[server.member.server] = ServerLink(self, server)
            elif server.member.incarnation >= link.server.member.incarnation:
                has_moved = server.address != link.server.address
                link.server = server
                if has_moved:
                    link.retry_at = 0.0
                    link.backoff.reset()
                    if link.dialling is not None:  # nobody may answer there for a long time
                        self._dial(link, link.dialling)

    def address_of(self, name: str) -> ServerAddress | None:
        """Where `name` listens, as far as is known."""
        link = self._links.get(name)
        return link.server if link is not None else None

    def link(self, name: str) -> ServerLink | None:
        """The link to `name`, if its address is known."""
        return self._links.get(name)

    def new_slot(self) -> int:
        """Return a slot number that no connection of this client has used."""
        self._next_slot += 1
        return self._next_slot

    def pause_s(self, name: str) -> float:
        """How long to wait before another attempt at `name`."""
        link = self._links.get(name)
        if link is None:
            return self.config.retry_ms_max / 1000
        return max(0.0, link.retry_at - self.runtime.now())

    def take_silent(self) -> frozenset[str]:
        """Name servers with slots that have acknowledged nothing since the last call."""
        links = self._links.items()
        found = frozenset(name for name, link in links if link.slots and not link.has_acked)
        for link in self._links.values():
            link.has_acked = False
        return found

    async def connection(self, server: ServerAddress) -> Connection:
        """Return an open connection to `server`, dialling it if there is none.

        Raises:
            ServerUnavailableError: It cannot be reached now; for a moment after a failed attempt this
                is said at once.
            ClosedError: These links are closed.
        """
        self.learn((server,))
        return await self.connection_to(server.member.server)

    async def connection_to(self, name: str) -> Connection:
        """As `connection`, at the address that is known for `name`."""
        if self._is_closed:
            raise ClosedError("this journal is closed")
        link = self._links.get(name)
        if link is None:
            raise ServerUnavailableError(f"no address of server {name} is known", server=name)
        if link.connection is not None:
            return link.connection
        if link.dialling is None:
            if self.runtime.now() < link.retry_at:
                raise ServerUnavailableError(
                    f"server {name} could not be reached a moment ago: {link.error}", server=name
                )
            link.dialling = Dialling()
            self._dial(link, link.dialling)
        return await asyncio.shield(link.dialling.found)

    def _dial(self, link: ServerLink, dialling: Dialling) -> None:
        """Dial where the server is now, and no more where it was."""
        if dialling.attempt is not None:
            dialling.attempt.cancel()
        name = f"dial-{link.server.member.server}"
        dialling.attempt = self._tasks.start(self._attempt(link, dialling), name)

    async def _attempt(self, link: ServerLink, dialling: Dialling) -> None:
        server = link.server
        error: LunalogError | None = None
        try:
            found = await dialing.dial(
                self.runtime,
                server.address,
                self._hello(),
                link,
                timeout=self.config.connect_timeout_ms / 1000,
            )
            error = self._refusal(found, server)
            if error is None and found.closed_by is None:
                link.connection = found
                link.backoff.reset()
            else:
                found.close()
                error = error or found.closed_by
        except LunalogError as failed:
            error = failed
        finally:
            if dialling.attempt is asyncio.current_task():  # else it was given up
                self._dialled(link, dialling.found, error)

    def _dialled(
        self, link: ServerLink, found: asyncio.Future[Connection], error: LunalogError | None
    ) -> None:
        link.dialling = None
        if link.connection is None:
            name = link.server.member.server
            link.error = error
            link.retry_at = self.runtime.now() + link.backoff.next_s()
            failed = ServerUnavailableError(f"server {name}: {error}", server=name)
            found.set_exception(failed)
            found.exception()  # seen, if nobody waits any more
        else:
            found.set_result(link.connection)

    def _hello(self) -> Hello:
        return Hello(
            codec.VERSION_MIN,
            codec.VERSION_MAX,
            self._cluster,
            "client",
            self._peer,
            self._incarnation,
            self.runtime.random_bytes(16),
        )

    def _refusal(self, found: Connection, server: ServerAddress) -> LunalogError | None:
        """Why this is not the server that was meant: an address may have a new owner by now."""
        welcome = found.peer
        if welcome is None:
            return PeerError("no handshake")
        if self._cluster and welcome.cluster != self._cluster:
            return WrongClusterError(f"{server.address} belongs to cluster {welcome.cluster}")
        if welcome.role != "server" or welcome.name != server.member.server:
            return WrongClusterError(f"{server.address} is {welcome.role} {welcome.name} now")
        return None

    async def aclose(self) -> None:
        """Close every connection.  Idempotent."""
        self._is_closed = True
        for name in sorted(self._links):
            link = self._links[name]
            if link.connection is not None:
                link.connection.close()
            dialling = link.dialling
            if dialling is not None:  # a task that has not begun yet tells nobody
                dialling.attempt = None
                self._dialled(link, dialling.found, ClosedError("this journal is closed"))
        await self._tasks.cancel()
