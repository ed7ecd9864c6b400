"""Who may come in, and which part of the master answers which message.

Source: design.md section 7; O4, H1, H2.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from lunalog.errors import (
    InvariantError,
    LunalogError,
    NotActiveError,
    OverloadedError,
    PeerError,
    UsageError,
    WrongClusterError,
)
from lunalog.master.servers import Server
from lunalog.types import Peer, check_node_name
from lunalog.wire.codec import agreed_version
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.messages import (
    ClientBeat,
    ClientBeatReply,
    CreateStream,
    DeleteStream,
    Done,
    EndSession,
    GetHealth,
    GetServers,
    GetStream,
    Hello,
    ListStreams,
    Message,
    Ping,
    Propose,
    Registered,
    RegisterServer,
    Release,
    ScaleServers,
    SealSegment,
    ServerBeat,
    ServerBeatReply,
    Transfer,
    Truncate,
    UnwatchStream,
    WatchStream,
    Welcome,
)

if TYPE_CHECKING:
    from lunalog.master.service import Master

ROLES: Final = ("client", "server", "admin", "master")
INCARNATION_BYTES: Final = 16
LIFE_BYTES: Final = 16
REQUESTS_PER_CONNECTION_MAX: Final = 10_000
"""Changes under way that one connection may have (H7)."""


class Doorway:
    """Answers handshakes and knows every connection."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._connections: dict[Connection, None] = {}
        self._requests = 0
        self._life = master.runtime.random_bytes(LIFE_BYTES)
        """What no other start of a master has drawn."""

    def welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        """Look at who dialled; raises what to refuse it with."""
        cluster = self._master.cluster
        if hello.cluster and hello.cluster != cluster:
            raise WrongClusterError(
                f"this is cluster {cluster}, not {hello.cluster}: check the master's address, or use "
                "the data directory that belongs to this cluster"
            )
        if hello.role not in ROLES:
            raise PeerError(f"unknown role {hello.role!r:.40}")
        if len(self._connections) >= self._room_for(hello.role):
            raise OverloadedError("this master has as many connections as it may: try again")
        arrival = self.next_number()
        nonce = self._life + arrival.to_bytes(8)
        welcome = Welcome(agreed_version(hello), cluster, "master", "master", nonce=nonce)
        if hello.role == "server":
            return welcome, ServerDoor(self._master, self, arrival, nonce)
        if hello.role != "client":
            return welcome, Door(self._master, self, Peer(hello.name[:64], b""))
        peer = Peer(check_node_name(hello.name), hello.incarnation)
        if len(peer.incarnation) != INCARNATION_BYTES:
            raise UsageError(f"a client's incarnation has {INCARNATION_BYTES} bytes (R2)")
        self._master.sessions.admit(peer)
        return welcome, ClientDoor(self._master, self, peer, hello.purpose, nonce)

    def _room_for(self, role: str) -> int:
        """How many connections there may be; clients leave some to servers and administrators."""
        most = self._master.config.connections_max
        return most - most // 10 if role == "client" else most

    def next_number(self) -> int:
        """Number a change or a connection: tasks have names in order, and no nonce comes twice (N8)."""
        self._requests += 1
        return self._requests

    def opened(self, connection: Connection) -> None:
        """Note a connection."""
        self._connections[connection] = None

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def close_all(self) -> None:
        """End every connection, telling why."""
        for connection in list(self._connections):
            connection.close(NotActiveError("the master stops"))


Answer = Callable[[Connection, Any], Message]
Work = Callable[[Connection, Any], Coroutine[Any, Any, Message]]


