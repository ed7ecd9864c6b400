"""The outbox keeps frames while somebody may need them, and knows the chain at every bound."""

from __future__ import annotations

import pytest

from lunalog.core import chain as chains
from lunalog.core.outbox import Outbox
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
