"""The tail cache: recent frames, bounded in bytes, the oldest dropped first."""

from __future__ import annotations

import random

from tests.unit.storage.conftest import OTHER, SEGMENT, STREAM, build_frame

from lunalog import limits
from lunalog.storage.cache import FRAME_BYTES, TailCache
from lunalog.storage.records import FrameRecord
from lunalog.types import SegmentId
from lunalog.wire import frames


def record(first: int, count: int = 1, size: int = 100, stream: bytes = STREAM) -> FrameRecord:
    frame = build_frame(stream, first, count, size)
    return FrameRecord(stream, SEGMENT, 0, first + 1000, frames.parse(frame), frame)


def firsts(
    cache: TailCache, start: int, bytes_max: int = 1 << 20, end: int = limits.SEQUENCE_MAX
) -> list[int] | None:
    found = cache.find(STREAM, SEGMENT, start, bytes_max, end)
    return None if found is None else [head.first for head, _ in found]


def filled(bytes_max: int = 1 << 20, count: int = 5) -> TailCache:
    cache = TailCache(bytes_max)
    for first in range(0, 2 * count, 2):
        cache.add(record(first, 2))
    return cache


def test_frames_are_found_from_the_one_that_holds_the_start() -> None:
    cache = filled()
    assert firsts(cache, 0) == [0, 2, 4, 6, 8]
    assert firsts(cache, 3) == [2, 4, 6, 8]
    assert firsts(cache, 9) == [8]
    assert firsts(cache, 10) is None
    assert cache.find(OTHER, SEGMENT, 0, 1, 9) is None


def test_what_is_found_stays_within_bytes_and_end_but_is_at_least_one() -> None:
    cache = filled()
    size = len(record(0, 2).frame)
    assert firsts(cache, 0, 2 * size) == [0, 2]
    assert firsts(cache, 0, 2 * size - 1) == [0]
    assert firsts(cache, 0, 0) == [0]
    assert firsts(cache, 0, end=5) == [0, 2, 4]
    assert firsts(cache, 0, end=4) == [0, 2]
    assert firsts(cache, 4, end=4) == [4]


def test_the_chain_is_known_at_bounds_of_frames_only() -> None:
    cache = filled()
    assert cache.chain_at(STREAM, SEGMENT, 4) == 1002
    assert cache.chain_at(STREAM, SEGMENT, 10) == 1008
    for bound in (0, 3, 11):
        assert cache.chain_at(STREAM, SEGMENT, bound) is None
    assert cache.chain_at(OTHER, SEGMENT, 4) is None


def test_a_frame_that_does_not_follow_starts_anew() -> None:
    """After damage, or when a segment is pulled from elsewhere."""
    cache = filled()
    cache.add(record(20))
    assert firsts(cache, 8) is None
    assert firsts(cache, 20) == [20]


def test_the_oldest_of_all_segments_goes_first() -> None:
    one = len(record(0).frame) + FRAME_BYTES
    cache = TailCache(4 * one)
    for first in range(3):
        cache.add(record(first))
    for first in range(3):
        cache.add(record(first, stream=OTHER))
    assert cache.bytes == 4 * one
    assert firsts(cache, 0) is None
    assert firsts(cache, 1) is None
    assert firsts(cache, 2) == [2]
    assert cache.chain_at(STREAM, SEGMENT, 2) is None
    assert cache.find(OTHER, SEGMENT, 0, 1 << 20, 9) is not None


def test_forgotten_frames_are_not_found_and_their_room_comes_back() -> None:
    cache = filled(count=3)
    cache.add(record(0, stream=OTHER))
    cache.forget(STREAM, SEGMENT)
    cache.forget(STREAM, SegmentId(9, 9))
    assert firsts(cache, 0) is None
    assert cache.find(OTHER, SEGMENT, 0, 1, 9) is not None
    cache.forget(OTHER)
    assert cache.find(OTHER, SEGMENT, 0, 1, 9) is None
    for first in range(5000):
        cache.add(record(first))
    assert cache.bytes <= 1 << 20
    assert firsts(cache, 4999) == [4999]


def test_a_view_is_copied_so_that_no_large_buffer_is_pinned() -> None:
    cache = TailCache(1 << 20)
    whole = bytearray(record(0).frame)
    made = record(0)
    cache.add(FrameRecord(STREAM, SEGMENT, 0, 1, made.head, memoryview(whole)))  # type: ignore[arg-type]
    whole[:] = bytes(len(whole))
    found = cache.find(STREAM, SEGMENT, 0, 1, 9)
    assert found is not None
    assert found[0][1] == made.frame


def test_it_never_holds_more_than_its_bound_and_never_lies() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        cache = TailCache(20_000)
        ends = {STREAM: 0, OTHER: 0}
        for _ in range(600):
            stream = chance.choice([STREAM, OTHER])
            made = record(ends[stream], chance.choice([1, 3]), chance.randrange(300), stream)
            cache.add(made)
            ends[stream] = made.head.end
            if chance.random() < 0.01:
                cache.forget(stream, SEGMENT)
            assert cache.bytes <= 20_000
            start = chance.randrange(ends[stream])
            for head, frame in cache.find(stream, SEGMENT, start, 5000, 1 << 60) or []:
                assert head.end > start
                assert frames.parse(frame) == head
                start = head.end
