"""The outbox keeps frames while somebody may need them, and knows the chain at every bound."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest

from lunalog.core import chain as chains
from lunalog.core import outbox as outboxes
from lunalog.core.outbox import BLOCK_FRAMES, Outbox, SentFrame
from lunalog.errors import InvariantError


def filled(bytes_max: int = 1000) -> Outbox:
    """Frames [10, 12), [12, 13), [13, 16) of ten bytes each."""
    outbox = Outbox(10, 5, bytes_max)
    for first, count in ((10, 2), (12, 1), (13, 3)):
        outbox.add(first, count, first, b"%10d" % first)
    return outbox


def test_r26_frames_join() -> None:
    outbox = filled()
    assert (outbox.tail, outbox.bytes) == (16, 30)
    with pytest.raises(InvariantError, match="R26: frame at 17 behind tail 16"):
        outbox.add(17, 1, 0, b"")


def test_the_chain_is_known_between_kept_frames_only() -> None:
    outbox = filled()
    at_12 = chains.extend(5, 10, 2, 10)
    at_13 = chains.extend(at_12, 12, 1, 12)
    at_16 = chains.extend(at_13, 13, 3, 13)
    told = {sequence: outbox.chain_at(sequence) for sequence in range(8, 19)}
    known = {10: 5, 12: at_12, 13: at_13, 16: at_16}
    assert told == {sequence: known.get(sequence) for sequence in range(8, 19)}
    assert outbox.chain == at_16
    outbox.trim(13, 16)
    assert outbox.chain_at(12) is None
    assert outbox.chain_at(13) == at_13
    assert outbox.chain_at(16) == at_16


def test_the_frames_of_a_range_come_in_order() -> None:
    outbox = filled()

    def firsts(start: int, end: int, bytes_max: int = 1000) -> list[int]:
        return [int(kept.frame) for kept in outbox.between(start, end, bytes_max)]

    assert firsts(10, 16) == [10, 12, 13]
    assert firsts(12, 13) == [12]
    assert firsts(12, 15) == [12]
    assert firsts(16, 16) == []
    assert firsts(10, 16, 20) == firsts(10, 16, 11) == [10, 12]
    assert firsts(10, 16, 1) == [10], "one at least"
    assert [kept.end for kept in outbox.between(10, 16, 20)] == [12, 13]


def test_what_all_hold_goes_and_of_the_committed_what_is_too_much() -> None:
    outbox = filled()
    outbox.trim(12, 12)
    assert (outbox.start, outbox.bytes) == (12, 20)
    outbox = filled(bytes_max=15)
    outbox.trim(10, 12)
    assert outbox.start == 12, "not committed: kept, however much it is"
    outbox.trim(10, 16)
    assert (outbox.start, outbox.bytes) == (13, 10)
    outbox.trim(16, 16)
    assert (outbox.start, outbox.bytes, outbox.chain_at(16)) == (16, 0, outbox.chain)


def test_many_frames_are_found_wherever_they_lie() -> None:
    """Against a plain list, while frames come, go and are looked for in all places."""
    chance, outbox, plain = random.Random(1), Outbox(0, 5, 1 << 20), [(0, 5, b"")]
    for _ in range(40):
        for _ in range(chance.randrange(BLOCK_FRAMES)):
            first, count = outbox.tail, chance.randint(1, 3)
            outbox.add(first, count, first, b"%d" % first)
            plain.append((first + count, outbox.chain, b"%d" % first))
        floor = chance.randint(outbox.start, outbox.tail)
        outbox.trim(floor, floor)
        while len(plain) > 1 and plain[1][0] <= floor:
            del plain[0]
        kept, ends = plain[1:], {end: chain for end, chain, _ in plain}
        assert (outbox.start, outbox.start_chain) == plain[0][:2]
        assert outbox.bytes == sum(len(frame) for _, _, frame in kept)
        assert outbox.oldest_end == (kept[0][0] if kept else outbox.tail)
        for at in range(outbox.start - 1, outbox.tail + 2):
            assert outbox.chain_at(at) == ends.get(at)
        start = chance.choice(plain)[0]
        assert outbox.between(start, outbox.tail, 1 << 20) == [
            SentFrame(*one) for one in kept if one[0] > start
        ]
    outbox.trim(outbox.tail, outbox.tail)
    assert outbox.between(outbox.tail, outbox.tail, 1) == []


def test_nothing_is_walked_to_a_frame_far_behind_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A replica that comes back is fed portion by portion: each begins where the last one ended."""
    outbox = Outbox(0, 5, 64 << 20)
    for first in range(200 * BLOCK_FRAMES):
        outbox.add(first, 1, first, b"x")
    skipped = 0

    def counted(frames: Iterable[SentFrame], start: int, stop: None) -> Iterator[SentFrame]:
        nonlocal skipped
        skipped += start
        return islice(frames, start, stop)

    monkeypatch.setattr(outboxes, "islice", counted)
    far = outbox.tail - 50
    assert [kept.end for kept in outbox.between(far, far + 2, 1)] == [far + 1]
    assert 0 < skipped <= BLOCK_FRAMES + 200
