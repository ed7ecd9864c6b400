"""The enumerator finds what it is for: writers and recoveries broken on purpose are caught.

Each canary replaces one function of the shipped code by one that breaks a rule, and must be caught
within a few hundred states of a fitting story.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.faults.crashes import parse_story
from tests.faults.explorer import CrashError, Explorer, small_steps

from lunalog.server import facts
from lunalog.storage import boot, checkpoint, extents, identity, ledger
from lunalog.storage.checkpoint import Contents
from lunalog.storage.extents import Extent
from lunalog.storage.files import Disk
from lunalog.storage.format import BatchHead, Position
from lunalog.storage.ledger import Plan
from lunalog.storage.records import ControlRecord, PromiseRecord
from lunalog.storage.replay import Replay, Replayed
from lunalog.storage.scan import ExtentReader
from lunalog.storage.writer import Committed, Put, Wal

STATES_MAX = 600
Patch = pytest.MonkeyPatch
Canary = Callable[[Patch], None]


@pytest.fixture(autouse=True)
def _hush() -> Iterator[None]:
    logger = logging.getLogger("lunalog")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def acknowledges_before_it_syncs(patch: Patch) -> None:
    """R16: the sync comes with the next batch."""
    write = Wal._write

    async def late(wal: Wal, extent: Extent, batch: Any) -> None:
        file = extent.file
        await file.sync()

        async def nothing() -> None:
            return

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(file, "sync", nothing)
            await write(wal, extent, batch)

    patch.setattr(Wal, "_write", late)


def trusts_the_tail_that_it_read(patch: Patch) -> None:
    """R16: what a killed process left is in the page cache only, and is not written again."""
    finish = Replay._finish

    def trusting(replay: Replay, end: Position) -> Replayed:
        replay._has_all = False
        replay._index_kept()
        return finish(replay, end)

    patch.setattr(Replay, "_finish", trusting)


def gives_back_before_the_checkpoint(patch: Patch) -> None:
    """R29: extents go, then the checkpoint that does without them is written."""
    carry_out = ledger.carry_out

    async def hasty(disk: Disk, plan: Plan) -> None:
        for extent in plan.dropped:
            await disk.remove(extents.name_of(extent))
            await disk.remove(extents.index_name_of(extent))
        await carry_out(disk, plan)

    patch.setattr(ledger, "carry_out", hasty)


def syncs_a_marker_with_its_data(patch: Patch) -> None:
    """R17: a power cut may keep the marker and lose what it attests."""
    encode = Wal._encode

    async def marked(wal: Wal, puts: list[Put], flags: int = 0) -> Committed:
        extent = wal._extent()
        records = [record for put in puts for record in put.records]
        data = encode(wal, extent, records, flags)
        start, offset = wal.synced_to, wal.offset
        number, before = wal.number, wal.before
        wal.offset, wal.number, wal.before = offset + data.size, number + 1, data.hash
        wal.synced_to = Position(extent.number, wal.offset)
        marker = encode(wal, extent, [], 0)
        wal.synced_to, wal.offset, wal.number, wal.before = start, offset, number, before
        await extent.grow(offset + data.size + marker.size, wal._extent_bytes)
        await extent.file.write(offset, [*data.buffers, *marker.buffers])
        await extent.file.sync()
        wal.offset = offset + data.size + marker.size
        wal.number, wal.before = number + 2, marker.hash
        wal.synced_to, wal.previous = Position(extent.number, wal.offset), Position()
        return Committed(puts, extent.number, data.offsets, number)

    patch.setattr(Wal, "commit", marked)


def takes_torn_bytes_for_damage(patch: Patch) -> None:
    """R17: whatever is bad is called damage."""
    patch.setattr(Replay, "_is_attested", lambda *_: True)


def believes_a_torn_takeover(patch: Patch) -> None:
    """R16: a takeover counts as soon as its header is there."""

    async def survey(replay: Replay, number: int) -> None:
        reader = await ExtentReader.open(replay._disk, number, replay._tag)
        first: BatchHead | None = await reader.search(0)
        if first is None:
            await reader.close()
            replay._blank.append(number)
            return
        if first.offset == 0:
            replay._openings[number] = first
        replay._readers.append(reader)

    patch.setattr(Replay, "_survey", survey)


def takes_over_in_the_extent_that_it_read(patch: Patch) -> None:
    """R16, D7: the bytes of the log are written twice."""
    take_over = boot.Boot._take_over

    async def same(start: boot.Boot, replayed: Replayed, number: int) -> Wal:
        return await take_over(start, replayed, max(1, number - 1))

    patch.setattr(boot.Boot, "_take_over", same)


def syncs_no_name_of_an_extent(patch: Patch) -> None:
    """R16: the directory entry of a new extent is not durable."""

    async def create(disk: Disk, number: int, size: int) -> Extent:
        extent = Extent(number, await disk.open(extents.name_of(number), create=True), 0)
        await extent.grow(size, size)
        await extent.file.sync()
        return extent

    patch.setattr(extents, "create", create)


def syncs_no_name_of_a_checkpoint(patch: Patch) -> None:
    """R29: the rename of a checkpoint is not durable when extents go."""

    async def store(disk: Disk, contents: Contents) -> None:
        name = checkpoint.name_of(contents.number)
        await checkpoint.write_file(disk, checkpoint.TEMPORARY, name, checkpoint.encode(contents))
        for number in await checkpoint.numbers(disk):
            if number <= contents.number - checkpoint.KEPT:
                await disk.remove(checkpoint.name_of(number))

    patch.setattr(checkpoint, "store", store)


def syncs_no_bytes_of_a_checkpoint(patch: Patch) -> None:
    """R29: the name of a checkpoint is durable before what it holds."""

    async def write_file(disk: Disk, temporary: str, name: str, buffers: list[bytes]) -> None:
        file = await disk.open(temporary, create=True)
        await file.write(0, buffers)
        await file.close()
        await disk.rename(temporary, name)

    patch.setattr(checkpoint, "write_file", write_file)


def syncs_no_name_of_an_identity(patch: Patch) -> None:
    """R16: a boot is answered for before it is durable."""

    async def store(disk: Disk, found: identity.Identity) -> None:
        file = await disk.open(identity.TEMPORARY, create=True)
        await file.write(0, [identity.render(found)])
        await file.sync()
        await file.close()
        await disk.rename(identity.TEMPORARY, identity.NAME)

    patch.setattr(identity, "store", store)


def loses_a_promise_with_its_extent(patch: Patch) -> None:
    """R29: a checkpoint leaves out the promises."""
    snapshot = facts.snapshot

    def forgetful(replica: Any) -> list[ControlRecord]:
        return [record for record in snapshot(replica) if not isinstance(record, PromiseRecord)]

    patch.setattr(facts, "snapshot", forgetful)


def forgets_where_the_log_stood(patch: Patch) -> None:
    """R19: the position found is below the one that the master has heard of."""
    finish = Replay._finish

    def lower(replay: Replay, end: Position) -> Replayed:
        replayed = finish(replay, end)
        replayed.number = max(1, replayed.number - 1)
        return replayed

    patch.setattr(Replay, "_finish", lower)


CANARIES: dict[Canary, tuple[str, str]] = {
    acknowledges_before_it_syncs: ("used: append fence", "R17|R19|<=|damaged|KeyError|R16|R5|I9"),
    trusts_the_tail_that_it_read: ("used: append", "R17|R16|damaged|<="),
    gives_back_before_the_checkpoint: ("used: roll roll reclaim", "file is lost"),
    syncs_a_marker_with_its_data: ("used: burst append", "R17: a crash was read as damage"),
    takes_torn_bytes_for_damage: ("used: append", "R17: a crash was read as damage"),
    believes_a_torn_takeover: ("used: burst kill", "R17|<=|is forgotten|KeyError"),
    takes_over_in_the_extent_that_it_read: ("used: burst", "damaged|R17|<="),
    syncs_no_name_of_an_extent: ("fresh: append", "file is lost|<=|KeyError"),
    syncs_no_name_of_a_checkpoint: ("used: reclaim", "no checkpoint is whole|file is lost"),
    syncs_no_bytes_of_a_checkpoint: ("used: reclaim", "checkpoint is damaged"),
    syncs_no_name_of_an_identity: ("fresh: fence", "R19: incarnation 1 was told"),
    loses_a_promise_with_its_extent: ("used: fence roll", "Promise"),
    forgets_where_the_log_stood: ("used: append", "R19: found at"),
}
"""How each shows, in which story."""


@pytest.mark.slow
@pytest.mark.parametrize("collapse_bytes", [1 << 20, 1 << 10])
@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__)
def test_a_broken_log_is_caught(
    canary: Canary, collapse_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, shows = CANARIES[canary]
    explorer = Explorer(1)
    canary(monkeypatch)
    try:
        with small_steps(collapse_bytes), pytest.raises(CrashError, match=shows) as caught:
            explorer.explore(parse_story(story), STATES_MAX)
    finally:
        explorer.close()
    print(f"caught after {explorer.states.total()} states: {caught.value}")
