"""The log of a journal server: one for all its segments, with group commit.

Everything here runs on the loop but what it hands to its two workers: the writer and the keeper.
Puts of one loop turn leave together at its end, large ones and an only leader's before: as one batch
on the writer, or, when nothing is outstanding and syncs are fast, right here, without a hop.

Source: R16 to R18, R29; design.md section 6; docs/storage.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from lunalog import limits
from lunalog.config import ServerConfig
from lunalog.errors import ClosedError, InvariantError, StorageError
from lunalog.runtime import Runtime
from lunalog.storage import extents, ledger, noting
from lunalog.storage.boot import Boot, Booted, Deliver, KeepPosition, Snapshot
from lunalog.storage.cache import TailCache
from lunalog.storage.fetch import FrameReader
from lunalog.storage.files import Disk
from lunalog.storage.index import Index, StartOf
from lunalog.storage.keeper import Keeper
from lunalog.storage.ledger import Beginning, Plan
from lunalog.storage.records import Damage, MarkRecord, Record, bytes_of
from lunalog.storage.writer import Closed, Committed, Put, WalWriter, failure
from lunalog.types import Chain, SegmentId, Sequence, StreamId
from lunalog.wire.frames import FrameHead

INLINE_BYTES_MAX: Final = 64 * limits.KIB
"""The loop commits no more than this itself; more goes to the writer at once."""
PREPARE_SHARE: Final = 0.5
"""How full an extent is when the next one is made ready."""
FREE_DELAY_S: Final = 1.0
"""From an extent's death to the checkpoint that lets it go; and between looks at a full disk."""


