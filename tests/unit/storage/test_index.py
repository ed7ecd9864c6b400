"""The index against a naive one: where each frame lies, what is missing, which extents are dead."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.machines import machine_settings
from tests.unit.storage.conftest import ANN, OTHER, SEGMENT, STREAM

from lunalog.storage import index as indexes
from lunalog.storage.index import Block, BlockCache, Index, Run
from lunalog.storage.records import FrameRecord, OpenRecord
from lunalog.types import SegmentId
from lunalog.wire.frames import FrameHead

Key = tuple[bytes, SegmentId]
keys = st.sampled_from([(STREAM, SEGMENT), (STREAM, SegmentId(1, 1)), (OTHER, SEGMENT)])


def frame(key: Key, first: int, count: int = 1, *, is_damaged: bool = False) -> FrameRecord:
    head = FrameHead(key[0], first, count, 1, 0, 4 * count, first)
    return FrameRecord(*key, first, first + 7, head, b"" if is_damaged else b"frame")


@dataclass
class ModelSegment:
    start: int
    end: int
    chain: int = 0
    committed: int = 0
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """First sequence of each whole frame -> its end, extent and offset."""


class IndexMachine(RuleBasedStateMachine):
    """Frames come in order, with holes and damage; segments are trimmed and forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.model: dict[Key, ModelSegment] = {}
        self.extent = 1
        self.offset = 0

    @rule(key=keys, first=st.integers(0, 5))
    def opened(self, key: Key, first: int) -> None:
        self.index.opened(OpenRecord(*key, ANN, first, 99, 1))
        self.model.setdefault(key, ModelSegment(first, first, 99))

    @rule(
        key=keys,
        ahead=st.sampled_from([0, 0, 0, 0, 0, 3]),
        count=st.integers(1, 3),
        is_damaged=st.sampled_from([False] * 5 + [True]),
    )
    def add(self, key: Key, ahead: int, count: int, is_damaged: bool) -> None:
        known = self.model.get(key)
        first = ahead if known is None else max(known.start, known.end) + ahead
        if known is None:
            known = self.model[key] = ModelSegment(first, first)
        self._add(key, known, first, count, is_damaged=is_damaged)

    def _add(
        self, key: Key, known: ModelSegment, first: int, count: int, *, is_damaged: bool
    ) -> None:
        record = frame(key, first, count, is_damaged=is_damaged)
        self.offset += 100
        self.index.add(record, self.extent, self.offset)
        end = first + count
        known.committed = max(known.committed, first)
        if end > known.end:
            known.end, known.chain = end, first + 7
        if not is_damaged:
            known.places[first] = (end, self.extent, self.offset)

    @rule(key=keys, number=st.integers(0, 30))
    def add_again(self, key: Key, number: int) -> None:
        """A frame that is there, or was trimmed, changes nothing; one that fits a gap fills it."""
        known = self.model.get(key)
        if known is None or not known.places:
            return
        first = sorted(known.places)[number % len(known.places)]
        self.index.add(frame(key, first, known.places[first][0] - first), self.extent, 7)
        if known.start:
            self.index.add(frame(key, known.start - 1), self.extent, 7)
            known.committed = max(known.committed, known.start - 1)
        known.committed = max(known.committed, first)

    @rule(key=keys)
    def fill_gap(self, key: Key) -> None:
        known = self.model.get(key)
        gap = next(iter(self.gaps_of(known)), None) if known else None
        if known is not None and gap is not None:
            self._add(key, known, gap[0], gap[1] - gap[0], is_damaged=False)

    @rule()
    def roll(self) -> None:
        runs = self.index.filled(self.extent)
        places = [
            (key[0], key[1], first, place[2])
            for key, known in self.model.items()
            for first, place in known.places.items()
            if place[1] == self.extent
        ]
        found = [
            (run.owner.stream, run.owner.segment, first, offset)
            for run in runs
            if run.block is not None
            for first, offset in zip(run.block.firsts, run.block.offsets, strict=True)
        ]
        assert {p[:3] for p in places} <= {f[:3] for f in found}
        self.extent += 1

    @rule(key=keys, share=st.floats(0, 1))
    def trim(self, key: Key, share: float) -> None:
        known = self.model.get(key)
        if known is None:
            return
        before = known.start + round(share * (known.end - known.start + 2))
        self.index.forget(*key, before)
        known.start = max(known.start, before)
        known.places = {f: place for f, place in known.places.items() if place[0] > before}

    @rule(key=keys, whole_stream=st.booleans())
    def forget(self, key: Key, whole_stream: bool) -> None:
        self.index.forget(key[0], None if whole_stream else key[1], None)
        for other in list(self.model):
            if other[0] == key[0] and (whole_stream or other[1] == key[1]):
                del self.model[other]

    @rule(number=st.integers(1, 8))
    def lose(self, number: int) -> None:
        if number == self.extent:
            return
        self.index.lose({number})
        for known in self.model.values():
            for first in [f for f, place in known.places.items() if place[1] == number]:
                del known.places[first]

    def gaps_of(self, known: ModelSegment) -> list[tuple[int, int]]:
        found, at = [], known.start
        for first, place in sorted(known.places.items()):
            if first > at:
                found.append((at, first))
            at = max(at, place[0])
        if at < known.end:
            found.append((at, known.end))
        return found

    @invariant()
    def is_as_the_model(self) -> None:
        listed = {(s.stream, s.segment) for s in self.index.all()}
        assert listed == set(self.model)
        live: dict[int, int] = {}
        for key, known in self.model.items():
            found = self.index.find(*key)
            assert found is not None
            assert (found.start, found.end, found.chain) == (known.start, known.end, known.chain)
            assert found.committed == known.committed
            assert list(found.gaps()) == self.gaps_of(known)
            for sequence in range(known.start, known.end + 1):
                self._compare(found, known, sequence)
            for run in found.runs:
                assert run.count > 0
                live[run.extent] = live.get(run.extent, 0) + 1
        assert {extent: n for extent, n in self.index.live.items() if n} == live

    def _compare(self, found: indexes.SegmentIndex, known: ModelSegment, sequence: int) -> None:
        run = found.run_at(sequence)
        place = next(((f, p) for f, p in known.places.items() if f <= sequence < p[0]), None)
        assert (run is None) == (place is None), sequence
        if run is not None and place is not None:
            first, (_, extent, offset) = place
            assert run.extent == extent
            if run.block is not None and first in run.block.firsts:
                at = run.block.firsts.index(first)
                assert run.block.offsets[at] == offset


