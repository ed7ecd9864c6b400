"""Fetch checked frames of one stream from whichever replica has them.

One replica is asked; the next one too when it takes too long, and instead when it is short, gone or
damaged.  While a long poll waits, a change of metadata ends it: the segment may have been sealed.

Source: design.md section 3; R12, R13, N6, L3.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lunalog import limits
from lunalog.client.backoff import Backoff
from lunalog.client.master import MasterLink
from lunalog.client.watch import StreamWatch
from lunalog.core import reading
from lunalog.core.reading import AtTail, InSegment, Place, ReplicaChoice
from lunalog.errors import (
    CorruptFrameError,
    GoneError,
    LunalogError,
    NotOpenError,
    PeerError,
    SealedError,
    ServerUnavailableError,
    StreamNotFoundError,
)
from lunalog.runtime import Tasks
from lunalog.types import ServerAddress
from lunalog.wire import frames
from lunalog.wire.codec import FramesHead, ReadStatus
from lunalog.wire.connection import Connection
from lunalog.wire.frames import FrameHead
from lunalog.wire.messages import GetStream, Read

HEDGE_S: Final = 0.25
"""A replica that says nothing for this long past its wait gets company."""
READ_TIMEOUT_S: Final = 5.0
LOOK_TIMEOUT_S: Final = 1.0
REFRESH_MS_MAX: Final = 200
"""Cap of the pauses between looks at the metadata while it and the servers disagree."""
logger = logging.getLogger("lunalog.client")


class Links(Protocol):
    """How servers are reached."""

    async def connection(self, server: ServerAddress) -> Connection:
        """Return an open connection to `server`; raises `AvailabilityError`."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """Whole frames, checked; the first may begin below the position that was asked for."""

    frames: tuple[tuple[FrameHead, memoryview], ...]
    end: int
    has_more: bool
    """True when the next ones can be had at once."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No frame could be had now."""

    place: Place


@dataclass(frozen=True, slots=True)
class _Retry:
    """The metadata moved, or should have: look again."""

    look: bool


