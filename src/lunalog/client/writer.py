"""The public writer of one stream.

Source: design.md section 8; R9, R22, R31, I17; traps 38 and 45.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol

from lunalog.client.batching import AppendQueue
from lunalog.client.payloads import EVENT_OVERHEAD_BYTES, as_payload, check_run, check_size
from lunalog.client.watch import StreamWatch
from lunalog.config import ClientConfig
from lunalog.errors import ClosedError, NotLeaderError, UsageError
from lunalog.runtime import Runtime
from lunalog.types import Epoch, Sequence


class BoundEpoch(Protocol):
    """The epoch that a writer belongs to, once it does."""

    queue: AppendQueue | None
    """None before R9 holds."""

    @property
    def epoch(self) -> Epoch:
        """Its number."""
        ...

    @property
    def lease_remaining(self) -> float:
        """Seconds for which no other leader can have been elected, by this process's clock."""
        ...

    async def truncate(self, before: Sequence, timeout: float | None) -> None:
        """Drop what lies below `before` (R22)."""
        ...

    async def resign(self) -> None:
        """Close and release (R31)."""
        ...


class StreamWriter:
    """Append to one stream while this client leads it.

    A writer may be opened at any time.  It binds to the first epoch that its client leads while it is
    open; before that, and for good once that epoch is over, everything that modifies raises
    `NotLeaderError`, which names the leader.  No append of an old decision lands in a later epoch.
    """

    def __init__(self, runtime: Runtime, config: ClientConfig, watch: StreamWatch) -> None:
        self._runtime = runtime
        self._config = config
        self._watch = watch
        self._epoch: BoundEpoch | None = None
        self._queue: AppendQueue | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "bound" if self._queue else "unbound"
        return f"<StreamWriter of {self._watch.name}, {state}, {self._queue}>"

    def bind(self, epoch: BoundEpoch) -> None:
        """Belong to `epoch`, which may append now (R9); the leadership calls it, once."""
        if self._queue is None and not self._is_closed:
            self._epoch = epoch
            self._queue = epoch.queue

    # ------------------------------------------------------------------ append

    async def append(self, payload: bytes, *, expected: Sequence | None = None) -> Sequence:
        """Append one event and wait until it is committed: fsynced on an ack quorum.

        Waits first while too many bytes are in flight.

        Args:
            payload: Up to `limits.PAYLOAD_BYTES_MAX` bytes; may be empty; copied if mutable.
            expected: Append only if this is its sequence.

        Returns:
            Its sequence, after every sequence this writer returned before.

        Raises:
            NotLeaderError: This client does not lead (any more); the event was not sent.
            OutcomeUnknownError: It was sent, and then the epoch ended: it may or may not be kept.
            ConflictError: `expected` is not the tail; nothing was sent.
            PayloadTooLargeError, UsageError: Not an event; nothing was sent.

        An append that is cancelled after it was queued stays in flight.
        """
        queue = self._queue
        if queue is None or queue.error is not None or self._is_closed:  # else it would return it
            queue = self._open_queue()
        if payload.__class__ is not bytes:
            payload = as_payload(payload)
        size = len(payload) + EVENT_OVERHEAD_BYTES
        if queue.is_idle and size < queue.limit:  # no reason to wait for the turn's end
            return await queue.add_alone(payload, size, expected)
        if queue.must_wait(size):
            check_size(len(payload))
            await queue.room(size)
        return await queue.add_soon(payload, expected)

    def append_soon(
        self, payload: bytes, *, expected: Sequence | None = None
    ) -> asyncio.Future[Sequence]:
        """Queue one event and return a future of its sequence; never waits.

        Raises:
            OverloadedError: Too many bytes are in flight; nothing was sent: `await drain()`.
            NotLeaderError, ConflictError, PayloadTooLargeError, UsageError: As for `append`.

        The future ends in the sequence, `NotLeaderError` or `OutcomeUnknownError`, at the latest when
        the epoch does.  Cancelling it cancels nothing but the telling.
        """
        queue = self._queue
        if queue is None or expected is not None or payload.__class__ is not bytes:
            return self._open_queue().add_soon(as_payload(payload), expected)
        size = queue.size + len(payload) + EVENT_OVERHEAD_BYTES
        if size >= queue.limit or self._is_closed:
            return self._open_queue().add_soon(payload)
        queue.size = size
        future = queue.create_future()
        queue.payloads.append(payload)
        queue.futures.append(future)
        if not queue.is_due:
            queue.schedule()
        return future

    async def append_many(
        self, payloads: Iterable[bytes], *, expected: Sequence | None = None
    ) -> range:
        """Append events in one frame, all or none, and wait until they are committed.

        Args:
            payloads: Events that fit into one frame together (`limits.FRAME_BYTES_MAX`).
            expected: Append only if this is the first one's sequence.

        Returns:
            Their sequences, as a range.

        Raises: as `append`, for all of them together.
        """
        queue = self._open_queue()
        events = payloads if type(payloads) is list else list(payloads)
        future = queue.add_now(events, expected)
        if future is None:  # copied, so that nobody changes them while they wait
            events = [as_payload(payload) for payload in events]
            size = check_run(list(map(len, events)))
            if queue.must_wait(size):
                await queue.room(size)
            future = queue.add_many(events, expected)
        return await future

    async def drain(self) -> None:
        """Wait until `append_soon` has room again, or the epoch is over."""
        queue = self._open_queue()
        await queue.room(self._config.batch_bytes_max)

    async def flush(self) -> None:
        """Wait until everything that was queued before is committed.

        Raises:
            OutcomeUnknownError, NotLeaderError: The epoch ended first; see `append`.
        """
        await self._open_queue(is_ended_fine=True).settled()

    # ------------------------------------------------------------------ the rest

    async def truncate(self, before: Sequence, *, timeout: float | None = None) -> None:
        """Drop every event below `before` for good; readers then start there at the earliest.

        Raises:
            UsageError: `before` is past the committed sequence; nothing was changed.
            NotLeaderError: This client does not lead (any more); nothing was changed.
            MasterUnavailableError, DeadlineExceededError: It may still be applied; repeat it.
        """
        queue = self._open_queue()
        if type(before) is not int or before < 0:
            raise UsageError(f"cannot truncate before {before!r}: it must be a sequence")
        if before > queue.committed:
            raise UsageError(
                f"cannot truncate before {before}: only events below {queue.committed} are "
                "committed; nothing was changed"
            )
        if self._epoch is not None:
            await self._epoch.truncate(before, timeout)

    async def resign(self) -> None:
        """Give leadership up: what is in flight is committed, the stream is left closed (R31)."""
        self._open_queue()
        if self._epoch is not None:
            await self._epoch.resign()

    async def aclose(self) -> None:
        """Close this writer; what is in flight stays so, and the epoch goes on.  Idempotent."""
        if self._queue is not None and not self._is_closed:
            self._queue.flush()
        self._is_closed = True

    async def __aenter__(self) -> StreamWriter:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def is_leading(self) -> bool:
        """True while this writer can append."""
        return self._queue is not None and self._queue.error is None and not self._is_closed

    @property
    def tail(self) -> Sequence:
        """The sequence of the next append; raises `NotLeaderError` before this writer is bound."""
        return self._bound_queue().tail

    @property
    def committed(self) -> Sequence:
        """Everything below is committed, as far as this writer's epoch knows."""
        return self._bound_queue().committed

    @property
    def epoch(self) -> Epoch:
        """The epoch this writer is bound to: a fence token for other systems."""
        self._bound_queue()
        return self._epoch.epoch if self._epoch is not None else 0

    @property
    def lease_remaining(self) -> float:
        """Seconds for which the master names nobody else, by this process's clock; 0 if over.

        It guards other things by time; appends do not depend on it (R15).
        """
        if not self.is_leading or self._epoch is None:
            return 0.0
        return self._epoch.lease_remaining

    def _bound_queue(self) -> AppendQueue:
        if self._queue is None:
            raise self._not_leader()
        return self._queue

    def _open_queue(self, *, is_ended_fine: bool = False) -> AppendQueue:
        """The queue, if this writer may modify; else raise why not."""
        if self._is_closed:
            raise ClosedError(f"this writer of {self._watch.name!r} is closed: open another one")
        if self._watch.gone is not None and self._queue is None:
            gone = self._watch.gone
            raise type(gone)(gone.message, **gone.fields)
        queue = self._bound_queue()
        if queue.error is not None and not is_ended_fine:
            error: Any = queue.error
            raise (
                self._not_leader()
                if isinstance(error, NotLeaderError)
                else type(error)(error.message, **error.fields)
            )
        return queue

    def _not_leader(self) -> NotLeaderError:
        head = self._watch.head
        leader = head.leader.name if head.leader is not None and not head.released else None
        bound = f"epoch {self._epoch.epoch} is over" if self._epoch is not None else "not leading"
        who = f"{leader} leads epoch {head.epoch}" if leader else "nobody is known to lead"
        return NotLeaderError(
            f"cannot modify {self._watch.name!r} with this writer: {bound}, {who}; nothing was sent",
            leader=leader,
        )
