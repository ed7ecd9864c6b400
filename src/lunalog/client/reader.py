"""Read a stream: committed events, in order, without gap or repeat, whoever serves them.

Frames are fetched ahead, checked, and decoded one frame at a time; `__anext__` then only takes from a
queue, so that a follower that is behind is bound by decoding and not by waiting.

Source: design.md sections 3 and 8; R12 to R14, I16, I17.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol

from lunalog.client.fetch import Fetched, Fetcher, Nothing
from lunalog.config import ClientConfig
from lunalog.core import reading
from lunalog.errors import (
    AvailabilityError,
    ClosedError,
    CorruptFrameError,
    DeadlineExceededError,
    LunalogError,
)
from lunalog.runtime import Tasks
from lunalog.types import Event, Sequence, StreamHead
from lunalog.wire import frames
from lunalog.wire.frames import FrameHead

END_PROBE_TIMEOUT_S: Final = 1.0


class EndState(enum.Enum):
    """What is known of events behind the end of a read."""

    COMPLETE = "complete"
    """Everything that was acknowledged before this was asked has been read."""
    LED = "led"
    """Somebody leads the stream and has committed more."""
    LEADERLESS = "leaderless"
    """A leader left the stream open and nobody leads it: acknowledged events may lie behind."""


class ReaderSource(Protocol):
    """What a reader asks of its journal."""

    @property
    def head(self) -> StreamHead:
        """The newest head that is known."""
        ...

    @property
    def fetcher(self) -> Fetcher:
        """How frames are had."""
        ...

    async def read_point(self, timeout: float | None) -> Sequence:
        """Everything acknowledged before the call lies below this (R14)."""
        ...

    def note_applied(self, sequence: Sequence) -> None:
        """The reader's owner has been given everything below `sequence`."""
        ...

    def release(self) -> None:
        """The reader ends.  Callable from anywhere, once."""
        ...


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What was asked for."""

    start: Sequence | None = 0
    follow: bool = False
    linearizable: bool = False


class _Ahead:
    """One fetch that runs while the frames before it are used."""

    def __init__(self, position: int, task: asyncio.Task[Fetched | Nothing | LunalogError]) -> None:
        self.position = position
        self.task = task


class StreamReader:
    """Reads one stream; made by `journal.read` or `journal.open_stream_reader`.

    `async for event in reader` yields every committed event from `start` on: up to what is committed
    (`follow=False`), up to what was acknowledged before the first event was asked for
    (`linearizable=True`), or for ever (`follow=True`).

    Raises (from any call that reads):
        TruncatedError: The next event is not kept any more; `.start` is the first that is.
        StreamNotFoundError: There is no such stream, or it was deleted.
        ServerUnavailableError: No replica serves what is known to be committed.
        CorruptFrameError: A broken leader wrote what nobody can read; `seek` behind it goes on.
        ClosedError: This reader or its journal was closed.

    Cancelling any call loses no event.  One task at a time may read.
    """

    def __init__(
        self,
        open_source: Callable[[], Awaitable[ReaderSource]],
        options: ReadOptions,
        config: ClientConfig,
        tasks: Tasks,
        *,
        name: str = "",
        check: Callable[[], None] = lambda: None,
        source: ReaderSource | None = None,
    ) -> None:
        self._source = source
        self.name = name
        self._open_source = open_source
        self._options = options
        self._config = config
        self._tasks = tasks
        self._check_journal = check
        self._events: deque[Event] = deque()
        self._pop = self._events.popleft
        self._frames: deque[tuple[FrameHead, memoryview]] = deque()
        self._ahead: _Ahead | None = None
        self._start: int | None = options.start
        self._is_placed = False
        self._next = 0
        """First sequence that was not decoded yet; it only grows between two seeks (I17)."""
        self._fetched = 0
        """First sequence that was not fetched yet."""
        self._end: int | None = None
        """Where a read that does not follow stops, once that is known."""
        self._has_ended = False
        self._is_closed = False
        self._is_point = False
        self._is_complete = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"at {self.position}"
        return f"<StreamReader of {self.name!r}, {state}>"

    def __aiter__(self) -> StreamReader:
        return self

    async def __aenter__(self) -> StreamReader:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._let_go()

    # ------------------------------------------------------------------ where it stands

    @property
    def position(self) -> Sequence | None:
        """Sequence of the next event that this reader gives; none before `start` is resolved."""
        return self._next - len(self._events) if self._is_placed else None

    @property
    def is_complete(self) -> bool:
        """True when the read has ended and nothing acknowledged before that lies behind its end.

        So it is after a linearizable read, and when the stream has nothing open (R31).  False says
        that later events may exist; `end_state` finds out.
        """
        return self._has_ended and self._is_complete

    async def end_state(self) -> EndState:
        """Ask whether acknowledged events may lie behind `position`, and whether anybody knows."""
        source = await self._opened()
        try:
            point = await source.read_point(END_PROBE_TIMEOUT_S)
        except AvailabilityError:
            return EndState.LEADERLESS
        return EndState.COMPLETE if self._next >= point else EndState.LED

    def seek(self, sequence: Sequence | None) -> None:
        """Go on at `sequence`: forwards or back; negative counts from the end, none: first kept."""
        self._check()
        self._forget()
        self._start = sequence
        self._is_placed = self._has_ended = False
        self._end = None

    # ------------------------------------------------------------------ reading

    async def __anext__(self) -> Event:
        try:
            return self._pop()  # the hot path: no suspension, no frame but this one
        except IndexError:
            pass
        if await self._fill(is_waiting=self._options.follow, is_bounded=not self._options.follow):
            return self._pop()
        raise StopAsyncIteration

    async def try_next(self) -> Event | None:
        """Return the next event if it is readable now, else none; asks the replicas, never waits."""
        if not self._events and not await self._fill(is_waiting=False, is_bounded=False):
            return None
        return self._pop()

    async def wait_next(self, timeout: float | None = None) -> Event:
        """Return the next event, and wait until there is one.

        Raises `DeadlineExceededError` after `timeout` seconds; no event is lost by that.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._events:
                    await self._fill(is_waiting=True, is_bounded=False)
        except TimeoutError:
            raise DeadlineExceededError(
                f"no event at {self.position} of {self.name!r} within {timeout:g} s; "
                "the reader stands where it stood"
            ) from None
        return self._pop()

    def batches(self) -> EventBatches:
        """Read the same events as lists, each as many as are decoded: at most one frame."""
        return EventBatches(self)

    async def next_batch(self) -> list[Event] | None:
        """Return the next events, at least one; none at the end of a read that does not follow."""
        follow = self._options.follow
        if not self._events and not await self._fill(is_waiting=follow, is_bounded=not follow):
            return None
        found = list(self._events)
        self._events.clear()
        return found

    async def aclose(self) -> None:
        """End this reader.  Idempotent; what it has read ahead is dropped."""
        self._is_closed = True
        self._forget()
        self._let_go()

    # ------------------------------------------------------------------ the slow path

    async def _fill(self, *, is_waiting: bool, is_bounded: bool) -> bool:
        """Decode at least one event; false when none can be had (now, or within the bounds)."""
        self._check()
        if self._has_ended and is_bounded:
            return False
        source = await self._opened()
        if not self._is_placed:
            await self._place(source, is_bounded=is_bounded)
        source.note_applied(self._next)
        is_waiting = is_waiting or (is_bounded and self._end is not None)  # it will come: wait
        while not self._events:
            if is_bounded and self._end is not None and self._next >= self._end:
                return self._ended(source)
            if self._frames:
                self._decode(*self._frames[0])
                self._frames.popleft()  # only now: one that cannot be decoded is no gap
            else:
                found = await self._take(source, is_waiting=is_waiting, is_bounded=is_bounded)
                if isinstance(found, Nothing):
                    if is_waiting:
                        continue
                    return self._ended(source) if is_bounded else False
                self._frames.extend(found.frames)
                self._fetched = found.end
                self._read_ahead(source, found)
        return True

    async def _take(
        self, source: ReaderSource, *, is_waiting: bool, is_bounded: bool
    ) -> Fetched | Nothing:
        self._check()
        ahead = self._ahead
        if ahead is not None and ahead.position == self._fetched:
            await asyncio.wait([ahead.task])  # cancelling this leaves the task alone
            self._ahead = None
            found = ahead.task.result()
            if isinstance(found, LunalogError):
                raise found
            if isinstance(found, Fetched):
                return found
        return await source.fetcher.fetch(
            self._fetched,
            wait_ms=self._config.read_wait_ms if is_waiting else 0,
            bytes_max=self._fetch_bytes,
            is_thorough=is_bounded,
        )

    @property
    def _fetch_bytes(self) -> int:
        return max(1, self._config.read_ahead_bytes // 2)

    def _read_ahead(self, source: ReaderSource, found: Fetched) -> None:
        """Fetch the next frames while these are used; the two together are the read-ahead."""
        if not found.has_more or (self._end is not None and found.end >= self._end):
            return
        work = _caught(source.fetcher.fetch(found.end, wait_ms=0, bytes_max=self._fetch_bytes))
        self._ahead = _Ahead(found.end, self._tasks.start(work, f"read-ahead-{self.name}"))

    def _decode(self, head: FrameHead, frame: memoryview) -> None:
        try:
            self._events.extend(frames.events(head, frame, self._next))
        except CorruptFrameError as error:
            raise CorruptFrameError(
                f"sequences {head.first} to {head.end - 1} of {self.name!r} cannot be read: {error}; "
                f"its leader wrote that, other replicas hold the same; go on behind it at {head.end}"
            ) from error
        self._next = max(self._next, head.end)

    def _ended(self, source: ReaderSource) -> bool:
        head = source.head
        self._has_ended = True
        self._is_complete = self._is_point or (head.open is None and self._next >= head.next)
        return False

    async def _place(self, source: ReaderSource, *, is_bounded: bool) -> None:
        """Turn `start` into a sequence, and fix where a linearizable read ends."""
        if self._options.linearizable and is_bounded and self._end is None:
            self._end = await source.read_point(None)
            self._is_point = True
        start = self._start
        if start is not None and start < 0:
            end = self._end if self._end is not None else await source.fetcher.known_end()
        else:
            end = 0
        first = source.head.truncated_before
        self._next = self._fetched = reading.resolve_start(start, first, end)
        self._is_placed = True
        if self._next < first:
            raise reading.truncated(source.head, self._next)

    async def _opened(self) -> ReaderSource:
        if self._source is None:
            self._source = await self._open_source()
        return self._source

    def _check(self) -> None:
        if self._is_closed:
            raise ClosedError(f"this reader of {self.name!r} is closed: open another one")
        self._check_journal()

    def _forget(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.task.cancel()
        self._events.clear()
        self._frames.clear()

    def _let_go(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.release()


class EventBatches:
    """`async for events in reader.batches()`."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader

    def __aiter__(self) -> EventBatches:
        return self

    async def __anext__(self) -> list[Event]:
        found = await self._reader.next_batch()
        if found is None:
            raise StopAsyncIteration
        return found

    async def __aenter__(self) -> EventBatches:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the reader."""
        await self._reader.aclose()


async def _caught(work: Any) -> Fetched | Nothing | LunalogError:
    """Return an error instead of raising it: nobody may be there to take it."""
    try:
        found: Fetched | Nothing = await work
    except LunalogError as error:
        return error
    return found