TestIndex = IndexMachine.TestCase
TestIndex.settings = machine_settings(150, 40)


def run_of(count: int, extent: int = 4) -> Run:
    index = Index()
    for number in range(count):
        index.add(frame((STREAM, SEGMENT), 10 + 2 * number, 2), extent, 112 + 200 * number)
    (run,) = index.filled(extent)
    return run


@given(st.integers(2, 40))
def test_a_sidecar_block_is_read_back(count: int) -> None:
    run = run_of(count)
    assert run.block is not None
    data = indexes.encode_block(run, run.block)
    assert len(data) == indexes.block_bytes(count)
    assert indexes.decode_block(data, run) == run.block


def test_every_wrong_bit_of_a_sidecar_is_noticed() -> None:
    run = run_of(3)
    assert run.block is not None
    data = indexes.encode_block(run, run.block)
    for offset in range(len(data)):
        flipped = bytearray(data)
        flipped[offset] ^= 1 << offset % 8
        assert indexes.decode_block(bytes(flipped), run) is None
    for size in range(len(data)):
        assert indexes.decode_block(data[:size], run) is None


def test_another_runs_block_is_not_taken() -> None:
    run, other = run_of(3), run_of(3, extent=5)
    assert run.block is not None
    assert indexes.decode_block(indexes.encode_block(run, run.block), other) is None


def test_a_block_of_another_run_of_the_same_extent_is_not_taken() -> None:
    """An older sidecar has other runs in these places: a gap before them, or frames since forgotten."""
    index, key = Index(), (STREAM, SEGMENT)
    for number, first in enumerate((10, 12, 20, 22, 30)):
        index.add(frame(key, first, 2), 4, 112 + 200 * number)
    one, two, _ = index.filled(4)
    for run, other in ((one, two), (two, one)):
        assert run.block is not None
        data = indexes.encode_block(run, run.block)
        assert indexes.decode_block(data, run) == run.block
        assert indexes.decode_block(data, other) is None


def test_a_single_frame_needs_no_block() -> None:
    run = run_of(1)
    assert run.firsts is None
    assert run.block is not None
    assert (list(run.block.firsts), list(run.block.offsets)) == ([10], [112])
    many = run_of(2)
    many.firsts = many.offsets = None  # only in the sidecar
    assert many.block is None


def test_a_segment_ends_runs_where_extents_end() -> None:
    index = Index()
    key = (STREAM, SEGMENT)
    index.add(frame(key, 0), 1, 1)
    index.add(frame(key, 1), 1, 2)
    index.add(frame(key, 2), 2, 1)
    found = index.find(*key)
    assert found is not None
    assert [(r.extent, r.first, r.end, r.count) for r in found.runs] == [(1, 0, 2, 2), (2, 2, 3, 1)]
    index.forget(*key, 2)
    assert index.filled(1) == []
    assert index.live == {1: 0, 2: 1}


def test_only_what_is_listed_is_kept() -> None:
    index = Index()
    for key in ((STREAM, SEGMENT), (STREAM, SegmentId(1, 1)), (OTHER, SEGMENT)):
        index.add(frame(key, 0), 1, 1)
        index.add(frame(key, 1), 2, 1)
    starts = {(STREAM, SEGMENT): 0, (STREAM, SegmentId(1, 1)): 1}
    index.start_of = lambda stream, segment: starts.get((stream, segment))
    index.forget_unlisted()
    assert [(s.stream, s.segment, s.start) for s in index.all()] == [
        (STREAM, SEGMENT, 0), (STREAM, SegmentId(1, 1), 1),
    ]  # fmt: skip
    assert index.live == {1: 1, 2: 2}


def test_the_cache_of_blocks_drops_the_longest_unused() -> None:
    cache = BlockCache(3 * 16 * 10)
    blocks = {}
    for extent in range(3):
        run = run_of(10, extent)
        assert run.block is not None
        blocks[extent] = run.block
        cache.put(extent, 0, run.block)
        cache.put(extent, 0, Block(run.block.offsets, run.block.offsets))  # it is there already
    assert cache.get(0, 0) == blocks[0]
    cache.put(9, 0, blocks[1])
    assert cache.get(1, 0) is None
    assert cache.get(0, 0) == blocks[0]
    assert cache.get(9, 0) == blocks[1]
    huge = run_of(100)
    assert huge.block is not None
    cache.put(10, 0, huge.block)
    assert cache.get(10, 0) == huge.block
    assert cache.get(0, 0) is None
