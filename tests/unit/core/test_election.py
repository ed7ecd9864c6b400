"""Who leads next."""

from __future__ import annotations

from lunalog.core.election import Candidate, choose
from lunalog.types import Peer

ONE, TWO, THREE = (Peer(name, name.encode()) for name in ("one", "two", "three"))


def test_nobody_stands() -> None:
    assert choose([], last=ONE, has_resigned=False) is None


def test_the_last_leader_goes_on_unless_it_resigned() -> None:
    candidates = [
        Candidate(peer=ONE, applied=1),
        Candidate(peer=TWO, applied=9),
    ]
    assert choose(candidates, last=ONE, has_resigned=False) == ONE
    assert choose(candidates, last=ONE, has_resigned=True) == TWO
    assert choose(candidates[:1], last=ONE, has_resigned=True) == ONE


def test_most_applied_then_fewest_led_then_longest_in_the_queue() -> None:
    def first(*candidates: Candidate) -> Peer | None:
        return choose(candidates, last=None, has_resigned=False)

    assert first(Candidate(peer=ONE, applied=5), Candidate(peer=TWO, applied=6)) == TWO
    assert first(Candidate(peer=ONE, leads=3), Candidate(peer=TWO, leads=2)) == TWO
    assert first(Candidate(peer=ONE, stood=2), Candidate(peer=TWO, stood=1)) == TWO


def test_who_gave_up_queues_last_and_the_longest_ago_first() -> None:
    candidates = [
        Candidate(peer=ONE, applied=9, gave_up=2),
        Candidate(peer=TWO, applied=8, gave_up=1),
        Candidate(peer=THREE),
    ]
    assert choose(candidates, last=ONE, has_resigned=True) == THREE
    assert choose(candidates[:2], last=ONE, has_resigned=True) == TWO


def test_the_target_of_a_transfer_goes_first() -> None:
    candidates = [Candidate(peer=ONE, applied=9), Candidate(peer=TWO), Candidate(peer=THREE)]
    assert choose(candidates, last=ONE, has_resigned=True, target="three") == THREE
    assert choose(candidates, last=ONE, has_resigned=True, target="") == TWO
