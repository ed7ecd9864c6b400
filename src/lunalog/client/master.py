"""The client's main connection to the master: requests that outlive a lost connection, and watches.

Every request of ours is idempotent (it names what it changes, R28), so it is simply asked again until
it is answered or its time is over.  After a reconnect each watch is told again and answered whole.

Source: design.md sections 4 and 12; R2, N5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from lunalog.client.backoff import Backoff
from lunalog.client.watch import StreamWatch
from lunalog.config import ClientConfig
from lunalog.errors import (
    AvailabilityError,
    ClosedError,
    CorruptFrameError,
    DeadlineExceededError,
    GoneError,
    InvariantError,
    LunalogError,
    MasterUnavailableError,
    NotActiveError,
    NotLeaderError,
    PeerError,
    StreamNotFoundError,
    TlsError,
    UnsupportedVersionError,
    UsageError,
    WrongClusterError,
)
from lunalog.runtime import Address, Runtime, Tasks
from lunalog.types import Peer, StreamId, StreamView
from lunalog.wire import codec, dialing
from lunalog.wire.connection import HANDSHAKE_TIMEOUT_S, Connection, Handler
from lunalog.wire.messages import (
    Hello,
    Message,
    Ping,
    ResignWanted,
    RollWanted,
    StreamChanged,
    StreamGone,
    UnwatchStream,
    ViewReply,
    WatchStream,
)
from lunalog.wording import shown

PING_EVERY_S: Final = 2.0
"""A main connection on which nothing comes is asked whether anybody is there (N5)."""
PING_TIMEOUT_S: Final = 3.0
FINAL_ERRORS: Final = (UsageError, WrongClusterError, UnsupportedVersionError, NotLeaderError)
"""Told by a master that closes or refuses a connection: coming back would not help."""


class MasterLink(Handler):
    """One journal's connection to whichever master is active."""

    def __init__(
        self,
        runtime: Runtime,
        addresses: Sequence[Address],
        peer: Peer,
        config: ClientConfig,
        *,
        role: str = "client",
        cluster: str = "",
    ) -> None:
        self.runtime = runtime
        self.addresses = tuple(addresses)
        self.peer = peer
        self.config = config
        self.cluster = cluster
        """Known once connected; from then on only masters of this cluster will do (O4)."""
        self.error: LunalogError | None = None
        """Why this link is over for good; none while it is not."""
        self.on_ended: Callable[[LunalogError], None] | None = None
        self._role = role
        self._tasks = Tasks(runtime)
        self._connection: Connection | None = None
        self._last_error: LunalogError | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._lost = asyncio.Event()
        self._watches: dict[StreamId, StreamWatch] = {}
        self._telling: set[StreamId] = set()

    def __repr__(self) -> str:
        state = "over" if self.error else "connected" if self._connection else "connecting"
        return f"<MasterLink of {self.peer} to {self.where}, {state}>"

    @property
    def where(self) -> str:
        """The addresses, for people."""
        return ", ".join(map(shown, self.addresses))

    @property
    def is_connected(self) -> bool:
        """True while a master answers us, as far as we know."""
        return self._connection is not None

    def hello(self, purpose: str) -> Hello:
        """What this client says of itself, on any connection."""
        return Hello(
            codec.VERSION_MIN,
            codec.VERSION_MAX,
            self.cluster,
            self._role,
            self.peer.name,
            self.peer.incarnation,
            self.runtime.random_bytes(16),
            purpose,
        )

    # ------------------------------------------------------------------ life

    async def start(self, timeout: float | None = None) -> None:
        """Connect for the first time, and keep connected from then on.

        Raises:
            MasterUnavailableError: No master answered within `timeout` seconds; nothing was sent.
            WrongClusterError, UnsupportedVersionError, UsageError: A master refused us for good.
        """
        limit = self.config.connect_timeout_ms / 1000 if timeout is None else timeout
        deadline = self.runtime.now() + limit
        backoff = Backoff(self.runtime, self.config.retry_ms_max)
        while (found := await self._dial(deadline)) is None:
            pause = backoff.next_s()
            if self.runtime.now() + pause >= deadline:
                raise MasterUnavailableError(
                    f"no master answered at {self.where} within {limit:g} s ({self._last_error}); "
                    "nothing was changed: check the address, and that a master runs there"
                ).without_effect()
            await asyncio.sleep(pause)
        self._connected(found)
        _ = self._tasks.start(self._keep(), f"master-link-{self.peer}")

    async def aclose(self) -> None:
        """Disconnect; what is still asked fails with `ClosedError`.  Idempotent."""
        self._end(ClosedError("this journal is closed"))
        await self._tasks.cancel()

    def _end(self, error: LunalogError) -> None:
        if self.error is not None:
            return
        self.error = error
        found, self._connection = self._connection, None
        if found is not None:
            found.close()
        self._lost.set()
        self._wake()
        for watch in list(self._watches.values()):
            watch.end(error)
        if self.on_ended is not None:
            self.on_ended(error)

    async def _dial(self, deadline: float) -> Connection | None:
        """Try each address once; None when none answers now.  Raises what is final."""
        for address in self.addresses:
            left = min(deadline - self.runtime.now(), HANDSHAKE_TIMEOUT_S)
            if left <= 0:
                break
            try:
                return await dialing.dial(
                    self.runtime,
                    address,
                    self.hello("main"),
                    self,
                    timeout=left,
                    unreachable=MasterUnavailableError,
                )
            except (AvailabilityError, PeerError) as error:
                if isinstance(error, (CorruptFrameError, TlsError, *FINAL_ERRORS)):
                    raise  # what listens there is no master of ours
                self._last_error = error
        return None

    def _connected(self, found: Connection) -> None:
        welcome = found.peer
        if welcome is None:
            raise InvariantError("a connection is open only after its handshake")
        if welcome.role != "master":
            found.close()
            raise WrongClusterError(
                f"{self.where} is a {welcome.role or 'stranger'}, not a master: use a master's address"
            )
        if self.cluster and welcome.cluster != self.cluster:
            found.close()
            raise WrongClusterError(
                f"{self.where} is now cluster {welcome.cluster}, this journal belongs to {self.cluster}"
            )
        self.cluster = welcome.cluster
        if found.closed_by is not None or self.error is not None:
            found.close()
            return
        self._connection = found
        self._lost.clear()
        self._wake()
        for stream in sorted(self._watches):
            self._tell(self._watches[stream])

    async def _keep(self) -> None:
        backoff = Backoff(self.runtime, self.config.retry_ms_max)
        while self.error is None:
            if self._connection is not None:
                await self._watch_over(self._connection)
                backoff.reset()
                continue
            try:
                found = await self._dial(self.runtime.now() + HANDSHAKE_TIMEOUT_S)
                if found is not None:
                    self._connected(found)
            except FINAL_ERRORS as error:
                self._end(error)
            except LunalogError as error:
                self._last_error = error
            if not self.is_connected:
                await asyncio.sleep(backoff.next_s())

    async def _watch_over(self, found: Connection) -> None:
        """Return when the connection is lost; end it when nobody answers on it."""
        while found.closed_by is None:
            try:
                async with asyncio.timeout(PING_EVERY_S):
                    await self._lost.wait()
                    return
            except TimeoutError:
                pass
            try:
                await found.request(Ping(), timeout=PING_TIMEOUT_S)
            except DeadlineExceededError as error:
                self._last_error = error
                found.abort()
            except LunalogError as error:
                self._last_error = error

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------ requests

    async def request(self, message: Message, timeout: float | None = None) -> Any:
        """Ask the master, again after every lost connection, until it answers.

        Raises:
            LunalogError: What the master answered.
            MasterUnavailableError: None could be reached in `timeout` seconds.
            DeadlineExceededError: One was reached but did not answer in time.  After either, a change
                that was asked for may still be applied.
        """
        limit = self.config.operation_timeout_ms / 1000 if timeout is None else timeout
        deadline = self.runtime.now() + limit
        backoff = Backoff(self.runtime, self.config.retry_ms_max)
        what = type(message).__name__
        attempts = 0
        last: LunalogError | None = None
        while (left := deadline - self.runtime.now()) > 0:
            found = self._connection
            if found is None:
                if self.error is not None:
                    raise self.error
                await self._wait_connected(left)
                continue
            attempts += 1
            try:
                return await found.request(message, timeout=left)
            except (MasterUnavailableError, NotActiveError) as error:
                last = error
                left = deadline - self.runtime.now()
                await asyncio.sleep(max(0.0, min(backoff.next_s(), left)))
            except DeadlineExceededError as error:
                last = error
        if self.error is not None:
            raise self.error
        raise self._given_up(what, limit, attempts, last)

    def _given_up(
        self, what: str, limit: float, attempts: int, last: LunalogError | None
    ) -> LunalogError:
        if attempts == 0:
            return MasterUnavailableError(
                f"{what}: no master reached at {self.where} within {limit:g} s ({self._last_error}); "
                "it was not sent, nothing was changed"
            ).without_effect()
        kind = DeadlineExceededError if self.is_connected else MasterUnavailableError
        return kind(
            f"{what}: no answer from the master at {self.where} within {limit:g} s, asked "
            f"{attempts} times ({last}); a change may still be applied: look before you repeat it"
        )

    async def _wait_connected(self, timeout: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            pass
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    # ------------------------------------------------------------------ watches

    def watch(self, view: StreamView, *, is_candidate: bool = False) -> StreamWatch:
        """Follow a stream; the same object for all who do.  `release()` it in the end."""
        stream = view.head.stream
        found = self._watches.get(stream)
        if found is None:
            found = self._watches[stream] = StreamWatch(view, self._tell)
        else:
            found.merge(view)
        found.users += 1
        if is_candidate:
            found.stand(is_candidate=True)
        if found.users == 1:
            self._tell(found)
        return found

    def _tell(self, watch: StreamWatch) -> None:
        """Let the master know what we want of this stream, now or once it can be reached."""
        if watch.stream not in self._telling and self._connection is not None:
            self._telling.add(watch.stream)
            _ = self._tasks.start(self._tell_all(watch), f"watch-{watch.name}")

    async def _tell_all(self, watch: StreamWatch) -> None:
        try:
            told: tuple[Connection, bool, bool] | None = None
            while (found := self._connection) is not None and watch.gone is None:
                wanted = (found, watch.users > 0, watch.is_candidate)
                if wanted == told:
                    break
                if await self._tell_one(found, watch):
                    told = wanted
        finally:
            self._telling.discard(watch.stream)
        if watch.users == 0 or watch.gone is not None:
            self._watches.pop(watch.stream, None)

    async def _tell_one(self, found: Connection, watch: StreamWatch) -> bool:
        message = (
            WatchStream(watch.stream, watch.is_candidate)
            if watch.users > 0
            else UnwatchStream(watch.stream)
        )
        try:
            reply = await found.request(message, timeout=self.config.operation_timeout_ms / 1000)
        except (StreamNotFoundError, GoneError) as error:
            watch.end(StreamNotFoundError(f"stream {watch.name!r} was deleted ({error})"))
            return True
        except AvailabilityError:
            await asyncio.sleep(self.config.retry_ms_max / 1000 * self.runtime.random.random())
            return False
        if isinstance(reply, ViewReply):
            self._take(reply.view)
        return True

    def _take(self, view: StreamView) -> None:
        watch = self._watches.get(view.head.stream)
        if watch is None:
            return
        watch.merge(view)
        if view.head.deleted:
            watch.end(StreamNotFoundError(f"stream {watch.name!r} was deleted"))

    # ------------------------------------------------------------------ what comes by itself

    def on_push(self, connection: Connection, message: Message) -> None:
        """Take a change in, or hand a wish to the leader of that stream."""
        if isinstance(message, StreamChanged):
            self._take(message.view)
            return
        if not isinstance(message, StreamGone | ResignWanted | RollWanted):
            super().on_push(connection, message)
            return
        watch = self._watches.get(message.stream)
        if watch is None:
            return
        if isinstance(message, StreamGone):
            watch.end(StreamNotFoundError(f"stream {watch.name!r} was deleted"))
        else:
            watch.push(message)

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """Dial again, unless the master sent us away for good."""
        self._last_error = error
        if connection is self._connection:
            self._connection = None
            self._lost.set()
        if isinstance(error, FINAL_ERRORS):
            self._end(error)
