"""The tail cache against a list: what it finds is what was put, in order, and its bytes are bounded."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.machines import machine_settings

from lunalog.storage.cache import FRAME_BYTES, TailCache
from lunalog.storage.records import FrameRecord
from lunalog.types import SegmentId
from lunalog.wire.frames import HEAD_BYTES, FrameHead

BYTES_MAX = 20 * (FRAME_BYTES + 100)
KEYS = [(stream * 16, SegmentId(1, n)) for stream in (b"s", b"t") for n in (0, 1)]

keys = st.sampled_from(KEYS)


@dataclass
class Entry:
    """One frame, in the order of arrival."""

    key: tuple[bytes, SegmentId]
    head: FrameHead
    frame: bytes
    chain: int
    is_there: bool = True

    @property
    def size(self) -> int:
        return len(self.frame) + FRAME_BYTES


class CacheMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache = TailCache(BYTES_MAX)
        self.entries: list[Entry] = []
        self.ends = dict.fromkeys(KEYS, 0)

    def there(self, key: tuple[bytes, SegmentId]) -> list[Entry]:
        return [entry for entry in self.entries if entry.key == key and entry.is_there]

    def gone(self, key: tuple[bytes, SegmentId]) -> None:
        for entry in self.there(key):
            entry.is_there = False

    @rule(key=keys, count=st.integers(1, 4), size=st.sampled_from([0, 50, 100, 1500]))
    def add(self, key: tuple[bytes, SegmentId], count: int, size: int) -> None:
        first = self.ends[key]
        head = FrameHead(key[0], first, count, 1, 0, size, 7)
        frame = bytes([first % 256]) * (HEAD_BYTES + size)
        self.cache.add(FrameRecord(*key, 0, first * 31, head, frame))
        self.entries.append(Entry(key, head, frame, first * 31))
        self.ends[key] = head.end
        while sum(entry.size for entry in self.entries) > BYTES_MAX:
            del self.entries[0]

    @rule(key=keys, count=st.integers(1, 40))
    def add_many(self, key: tuple[bytes, SegmentId], count: int) -> None:
        for _ in range(count):
            self.add(key, 1, 0)

    @rule(key=keys, gap=st.integers(1, 5))
    def jump(self, key: tuple[bytes, SegmentId], gap: int) -> None:
        """A frame that does not join: what was there before is of no more use."""
        self.gone(key)
        self.ends[key] += gap
        self.add(key, 1, 10)

    @rule(key=keys)
    def forget(self, key: tuple[bytes, SegmentId]) -> None:
        self.cache.forget(*key)
        self.gone(key)

    @rule(stream=st.sampled_from([b"s" * 16, b"t" * 16]))
    def forget_stream(self, stream: bytes) -> None:
        self.cache.forget(stream)
        for key in KEYS:
            if key[0] == stream:
                self.gone(key)

    @rule(
        key=keys,
        back=st.integers(-2, 30),
        room=st.sampled_from([1, 300, 1 << 20]),
        cut=st.integers(0, 9),
    )
    def find(self, key: tuple[bytes, SegmentId], back: int, room: int, cut: int) -> None:
        start, end = max(0, self.ends[key] - back), self.ends[key] - cut
        found = self.cache.find(*key, start, room, end)
        wanted: list[tuple[FrameHead, bytes]] = []
        for entry in self.there(key):
            if entry.head.end <= start:
                continue
            if not wanted and entry.head.first > start:
                break
            room -= len(entry.frame)
            if wanted and (room < 0 or entry.head.first >= end):
                break
            wanted.append((entry.head, entry.frame))
        assert found == (wanted or None)

    @rule(key=keys, back=st.integers(-2, 30))
    def chain(self, key: tuple[bytes, SegmentId], back: int) -> None:
        bound = max(0, self.ends[key] - back)
        chains = {entry.head.end: entry.chain for entry in self.there(key)}
        assert self.cache.chain_at(*key, bound) == chains.get(bound)

    @invariant()
    def bytes_are_bounded_and_counted(self) -> None:
        assert self.cache.bytes == sum(entry.size for entry in self.entries) <= BYTES_MAX

    @invariant()
    def the_oldest_is_there_and_what_came_before_it_is_not(self) -> None:
        for key in KEYS:
            there = self.there(key)
            if there:
                oldest = there[0]
                found = self.cache.find(*key, oldest.head.first, 1, 1 << 62)
                assert found == [(oldest.head, oldest.frame)]
                before = oldest.head.first - 1
                assert before < 0 or self.cache.find(*key, before, 1, 1 << 62) is None


CacheMachine.TestCase.settings = machine_settings(60, 40)
TestCacheMachine = CacheMachine.TestCase
