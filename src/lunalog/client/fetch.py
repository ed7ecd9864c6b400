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
READ_TIMEOUT_S_MAX: Final = 60.0
"""How long a replica may take that sends all the while."""
PORTION_BYTES_MIN: Final = 16 * limits.KIB
"""The least that is asked for at once on a slow link; a larger frame comes alone."""
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


@dataclass(frozen=True, slots=True)
class _Ask:
    """What the replicas of one place are asked for."""

    place: InSegment
    position: int
    wait_ms: int
    bytes_max: int
    is_thorough: bool
    is_confirmed: bool
    """True when the metadata was read again and names this place: hints to the contrary are old."""

    @property
    def wait_s(self) -> float:
        """How long a replica may wait for events; a sealed segment gets none."""
        return self.wait_ms / 1000 if self.place.end is None else 0.0


class _Answers:
    """What the replicas that were asked have said so far."""

    def __init__(self, ask: _Ask) -> None:
        self.fetched: Fetched | None = None
        self._ask = ask
        self._is_idle = self._is_hinted = False

    def add(self, answer: Fetched | Nothing | _Retry | None) -> None:
        """Note what one of them said."""
        if isinstance(answer, Fetched):
            self.fetched = self.fetched or answer
        elif isinstance(answer, Nothing):
            self._is_idle = True
        elif answer is not None and not self._ask.is_confirmed:
            self._is_hinted = True

    def suffice(self, *, is_waiting: bool) -> bool:
        """Tell whether nobody else need be asked; `is_waiting`: another answer is on its way."""
        if self.fetched is not None:
            return True
        if self._ask.place.end is not None:
            return False  # somebody holds it
        return (self._is_idle and not self._ask.is_thorough) or (self._is_hinted and not is_waiting)

    @property
    def sum(self) -> Fetched | Nothing | _Retry:
        """What they say together."""
        if self.fetched is not None:
            return self.fetched
        if self._is_idle and self._ask.place.end is None and not self._is_hinted:
            return Nothing(self._ask.place)
        return _Retry(look=True)


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
        self._portion = limits.FRAME_BYTES_MAX
        """What is asked for at once: halved by each answer that is slow, doubled by each other (N3)."""
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
        confirmed: Place | None = None
        while True:
            if self._watch.gone is not None:
                raise self._watch.gone
            place = reading.locate(self._watch.view, position)
            if isinstance(place, AtTail):
                if not wait_ms or not await self._moved(wait_ms / 1000):
                    return Nothing(place)
                continue
            result: Fetched | Nothing | _Retry = _Retry(look=True)
            if isinstance(place, InSegment):
                ask = _Ask(place, position, wait_ms, bytes_max, is_thorough, place == confirmed)
                result = await self._ask_any(ask)
            if not isinstance(result, _Retry):
                return result
            if result.look:
                if self._runtime.now() >= deadline and not wait_ms:
                    raise self._nobody_serves(place, position)
                await self._moved(backoff.next_s())
                confirmed = place if await self._look() else None

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

    async def _look(self) -> bool:
        """Re-read the metadata: what servers hint at decides nothing (R13).  True when it was had."""
        try:
            reply = await self._link.request(GetStream(self._watch.name), LOOK_TIMEOUT_S)
        except StreamNotFoundError as error:
            self._watch.end(error)
        except LunalogError as error:
            self._last_error = error
        else:
            if reply.view.head.stream == self._watch.stream:
                self._watch.merge(reply.view)
                return True
        return False

    # ------------------------------------------------------------------ replicas

    async def _ask_any(self, ask: _Ask) -> Fetched | Nothing | _Retry:
        """Ask replicas until one answers, a second one when the first takes too long.

        One that has nothing ends no answer that is on its way from another; what it hints at is
        looked into once nobody has the position.
        """
        place, answers = ask.place, _Answers(ask)
        waiting = deque(
            self._choice.order(place.members, self._watch.view.servers, self._runtime.now())
        )
        running: list[tuple[asyncio.Task[Any], ServerAddress]] = []
        moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leave = self._watch.subscribe(_setter(moved))
        is_slow = False
        try:
            while (waiting or running) and not answers.suffice(is_waiting=bool(running)):
                if waiting and (is_slow or not running):
                    server = waiting.popleft()
                    running.append((self._start(ask, server), server))
                limit = ask.wait_s + HEDGE_S if waiting else None
                done, _ = await asyncio.wait(
                    [moved, *(task for task, _ in running)],
                    timeout=limit,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                is_slow = not done
                if is_slow:
                    self._portion = max(PORTION_BYTES_MIN, self._portion // 2)
                for task, server in [entry for entry in running if entry[0].done()]:
                    running.remove((task, server))
                    answers.add(self._judge(task.result(), server, place))
                if answers.fetched is None and moved.done():
                    if self._watch.gone or self._place_of(ask.position) != place:
                        return _Retry(look=False)
                    moved = asyncio.get_running_loop().create_future()
                    leave()
                    leave = self._watch.subscribe(_setter(moved))
            return answers.sum
        finally:
            leave()
            for task, _ in running:
                task.cancel()

    def _start(self, ask: _Ask, server: ServerAddress) -> asyncio.Task[Any]:
        work = self._ask(
            server,
            ask.place,
            ask.position,
            wait_ms=ask.wait_ms,
            bytes_max=min(ask.bytes_max, self._portion),
        )
        return self._tasks.start(work, f"read-{server.member}")

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
            head, body = await connection.request(
                read, timeout=wait_ms / 1000 + READ_TIMEOUT_S, timeout_max=READ_TIMEOUT_S_MAX
            )
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
        """What an answer means; none: this replica is of no use now, a retry: so it hints."""
        name, now = server.member.server, self._runtime.now()
        if isinstance(answer, Fetched):
            self._choice.served(name)
            self._portion = min(2 * self._portion, limits.FRAME_BYTES_MAX)
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
