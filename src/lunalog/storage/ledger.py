"""The ledger of full extents: their sidecars, the checkpoints over them, and when each may go.

A plan is drawn on the loop, where the state is; it is carried out on a worker, in this order: sidecars
written and synced; checkpoint written, synced, renamed; directory synced; only then extents removed
that the last two checkpoints do without (R29).  A crash between leaves files that the next start
removes, never a checkpoint over files that are not there.

Source: R29; D12; docs/storage.md.
"""

from __future__ import annotations

import msgspec

from lunalog.storage import checkpoint
from lunalog.storage.checkpoint import Contents, ExtentNote
from lunalog.storage.extents import index_name_of, name_of
from lunalog.storage.files import Disk
from lunalog.storage.format import Position
from lunalog.storage.index import Block, Index, Run, block_bytes, encode_block
from lunalog.storage.records import ControlRecord


class Beginning(msgspec.Struct, frozen=True, gc=False):
    """The extent that replay begins with, and the state of the log before its first batch."""

    extent: int
    number: int
    before: int


class Plan(msgspec.Struct):
    """One checkpoint to be written."""

    contents: Contents
    sidecars: dict[int, list[tuple[Run, Block]]]
    places: dict[Run, int]
    closing: list[int]
    dropped: list[int]


class Ledger:
    """Full extents of one log; used on the loop only, but for `carry_out`."""

    def __init__(self, index: Index, tag: int) -> None:
        self._index = index
        self._tag = tag
        self.number = 0
        """Of the last durable checkpoint."""
        self.notes: dict[int, ExtentNote] = {}
        self.may_have_lost = False
        self._closing: dict[int, tuple[int, list[Run]]] = {}

    def closed(self, extent: int, end: int) -> None:
        """Note that an extent gets no more frames; the next checkpoint covers it."""
        self._closing[extent] = (end, self._index.filled(extent))

    @property
    def has_dead(self) -> bool:
        """Whether another checkpoint would free an extent."""
        live = self._index.live
        return any(not live.get(number) for number in self.notes)

    def plan(self, beginning: Beginning, synced_to: Position, records: list[ControlRecord]) -> Plan:
        """Draw the next checkpoint up from what is durable now."""
        number = self.number + 1
        live = self._index.live
        kept, dropped = [], []
        for extent, note in self.notes.items():
            if live.get(extent) or note.closed_at >= number:
                kept.append(note)
            else:
                dropped.append(extent)
        sidecars: dict[int, list[tuple[Run, Block]]] = {}
        places: dict[Run, int] = {}
        for extent, (end, runs) in self._closing.items():
            if end == 0:
                dropped.append(extent)  # the takeover has carried all of it
                continue
            kept.append(ExtentNote(extent, end, number))
            sidecars[extent] = _lay_out(runs, places)
        full = {note.number for note in kept}
        contents = Contents(
            number, self._tag, kept, beginning.extent, beginning.number, beginning.before,
            synced_to, self.may_have_lost, checkpoint.note_segments(self._index, places, full),
            records,
        )  # fmt: skip
        return Plan(contents, sidecars, places, list(self._closing), dropped)

    def finished(self, plan: Plan) -> None:
        """Take over what is durable now: arrays of full extents leave memory."""
        self.number = plan.contents.number
        self.notes = {note.number: note for note in plan.contents.extents}
        for run, place in plan.places.items():
            run.place = place
            run.firsts = run.offsets = None
        for extent in plan.closing:
            self._closing.pop(extent, None)
        for extent in plan.dropped:
            self._index.live.pop(extent, None)


def _lay_out(runs: list[Run], places: dict[Run, int]) -> list[tuple[Run, Block]]:
    blocks = []
    at = 0
    for run in runs:
        block = run.block
        if run.count > 1 and block is not None:
            blocks.append((run, block))
            places[run] = at
            at += block_bytes(run.count)
    return blocks


async def carry_out(disk: Disk, plan: Plan) -> None:
    """Write it all, in the order that survives a crash anywhere; raises `OSError`."""
    for extent, blocks in plan.sidecars.items():
        if blocks:
            name = index_name_of(extent)
            buffers = [encode_block(run, block) for run, block in blocks]
            await checkpoint.write_file(disk, f"{name}.tmp", name, buffers)
    await checkpoint.store(disk, plan.contents)
    for extent in plan.dropped:
        await disk.remove(name_of(extent))
        await disk.remove(index_name_of(extent))
