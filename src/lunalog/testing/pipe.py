"""One direction of a simulated TCP connection.

TCP neither loses nor duplicates inside a connection: what the network does shows as delay, or as the
end of the connection.

Source: docs/design.md "Seams"; N3, N5, N7, N8.
"""

from __future__ import annotations

import enum
import errno
from collections import deque
from typing import Protocol

from lunalog.testing.link import Link
from lunalog.testing.scheduler import Scheduler


class End(enum.Enum):
    """What may come behind the last byte."""

    FINISHED = "the sender closed"
    RESET = "the sender is gone"


class Endpoint(Protocol):
    """One side of a connection, as its pipes see it."""

    is_gone: bool
    """True when the host has no such socket any more: whoever sends to it gets a reset."""

    @property
    def has_backlog(self) -> bool:
        """Whether it waits for room in the pipe that it sends into."""
        ...

    def arrived(self, data: bytes) -> None:
        """Bytes have come to this side's kernel."""

    def arrived_end(self) -> None:
        """The other side sends no more."""

    def broke(self, error: OSError) -> None:
        """The kernel gave the connection up."""

    def room_came(self) -> None:
        """The pipe has room for more."""


class Pipe:
    """Bytes on their way from `sender` to `receiver`, in order, at most a window of them.

    `room` is what the two kernels still take: bytes leave the window when the receiving protocol
    has read them and the news of it came back.
    """

    def __init__(self, scheduler: Scheduler, link: Link, back: Link, *, window: int) -> None:
        self.scheduler = scheduler
        self.link = link
        self.back = back
        self.window = window
        self.sender: Endpoint
        self.receiver: Endpoint
        self.reverse: Pipe
        self.user_timeout_s = 10.0
        self.actor = 0
        self._flight: deque[tuple[float, list[bytes] | End]] = deque()
        self._last_arrival = 0.0
        self._is_planned = False
        self._sent = self._consumed = self._acknowledged = 0
        self._ack_is_planned = False
        self._stalled_at: float | None = None
        self._has_ended = False

    # ------------------------------------------------------------ the sending side

    def room(self) -> int:
        """Bytes that `send` may take now."""
        if self.back.is_open:
            self._acknowledged = self._consumed
        elif self._consumed > self._acknowledged:
            self.back.wait(self._acknowledge)
        return self.window - (self._sent - self._acknowledged)

    def send(self, data: bytes) -> None:
        """Put bytes on their way; the caller has asked for `room`."""
        self._sent += len(data)
        arrival = self.scheduler.now + self.link.delay()
        if arrival <= self._last_arrival and self._flight:
            arrival, last = self._flight[-1]
            if isinstance(last, list):  # overtaken by nothing: both arrive as one
                last.append(data)
                return
        self._put(arrival, [data])

    def end(self, how: End, *, loses: bool = False) -> None:
        """Send the end behind all bytes, or in place of those still on their way."""
        if self._has_ended and how is End.FINISHED:
            return
        if loses:
            self._flight.clear()
        self._has_ended = True
        self._put(self.scheduler.now + self.link.delay(), how)

    def forget(self) -> None:
        """Lose all that is on its way, without a word to the receiver."""
        self._flight.clear()
        self._has_ended = True

    def postpone(self, seconds: float) -> None:
        """Let all that is on its way, and what is sent after it, come later."""
        self._flight = deque((arrival + seconds, what) for arrival, what in self._flight)
        self._last_arrival = max(self._last_arrival, self.scheduler.now) + seconds
        self._plan()

    def _put(self, arrival: float, what: list[bytes] | End) -> None:
        self._last_arrival = arrival = max(arrival, self._last_arrival)
        self._flight.append((arrival, what))
        self._plan()

    # ------------------------------------------------------------ the way

    def _plan(self) -> None:
        if not self._is_planned and self._flight:
            self._is_planned = True
            self.scheduler.at(self._flight[0][0], self.actor, self._deliver)

    def _deliver(self, _: object) -> None:
        self._is_planned = False
        if not self._flight:
            return
        if self._flight[0][0] > self.scheduler.now:  # it was postponed
            self._plan()
            return
        if not self.link.is_open:
            self._stall()
            self.link.wait(self._try_again)
            return
        parts, ends = self._take_arrived()
        if self.receiver.is_gone:
            self.forget()
            if not self.sender.is_gone:
                self.reverse.end(End.RESET)
            return
        if parts:
            self.receiver.arrived(parts[0] if len(parts) == 1 else b"".join(parts))
        for how in ends:
            if how is End.FINISHED:
                self.receiver.arrived_end()
            else:
                self.receiver.broke(ConnectionResetError(errno.ECONNRESET, "connection reset"))
        self._note_progress()
        self._plan()

    def _take_arrived(self) -> tuple[list[bytes], list[End]]:
        parts: list[bytes] = []
        ends: list[End] = []
        flight, now = self._flight, self.scheduler.now
        while flight and flight[0][0] <= now:
            what = flight.popleft()[1]
            if isinstance(what, End):
                ends.append(what)
            else:
                parts += what
        return parts, ends

    def _try_again(self) -> None:
        if not self._is_planned:
            self._deliver(None)

    # ------------------------------------------------------------ acknowledgements

    def consumed(self, size: int) -> None:
        """Note that the receiving protocol has read `size` bytes."""
        self._consumed += size
        if self.sender.has_backlog and not self._ack_is_planned:
            self._ack_is_planned = True
            self.scheduler.after(self.back.delay(), self.actor, self._ack_arrives)

    def _ack_arrives(self, _: object) -> None:
        self._ack_is_planned = False
        self._acknowledge()

    def _acknowledge(self) -> None:
        if not self.back.is_open:
            self.back.wait(self._acknowledge)
            return
        self._stalled_at = None
        self._acknowledged = self._consumed
        if self.sender.has_backlog:
            self.sender.room_came()

    def _note_progress(self) -> None:
        if self.back.is_open:
            self._stalled_at = None
        else:
            self._stall()
            self.back.wait(self._acknowledge)

    def _stall(self) -> None:
        if self._stalled_at is None:
            self._stalled_at = now = self.scheduler.now
            self.scheduler.after(self.user_timeout_s, self.actor, self._give_up, now)

    def _give_up(self, since: float) -> None:
        if self._stalled_at == since and not self.sender.is_gone:
            self.forget()
            self.sender.broke(TimeoutError(errno.ETIMEDOUT, "connection timed out"))
