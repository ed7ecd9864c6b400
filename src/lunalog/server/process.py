"""One journal server: a durable replica of segments.

    start  lock the directory, count the boot, replay the log, listen, register
    serve  connections decide through `core.replica` and write through one log
    stop   take nothing more, finish what is queued, close

Source: design.md section 6; R16, R18, R19; O4.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from collections.abc import Sequence as Run
from functools import partial
from typing import Final

import msgspec

from lunalog.config import ServerConfig
from lunalog.core.held import SegmentReplica
from lunalog.core.replica import Replica
from lunalog.errors import NotActiveError, StorageError, WrongClusterError
from lunalog.runtime import Address, Listener, Runtime, Tasks, to_the_end
from lunalog.server import facts
from lunalog.server.pull import Puller
from lunalog.server.reads import Reads
from lunalog.server.registration import Registration
from lunalog.server.serving import Acks, Leaders, ServerHandler
from lunalog.storage import identity
from lunalog.storage.files import Disk
from lunalog.storage.identity import Identity
from lunalog.storage.log import Log
from lunalog.storage.records import CertificateRecord, ControlRecord, Damage, PromiseRecord, Record
from lunalog.types import Certificate, SegmentId, Sequence, ServerAddress, StreamId, check_node_name
from lunalog.wire import codec
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import acceptor
from lunalog.wire.messages import Hello, ServerReport, Welcome
from lunalog.wording import plainly

logger = logging.getLogger("lunalog.server")
NAME_BYTES: Final = 4
TOKEN_BYTES: Final = 7


class JournalServer:
    """The server; `runtime.fail` is called when its disk or its own rules fail it."""

    def __init__(
        self, runtime: Runtime, disk: Disk, masters: Run[Address], config: ServerConfig
    ) -> None:
        config.validate()
        self.runtime = runtime
        self.disk = disk
        self.config = config
        self.tasks = Tasks(runtime)
        self.replica = Replica()
        self.identity = Identity(cluster="", name=config.name)
        self.appended_bytes = 0
        self.free_bytes = 0
        self.total_bytes = 0
        self._rate_from = (runtime.now(), 0)
        self._masters = tuple(masters)
        self._listener: Listener | None = None
        self._connections: dict[Connection, None] = {}
        self.appenders: set[Connection] = set()
        """Those on which segments are open: where there is one, no other brings appends in its turn."""
        self._throttled: list[Connection] = []
        self._damage_seen = 0
        self._is_stopping = False
        self._ending = contextlib.AsyncExitStack()
        """What undoes what was started so far, the newest first: all of it, whatever is cancelled."""

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Become ready to register and serve.

        Raises:
            DirectoryLockedError: Another process holds the directory.
            StorageError: It cannot be read or written, or its identity is damaged.
            WrongClusterError, UsageError: It is another cluster's, or another server's.
            OSError: The address cannot be listened on.
        """
        try:
            await to_the_end(self._lock())
            await to_the_end(self.recover())
            await self._serve()
        except BaseException:
            await self._ending.aclose()
            raise

    async def _lock(self) -> None:
        await self.runtime.offload(identity.lock(self.disk))
        self._ending.push_async_callback(self.disk.unlock)

    async def recover(self) -> None:
        """Count the boot and read back what this server holds; the directory is locked.

        A crash in here leaves all that was answered for before: nothing is answered yet (I9).
        """
        self.identity = await self.runtime.offload(self._boot())
        self.log = await Log.open(
            self.disk,
            self.runtime,
            self.config,
            boot=self.identity.boot,
            replay=self._replay,
            snapshot=self._snapshot,
            start_of=partial(facts.start_of, self.replica),
            keep_position=self._keep_position,
        )
        self._ending.push_async_callback(self._close_log)
        self.replica.settled()
        self.log.forget_unlisted()
        self.replica.incarnation = self.identity.incarnation

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self.acks = Acks(loop.call_soon)
        self._ending.callback(self._close_connections)
        self._ending.push_async_callback(self.tasks.cancel)
        self._ending.callback(self.acks.send)
        self._ending.push_async_callback(self.log.flush)
        self.leaders = Leaders(int.from_bytes(self.runtime.random_bytes(TOKEN_BYTES)))
        self.reads = Reads(self)
        self.log.batch_synced, self.log.batch_told = self.acks.send, self._batch_told
        self.puller = Puller(self)
        self.registration = Registration(self, self._masters)
        self.note_damage()
        await self.look_at_disk()
        address = (self.config.host, self.config.port)
        self._listener = await self.runtime.network.listen(
            acceptor(self.runtime, self._welcome), address
        )
        self._ending.push_async_callback(self._listener.close)
        _ = self.tasks.start(self.registration.run(), "registration")

    async def _boot(self) -> Identity:
        """Count this start durably, before anything is answered (R16, R19)."""
        found = await identity.load(self.disk)
        if found is None:
            name = self.config.name or f"server-{self.runtime.random_bytes(NAME_BYTES).hex()}"
            found = Identity(cluster="", name=check_node_name(name))
        identity.check(found, name=self.config.name, where=self.disk.name)
        found = msgspec.structs.replace(found, boot=found.boot + 1)
        await identity.store(self.disk, found)
        return found

    async def _keep_position(self, position: int) -> None:
        """Keep how far the log reached before this start writes to it, until a master has heard (R19).

        What starts write that no master admits would make up for what an old disk image lacks.
        """
        if self.identity.found_position == identity.ADMITTED:
            self.identity = msgspec.structs.replace(self.identity, found_position=position)
            await identity.store(self.disk, self.identity)

    def _replay(self, record: Record, damage: Damage | None) -> None:
        facts.replay(self.replica, record, damage)

    def _snapshot(self) -> list[ControlRecord]:
        return facts.snapshot(self.replica)

    @property
    def name(self) -> str:
        """The server's name."""
        return self.identity.name

    @property
    def address(self) -> Address:
        """Where it listens."""
        if self._listener is None:
            raise NotActiveError("this server does not listen yet")
        return self._listener.address

    @property
    def is_registered(self) -> bool:
        """True once a master has admitted this boot (R19)."""
        return self.registration.registered.is_set() and not self._is_stopping

    async def wait_left(self) -> None:
        """Wait until the master says that nothing needs this server any more."""
        await self.registration.left.wait()

    async def stop(self) -> None:
        """Finish what is queued, answer it, and close.  Idempotent.

        Cancelling cuts short only the step that it hits.  All others are done before it is raised: then
        nothing writes to the directory any more, and it is free.
        """
        if self._is_stopping or self._listener is None:
            return
        self._is_stopping = True
        await self._ending.aclose()

    async def _close_log(self) -> None:
        await to_the_end(self.log.close())  # its threads write to the directory

    def _close_connections(self) -> None:
        for connection in list(self._connections):
            connection.close(NotActiveError(f"server {self.name} stops"))

    # ------------------------------------------------------------------ connections

    def hello(self) -> Hello:
        """What this server says of itself where it dials."""
        return Hello(
            codec.VERSION_MIN,
            codec.VERSION_MAX,
            self.identity.cluster,
            "server",
            self.name,
            b"",
            self.runtime.random_bytes(16),
        )

    def _welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        cluster = self.identity.cluster
        if hello.cluster and cluster and hello.cluster != cluster:
            raise WrongClusterError(
                f"server {self.name} belongs to cluster {cluster}, not {hello.cluster}"
            )
        if self._is_stopping or len(self._connections) >= self.config.connections_max:
            raise NotActiveError(f"server {self.name} takes no connections now")
        welcome = Welcome(codec.agreed_version(hello), cluster, "server", self.name)
        return welcome, ServerHandler(self)

    def came(self, connection: Connection) -> None:
        """A handshake is over."""
        self._connections[connection] = None

    def went(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.pop(connection, None)

    def throttle(self, connection: Connection) -> None:
        """Read no more from who appends while too much waits for the disk (R5)."""
        if self.log.queued_bytes > self.config.wal_queue_bytes_max:
            connection.pause_reading()
            self._throttled.append(connection)

    def _batch_told(self) -> None:
        """More is durable, and can be read: wake who waits for that, or for the disk to catch up."""
        self.reads.wake_moved()
        if self._throttled and self.log.queued_bytes <= self.config.wal_queue_bytes_max // 2:
            throttled, self._throttled = self._throttled, []
            for connection in throttled:
                connection.resume_reading()

    # ------------------------------------------------------------------ what changes

    def marked(
        self,
        stream: StreamId,
        held: SegmentReplica,
        committed: Sequence,
        *,
        is_recorded: bool = False,
    ) -> None:
        """Note that a segment is committed further; wake its readers (R12).

        `is_recorded`: the record of a frame that is queued next says so, too.
        """
        if self.replica.mark(held, committed):
            self.reads.wake(held)
        if not is_recorded:
            self.log.mark(stream, held.id, committed)

    def touched(self, stream: StreamId, segment: SegmentId) -> None:
        """Tell the master with the next beat what is held of a segment."""
        self.registration.touched(stream, segment)

    def completed(self, stream: StreamId, held: SegmentReplica) -> None:
        """A replica may be complete by now: tell who waits for that (R21)."""
        if held.is_complete:
            self.registration.completed(stream, held.id)
            self.reads.wake(held)

    def certify(
        self,
        certificate: Certificate,
        sources: tuple[ServerAddress, ...],
        taken: Callable[[bool], None] | None = None,
    ) -> None:
        """Take a segment's end, durably; then pull what is missing (R21).

        Raises what the replica refuses it with.  A crash before the record is synced leaves the
        segment open, and the master sends the certificate again.
        """
        stream = certificate.stream
        held, is_new = self.replica.certify(certificate)

        def synced() -> None:
            self.replica.promise_synced(stream, certificate.promise)
            self.touched(stream, held.id)
            self.completed(stream, held)
            self.puller.start(stream, held, sources)
            if taken is not None:
                taken(held.is_complete)

        records: list[Record] = []
        if is_new:
            records = [
                PromiseRecord(stream, certificate.promise),
                CertificateRecord(certificate),
            ]
        self.log.put(records, synced)
        self.reads.wake(held)

    def note_damage(self) -> None:
        """A read found damage: from now on that range is unknown (R18)."""
        for damage in self.log.damage[self._damage_seen :]:
            logger.error("record_damaged", extra={"file": damage.file, "offset": damage.offset})
            if damage.stream is not None and damage.segment is not None:
                span = (damage.first, damage.last)
                self.replica.damaged(damage.stream, damage.segment, span)
                self.touched(damage.stream, damage.segment)
        self._damage_seen = len(self.log.damage)

    # ------------------------------------------------------------------ numbers

    async def look_at_disk(self) -> None:
        """Refresh what is known of the disk's space."""
        try:
            self.free_bytes = await self.runtime.offload(self.disk.free_bytes())
            self.total_bytes = await self.runtime.offload(self.disk.total_bytes())
        except OSError as error:
            raise StorageError(f"cannot look at {self.disk.name}: {plainly(error)}") from error

    def take_rate(self) -> int:
        """Appended bytes a second since the last call."""
        now = self.runtime.now()
        before, count = self._rate_from
        self._rate_from = (now, self.appended_bytes)
        return int((self.appended_bytes - count) / max(now - before, 1e-3))

    def report(self) -> ServerReport:
        """What this server holds, for people and tests."""
        return ServerReport(
            self.name,
            self.identity.incarnation,
            self.identity.boot,
            self.registration.facts(),
            {
                "appended_bytes": self.appended_bytes,
                "queued_bytes": self.log.queued_bytes,
                "connections": len(self._connections),
                "damaged_ranges": len(self.log.damage),
            },
        )
