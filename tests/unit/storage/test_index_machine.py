"""Index, sidecars and checkpoints against a dictionary: where each frame lies, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.machines import machine_settings

from lunalog.storage import checkpoint
from lunalog.storage.format import Position
from lunalog.storage.index import (
    Block,
    Index,
    Run,
    SegmentIndex,
    block_bytes,
    decode_block,
    encode_block,
)
from lunalog.storage.ledger import Beginning, Ledger
from lunalog.storage.records import FrameRecord, OpenRecord
from lunalog.types import SegmentId
from lunalog.wire.frames import FrameHead

Key = tuple[bytes, SegmentId]
KEYS = [(stream * 16, SegmentId(1, n)) for stream in (b"s", b"t") for n in (0, 1)]
TAG = 77

keys = st.sampled_from(KEYS)


@dataclass
class ModelSegment:
    """What is held: the place of each sequence, by its frame's first."""

    start: int
    end: int
    frames: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """First -> (end, extent, offset)."""

    def place_of(self, sequence: int) -> tuple[int, int] | None:
        for first, (end, extent, offset) in self.frames.items():
            if first <= sequence < end:
                return extent, offset
        return None


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.ledger = Ledger(self.index, TAG)
        self.model: dict[Key, ModelSegment] = {}
        self.sidecars: dict[int, bytes] = {}
        self.extent = 1
        self.offset = 112
        self.log: list[tuple[int, FrameRecord | OpenRecord, int]] = []
        """What replay would read: of extents that no checkpoint has as full."""
        self.ever: dict[Key, list[tuple[int, int]]] = {}

    # ------------------------------------------------------------ what is written

    def _put(self, key: Key, first: int, count: int, *, is_whole: bool = True) -> None:
        head = FrameHead(key[0], first, count, 1, 0, 10, 7)
        frame = b"x" if is_whole else b""
        record = FrameRecord(*key, 0, first * 31, head, frame)
        self.index.add(record, self.extent, self.offset)
        self.log.append((self.extent, record, self.offset))
        self.ever.setdefault(key, []).append((first, count))
        model = self.model.setdefault(key, ModelSegment(first, first))
        model.end = max(model.end, head.end)
        is_taken = any(model.place_of(at) for at in range(max(first, model.start), head.end))
        if is_whole and head.end > model.start and not is_taken:
            model.frames[first] = (head.end, self.extent, self.offset)
        self.offset += 200

    @rule(key=keys, first=st.integers(0, 20))
    def open(self, key: Key, first: int) -> None:
        record = OpenRecord(*key, b"a" * 16, first, 5, 1)
        self.index.opened(record)
        self.log.append((self.extent, record, 0))
        self.model.setdefault(key, ModelSegment(first, first))

    @rule(key=keys, counts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def append(self, key: Key, counts: list[int]) -> None:
        for count in counts:
            model = self.model.get(key)
            self._put(key, 0 if model is None else max(model.end, model.start), count)

    @rule(key=keys, count=st.integers(1, 4))
    def append_damaged(self, key: Key, count: int) -> None:
        if key in self.model:
            self._put(key, self.model[key].end, count, is_whole=False)

    @rule(key=keys, pick=st.integers(0, 20))
    def again(self, key: Key, pick: int) -> None:
        """What was written before, by a takeover or a pull: it fills a gap or changes nothing."""
        before = self.ever.get(key, [])
        if before and key in self.model:
            self._put(key, *before[pick % len(before)])

    # ------------------------------------------------------------ what is given up

    @rule(key=keys, before=st.integers(0, 60))
    def forget_below(self, key: Key, before: int) -> None:
        if key in self.model:
            self.index.forget(*key, before)
            model = self.model[key]
            model.start = max(model.start, before)

    @rule(key=keys)
    def forget(self, key: Key) -> None:
        self.index.forget(*key, None)
        self.model.pop(key, None)
        self.ever.pop(key, None)
        self.log = [entry for entry in self.log if (entry[1].stream, entry[1].segment) != key]

    # ------------------------------------------------------------ extents and checkpoints

    @rule()
    def fill(self) -> None:
        """The extent is full, and a checkpoint covers it."""
        full = self.extent
        self.extent, self.offset = full + 1, 112
        self.ledger.closed(full, 4096)
        self.save()

    @rule()
    def save(self) -> None:
        plan = self.ledger.plan(Beginning(self.extent, 9, 9), Position(self.extent, 0), [])
        for extent, blocks in plan.sidecars.items():
            self.sidecars[extent] = b"".join(encode_block(run, block) for run, block in blocks)
        self.written = checkpoint.encode(plan.contents)
        self.ledger.finished(plan)
        full = {note.number for note in plan.contents.extents} | set(plan.dropped)
        self.log = [entry for entry in self.log if entry[0] not in full]
        assert all(self.index.live.get(extent, 0) == 0 for extent in plan.dropped)

    @rule()
    def restart(self) -> None:
        """Only the checkpoint and the log since are left."""
        self.save()
        contents = checkpoint.decode(b"".join(self.written), self.ledger.number)
        assert contents is not None
        index = Index()
        checkpoint.restore(contents, index)
        for extent, record, offset in self.log:
            if isinstance(record, OpenRecord):
                index.opened(record)
            else:
                index.add(record, extent, offset)
        index.start_of = self.start_of
        index.forget_unlisted()
        ledger = Ledger(index, TAG)
        ledger.number, ledger.notes = self.ledger.number, self.ledger.notes
        self.index, self.ledger = index, ledger

    def start_of(self, stream: bytes, segment: SegmentId) -> int | None:
        """What is kept as things are now, and not as they were at the last start."""
        found = self.model.get((stream, segment))
        return found.start if found is not None else None

    # ------------------------------------------------------------ what must hold

    def block_of(self, run: Run) -> Block:
        if run.block is not None:
            return run.block
        data = self.sidecars[run.extent][run.place : run.place + block_bytes(run.count)]
        block = decode_block(data, run)
        assert block is not None
        return block

    def found(self, index: SegmentIndex, sequence: int) -> tuple[int, int] | None:
        run = index.run_at(sequence)
        if run is None:
            return None
        block = self.block_of(run)
        at = max(i for i, first in enumerate(block.firsts) if first <= sequence)
        return run.extent, block.offsets[at]

    @invariant()
    def every_sequence_is_where_the_model_has_it(self) -> None:
        held = {(index.stream, index.segment): index for index in self.index.all()}
        assert held.keys() == self.model.keys()
        for key, model in self.model.items():
            index = held[key]
            assert (index.start, index.end) == (model.start, model.end)
            wanted = [model.place_of(at) for at in range(model.start, model.end)]
            assert [self.found(index, at) for at in range(model.start, model.end)] == wanted
            gaps = {at for first, end in index.gaps() for at in range(first, end)}
            assert gaps == {at for at, place in enumerate(wanted, model.start) if place is None}

    @invariant()
    def an_extent_lives_as_long_as_a_run_does(self) -> None:
        runs = [run.extent for index in self.index.all() for run in index.runs]
        for extent in range(1, self.extent + 1):
            assert self.index.live.get(extent, 0) == runs.count(extent)


IndexMachine.TestCase.settings = machine_settings(60, 40)
TestIndexMachine = IndexMachine.TestCase