class Door(Handler):
    """What everybody may ask: the handler of one connection."""

    def __init__(self, master: Master, doorway: Doorway, peer: Peer) -> None:
        self._master = master
        self._doorway = doorway
        self._peer = peer
        self._under_way = 0
        operations = master.operations
        self._answers: dict[type, Answer] = {
            Ping: lambda _, __: Done(),
            GetStream: lambda _, message: operations.get(message),
            ListStreams: lambda _, message: operations.page(message),
            WatchStream: lambda at, message: operations.watch(at, peer, message),
            UnwatchStream: lambda at, message: operations.unwatch(at, message.stream),
            Propose: lambda _, message: operations.propose(message),
            GetServers: lambda _, __: master.list_servers(),
            GetHealth: lambda _, __: master.health(),
        }
        self._works: dict[type, Work] = {
            CreateStream: lambda _, message: operations.create(message),
            DeleteStream: lambda _, message: operations.delete(message),
            SealSegment: lambda _, message: operations.seal(message),
            Truncate: lambda _, message: operations.truncate(message),
            Release: lambda _, message: operations.release(message),
            Transfer: lambda _, message: operations.transfer(message),
            ScaleServers: lambda _, message: master.scale(message),
        }

    def on_open(self, connection: Connection) -> None:
        """Note the connection."""
        self._doorway.opened(connection)

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """Forget what it watched and stood for."""
        self._doorway.closed(connection)
        for stream in self._master.publisher.closed(connection):
            self._master.elections.step_down(stream, connection)

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        """Answer now, or start what will."""
        kind = type(message)
        answer = self._answers.get(kind)
        work = self._works.get(kind)
        if answer is None and work is None:
            raise PeerError(f"a master does not answer {kind.__name__} here")
        try:
            if answer is not None:
                connection.reply(request, answer(connection, message))
            elif work is not None:
                self._start(connection, request, work(connection, message), kind.__name__)
        except (PeerError, InvariantError):
            raise
        except LunalogError as error:
            connection.fail(request, error)

    def _start(
        self, connection: Connection, request: int, work: Coroutine[Any, Any, Message], name: str
    ) -> None:
        if self._under_way >= REQUESTS_PER_CONNECTION_MAX:
            work.close()
            raise OverloadedError("too many requests of this connection are under way")
        self._under_way += 1
        number = self._doorway.next_number()
        _ = self._master.tasks.start(
            self._answer(connection, request, work), f"{name}-{number:012}"
        )

    async def _answer(
        self, connection: Connection, request: int, work: Coroutine[Any, Any, Message]
    ) -> None:
        try:
            connection.reply(request, await work)
        except InvariantError:
            raise
        except LunalogError as error:
            connection.fail(request, error)
        finally:
            self._under_way -= 1


class ClientDoor(Door):
    """One client's main or heartbeat connection."""

    def __init__(
        self, master: Master, doorway: Doorway, peer: Peer, purpose: str, nonce: bytes
    ) -> None:
        super().__init__(master, doorway, peer)
        self._purpose = purpose
        self._nonce = nonce
        self._answers[ClientBeat] = self._beat
        self._answers[EndSession] = lambda _, __: master.sessions.end(peer)

    def on_open(self, connection: Connection) -> None:
        """Note the connection for its session."""
        super().on_open(connection)
        self._master.sessions.opened(connection, self._peer, self._purpose)

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """Begin the grace of the session, if this was its heartbeat."""
        super().on_closed(connection, error)
        self._master.sessions.closed(connection, self._peer, self._purpose)

    def _beat(self, connection: Connection, message: ClientBeat) -> ClientBeatReply:
        if message.nonce != self._nonce:  # whoever lived then would end its successor (R2)
            raise NotActiveError("this beat belongs to another connection")
        return self._master.sessions.beat(connection, self._peer, message)


class ServerDoor(Door):
    """One journal server's connection."""

    def __init__(self, master: Master, doorway: Doorway, arrival: int, nonce: bytes) -> None:
        super().__init__(master, doorway, Peer("", b""))
        self._server: Server | None = None
        self._arrival = arrival
        self._nonce = nonce
        self._works[RegisterServer] = self._register
        self._works[ServerBeat] = self._beat

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """The server may be gone."""
        super().on_closed(connection, error)
        self._master.servers.closed(connection)

    async def _register(self, connection: Connection, message: RegisterServer) -> Registered:
        if message.nonce != self._nonce:  # it would cost the server its incarnation (R19)
            raise NotActiveError("this registration belongs to another connection")
        master = self._master
        server = await master.servers.register(connection, self._arrival, message, master.now())
        if connection.closed_by is not None:
            master.servers.closed(connection)
        self._server = server
        master.commands.registered(server, message.facts)
        return Registered(master.cluster, server.member.incarnation, master.config.heartbeat_ms)

    async def _beat(self, connection: Connection, message: ServerBeat) -> ServerBeatReply:
        master, server = self._master, self._server
        if server is None or server.connection is not connection:
            raise NotActiveError("register first")
        await master.servers.beat(server, message, master.now())
        if server.connection is not connection:  # what it says is of the disk that was there before
            raise NotActiveError("register again")
        master.commands.confirmed(server, message.confirmed)
        master.commands.facts(server, message.facts)
        reconciler = master.reconciler
        may_exit = reconciler is not None and reconciler.may_exit(server.member.server)
        return ServerBeatReply(master.commands.due(server), may_exit)