class Fetcher:
    """What one reader reads through."""

    def __init__(
        self, link: MasterLink, links: Links, watch: StreamWatch, tasks: Tasks, spread: int
    ) -> None:
        self._runtime = link.runtime
        self._config = link.config
        self._link = link
        self._links = links
        self._watch = watch
        self._tasks = tasks
        self._choice = ReplicaChoice(spread)
        self._known = 0
        """Highest committed sequence that a replica of this stream has told us of (I10)."""
        self._last_error: LunalogError | None = None

    async def fetch(
        self, position: int, *, wait_ms: int, bytes_max: int, is_thorough: bool = False
    ) -> Fetched | Nothing:
        """Get the frames from the one that holds `position` on.

        Args:
            position: A sequence.
            wait_ms: How long to wait for it at the tail; 0: not at all.
            bytes_max: About how much to get at once; one larger frame comes alone.
            is_thorough: At the tail, ask every replica of the open segment before giving up.

        Raises:
            TruncatedError: `position` lies below the first kept event.
            StreamNotFoundError: The stream was deleted.
            ServerUnavailableError: Nobody has served this position for an operation's time,
                though it is committed.

        Cancelling loses nothing.
        """
        deadline = self._runtime.now() + self._config.operation_timeout_ms / 1000
        backoff = Backoff(self._runtime, REFRESH_MS_MAX)
        while True:
            if self._watch.gone is not None:
                raise self._watch.gone
            place = reading.locate(self._watch.view, position)
            result: Fetched | Nothing | _Retry
            if isinstance(place, AtTail):
                result = Nothing(place)
                if wait_ms and not await self._moved(wait_ms / 1000):
                    return result
                if wait_ms:
                    continue
            elif isinstance(place, InSegment):
                result = await self._ask_any(
                    place, position, wait_ms=wait_ms, bytes_max=bytes_max, is_thorough=is_thorough
                )
            else:
                result = _Retry(look=True)
            if not isinstance(result, _Retry):
                return result
            if result.look:
                if self._runtime.now() >= deadline and not wait_ms:
                    raise self._nobody_serves(place, position)
                await self._moved(backoff.next_s())
                await self._look()

    def _nobody_serves(self, place: Place, position: int) -> LunalogError:
        where = f"segment {place.segment}" if isinstance(place, InSegment) else "no known segment"
        names = ", ".join(str(m) for m in place.members) if isinstance(place, InSegment) else "-"
        return ServerUnavailableError(
            f"nobody serves {self._watch.name!r} from sequence {position} on ({where}; servers "
            f"{names}; last: {self._last_error}): it may work when they are back"
        )

    async def known_end(self) -> int:
        """The highest committed sequence that the replicas know now, without asking the leader."""
        head = self._watch.head
        if head.open is None:
            return head.next
        servers = self._choice.order(
            head.open.members, self._watch.view.servers, self._runtime.now()
        )
        read = Read(self._watch.stream, head.open.id, limits.SEQUENCE_MAX - 1, 1)

        async def ask(server: ServerAddress) -> int:
            try:
                connection = await self._links.connection(server)
                found, _ = await connection.request(read, timeout=HEDGE_S)
            except LunalogError as error:
                self._last_error = error
                return 0
            return int(found.committed)

        answers = await asyncio.gather(*map(ask, servers))
        self._known = max(self._known, head.open.first, *answers, 0)
        return self._known

    # ------------------------------------------------------------------ metadata

    async def _moved(self, seconds: float) -> bool:
        """Wait until the view moves; false when it did not in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._watch.changed(self._watch.revision)
        except TimeoutError:
            return False
        return True

    async def _look(self) -> None:
        """Re-read the metadata: what servers hint at decides nothing (R13)."""
        try:
            reply = await self._link.request(GetStream(self._watch.name), LOOK_TIMEOUT_S)
        except StreamNotFoundError as error:
            self._watch.end(error)
        except LunalogError as error:
            self._last_error = error
        else:
            if reply.view.head.stream == self._watch.stream:
                self._watch.merge(reply.view)

    # ------------------------------------------------------------------ replicas

    async def _ask_any(
        self, place: InSegment, position: int, *, wait_ms: int, bytes_max: int, is_thorough: bool
    ) -> Fetched | Nothing | _Retry:
        """Ask replicas until one answers, a second one when the first takes too long."""
        order = self._choice.order(place.members, self._watch.view.servers, self._runtime.now())
        waiting = deque(order)
        running: list[tuple[asyncio.Task[Any], ServerAddress]] = []
        moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leave = self._watch.subscribe(_setter(moved))
        may_stop = place.end is None
        is_idle = is_slow = False
        try:
            while waiting or running:
                if waiting and (is_slow or not running):
                    server = waiting.popleft()
                    ask = self._ask(server, place, position, wait_ms=wait_ms, bytes_max=bytes_max)
                    running.append((self._tasks.start(ask, f"read-{server.member}"), server))
                limit = wait_ms / 1000 + HEDGE_S if waiting else None
                tasks = [task for task, _ in running]
                done, _ = await asyncio.wait(
                    [*tasks, moved], timeout=limit, return_when=asyncio.FIRST_COMPLETED
                )
                is_slow = not done
                for task, server in [entry for entry in running if entry[0].done()]:
                    running.remove((task, server))
                    result = self._judge(task.result(), server, place)
                    if result is None:
                        continue
                    if not isinstance(result, Nothing):
                        return result
                    is_idle = True
                    if may_stop and not is_thorough:
                        return result
                if moved.done():
                    if self._watch.gone or self._place_of(position) != place:
                        return _Retry(look=False)
                    moved = asyncio.get_running_loop().create_future()
                    leave()
                    leave = self._watch.subscribe(_setter(moved))
            return Nothing(place) if is_idle and may_stop else _Retry(look=True)
        finally:
            leave()
            for task, _ in running:
                task.cancel()

    def _place_of(self, position: int) -> Place | None:
        try:
            return reading.locate(self._watch.view, position)
        except LunalogError:
            return None

    async def _ask(
        self,
        server: ServerAddress,
        place: InSegment,
        position: int,
        *,
        wait_ms: int,
        bytes_max: int,
    ) -> Fetched | FramesHead | LunalogError:
        """One read at one replica; errors are returned, as tasks may not fail."""
        read = Read(
            self._watch.stream,
            place.segment,
            position,
            bytes_max,
            wait_ms if place.end is None else 0,
        )
        try:
            connection = await self._links.connection(server)
            head, body = await connection.request(read, timeout=wait_ms / 1000 + READ_TIMEOUT_S)
            if head.status is not ReadStatus.HELD:
                return FramesHead(head.end, head.committed, head.chain, head.status)
            return self._checked(head, body, place, position)
        except LunalogError as error:
            return error

    def _checked(
        self, head: FramesHead, body: bytes, place: InSegment, position: int
    ) -> Fetched | LunalogError:
        """Check checksums, stream and density; drop what lies past the end of a sealed segment."""
        found = []
        for frame_head, frame in frames.split(body):
            if frame_head.stream != self._watch.stream:
                return CorruptFrameError("a frame of another stream")
            if place.end is not None and frame_head.first >= place.end:
                break
            found.append((frame_head, frame))
        end = reading.check_run(position, ((h.first, h.end) for h, _ in found))
        if not found:
            return PeerError("a reply without frames that says it has some")
        has_more = end < head.committed or (place.end is not None and end < place.end)
        return Fetched(tuple(found), end, has_more)

    def _judge(
        self, answer: Fetched | FramesHead | LunalogError, server: ServerAddress, place: InSegment
    ) -> Fetched | Nothing | _Retry | None:
        """What an answer means; none: this replica is of no use now."""
        name, now = server.member.server, self._runtime.now()
        if isinstance(answer, Fetched):
            self._choice.served(name)
            return answer
        if isinstance(answer, LunalogError):
            self._last_error = answer
            self._choice.failed(name, now)
            if isinstance(answer, PeerError):
                logger.warning(
                    "replica_damaged",
                    extra={"server": name, "segment": str(place.segment), "why": str(answer)},
                )
            if isinstance(answer, GoneError | NotOpenError | SealedError):
                return _Retry(look=True)
            return None
        self._known = max(self._known, answer.committed)
        if answer.status is ReadStatus.END_OF_SEGMENT and place.end is None:
            return _Retry(look=True)
        if place.end is not None:
            self._last_error = ServerUnavailableError(f"{name} does not have it yet", server=name)
            self._choice.failed(name, now)
            return None
        self._choice.was_idle(name)
        return Nothing(place)


def _setter(future: asyncio.Future[None]) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(None)
