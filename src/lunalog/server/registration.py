"""A server and its master: registration, heartbeats with what changed, commands carried out.

The data path does not wait for the master; only a server that has just started does, until it is
registered (R19).  Facts go as deltas since the last confirmed beat, whole at registration.

Source: design.md sections 4 and 6; R10, R18, R19, R21, R22, R30.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence as Run
from typing import TYPE_CHECKING, Final

import msgspec

from lunalog.errors import (
    InvariantError,
    LunalogError,
    MasterUnavailableError,
    UsageError,
    WrongClusterError,
)
from lunalog.runtime import Address, to_the_end
from lunalog.server.commands import Commands
from lunalog.storage import identity
from lunalog.types import SegmentId, StreamId
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import dial
from lunalog.wire.messages import (
    Registered,
    RegisterServer,
    SegmentFact,
    ServerBeat,
    ServerBeatReply,
)
from lunalog.wording import shown

if TYPE_CHECKING:
    from lunalog.core.held import SegmentReplica
    from lunalog.server.process import JournalServer

logger = logging.getLogger("lunalog.server")
REQUEST_TIMEOUT_S: Final = 5.0
REDIAL_S_MIN: Final = 0.1
REDIAL_S_MAX: Final = 2.0
FACTS_PER_BEAT: Final = 5_000
FACTS_MAX: Final = 20_000
"""In one message: 2 MB at most, so that it is below the limit of a control message."""
FATAL: Final = (WrongClusterError, UsageError, InvariantError)
"""What no further try will change."""

Key = tuple[StreamId, SegmentId]


class Registration:
    """One server's side of its master."""

    def __init__(self, server: JournalServer, masters: Run[Address]) -> None:
        self._server = server
        self._masters = tuple(masters)
        self._changed: dict[Key, None] = {}
        self._commands = Commands(server)
        self._told = ""
        self.left = asyncio.Event()
        self.registered = asyncio.Event()

    def touched(self, stream: StreamId, segment: SegmentId) -> None:
        """What is held of a segment has changed: the next beat tells."""
        self._changed[stream, segment] = None

    def completed(self, stream: StreamId, segment: SegmentId) -> None:
        """A replica is complete: its certificate's order is done."""
        self.touched(stream, segment)
        self._commands.completed(stream, segment)

    async def run(self) -> None:
        """Stay registered, for as long as the server lives."""
        pause = REDIAL_S_MIN
        attempt = 0
        while not self.left.is_set():
            address = self._masters[attempt % len(self._masters)]
            attempt += 1
            try:
                connection = await dial(
                    self._server.runtime,
                    address,
                    self._server.hello(),
                    Handler(),
                    unreachable=MasterUnavailableError,
                )
            except FATAL:
                raise
            except LunalogError as error:
                self._tell("master_unreachable", address, error)
            else:
                try:
                    await self._serve(connection)
                    pause = REDIAL_S_MIN
                except FATAL:
                    raise
                except LunalogError as error:
                    self._tell("master_lost", address, error)
                finally:
                    connection.close()
            await asyncio.sleep(pause * (0.5 + self._server.runtime.random.random()))
            pause = min(2 * pause, REDIAL_S_MAX)

    def _tell(self, event: str, master: Address, error: LunalogError) -> None:
        """Log what keeps the server from its master; the same again is not worth a warning."""
        level = logging.DEBUG if str(error) == self._told else logging.WARNING
        self._told = str(error)
        logger.log(level, event, extra={"master": shown(master), "why": str(error)})

    # ------------------------------------------------------------------ registration

    async def _serve(self, connection: Connection) -> None:
        registered = await self._register(connection)
        await self._adopt(registered)
        self.registered.set()
        self._told = ""
        logger.info(
            "server_registered",
            extra={"server": self._server.name, "incarnation": registered.incarnation},
        )
        interval = min(registered.heartbeat_ms, self._server.config.heartbeat_ms) / 1000
        while not self.left.is_set():
            await self._beat(connection)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self.left.wait()

    async def _register(self, connection: Connection) -> Registered:
        server = self._server
        held = self._held()
        self._changed = dict.fromkeys(held[FACTS_MAX:])  # the first beats tell the rest
        request = RegisterServer(
            server.name,
            server.identity.incarnation,
            server.identity.boot,
            self._position(),
            server.log.may_have_lost,
            server.config.host,
            server.address[1],
            server.config.labels,
            tuple(self._fact_of(*key) for key in held[:FACTS_MAX]),
            server.runtime.process_id(),
            connection.peer_nonce,
        )
        found: Registered = await connection.request(request, timeout=REQUEST_TIMEOUT_S)
        return found

    def _position(self) -> int:
        """How far the log reaches; at first as the disk had it, without what starts wrote (R19)."""
        server = self._server
        return (
            server.log.synced_position
            if self.registered.is_set()
            else server.identity.found_position
        )

    async def _adopt(self, registered: Registered) -> None:
        """Take the incarnation that the master gave, durably, before anything is served under it."""
        server = self._server
        known = server.identity
        fresh = msgspec.structs.replace(
            known,
            cluster=registered.cluster,
            incarnation=registered.incarnation,
            found_position=identity.ADMITTED,
        )
        if known.cluster and known.cluster != registered.cluster:
            raise WrongClusterError(
                f"{server.name} belongs to cluster {known.cluster}, the master to {registered.cluster}"
            )
        if fresh != known:
            await to_the_end(server.runtime.offload(identity.store(server.disk, fresh)))
            server.identity = fresh
        if server.log.may_have_lost:
            await server.log.accept_loss()
        server.replica.incarnation = fresh.incarnation

    def _held(self) -> list[Key]:
        streams = self._server.replica.streams
        return [(stream, segment) for stream in streams for segment in streams[stream].segments]

    def facts(self) -> tuple[SegmentFact, ...]:
        """Everything that is held, up to what fits into one message."""
        return tuple(self._fact_of(*key) for key in self._held()[:FACTS_MAX])

    def _fact(self, stream: StreamId, held: SegmentReplica) -> SegmentFact:
        state = self._server.replica.streams[stream]
        if held.is_complete:
            name = "complete"
        elif held.certificate is not None:
            name = "sealed"
        else:
            name = "open"
        return SegmentFact(
            stream,
            held.id,
            held.generation,
            held.first,
            held.durable,
            held.committed,
            name,
            state.synced_promise.epoch,
        )

    # ------------------------------------------------------------------ beats

    async def _beat(self, connection: Connection) -> None:
        server = self._server
        keys = list(self._changed)[:FACTS_PER_BEAT]
        for key in keys:
            del self._changed[key]
        confirmed = tuple(self._commands.confirmed)
        beat = ServerBeat(
            server.identity.incarnation,
            server.identity.boot,
            server.log.synced_position,
            server.free_bytes,
            server.total_bytes,
            server.take_rate(),
            tuple(self._fact_of(*key) for key in keys),
            confirmed,
            "disk_full" if server.log.is_full else "",
        )
        try:
            reply: ServerBeatReply = await connection.request(beat, timeout=REQUEST_TIMEOUT_S)
        except LunalogError:
            self._changed.update(dict.fromkeys(keys))
            raise
        for number in confirmed:
            self._commands.confirmed.pop(number, None)
        for command in reply.commands:
            self._commands.carry_out(command)
        if reply.is_leaving:
            logger.info("server_left", extra={"server": server.name})
            self.left.set()
        await server.look_at_disk()

    def _fact_of(self, stream: StreamId, segment: SegmentId) -> SegmentFact:
        held = self._server.replica.find(stream, segment)
        if held is not None:
            return self._fact(stream, held)
        state = self._server.replica.streams.get(stream)
        epoch = state.synced_promise.epoch if state is not None else 0
        return SegmentFact(stream, segment, 0, 0, 0, 0, "dropped", epoch)
