"""Everything that one journal knows of and does for one stream: watch, candidacy, leadership, readers.

A leadership starts when the watch shows an epoch of ours that is new, writer open or not.  The role
`LEADER` shows once that epoch may acknowledge (R9), not at the grant.

Source: design.md sections 4, 5 and 8; R2, R9, R14, R31.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from lunalog.client.backoff import Backoff
from lunalog.client.fetch import Fetcher, Links
from lunalog.client.master import MasterLink
from lunalog.client.session import Session
from lunalog.core.reading import ReplicaChoice
from lunalog.errors import DeadlineExceededError, LunalogError, NotLeaderError
from lunalog.runtime import Tasks
from lunalog.types import (
    Epoch,
    Peer,
    Promise,
    Role,
    RoleState,
    Sequence,
    StreamHead,
    StreamId,
    StreamView,
)
from lunalog.wire.messages import AskLeader, GetStream, ReadPoint, Release

if TYPE_CHECKING:
    from lunalog.client.batching import AppendQueue
    from lunalog.client.watch import StreamWatch
    from lunalog.client.writer import StreamWriter

ASK_TIMEOUT_S: Final = 2.0
"""One question to the leader through one replica."""
ASK_AGAIN_MS_MAX: Final = 200


class Leading(Protocol):
    """One epoch that this client leads, from its grant on."""

    ready: asyncio.Future[Any]
    """Done once it may acknowledge (R9)."""
    ended: asyncio.Future[Any]
    """Done once the epoch is over here; its result is why."""
    queue: AppendQueue | None
    """Takes appends from R9 on, until this client resigns."""
    hindrance: LunalogError | None
    """Why the master names no servers to it at present."""
    is_unwanted: bool
    """True once the master has asked this client to hand over."""

    @property
    def epoch(self) -> Epoch:
        """Which one."""
        ...

    def start(self) -> None:
        """Begin the takeover."""
        ...

    async def read_point(self) -> Sequence:
        """Everything acknowledged before the call lies below this; checked by A replicas (R14)."""
        ...

    async def resign(self) -> None:
        """Acknowledge what is in flight, close the segment, release (R31)."""
        ...

    def abandon(self, error: LunalogError) -> None:
        """End it at once, for this reason."""
        ...

    def register_writer(self, writer: StreamWriter) -> None:
        """Bind a writer to this epoch, for good."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the streams of one journal share."""

    link: MasterLink
    links: Links
    session: Session
    tasks: Tasks
    make_leading: Callable[[StreamWatch], Leading]
    make_writer: Callable[[StreamWatch], StreamWriter]
    close: Callable[[LocalStream], None]
    """One user of a stream less."""
    epochs: dict[StreamId, Epoch] = field(default_factory=dict)
    """The newest epoch of ours that was started or given back: none is ever started twice (R2)."""


