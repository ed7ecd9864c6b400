"""Quorums: any A members and any S of one set have one in common."""

import itertools

import pytest

from lunalog.core.quorum import check_set, held_by, seal_quorum
from lunalog.errors import InvariantError
from lunalog.types import Member


@pytest.mark.parametrize(
    ("n", "a", "s"), [(3, 2, 2), (5, 3, 3), (4, 2, 3), (4, 3, 2), (5, 4, 2), (3, 3, 1), (2, 2, 1)]
)
def test_seal_quorum_is_the_table_of_the_rules(n: int, a: int, s: int) -> None:
    assert seal_quorum(n, a) == s
    for ackers in itertools.combinations(range(n), a):
        for sealers in itertools.combinations(range(n), s):
            assert set(ackers) & set(sealers)


def test_held_by_is_what_so_many_have_reached() -> None:
    assert held_by([5, 9, 7], 1) == 9
    assert held_by([5, 9, 7], 2) == 7
    assert held_by([5, 9, 7], 3) == 5


def test_a_server_counts_once_even_under_two_incarnations() -> None:
    with pytest.raises(InvariantError):
        check_set((Member("a", 1), Member("a", 2), Member("b", 1)), 2)
    with pytest.raises(InvariantError):
        check_set((Member("a", 1),), 2)
    check_set((Member("a", 1), Member("b", 1)), 2)
