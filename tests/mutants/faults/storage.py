"""Faults of a server's log: what is durable, what is damage, what may be reclaimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.mutants.registry import fault

from lunalog.server.registration import Registration
from lunalog.storage.format import Position
from lunalog.storage.log import Log
from lunalog.storage.records import FrameRecord, MarkRecord, OpenRecord, PromiseRecord, Record
from lunalog.storage.writer import Wal


def _put_early(self: Log, real: Any, records: list[Record], told: Callable[[], None]) -> None:
    """Queue records, and say at once that they are durable."""

    def tell() -> None:
        told()
        self.batch_synced()
        self.batch_told()

    real(self, records)
    self._loop.call_soon(tell)


def _has(records: list[Record], kind: type) -> bool:
    return any(type(record) is kind for record in records)


@fault(
    "R4, R16",
    "frames are acknowledged before they are synced",
    "power",
    "lunalog.storage.log:Log.put",
)
def ack_before_sync(
    real: Any,
    self: Log,
    records: list[Record],
    done: Any = None,
    *,
    synced: Any = None,
    is_last: bool = False,
) -> None:
    if synced is not None and _has(records, FrameRecord):
        _put_early(self, real, records, synced)
    else:
        real(self, records, done, synced=synced, is_last=is_last)


@fault(
    "R5, R16",
    "a fence is answered before its promise is synced",
    "power",
    "lunalog.storage.log:Log.put",
)
def fence_before_sync(
    real: Any,
    self: Log,
    records: list[Record],
    done: Any = None,
    *,
    synced: Any = None,
    is_last: bool = False,
) -> None:
    if done is not None and _has(records, PromiseRecord) and not _has(records, OpenRecord):
        _put_early(self, real, records, done)
    else:
        real(self, records, done, synced=synced, is_last=is_last)


@fault(
    "R3, R16",
    "a segment is open before its record is there",
    "power",
    "lunalog.storage.log:Log.put",
)
def open_not_recorded(
    real: Any,
    self: Log,
    records: list[Record],
    done: Any = None,
    *,
    synced: Any = None,
    is_last: bool = False,
) -> None:
    kept = [record for record in records if type(record) is not OpenRecord]
    real(self, kept, done, synced=synced, is_last=is_last)


@fault(
    "R16",
    "a start trusts the tail that it found, and makes none of it durable",
    "power",
    "lunalog.storage.boot:Boot._take_over",
)
async def tail_not_carried(real: Any, self: Any, replayed: Any, number: int) -> Any:
    replayed.tail = []
    return await real(self, replayed, number)


class _Unsynced:
    """A file whose syncs do nothing."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    async def sync(self) -> None:
        return


@fault(
    "R16",
    "no write is ever synced",
    "power",
    "lunalog.storage.writer:Wal._write",
)
async def never_synced(real: Any, self: Wal, extent: Any, batch: Any) -> None:
    file = extent.file
    extent.file = _Unsynced(file)
    try:
        await real(self, extent, batch)
    finally:
        extent.file = file


@fault(
    "R16, trap 24",
    "a failed sync is tried again, and the next one says that all is well",
    "errors",
    "lunalog.storage.writer:Wal._write",
)
async def sync_retried(real: Any, self: Wal, extent: Any, batch: Any) -> None:
    file = extent.file
    extent.file = _Retried(file)
    try:
        await real(self, extent, batch)
    finally:
        extent.file = file


class _Retried(_Unsynced):
    """A file that syncs once more when a sync has failed."""

    async def sync(self) -> None:
        try:
            await self._file.sync()
        except OSError:
            await self._file.sync()


@fault(
    "R27",
    "a server whose log has failed lives on",
    "errors",
    "lunalog.storage.log:Log._fail",
)
def failed_log_lives_on(real: Any, self: Log, error: Exception) -> None:
    return


@fault(
    "R17",
    "a batch attests itself, so that a start does not write it again",
    "crash states",
    "lunalog.storage.writer:Wal._encode",
)
def batch_attests_itself(real: Any, self: Wal, extent: Any, records: Any, flags: int) -> Any:
    size = real(self, extent, records, flags).size
    before = self.synced_to
    self.synced_to = Position(extent.number, self.offset + size)
    try:
        return real(self, extent, records, flags)
    finally:
        self.synced_to = before


@fault(
    "R17",
    "bad bytes are cut as torn, whatever later headers attest",
    "bad_copy",
    "lunalog.storage.replay:Replay._is_attested",
)
def damage_is_torn(real: Any, self: Any, *rest: Any) -> bool:
    real(self, *rest)
    return False


@fault(
    "R29",
    "a promise goes with the extent that carried it",
    "reclaims",
    "lunalog.server.facts:snapshot",
)
def promise_lost_with_its_extent(real: Any, replica: Any) -> list[Any]:
    return [r for r in real(replica) if type(r) not in (PromiseRecord, OpenRecord)]


@fault(
    "R29",
    "an extent goes although frames in it are live",
    "reclaims",
    "lunalog.storage.ledger:Ledger.plan",
)
def live_extent_removed(real: Any, self: Any, beginning: Any, synced_to: Any, records: Any) -> Any:
    live, self._index.live = self._index.live, {}
    try:
        plan = real(self, beginning, synced_to, records)
    finally:
        self._index.live = live
    return plan


@fault(
    "R12, R17",
    "an idle server records no committed marks",
    "quiet",
    "lunalog.storage.log:Log.mark",
    "lunalog.server.facts:snapshot",
)
def marks_in_memory_only(real: Any, *rest: Any) -> Any:
    if real.__name__ == "mark":
        return None
    return [record for record in real(*rest) if type(record) is not MarkRecord]


@fault(
    "R26, I12",
    "nobody looks at checksums",
    "hole",
    "lunalog.storage.format:_parse_frame",
    "lunalog.wire.frames:check",
)
def checksums_ignored(real: Any, *rest: Any) -> Any:
    if real.__name__ == "check":
        return None
    return real(*rest)


@fault(
    "R19",
    "a server registers with the position that it reached itself",
    "images",
    "lunalog.server.registration:Registration._position",
)
def old_image_unnoticed(real: Any, self: Registration) -> int:
    real(self)
    return 1 << 40


@fault(
    "R19",
    "a slot is taken whatever incarnation it was opened for",
    "wipes",
    "lunalog.core.replica:Replica.check_incarnation",
)
def incarnation_unchecked(real: Any, self: Any, incarnation: int) -> None:
    return