class Log:
    """The log; make it by `Log.open`.

    Attributes:
        damage: Damaged ranges found at the start and by reads since.
        queued_bytes: What was put and is not durable yet.
        snapshot: Gives the state that a checkpoint must keep: every fact of an earlier `put` but
            frames and `EndRecord`s.
        batch_synced: Called when a batch is durable, after the `synced` of all its puts.
        batch_told: Called after the `done` of all puts of a batch.
    """

    def __init__(self, disk: Disk, runtime: Runtime, config: ServerConfig) -> None:
        self._disk = disk
        self._runtime = runtime
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._index = Index()
        self._cache = TailCache(config.tail_cache_bytes)
        self.damage: list[Damage] = []
        self.queued_bytes = 0
        self.snapshot: Snapshot = list
        self.batch_synced: Callable[[], None] = lambda: None
        self.batch_told: Callable[[], None] = lambda: None
        self._turn: list[Put] = []
        self._turn_bytes = 0
        self._put_count = 0
        self._handed_count = 0
        self._done_count = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._marks: dict[tuple[StreamId, SegmentId], Sequence] = {}
        self._is_attested = True
        self._last_commit = 0.0
        self._idle_s = config.idle_batch_ms / 1000
        self._idle_timer: asyncio.TimerHandle | None = None
        self._free_timer: asyncio.TimerHandle | None = None
        self._is_preparing = False
        self._plan: Plan | None = None
        self._wants_checkpoint = False
        self._checkpoint_waiters: list[asyncio.Future[None]] = []
        self._error: Exception | None = None

    @classmethod
    async def open(
        cls,
        disk: Disk,
        runtime: Runtime,
        config: ServerConfig,
        *,
        boot: int,
        replay: Deliver,
        snapshot: Snapshot,
        start_of: StartOf,
        keep_position: KeepPosition | None = None,
    ) -> Log:
        """Open the log of a locked directory, or begin one in an empty directory.

        Args:
            disk: Locked by the caller.
            runtime: For workers, clocks and chance.
            config: Of the server.
            boot: Counts the starts of this server.
            replay: Called for each record, in the order they were put: first those of the last
                checkpoint (then an `EndRecord` a segment), then all later ones.  A frame may come
                again that an `EndRecord` covers.  A frame without bytes, or one that jumps ahead,
                follows damage; every UNKNOWN range comes as an `UnknownRecord` at the end.
                It may run on another thread, while `open` waits.
            snapshot: See `Log.snapshot`; first called when replay is over.
            start_of: Tells what the owner keeps, at the moments at which `snapshot` tells the rest.
            keep_position: Disk work, awaited with the position that this start found, before it writes.

        Returns:
            The log; all that was replayed is synced.

        Raises:
            StorageError: It cannot be read or written.
        """
        log = cls(disk, runtime, config)
        index, log.snapshot = log._index, snapshot
        index.start_of = start_of
        start = Boot(
            disk, runtime, config, index,
            boot=boot, deliver=replay, snapshot=snapshot, keep_position=keep_position,
        )  # fmt: skip
        log._attach(await runtime.offload(start.run()))
        return log

    def _attach(self, booted: Booted) -> None:
        self._wal = booted.wal
        self._ledger = booted.ledger
        self._beginning = booted.beginning
        self.damage = booted.damage
        self._reader = FrameReader(
            self._disk, self._runtime, self._index, self._wal.tag, self.damage.append
        )
        self._mailbox = self._runtime.mailbox()
        writer = WalWriter(
            self._wal, self._mailbox, self._tell(self._committed), self._tell(self._fail)
        )
        self._writer = self._runtime.start_worker("wal", writer.main)
        self._jobs = self._runtime.mailbox()
        keeper = Keeper(self._jobs, self._tell(self._fail))
        self._keeper = self._runtime.start_worker("wal-keeper", keeper.main)
        self._free_later()

    def _tell(self, method: Callable[[Any], None]) -> Callable[[Any], None]:
        """Make `method` callable from a worker."""
        loop = self._loop

        def tell(what: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear
                loop.call_soon_threadsafe(method, what)

        return tell

    # ------------------------------------------------------------ what is known

    @property
    def may_have_lost(self) -> bool:
        """Damage may hide a promise or the end of an open segment: this incarnation is over (R18)."""
        return self._ledger.may_have_lost

    @property
    def synced_position(self) -> int:
        """Grows with each batch that is durable, over restarts too (R19)."""
        return self._wal.number - 1

    @property
    def is_full(self) -> bool:
        """True when appends must be refused, so that what is queued and fences find room (D3)."""
        wal = self._wal
        return self.queued_bytes > wal.room_bytes or wal.is_short_of_space

    # ------------------------------------------------------------ writing

    def put(
        self,
        records: list[Record],
        done: Callable[[], object] | None = None,
        *,
        synced: Callable[[], object] | None = None,
        is_last: bool = False,
    ) -> None:
        """Queue records; they become durable together, in the order of puts.

        Args:
            records: At most one frame limit's worth beside small ones; buffers must stay as they are.
            done: Called on the loop when they are durable and can be read, in the order of puts;
                never if the log fails, which ends the node.
            synced: The same, but at once when they are durable, before anybody could read them:
                who appends waits for no more.
            is_last: Nothing can share this turn's batch: it leaves now, and may be told within this.

        Raises:
            ClosedError: After `close`.
            StorageError: After a failure.
        """
        if self._error is not None:
            raise self._error
        size = bytes_of(records)
        if size > self._config.extent_bytes:
            raise InvariantError(f"a put of {size} bytes does not fit into an extent")
        if not self._turn and not is_last:
            self._loop.call_soon(self._end_turn)
        self._turn.append(Put(records, size, done, synced))
        self._put_count += 1
        self.queued_bytes += size
        self._turn_bytes += size
        if is_last or self._turn_bytes > INLINE_BYTES_MAX:
            self._end_turn()  # if it was too much, the writer works while the rest is taken in

    def mark(self, stream: StreamId, segment: SegmentId, committed: Sequence) -> None:
        """Note a committed sequence; the next idle batch records it (R12, R17)."""
        key, index = (stream, segment), self._index.find(stream, segment)
        if index is None or committed > index.committed:  # none: its OPEN is still queued
            self._marks[key] = max(committed, self._marks.get(key, 0))
            self._idle_later()
        if index is not None:
            index.committed = max(committed, index.committed)

    def _end_turn(self) -> None:
        puts, self._turn = self._turn, []
        self._turn_bytes = 0
        if not puts or self._error is not None:
            return
        is_alone = self._handed_count == self._done_count
        self._handed_count += len(puts)
        if is_alone and self._may_inline():
            self._commit_inline(puts)
        else:
            self._mailbox.put(puts)

    def _may_inline(self) -> bool:
        """Whether the loop itself may commit this turn's puts, which are all that is queued."""
        is_fast = self._runtime.is_blocking and self._wal.sync_ms < self._config.inline_sync_ms_max
        size = self.queued_bytes
        return is_fast and size <= INLINE_BYTES_MAX and self._wal.has_room(size)

    def _commit_inline(self, puts: list[Put]) -> None:
        try:
            committed = self._runtime.drive(self._wal.commit(puts))
        except Exception as error:  # noqa: BLE001  acks of later puts would tell of what is lost (P5)
            self._fail(failure("write", error) if isinstance(error, OSError) else error)
        else:
            self._committed(committed)

    def _committed(self, batch: Committed) -> None:
        """Tell everybody that a batch is durable."""
        if self._error is not None and not isinstance(self._error, ClosedError):
            return
        try:
            if batch.closed is not None:
                self._extent_closed(batch.closed)
            for put in batch.puts:
                self.queued_bytes -= put.size
                if put.synced is not None:
                    put.synced()
            self.batch_synced()
            self._note(batch)
            self._done_count += len(batch.puts)
            for put in batch.puts:
                if put.done is not None:
                    put.done()
            self.batch_told()
        except Exception as error:  # noqa: BLE001  who acknowledges has failed: no way on
            self._fail(error)
            return
        while self._waiters and self._waiters[0][0] <= self._done_count:
            _wake([self._waiters.pop(0)[1]])
        self._prepare()

    def _note(self, batch: Committed) -> None:
        if noting.note(batch, self._index, self._cache):
            self._is_attested = False
            self._last_commit = self._loop.time()
            if self._idle_timer is None:
                self._idle_later()

    def _fail(self, error: Exception) -> None:
        """End the node; nothing more is acknowledged (R16)."""
        if self._error is None or isinstance(self._error, ClosedError):
            self._error = error if isinstance(error, StorageError) else StorageError(repr(error))
            for waiter in [*(waiter for _, waiter in self._waiters), *self._checkpoint_waiters]:
                if not waiter.done():
                    waiter.set_exception(self._error)
                    waiter.exception()  # seen: whoever waits raises it
            self._runtime.fail(error)

    async def flush(self) -> None:
        """Wait until all puts before are durable; raises `StorageError` if they never will be."""
        if self._error is not None and not isinstance(self._error, ClosedError):
            raise self._error
        if self._done_count < self._put_count:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((self._put_count, waiter))
            await waiter

    # ------------------------------------------------------------ idle

    def _idle_later(self) -> None:
        if self._idle_timer is None and self._error is None:
            self._idle_timer = self._loop.call_later(self._idle_s, self._idle)

    def _idle(self) -> None:
        """Attest the last batch, and record the marks that moved, once nothing has come for a while."""
        self._idle_timer = None
        if self._error is not None or (self._is_attested and not self._marks):
            return
        quiet = self._loop.time() - self._last_commit
        if self._put_count > self._done_count or quiet < self._idle_s * 0.9:
            self._idle_later()
            return
        self._attest()

    def _attest(self) -> None:
        marks = [MarkRecord(*key, committed) for key, committed in self._marks.items()]
        self._marks.clear()
        self._is_attested = True
        self._put_count += 1
        self._handed_count += 1
        size = bytes_of(list(marks))
        self.queued_bytes += size
        self._mailbox.put([Put(list(marks), size)])

    # ------------------------------------------------------------ extents and checkpoints

    def _prepare(self) -> None:
        """Have the next extent made ready in time."""
        wal = self._wal
        if (
            wal.next is None
            and not self._is_preparing
            and wal.extent is not None
            and wal.offset > self._config.extent_bytes * PREPARE_SHARE
        ):
            self._is_preparing = True
            number = wal.extent.number + 1
            self._jobs.put(lambda: self._make_extent(number))
        if self.is_full:
            self._free_later()

    async def _make_extent(self, number: int) -> None:
        await self._wal.prepare(number)
        self._tell(self._prepared)(None)

    def _prepared(self, _: object) -> None:
        self._is_preparing = False

    def _extent_closed(self, closed: Closed) -> None:
        self._ledger.closed(closed.extent, closed.end)
        self._beginning = Beginning(closed.next, closed.number, closed.before)
        self._start_checkpoint()

    def _start_checkpoint(self) -> None:
        if self._plan is not None:
            self._wants_checkpoint = True
            return
        self._wants_checkpoint = False
        self._plan = plan = self._ledger.plan(self._beginning, self._wal.synced_to, self.snapshot())
        self._jobs.put(lambda: self._write_checkpoint(plan))

    async def _write_checkpoint(self, plan: Plan) -> None:
        try:
            await ledger.carry_out(self._disk, plan)
        except OSError as error:
            if not extents.is_full_error(error):
                raise
            self._wal.is_short_of_space = True
            self._tell(self._checkpointed)(None)
        else:
            self._tell(self._checkpointed)(plan)

    def _checkpointed(self, plan: Plan | None) -> None:
        self._plan = None
        if plan is None:
            self._wants_checkpoint = True  # there was no room: once more later
        else:
            self._ledger.finished(plan)
            if self._wants_checkpoint:
                self._start_checkpoint()
                return
            _wake(self._checkpoint_waiters)
        self._free_later()

    async def checkpoint(self) -> None:
        """Write a checkpoint of what is durable now and wait for it."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._checkpoint_waiters.append(waiter)
        self._start_checkpoint()
        await waiter

    async def accept_loss(self) -> None:
        """Forget `may_have_lost`, durably: a new incarnation has taken over (R18)."""
        self._ledger.may_have_lost = False
        await self.checkpoint()

    def forget(
        self, stream: StreamId, segment: SegmentId | None = None, before: Sequence | None = None
    ) -> None:
        """Frames that end at or below `before` are dead; with none, the whole segment or stream is.

        The fact that says so must be durable already.  Extents without a live frame are given back
        after a checkpoint over all else they carried (R29).
        """
        self._index.forget(stream, segment, before)
        if before is None:
            self._cache.forget(stream, segment)
        self._free_later()

    def forget_unlisted(self) -> None:
        """Forget what a replay brought back of what was forgotten before."""
        self._index.forget_unlisted()
        self._free_later()

    def _free_later(self) -> None:
        wants = self.is_full or self._wants_checkpoint or self._ledger.has_dead
        if wants and self._free_timer is None and self._error is None:
            self._free_timer = self._loop.call_later(FREE_DELAY_S, self._free)

    def _free(self) -> None:
        self._free_timer = None
        if self._error is not None:
            return
        self._jobs.put(self._look_at_space)
        if self._ledger.has_dead or self._wants_checkpoint:
            self._start_checkpoint()

    async def _look_at_space(self) -> None:
        await self._wal.check_space()
        self._tell(lambda _: self._prepare())(None)

    # ------------------------------------------------------------ reading

    def cached(
        self,
        stream: StreamId,
        segment: SegmentId,
        start: Sequence,
        bytes_max: int,
        end: Sequence = limits.SEQUENCE_MAX,
    ) -> list[tuple[FrameHead, bytes]] | None:
        """Return what `read` would, if it is in memory."""
        return self._cache.find(stream, segment, start, bytes_max, end)

    async def read(
        self,
        stream: StreamId,
        segment: SegmentId,
        start: Sequence,
        bytes_max: int,
        end: Sequence = limits.SEQUENCE_MAX,
    ) -> list[tuple[FrameHead, bytes]]:
        """Frames from the one that holds `start` on, none that begins at or behind `end`.

        Returns:
            At least one frame, then more up to `bytes_max`; empty when nothing durable is at `start`.

        Raises:
            UnknownDataError: What was held there is damaged (R18).
        """
        found = self._cache.find(stream, segment, start, bytes_max, end)
        if found is not None:
            return found
        return await self._reader.read(stream, segment, start, bytes_max, end)

    async def chain_at(self, stream: StreamId, segment: SegmentId, bound: Sequence) -> Chain | None:
        """Chain behind the durable frame that ends at `bound`; none if no frame ends there."""
        index = self._index.find(stream, segment)
        if index is not None and index.end == bound and index.runs:
            return index.chain
        found = self._cache.chain_at(stream, segment, bound)
        return await self._reader.chain_at(stream, segment, bound) if found is None else found

    # ------------------------------------------------------------ end

    async def close(self) -> None:
        """Make all durable and attested, then end the workers.  Idempotent."""
        if isinstance(self._error, ClosedError):
            return
        if self._error is None:
            await self.flush()
            if not self._is_attested or self._marks:
                self._attest()
                await self.flush()
        self._error = self._error or ClosedError("the log is closed")
        for timer in (self._idle_timer, self._free_timer):
            if timer is not None:
                timer.cancel()
        self._jobs.close()
        await self._keeper.join()
        self._mailbox.close()
        await self._writer.join()
        await self._runtime.offload(self._wal.close())


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    while waiters:
        if not (waiter := waiters.pop(0)).done():
            waiter.set_result(None)
