"""The durable state of a cluster: loaded once, changed by transactions whose outcome is always found.

Every transaction also compares the key of the active master, so that a master that was replaced
cannot write, not even late (M2).  When the store does not say what became of a transaction, the
*identical* one is sent again until it does: it then either applies, or fails on versions, and the
keys show whether an earlier sending of it had landed (R28, M5).

A crash between any two lines leaves the store as some transaction left it; nothing else is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from lunalog.errors import (
    AvailabilityError,
    CorruptRecordError,
    NotActiveError,
    OutcomeUnknownError,
)
from lunalog.master import records
from lunalog.master.records import HeadRecord, ServerRecord, Tombstone
from lunalog.master.store import ABSENT, MetadataStore, Record
from lunalog.master.table import Stream, Table
from lunalog.runtime import Runtime
from lunalog.types import SealedSegment, SegmentId, StreamHead, StreamId

T = TypeVar("T")
SUPERSEDED_MAX: Final = 32
RETRY_S: Final = 0.05
RETRY_S_MAX: Final = 1.0


class Metadata:
    """What this master knows, and the only way to change it."""

    def __init__(self, runtime: Runtime, store: MetadataStore) -> None:
        self._runtime = runtime
        self._store = store
        self._active_version = ABSENT
        self.cluster = ""
        self.table = Table()
        self.servers: dict[str, ServerRecord] = {}
        self.server_versions: dict[str, int] = {}
        self.tombstones: dict[StreamId, Tombstone] = {}
        """Of streams that somebody may still hold; confirmed ones lie in the store only."""
        self.gone_versions: dict[StreamId, int] = {}
        self.wanted: int | None = None
        self._wanted_version = ABSENT

    # ------------------------------------------------------------------ start

    async def load(self) -> None:
        """Open the store, become its active master, and read everything."""
        await self._store.start()
        await self._claim()
        await self._load_cluster()
        for key, record in await self._scan(records.SERVERS):
            server = records.decode(record.value, ServerRecord, key)
            self.servers[server.name] = server
            self.server_versions[server.name] = record.version
        await self._load_streams()
        for key, record in await self._scan(records.GONE):
            tombstone = records.decode(record.value, Tombstone, key)
            if tombstone.holders:
                self.tombstones[tombstone.stream] = tombstone
                self.gone_versions[tombstone.stream] = record.version
        wanted = await self.get(records.WANTED)
        if wanted is not None:
            self.wanted = records.decode(wanted.value, int, records.WANTED)
            self._wanted_version = wanted.version

    async def _claim(self) -> None:
        nonce = self._runtime.random_bytes(16)
        while True:
            found = await self.get(records.ACTIVE)
            if found is not None and found.value == nonce:
                self._active_version = found.version
                return
            version = found.version if found is not None else ABSENT
            try:
                await self._store.transact({records.ACTIVE: version}, {records.ACTIVE: nonce})
            except (AvailabilityError, OutcomeUnknownError):
                await asyncio.sleep(RETRY_S)

    async def _load_cluster(self) -> None:
        found = await self.get(records.CLUSTER)
        if found is None:
            cluster = self._runtime.random_bytes(16).hex()
            await self.commit({records.CLUSTER: ABSENT}, {records.CLUSTER: cluster.encode()})
            found = await self.get(records.CLUSTER)
        if found is None:
            raise CorruptRecordError("the metadata store does not keep what it was given")
        self.cluster = found.value.decode("ascii", "replace")

    async def _load_streams(self) -> None:
        rows: dict[StreamId, list[SealedSegment]] = {}
        for key, record in await self._scan(records.ROWS):
            row = records.decode(record.value, SealedSegment, key)
            rows.setdefault(records.stream_of(key), []).append(self.table.slim_row(row))
        for key, record in await self._scan(records.HEADS):
            found = records.decode(record.value, HeadRecord, key)
            stream = Stream(
                self.table.slim_head(found.head),
                found.open_leader,
                record.version,
                _in_order(rows.pop(found.head.stream, [])),
            )
            stream.superseded = found.superseded
            self.table.add(stream)
        if rows:
            raise CorruptRecordError(f"sealed segments without a head: {sorted(rows)[0].hex()}")
        for key, record in await self._scan(records.LOST):
            found_lost = self.table.get(records.stream_of(key))
            if found_lost is not None:
                found_lost.lost = record.value.decode("utf-8", "replace")
                self.table.lost[found_lost.id] = found_lost.lost

    async def close(self) -> None:
        """Close the store."""
        await self._store.stop()

    # ------------------------------------------------------------------ transactions

    async def get(self, key: str) -> Record | None:
        """Read one key, however long it takes."""
        backoff = RETRY_S
        while True:
            try:
                return await self._store.get(key)
            except AvailabilityError:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, RETRY_S_MAX)

    async def _scan(self, prefix: str) -> list[tuple[str, Record]]:
        backoff = RETRY_S
        while True:
            try:
                return await self._store.scan(prefix)
            except AvailabilityError:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, RETRY_S_MAX)

    async def commit(
        self,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> int | None:
        """Carry out one transaction and find out what became of it.

        Returns the version of what was put, or none when a compare failed and nothing was applied.
        """
        return (await self._commit(compares, puts, deletes))[0]

    async def _commit(
        self, compares: Mapping[str, int], puts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> tuple[int | None, bool]:
        """As `commit`; true as well if a copy of the transaction may land yet, where it still fits."""
        everything = {records.ACTIVE: self._active_version, **compares}
        was_unknown = False
        backoff = RETRY_S
        version: int | None
        while True:
            try:
                version = await self._store.transact(everything, puts, deletes)
                break
            except OutcomeUnknownError:
                was_unknown = True
            except AvailabilityError:
                pass
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, RETRY_S_MAX)
        if version is None:
            await self._check_active()
            if was_unknown:
                version = await self._landed(puts, deletes)
        return version, was_unknown

    async def _landed(self, puts: Mapping[str, bytes], deletes: Sequence[str]) -> int | None:
        """Tell whether a transaction was applied, by what it leaves; a name may be taken anew."""
        version = ABSENT
        for key, value in puts.items():
            found = await self.get(key)
            if found is None or found.value != value:
                return None
            version = found.version
        for key in deletes:
            if not key.startswith(records.NAMES) and await self.get(key) is not None:
                return None
        return version

    async def _check_active(self) -> None:
        active = await self.get(records.ACTIVE)
        if active is None or active.version != self._active_version:
            self._runtime.fail(NotActiveError("another master has taken over this metadata store"))
            await asyncio.get_running_loop().create_future()  # nothing more is done here

    # ------------------------------------------------------------------ streams

    async def create(self, head: StreamHead) -> Stream | None:
        """Make a stream under a free name; none when the name or id is taken in the store."""
        puts = {
            records.name_key(head.name): head.stream,
            records.head_key(head.stream): records.encode(HeadRecord(head)),
        }
        compares = {**dict.fromkeys(puts, ABSENT), records.gone_key(head.stream): ABSENT}
        version, may_land = await self._commit(compares, puts)
        if version is None and may_land:
            version = await self._bury(head, puts)
        if version is None:
            return None
        stream = Stream(self.table.slim_head(head), "", version, ())
        self.table.add(stream)
        return stream

    async def _bury(self, head: StreamHead, puts: Mapping[str, bytes]) -> int | None:
        """Let nothing come of a refused creation that may land once its name is free (R28, M5).

        Returns its version if it has landed by now.
        """
        gone_key = records.gone_key(head.stream)
        tombstone = Tombstone(head.stream, head.name, head.promise, ())
        compares = {records.head_key(head.stream): ABSENT, gone_key: ABSENT}
        version = await self.commit(compares, {gone_key: records.encode(tombstone)})
        return await self._landed(puts, ()) if version is None else None

    async def change(
        self,
        stream: Stream,
        head: StreamHead,
        open_leader: str,
        row: SealedSegment | None = None,
    ) -> bool:
        """Write a new head, and a row with it; false: the store had moved, `stream` is fresh now."""
        key = records.head_key(stream.id)
        compares = {key: stream.version}
        superseded = _superseded(stream, head, row)
        puts = {key: records.encode(HeadRecord(head, open_leader, superseded))}
        rows = stream.rows
        if row is not None:
            row_key = records.row_key(stream.id, row.id)
            compares[row_key] = ABSENT
            puts[row_key] = records.encode(row)
            rows = (*rows, self.table.slim_row(row))
        version = await self.commit(compares, puts)
        if version is None:
            await self.reload(stream)
            return False
        self.table.update(stream, self.table.slim_head(head), open_leader, version, rows)
        stream.superseded = superseded
        return True

    async def reload(self, stream: Stream) -> None:
        """Read a stream again; one that is gone from the store leaves the table."""
        found = await self.get(records.head_key(stream.id))
        if found is None:
            self.table.remove(stream)
            return
        key = records.head_key(stream.id)
        record = records.decode(found.value, HeadRecord, key)
        rows = [
            self.table.slim_row(records.decode(row.value, SealedSegment, row_key))
            for row_key, row in await self._scan(records.rows_prefix(stream.id))
        ]
        head = self.table.slim_head(record.head)
        self.table.update(stream, head, record.open_leader, found.version, _in_order(rows))
        stream.superseded = record.superseded

    async def delete(self, stream: Stream, head: StreamHead, holders: Sequence[str]) -> bool:
        """Replace a stream by its tombstone, and free its name; false as for `change`."""
        key = records.head_key(stream.id)
        tombstone = Tombstone(stream.id, head.name, head.promise, tuple(holders))
        gone_key = records.gone_key(stream.id)
        deletes = [key, records.name_key(head.name)]
        deletes += [records.row_key(stream.id, row.id) for row in stream.rows]
        if stream.lost:
            deletes.append(records.lost_key(stream.id))
        version = await self.commit(
            {key: stream.version, gone_key: ABSENT}, {gone_key: records.encode(tombstone)}, deletes
        )
        if version is None:
            await self.reload(stream)
            return False
        self.table.remove(stream)
        if holders:
            self.tombstones[stream.id] = tombstone
            self.gone_versions[stream.id] = version
        return True

    async def forget_rows(self, stream: Stream, rows: Sequence[SealedSegment]) -> bool:
        """Drop rows that are truncated away everywhere; false as for `change`."""
        key = records.head_key(stream.id)
        record = records.encode(HeadRecord(stream.head, stream.open_leader, stream.superseded))
        dropped = {row.id for row in rows}
        version = await self.commit(
            {key: stream.version},
            {key: record},
            [records.row_key(stream.id, row.id) for row in rows],
        )
        if version is None:
            await self.reload(stream)
            return False
        kept = [row for row in stream.rows if row.id not in dropped]
        self.table.update(stream, stream.head, stream.open_leader, version, kept)
        return True

    async def change_row(self, stream: Stream, row: SealedSegment) -> bool:
        """Write a newer version of one row; false as for `change`.

        The head is written as it is: with it the compare moves, and nothing older can land (M5).
        """
        key = records.head_key(stream.id)
        record = HeadRecord(stream.head, stream.open_leader, stream.superseded)
        version = await self.commit(
            {key: stream.version},
            {key: records.encode(record), records.row_key(stream.id, row.id): records.encode(row)},
        )
        if version is None:
            await self.reload(stream)
            return False
        slim = self.table.slim_row(row)
        rows = [slim if found.id == row.id else found for found in stream.rows]
        self.table.update(stream, stream.head, stream.open_leader, version, rows)
        return True

    async def mark_lost(self, stream: Stream, reason: str) -> None:
        """Make a stream read-only, durably (R25)."""
        await self.commit({}, {records.lost_key(stream.id): reason.encode()})
        stream.lost = reason
        self.table.lost[stream.id] = reason

    # ------------------------------------------------------------------ the rest

    async def put_server(self, server: ServerRecord) -> bool:
        """Write what is known of a server; false when the store had moved (it is read again)."""
        key = records.server_key(server.name)
        before = self.server_versions.get(server.name, ABSENT)
        version = await self.commit({key: before}, {key: records.encode(server)})
        if version is not None:
            self.servers[server.name] = server
            self.server_versions[server.name] = version
            return True
        found = await self.get(key)
        if found is not None:
            self.servers[server.name] = records.decode(found.value, ServerRecord, key)
            self.server_versions[server.name] = found.version
        return False

    async def find_tombstone(self, stream: StreamId) -> Tombstone | None:
        """Look a deleted stream up, also one that everybody had confirmed."""
        found = self.tombstones.get(stream)
        if found is not None:
            return found
        key = records.gone_key(stream)
        record = await self.get(key)
        if record is None:
            return None
        self.gone_versions[stream] = record.version
        return records.decode(record.value, Tombstone, key)

    async def put_tombstone(self, tombstone: Tombstone) -> None:
        """Note who still holds a deleted stream."""
        key = records.gone_key(tombstone.stream)
        before = self.gone_versions.get(tombstone.stream, ABSENT)
        version = await self.commit({key: before}, {key: records.encode(tombstone)})
        if version is None:
            return  # said again by the next confirmation
        if tombstone.holders:
            self.tombstones[tombstone.stream] = tombstone
            self.gone_versions[tombstone.stream] = version
        else:
            self.tombstones.pop(tombstone.stream, None)
            self.gone_versions.pop(tombstone.stream, None)

    async def put_wanted(self, wanted: int) -> None:
        """Write how many servers the orchestrator keeps."""
        while True:
            version = await self.commit(
                {records.WANTED: self._wanted_version}, {records.WANTED: records.encode(wanted)}
            )
            if version is not None:
                self.wanted, self._wanted_version = wanted, version
                return
            found = await self.get(records.WANTED)
            self._wanted_version = found.version if found is not None else ABSENT


def _superseded(
    stream: Stream, after: StreamHead, row: SealedSegment | None
) -> tuple[SegmentId, ...]:
    before = stream.head.open
    if before is None or row is not None or (after.open and after.open.id == before.id):
        return stream.superseded
    return (*stream.superseded, before.id)[-SUPERSEDED_MAX:]


def _in_order(rows: list[SealedSegment]) -> tuple[SealedSegment, ...]:
    return tuple(sorted(rows, key=lambda row: row.first))