class LocalStream:
    """One stream in one journal."""

    def __init__(self, parts: Parts, watch: StreamWatch) -> None:
        self.parts = parts
        self.watch = watch
        self.leading: Leading | None = None
        self.is_scoped = False
        """True while a `lead` scope of this journal holds the stream."""
        self.users = 0
        self.last_error: LunalogError | None = None
        """Why the last epoch that was led here ended."""
        self._unbound: list[StreamWriter] = []
        self._listeners: dict[int, Callable[[], None]] = {}
        self._next_listener = 0
        self._readers = 0
        self._leave = [
            watch.subscribe(self._watch_moved),
            parts.session.subscribe(self._tell),
        ]
        self._watch_moved()

    def __repr__(self) -> str:
        state = self.role_state(is_candidate=True)
        return f"<LocalStream {self.watch.name}, {state.role.value}, epoch {state.epoch}>"

    @property
    def peer(self) -> Peer:
        """Who we are."""
        return self.parts.link.peer

    @property
    def head(self) -> StreamHead:
        """The newest head that is known."""
        return self.watch.head

    @property
    def leader(self) -> Peer | None:
        """Who leads, as far as is known here."""
        head = self.head
        return None if head.released else head.leader

    @property
    def is_leading(self) -> bool:
        """True while this client's newest epoch may acknowledge."""
        leading = self.leading
        return (
            leading is not None
            and leading.epoch == self.head.epoch
            and leading.queue is not None
            and leading.queue.error is None
            and not leading.ended.done()
        )

    def role_state(self, *, is_candidate: bool) -> RoleState:
        """What this client is for the stream now."""
        head = self.head
        if self.is_leading:
            confirmed = self.parts.session.is_confirmed
            return RoleState(Role.LEADER, head.epoch, self.peer, head.version, confirmed)
        role = Role.FOLLOWER if is_candidate else Role.OBSERVER
        return RoleState(role, head.epoch, self.leader, head.version)

    def check(self) -> None:
        """Raise why there is nothing more to do with this stream."""
        if self.watch.gone is not None:
            raise again(self.watch.gone)

    def end(self, error: LunalogError) -> None:
        """The journal is over: no append of it may be acknowledged any more."""
        if self.leading is not None:
            self.leading.abandon(error)
        self.watch.end(error)

    def close(self) -> None:
        """Hear nothing more."""
        for leave in self._leave:
            leave()
        self.watch.release()

    # ------------------------------------------------------------------ changes

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener()` after anything changed; returns what ends that."""
        number = self._next_listener
        self._next_listener += 1
        self._listeners[number] = listener
        return lambda: self._listeners.pop(number, None) and None

    async def changed(self) -> None:
        """Wait for the next change of any kind."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leave = self.subscribe(lambda: None if waiter.done() else waiter.set_result(None))
        try:
            await waiter
        finally:
            leave()

    def _tell(self) -> None:
        for listener in list(self._listeners.values()):
            listener()

    def _watch_moved(self) -> None:
        head = self.head
        mine = head.leader == self.peer and not head.released and not head.deleted
        epochs = self.parts.epochs
        if mine and head.epoch > epochs.get(head.stream, 0) and self.watch.gone is None:
            epochs[head.stream] = head.epoch
            self._granted(head)
        self._tell()

    def _granted(self, head: StreamHead) -> None:
        if not self.watch.is_candidate:
            _ = self.parts.tasks.start(self._give_back(head), f"give-back-{head.name}")
            return
        self.users += 1  # an epoch keeps its stream open
        leading = self.leading = self.parts.make_leading(self.watch)
        leading.ready.add_done_callback(lambda _: self._tell())
        leading.ended.add_done_callback(lambda _: self._ended(leading))
        unbound, self._unbound = self._unbound, []
        for writer in unbound:
            leading.register_writer(writer)
        leading.start()

    async def _give_back(self, head: StreamHead) -> None:
        """A grant that came after its candidate had gone: somebody else shall lead."""
        with contextlib.suppress(LunalogError):
            promise = Promise(head.epoch, self.peer.incarnation)
            await self.parts.link.request(Release(head.stream, promise))

    def _ended(self, leading: Leading) -> None:
        if self.leading is leading:
            self.leading = None
        self.last_error = why_ended(leading)
        self._tell()
        self.parts.close(self)

    # ------------------------------------------------------------------ writers

    def open_writer(self) -> StreamWriter:
        """A writer, bound to the epoch that is led now or else to the next one (R2)."""
        writer = self.parts.make_writer(self.watch)
        leading = self.leading
        if leading is not None and not leading.ended.done():
            leading.register_writer(writer)
        else:
            self._unbound.append(writer)
        return writer

    def why_not_leader(self, epoch: Epoch, why: object = None) -> NotLeaderError:
        """Make the error that names who leads instead."""
        leader = self.leader
        name = leader.name if leader is not None and leader != self.peer else None
        who = f"{name} leads epoch {self.head.epoch}" if name else "nobody is known to lead"
        cause = f" ({why})" if why is not None else ""
        return NotLeaderError(
            f"epoch {epoch} of {self.watch.name!r} is over for {self.peer}: {who}{cause}; "
            "lead it again before you append",
            leader=name,
        )

    def why_not_ready(self) -> str:
        """Say for what a candidate waits."""
        if self.leading is None:
            return f"{self.leader or 'nobody'} leads"
        why = self.leading.hindrance
        return f"{self.peer} is elected, but still recovers" + (f": {why}" if why else "")

    # ------------------------------------------------------------------ read points

    async def read_point(self, timeout: float | None) -> Sequence:
        """Everything acknowledged before this call lies below the result (R14).

        Asks the leader: directly if this client leads, else through a replica of the open segment.
        With nothing open the master's head answers (R31).
        """
        runtime = self.parts.link.runtime
        limit = self.parts.link.config.operation_timeout_ms / 1000 if timeout is None else timeout
        deadline = runtime.now() + limit
        backoff = Backoff(runtime, ASK_AGAIN_MS_MAX)
        asked = Asked()
        must_look = self.head.open is None
        while True:
            self.check()
            left = deadline - runtime.now()
            if left <= 0:
                raise DeadlineExceededError(
                    f"no leader of {self.watch.name!r} answered within {limit:g} s ({asked.error}); "
                    "while nobody leads a stream that is open, nobody knows its end"
                )
            point = await self._point_of_our_own(left, asked)
            if point is None and must_look:
                point = await self._point_of_the_head(deadline - runtime.now(), asked)
            if point is None and self.head.open is not None:
                point = await self._point_of_the_leader(deadline, asked)
            if point is not None:
                return point
            must_look = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(backoff.next_s(), left)):
                    await self.changed()

    async def _point_of_our_own(self, left: float, asked: Asked) -> Sequence | None:
        leading = self.leading
        if leading is None or not self.is_leading:
            return None
        try:
            async with asyncio.timeout(left):
                return await leading.read_point()
        except (LunalogError, TimeoutError) as error:
            asked.error = error
            return None

    async def _point_of_the_head(self, left: float, asked: Asked) -> Sequence | None:
        """A head read after the call began; the one at hand may be older than an ack (R31)."""
        if left <= 0:
            return None
        try:
            reply = await self.parts.link.request(GetStream(self.watch.name), left)
        except LunalogError as error:
            asked.error = error
            return None
        view: StreamView = reply.view
        if view.head.stream != self.head.stream:
            return None  # deleted, and made anew: the watch will say so
        self.watch.merge(view)
        return view.head.next if view.head.open is None else None

    async def _point_of_the_leader(self, deadline: float, asked: Asked) -> Sequence | None:
        opened = self.head.open
        if opened is None:
            return None
        runtime = self.parts.link.runtime
        choice = ReplicaChoice(self._readers)
        for server in choice.order(opened.members, self.watch.view.servers, runtime.now()):
            left = min(deadline - runtime.now(), ASK_TIMEOUT_S)
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    connection = await self.parts.links.connection(server)
                    answer: ReadPoint = await connection.request(
                        AskLeader(self.head.stream, opened.id), timeout=left
                    )
            except (LunalogError, TimeoutError) as error:
                asked.error = error
            else:
                return answer.committed
        return None

    # ------------------------------------------------------------------ readers

    def new_fetcher(self) -> Fetcher:
        """What one more reader reads through; readers spread over the replicas."""
        self._readers += 1
        spread = self._readers + int.from_bytes(self.peer.incarnation[:2], "little")
        return Fetcher(self.parts.link, self.parts.links, self.watch, self.parts.tasks, spread)


def why_ended(leading: Leading) -> LunalogError | None:
    """Why an epoch is over; none when it was given up as wanted."""
    ended = leading.ended
    if not ended.done() or ended.cancelled():
        return None
    error = ended.exception() or ended.result()
    return error if isinstance(error, LunalogError) else None


class Asked:
    """What went wrong last while asking."""

    error: BaseException | None = None


def again(error: LunalogError) -> LunalogError:
    """Return an error like `error`, to be raised once more: each raise has its own traceback."""
    return type(error)(error.message, **error.fields)
