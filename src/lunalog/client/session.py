"""The session: heartbeats from a loop of their own, which carry the main loop's last turn.

The beat loop has its own connection and touches nothing of the main loop: the two share plain values
(one writer each), and wake each other by `call_soon_threadsafe`.  A busy main loop therefore keeps its
leases, a wedged one loses them.

Source: design.md section 5; R15, K5, C2.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Final

from lunalog.client.backoff import Backoff
from lunalog.client.master import FINAL_ERRORS, MasterLink
from lunalog.errors import LunalogError, MasterUnavailableError
from lunalog.runtime import Worker
from lunalog.types import Sequence, StreamId
from lunalog.wire import dialing
from lunalog.wire.connection import HANDSHAKE_TIMEOUT_S, Connection, Handler
from lunalog.wire.messages import ClientBeat, ClientBeatReply, EndSession

GOODBYE_TIMEOUT_S: Final = 1.0
APPLIED_MAX: Final = 4096
"""Applied positions in one beat; the others follow with the next ones."""


class Session(Handler):
    """Keeps this client's one lease, for all streams it leads."""

    def __init__(self, link: MasterLink, *, lease_expires: bool = True) -> None:
        self.runtime = link.runtime
        self.config = link.config
        self.lease_deadline = 0.0
        """Until when, by `Runtime.now`, the holder may count on its lease; 0.0: none granted yet.

        Written by the beat loop alone, read by the main loop.
        """
        self.beats = 0
        """Confirmed so far."""
        self.turn_age_s_max = 0.0
        """The longest time without a turn of the main loop that a beat has seen."""
        self.on_error: Callable[[LunalogError], None] | None = None
        """Called on the main loop when a master ends this session for good."""
        self._link = link
        self._lease_expires = lease_expires
        """False where master and client share a loop: neither can be stalled alone."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_turn = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._was_confirmed = False
        self._listeners: dict[int, Callable[[], None]] = {}
        self._next_listener = 0
        self._applied: dict[StreamId, Sequence] = {}
        self._is_closing = False
        self._worker: Worker | None = None
        self._beat_loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        """Of the beat loop: its connection is gone, or this client ends."""

    # ------------------------------------------------------------------ the main loop's side

    @property
    def lease_remaining(self) -> float:
        """Seconds that the holder may still count on; 0.0 when it has lapsed or none was granted."""
        return max(0.0, self.lease_deadline - self.runtime.now())

    @property
    def is_confirmed(self) -> bool:
        """True while the lease holds by this client's own clock (R15: it decides no append)."""
        return self.lease_remaining > 0.0

    def start(self) -> None:
        """Begin to beat; call it on the main loop, once the master is known."""
        self._loop = asyncio.get_running_loop()
        self._turn()
        self._worker = self.runtime.start_loop(f"beat-{self._link.peer}", self._beat)

    def note_applied(self, stream: StreamId, sequence: Sequence) -> None:
        """This peer has replayed everything below `sequence`: it tells how short its replay is."""
        if sequence > self._applied.get(stream, -1):
            self._applied[stream] = sequence

    def forget_applied(self, stream: StreamId) -> None:
        """The stream is of no more interest here."""
        self._applied.pop(stream, None)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener()` when `is_confirmed` has changed; returns what ends that."""
        number = self._next_listener
        self._next_listener += 1
        self._listeners[number] = listener
        return lambda: self._listeners.pop(number, None) and None

    async def aclose(self) -> None:
        """Tell the master that this client ends, and stop beating.  Idempotent."""
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake_beat()
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.join()

    def _wake_beat(self) -> None:
        beat_loop, wake = self._beat_loop, self._wake
        if beat_loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # that loop has just ended
                beat_loop.call_soon_threadsafe(wake.set)

    def _turn(self) -> None:
        """Stamp a turn of the main loop, and see whether the lease came or went."""
        self._last_turn = self.runtime.now()
        if self.is_confirmed != self._was_confirmed:
            self._was_confirmed = not self._was_confirmed
            for listener in list(self._listeners.values()):
                listener()
        if not self._is_closing and self._loop is not None:
            self._timer = self._loop.call_later(self.config.heartbeat_ms / 4000, self._turn)

    def _tell_error(self, error: LunalogError) -> None:
        if self.on_error is not None and not self._is_closing:
            self.on_error(error)

    # ------------------------------------------------------------------ the beat loop's side

    async def _beat(self) -> None:
        self._wake = wake = asyncio.Event()
        self._beat_loop = asyncio.get_running_loop()
        backoff = Backoff(self.runtime, self.config.retry_ms_max)
        while not self._is_closing:
            beats = self.beats
            try:
                found = await self._dial()
                if found is not None:
                    await self._beat_on(found, wake)
            except FINAL_ERRORS as error:
                self._end(error)
                return
            except LunalogError:
                pass  # the main link tells people; this loop just comes back
            if self.beats > beats:  # it worked a moment ago: be back within the session grace
                backoff.reset()
                continue
            if not self._is_closing:
                wake.clear()
            await _wait(wake, backoff.next_s())

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """Come back at once: a session is over after a short grace."""
        if self._wake is not None:
            self._wake.set()

    def _end(self, error: LunalogError) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the main loop has ended first
                self._loop.call_soon_threadsafe(self._tell_error, error)

    async def _dial(self) -> Connection | None:
        for address in self._link.addresses:
            if self._is_closing:
                return None
            try:
                return await dialing.dial(
                    self.runtime,
                    address,
                    self._link.hello("beat"),
                    self,
                    timeout=HANDSHAKE_TIMEOUT_S,
                    unreachable=MasterUnavailableError,
                )
            except MasterUnavailableError:
                continue
        return None

    async def _beat_on(self, found: Connection, wake: asyncio.Event) -> None:
        """Beat until the connection is lost or this client ends."""
        confirmed: dict[StreamId, Sequence] = {}
        period_s = self.config.heartbeat_ms / 1000
        try:
            while not self._is_closing:
                reply = await self._beat_once(found, confirmed)
                if reply is not None:
                    period_s = min(self.config.heartbeat_ms, max(1, reply.heartbeat_ms)) / 1000
                await _wait(wake, period_s)
                wake.clear()
            with contextlib.suppress(LunalogError):
                await found.request(EndSession(), timeout=GOODBYE_TIMEOUT_S)
        finally:
            if found.closed_by is None:
                found.close()

    async def _beat_once(
        self, found: Connection, confirmed: dict[StreamId, Sequence]
    ) -> ClientBeatReply | None:
        """Renew the lease, unless the main loop has had no turn for too long (K5)."""
        sent = self.runtime.now()
        age_s = max(0.0, sent - self._last_turn)
        self.turn_age_s_max = max(self.turn_age_s_max, age_s)
        if age_s * 1000 > self.config.loop_stall_ms:
            return None
        changed = [
            (stream, sequence)
            for stream, sequence in self._applied.copy().items()
            if confirmed.get(stream) != sequence
        ][:APPLIED_MAX]
        timeout = max(4 * self.config.heartbeat_ms / 1000, GOODBYE_TIMEOUT_S)
        message = ClientBeat(int(age_s * 1000), tuple(changed), found.peer_nonce)
        try:
            reply: ClientBeatReply = await found.request(message, timeout=timeout)
        except FINAL_ERRORS:
            raise
        except LunalogError:
            if found.closed_by is not None and isinstance(found.closed_by, FINAL_ERRORS):
                raise found.closed_by from None
            found.abort()
            raise
        confirmed.update(changed)
        self.beats += 1
        granted = sent + self.config.lease_fraction * reply.lease_ms / 1000
        if not self._lease_expires:
            granted = math.inf
        self.lease_deadline = max(self.lease_deadline, granted)
        return reply


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
