"""What a leader asks of the master, and the certificates it sends once a segment is sealed.

Source: R1, R8, R11, R15, R21, R28, R31.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from lunalog.client.backoff import Backoff
from lunalog.client.servers import ServerLinks
from lunalog.client.watch import StreamWatch
from lunalog.config import ClientConfig
from lunalog.core import effects
from lunalog.core.effects import Effect
from lunalog.core.leadership import LeaderMachine
from lunalog.errors import (
    AvailabilityError,
    ClosedError,
    LunalogError,
    NotEnoughServersError,
    StreamNotFoundError,
)
from lunalog.runtime import Runtime, Tasks
from lunalog.types import Epoch, Member, Peer, Promise
from lunalog.wire.messages import Certify, GetStream, Message, Propose, Release, SealSegment

CERTIFY_TIMEOUT_S: Final = 5.0
logger = logging.getLogger("lunalog.client")


class MasterCalls(Protocol):
    """What the leader needs of the link to the master."""

    peer: Peer

    async def request(self, message: Message, timeout: float | None = None) -> Any:
        """Ask again until answered or `timeout` seconds are over."""
        ...


class CallingLeadership(Protocol):
    """The leadership, as seen from here."""

    machine: LeaderMachine
    ended: asyncio.Future[LunalogError]
    hindrance: LunalogError | None

    @property
    def epoch(self) -> Epoch:
        """The epoch that was granted."""
        ...

    @property
    def promise(self) -> Promise:
        """Epoch and incarnation, as every request names them."""
        ...

    def feed(self, step: Callable[..., list[Effect]], *args: Any, **fields: Any) -> None:
        """Give the machine one input."""
        ...


class LeaderCalls:
    """The leader's side of its conversation with the master."""

    def __init__(
        self,
        runtime: Runtime,
        config: ClientConfig,
        links: ServerLinks,
        master: MasterCalls,
        watch: StreamWatch,
        tasks: Tasks,
        leadership: CallingLeadership,
    ) -> None:
        self._runtime = runtime
        self._config = config
        self._links = links
        self._master = master
        self._watch = watch
        self._tasks = tasks
        self._leadership = leadership
        self._name = watch.name
        self._stream = watch.stream
        self._has_wanted = False

    async def propose(self, effect: effects.ProposeSet) -> None:
        """Ask for servers."""
        machine, feed = self._leadership.machine, self._leadership.feed
        try:
            reply = await self._master.request(
                Propose(self._stream, self._leadership.promise, effect.exclude)
            )
        except LunalogError as error:
            if effect.is_needed:
                self._hindered(error)
                if isinstance(error, NotEnoughServersError) and effect.exclude:
                    await self._find_excluded()
            feed(machine.not_proposed, error, self._runtime.now())
            return
        self._leadership.hindrance = None
        self._links.wanted.end(self._stream)
        self._links.learn(reply.servers)
        members = tuple(server.member for server in reply.servers)
        feed(machine.proposed, members, self._runtime.now())

    async def _find_excluded(self) -> None:
        """Learn where those are now that are needed although they do not answer.

        A master that has started since they were proposed does not know that we wait for them.
        """
        try:
            reply = await self._master.request(Propose(self._stream, self._leadership.promise))
        except LunalogError as error:
            logger.debug("servers_not_found", extra={"stream": self._name, "why": str(error)})
        else:
            self._links.learn(reply.servers)

    def _hindered(self, error: LunalogError) -> None:
        """Tell people that appends wait for servers: they may see nothing else of it."""
        ended = self._leadership.ended
        if isinstance(error, NotEnoughServersError) and not ended.done():
            self._links.wanted.wait(
                self._stream, self._name, self._leadership.epoch, str(error), self._runtime.now()
            )
            if not self._has_wanted:
                self._has_wanted = True
                ended.add_done_callback(lambda _: self._links.wanted.end(self._stream))
        self._leadership.hindrance = error

    async def seal(self, seal: effects.Seal) -> None:
        """Send the identical transaction again until its outcome is known (R28)."""
        machine, feed = self._leadership.machine, self._leadership.feed
        message = SealSegment(
            self._stream,
            self._leadership.promise,
            seal.old,
            seal.row,
            seal.open,
            seal.next,
            seal.chain,
            seal.release,
            seal.reason,
        )
        backoff = Backoff(self._runtime, self._config.retry_ms_max)
        while machine.seal is seal and not self._leadership.ended.done():
            try:
                reply = await self._master.request(message)
            except ClosedError as error:
                feed(machine.lost, error)
                return
            except AvailabilityError as error:
                logger.debug("seal_unanswered", extra={"stream": self._name, "why": str(error)})
            except LunalogError as error:
                feed(machine.seal_refused, seal, error, self._runtime.now())
                return
            else:
                self._watch.note_head(reply.head)
                feed(machine.head_seen, reply.head, self._runtime.now())
            if machine.seal is seal:
                await asyncio.sleep(backoff.next_s())

    async def reread(self) -> None:
        """Fetch the head, fresh."""
        machine, feed = self._leadership.machine, self._leadership.feed
        try:
            reply = await self._master.request(GetStream(self._name))
            if reply.view.head.stream != self._stream:
                raise StreamNotFoundError(f"stream {self._name!r} was deleted and made anew")
        except LunalogError as error:
            feed(machine.head_unread, error, self._runtime.now())
            return
        self._watch.merge(reply.view)
        feed(machine.head_read, reply.view.head, self._runtime.now())

    async def give_back(self) -> None:
        """Ask to be released: this leader cannot work (N2)."""
        machine, feed = self._leadership.machine, self._leadership.feed
        try:
            await self._master.request(Release(self._stream, self._leadership.promise))
        except LunalogError as error:
            logger.debug("release_refused", extra={"stream": self._name, "why": str(error)})
            feed(machine.kept, self._runtime.now())
        else:
            feed(machine.given_back, self._runtime.now())

    async def release(self) -> None:
        """Nobody works under this epoch any more: say so until the head shows it."""
        backoff = Backoff(self._runtime, self._config.retry_ms_max)
        while self._watch.gone is None:
            head = self._watch.head
            if head.epoch != self._leadership.epoch or head.released:
                return
            try:
                await self._master.request(Release(self._stream, self._leadership.promise))
                return
            except ClosedError:
                return
            except AvailabilityError:
                await asyncio.sleep(backoff.next_s())
            except LunalogError as error:
                logger.debug("release_refused", extra={"stream": self._name, "why": str(error)})
                return

    def certify(self, effect: effects.Certify) -> None:
        """Tell a sealed segment's replicas its end, once; the master goes on until confirmed."""
        row = effect.certificate.row
        found = (self._links.address_of(member.server) for member in row.members)
        sources = tuple(server for server in found if server is not None)
        message = Certify(effect.certificate, sources)
        for member in row.members:
            _ = self._tasks.start(
                self._certify(member, message), f"certify-{row.id}-{member.server}"
            )

    async def _certify(self, member: Member, message: Certify) -> None:
        try:
            connection = await self._links.connection_to(member.server)
            await connection.request(message, timeout=CERTIFY_TIMEOUT_S)
        except LunalogError as error:
            logger.debug("certify_failed", extra={"stream": self._name, "why": str(error)})
