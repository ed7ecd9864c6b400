"""`SingleWriteJournal`: everything a process does with a cluster, through one object.

Source: design.md section 8.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from lunalog.client import url as urls
from lunalog.client.admin import Admin, StreamHeads
from lunalog.client.ending import JournalRuntime
from lunalog.client.lead import LeadScope
from lunalog.client.leader import Leadership
from lunalog.client.master import MasterLink
from lunalog.client.opening import (
    Connecting,
    checked,
    checked_options,
    choose_policy,
    peer_name,
    runtime_to,
)
from lunalog.client.reader import ReadOptions, StreamReader
from lunalog.client.roles import RoleStates
from lunalog.client.servers import ServerLinks
from lunalog.client.session import Session
from lunalog.client.stream import Leading, Parts, again
from lunalog.client.streams import LocalSource, LocalStreams
from lunalog.client.watch import StreamWatch
from lunalog.client.writer import StreamWriter
from lunalog.config import ClientConfig
from lunalog.errors import (
    BadAddressError,
    ClosedError,
    DeadlineExceededError,
    InvariantError,
    LunalogError,
    StreamNotFoundError,
)
from lunalog.runtime import Address, Runtime, Tasks
from lunalog.types import (
    LeaderIncarnation,
    LeaderTurn,
    Peer,
    Policy,
    Role,
    Sequence,
    StreamDescription,
    StreamHead,
    check_node_name,
    check_stream_name,
)
from lunalog.wire.messages import Health, ServerList, ViewReply

CLOSE_TIMEOUT_S: Final = 5.0
"""Closing a journal resigns for at most this long; what is not done by then, the next leader does."""


class SingleWriteJournal:
    """One client of a cluster: leads and follows streams under one peer name and one session.

    Make it by `connect`, on the loop that uses it; close it by `aclose` or by leaving `async with`.
    After it was closed, or ended by an error that closing could not prevent (another process took its
    peer name, a rule was broken), every call raises why.
    """

    def __init__(
        self,
        runtime: Runtime,
        masters: tuple[Address, ...],
        *,
        url: str,
        peer: str,
        config: ClientConfig,
        default_policy: Policy | None = None,
        shares_process: bool = False,
    ) -> None:
        self.url = url
        self.peer: Peer = Peer(peer, runtime.random_bytes(16))
        self.config = config
        self._runtime = runtime
        self._default_policy = default_policy or Policy()
        self._tasks = Tasks(runtime)
        self._link = MasterLink(runtime, masters, self.peer, config)
        self._session = Session(self._link, lease_expires=not shares_process)
        self._links: ServerLinks | None = None
        self._admin = Admin(self._link, self._check)
        self._streams = LocalStreams(self._admin, self._session, self._check)
        self._error: LunalogError | None = None
        self._closed: asyncio.Future[None] | None = None
        self._on_closed: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._unlisten: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        state = "ended" if self._error is not None else "open"
        return f"<SingleWriteJournal {self.peer} at {self.url}, {state}>"

    # ------------------------------------------------------------------ life

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        peer: str | None = None,
        config: ClientConfig | None = None,
        timeout: float | None = None,
        runtime: Runtime | None = None,
    ) -> Connecting[Self]:
        """Connect to a cluster; `async with` the result, or `await` it.

        Args:
            url: `lunalog://HOST:PORT[,HOST:PORT]`, or `lunalogs://...[?ca=FILE]` for TLS; through
                `lunalog.SingleWriteJournal` also `memory://NAME` and `file:///DIRECTORY`.
                None takes `LUNALOG_URL`.
            peer: This process's name among the candidates; default: from host and process id.  A newer
                journal of the same name replaces an older one, which ends with `ClosedError`.
            config: Settings; default `ClientConfig()`.
            timeout: Seconds to wait for a master; default `connect_timeout_ms`.
            runtime: The seam to the machine; for tests.

        Raises (when awaited or entered):
            BadAddressError: `url` is not one.
            MasterUnavailableError: No master answered in time.
            WrongClusterError, UnsupportedVersionError: What answered will not work with us.
            BadCertificateError, TlsError: The authority cannot be read; what answered is not trusted.
        """

        async def opening() -> Self:
            text = urls.find(url, os.environ)
            where = urls.parse(text)
            if not isinstance(where, urls.ClusterUrl):
                raise BadAddressError(
                    f"{text!r}: embedded journals are opened by lunalog.SingleWriteJournal.connect"
                )
            journal = cls(
                await runtime_to(where, runtime),
                where.masters,
                url=text,
                peer=peer_name(peer),
                config=checked(config),
            )
            await journal.start(timeout)
            return journal

        return Connecting(opening)

    async def start(self, timeout: float | None = None) -> None:
        """Connect; `connect` has done it."""
        if isinstance(self._runtime, JournalRuntime):
            self._unlisten = self._runtime.on_fail(self._failed)
        try:
            await self._link.start(timeout)
        except BaseException:
            await self._link.aclose()
            raise
        links = self._links = ServerLinks(
            self._runtime,
            self._link.cluster,
            self.peer.name,
            self.peer.incarnation,
            self.config,
        )
        self._link.on_ended = self._end
        self._session.on_error = self._end

        def make_leading(watch: StreamWatch) -> Leading:
            return Leadership(self._runtime, self.config, links, self._link, watch, self._session)

        self._streams.parts = Parts(
            self._link,
            links,
            self._session,
            self._tasks,
            make_leading,
            lambda watch: StreamWriter(self._runtime, self.config, watch),
            self._streams.close,
        )
        self._session.start()

    async def aclose(self) -> None:
        """Resign from what this journal leads, end its session, disconnect.  Idempotent.

        Readers, writers and observers of it raise `ClosedError` from then on.  Cancelling ends the wait
        for an orderly resignation; all the rest is closed all the same.
        """
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        closed = self._closed = asyncio.get_running_loop().create_future()
        async with contextlib.AsyncExitStack() as rest:  # all of it, also once this is cancelled
            rest.callback(closed.set_result, None)
            for action in reversed(self._on_closed):
                rest.push_async_callback(action)
            rest.callback(self._unlisten)
            rest.push_async_callback(self._tasks.cancel)
            rest.push_async_callback(self._link.aclose)
            if self._links is not None:
                rest.push_async_callback(self._links.aclose)
            rest.push_async_callback(self._session.aclose)
            rest.callback(self._end_streams)
            await self._resign_all()

    def _end_streams(self) -> None:
        if self._error is None:
            self._error = ClosedError("this journal is closed: connect again")
            for local in self._streams:
                local.end(self._error)

    def on_closed(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `action` when this journal has been closed."""
        self._on_closed.append(action)

    async def __aenter__(self) -> SingleWriteJournal:
        self._check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _resign_all(self) -> None:
        leading = []
        for local in self._streams:
            local.watch.withdraw()
            if local.leading is not None and self._error is None:
                leading.append(self._tasks.start(_resign(local.leading), f"resign-{local}"))
        if leading:
            await asyncio.wait(leading, timeout=CLOSE_TIMEOUT_S)

    def _end(self, error: LunalogError) -> None:
        """This journal is over for good: the master sent it away, or nobody may trust it."""
        if self._error is not None:
            return
        self._error = error
        for local in self._streams:
            local.end(error)
        if self._closed is None:
            _ = self._tasks.start(self._cut_off(), "journal-ended")

    async def _cut_off(self) -> None:
        """No byte of this journal may go out any more, no ack may come in."""
        if self._links is not None:
            await self._links.aclose()
        await self._session.aclose()
        await self._link.aclose()

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, LunalogError):
            bug = InvariantError(f"this journal ended because of a bug: {error!r}")
            bug.__cause__ = error
            error = bug
        self._end(error)

    def _check(self) -> None:
        if self._error is not None:
            raise again(self._error) from self._error

    # ------------------------------------------------------------------ streams

    async def create_stream(
        self,
        name: str,
        *,
        replicas: int | None = None,
        ack_quorum: int | None = None,
        exist_ok: bool = False,
        timeout: float | None = None,
    ) -> StreamHead:
        """Create a stream.

        Args:
            name: 1 to 255 of letters, digits, '.', '_', '/', '-'.
            replicas: Servers that hold each segment (N); default 3, on `file:///` 1.
            ack_quorum: How many of them must have an event on disk before it is acknowledged (A):
                A-1 disks may be lost.  Default: more than half of N.
            exist_ok: Return the stream of that name if there is one, whatever its policy.
            timeout: Seconds; default `operation_timeout_ms`.

        Raises:
            StreamExistsError: There is one, and not `exist_ok`.
            NotEnoughServersError: This cluster can never hold that many replicas.
            UsageError: Not a legal name or pair.
            MasterUnavailableError, DeadlineExceededError: It may or may not exist now.
        """
        self._check()
        check_stream_name(name)
        policy = choose_policy(self._default_policy, replicas, ack_quorum)
        self.check_policy(policy)
        return await self._admin.create(name, policy, exist_ok=exist_ok, timeout=timeout)

    def check_policy(self, policy: Policy) -> None:
        """Refuse, before anything is sent, a policy that this journal's cluster can never hold."""

    async def delete_stream(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a stream and all its events; its leader and readers end with an error.

        Raises `StreamNotFoundError`; after `MasterUnavailableError` it may be deleted or not.
        """
        self._check()
        await self._admin.delete(check_stream_name(name), timeout)
        local = self._streams.named(name)
        if local is not None:
            local.watch.end(StreamNotFoundError(f"stream {name!r} was deleted"))

    def list_streams(self, prefix: str = "") -> StreamHeads:
        """Iterate over the heads of all streams whose name starts with `prefix`, in order of name."""
        self._check()
        return self._admin.heads(prefix)

    async def describe(self, name: str, *, timeout: float | None = None) -> StreamDescription:
        """What the master knows of a stream now: its head, and every sealed segment that is kept."""
        self._check()
        return await self._admin.describe(check_stream_name(name), timeout)

    async def history(self, name: str, *, timeout: float | None = None) -> list[LeaderTurn]:
        """Who led which sequences, of those that are kept."""
        self._check()
        return await self._admin.history(check_stream_name(name), timeout)

    # ------------------------------------------------------------------ roles

    async def state(self, name: str) -> tuple[Role, Peer | None]:
        """This client's role for a stream, and who leads it now.

        None: nobody does, also when the last leader died and nobody has taken over yet.
        """
        local = await self._streams.open(name)
        try:
            is_vacant = False
            if not local.is_leading:
                reply: ViewReply = await self._admin.get(name, None)
                local.watch.merge(reply.view)
                is_vacant = reply.is_vacant
            found = local.role_state(is_candidate=True)
            return found.role, None if is_vacant else found.leader
        finally:
            self._streams.close(local)

    def observe_state(self, name: str, *, candidate: bool = True) -> RoleStates:
        """Iterate over the states of a stream's leadership; while open, stand for election."""
        self._check()
        check_stream_name(name)
        return RoleStates(
            lambda: self._streams.open(name),
            self._streams.close,
            is_candidate=candidate,
            check=self._check,
        )

    def lead(self, name: str, *, timeout: float | None = None) -> LeadScope:
        """`async with journal.lead(name) as writer`: wait for leadership, lead, resign."""
        self._check()
        check_stream_name(name)
        return LeadScope(
            lambda: self._streams.open(name),
            self._streams.close,
            name=name,
            timeout=timeout,
            resign_timeout=self.config.operation_timeout_ms / 1000,
            check=self._check,
        )

    async def transfer(self, name: str, *, to: str = "", timeout: float | None = None) -> None:
        """Hand leadership over in peace, to the candidate `to` or to any other; returns once it leads.

        Raises:
            NotLeaderError, ConflictError, UsageError: Nobody leads, or `to` does not stand.
            DeadlineExceededError: Not within `timeout` seconds; it may still happen.
        """
        self._check()
        if to:
            check_node_name(to)
        await self._admin.transfer(check_stream_name(name), to, timeout)

    # ------------------------------------------------------------------ events

    async def open_stream_writer(self, name: str) -> StreamWriter:
        """Open a writer; anybody may, at any time.

        It binds to the epoch that this client leads, or to the first that it will lead.  While there
        is none, and after that one has ended, all that modifies raises `NotLeaderError`.
        """
        local = await self._streams.open(name)
        return local.open_writer()

    async def open_stream_reader(
        self,
        name: str,
        *,
        start: Sequence | None = 0,
        follow: bool = True,
        linearizable: bool = False,
    ) -> StreamReader:
        """As `read`, but raises `StreamNotFoundError` at once, and follows unless told otherwise."""
        options = checked_options(start, follow=follow, linearizable=linearizable)
        return self._reader(name, options, await self._streams.source(name))

    def read(
        self,
        name: str,
        *,
        start: Sequence | None = 0,
        follow: bool = False,
        linearizable: bool = False,
    ) -> StreamReader:
        """Iterate over committed events.

        Args:
            name: Of the stream.
            start: A sequence; None: the first that is kept; -10: the last ten.
            follow: Wait for more at the end, for ever.
            linearizable: End exactly behind everything acknowledged before the first event was asked
                for; needs a leader, or a stream that has nothing open.
        """
        self._check()
        options = checked_options(start, follow=follow, linearizable=linearizable)
        return self._reader(check_stream_name(name), options, None)

    async def committed(self, name: str, *, timeout: float | None = None) -> Sequence:
        """Everything acknowledged before this call lies below the result (linearizable, R14).

        Raises `DeadlineExceededError` when no leader answers within `timeout` seconds, default
        `operation_timeout_ms`.
        """
        began = self._runtime.now()
        try:
            async with asyncio.timeout(timeout):
                local = await self._streams.open(name)
        except DeadlineExceededError:
            raise
        except TimeoutError:
            why = f"{name!r} was not found within {timeout:g} s: the master does not answer"
            raise DeadlineExceededError(why) from None
        try:
            left = None if timeout is None else timeout - (self._runtime.now() - began)
            return await local.read_point(left)
        finally:
            self._streams.close(local)

    def _reader(self, name: str, options: ReadOptions, source: LocalSource | None) -> StreamReader:
        return StreamReader(
            lambda: self._streams.source(name),
            options,
            self.config,
            self._tasks,
            name=name,
            check=self._check,
            source=source,
        )

    # ------------------------------------------------------------------ the cluster

    async def servers(self, *, timeout: float | None = None) -> ServerList:
        """All journal servers that the master knows."""
        self._check()
        return await self._admin.servers(timeout)

    async def scale(self, servers: int, *, timeout: float | None = None) -> None:
        """Change how many journal servers the orchestrator keeps alive, durably."""
        self._check()
        await self._admin.scale(servers, timeout)

    async def health(self, *, timeout: float | None = None) -> Health:
        """What the master finds wrong; nothing: healthy."""
        self._check()
        return await self._admin.health(timeout)

    @property
    def incarnation(self) -> LeaderIncarnation:
        """The identity behind the peer name; another for each journal object (R2)."""
        return self.peer.incarnation

    def stats(self) -> dict[str, int | float]:
        """Numbers for people and metrics."""
        return {
            "streams": len(self._streams),
            "leading": sum(local.is_leading for local in self._streams),
            "beats": self._session.beats,
            "lease_remaining_s": self._session.lease_remaining,
            "loop_turn_age_s_max": self._session.turn_age_s_max,
            "is_connected": int(self._link.is_connected),
        }


async def _resign(leading: Leading) -> None:
    try:
        await leading.resign()
    except LunalogError:
        return  # the epoch is over, or the next leader recovers
