"""Which servers get the next segment."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lunalog.core.placement import Site, pick, survives
from lunalog.types import Member


def site(name: str, *labels: str, **more: Any) -> Site:
    return Site(member=Member(name, 1), labels=labels, **more)


def names(sites: Any) -> list[str]:
    return [found.name for found in sites]


def test_spread_over_hosts_comes_before_load() -> None:
    sites = [
        site("a1", "host=a"), site("a2", "host=a"),
        site("b1", "host=b", open_segments=50), site("c1", "host=c", open_segments=99),
    ]  # fmt: skip
    chosen = pick(sites, 3, 2, chance=random.Random(1))
    assert {found.domain("host") for found in chosen.sites} == {"host=a", "host=b", "host=c"}
    assert (chosen.loses_no_data, chosen.keeps_writing) == (True, True)


def test_a_set_that_cannot_be_spread_says_so() -> None:
    one_host = [site(f"s{n}", "host=a", f"disk={n}") for n in range(4)]
    chosen = pick(one_host, 3, 2, chance=random.Random(1))
    assert len(chosen.sites) == 3
    assert (chosen.loses_no_data, chosen.keeps_writing) == (False, False)


def test_data_outlives_a_domain_where_writing_cannot() -> None:
    sites = [site("a1", "rack=a"), site("a2", "rack=a"), site("b1", "rack=b"), site("b2", "rack=b")]
    chosen = pick(sites, 4, 3, chance=random.Random(1))
    assert (chosen.loses_no_data, chosen.keeps_writing) == (True, False)


def test_the_least_loaded_first_and_the_full_last() -> None:
    sites = [
        site("busy", open_segments=9), site("idle", open_segments=1), site("idler"),
        site("full", free_bytes=1, total_bytes=100),
    ]  # fmt: skip
    assert names(pick(sites, 2, 2, chance=random.Random(1)).sites) == ["idler", "full"]
    full = [
        site("full", free_bytes=1, total_bytes=100),
        site("empty", free_bytes=99, total_bytes=100),
    ]
    assert names(pick(full, 1, 1, chance=random.Random(1)).sites) == ["empty"]


def test_excluded_ones_are_out_and_fewer_are_returned() -> None:
    sites = [site("a"), site("b"), site("c")]
    assert sorted(names(pick(sites, 3, 2, exclude=("b",), chance=random.Random(1)).sites)) == [
        "a", "c",
    ]  # fmt: skip
    assert pick([], 3, 2, chance=random.Random(1)).sites == ()


def test_chance_decides_among_equals_and_a_seed_repeats() -> None:
    sites = [site(f"s{n}") for n in range(6)]
    picks = [names(pick(sites, 3, 2, chance=random.Random(seed)).sites) for seed in range(60)]
    assert picks == [
        names(pick(sites[::-1], 3, 2, chance=random.Random(s)).sites) for s in range(60)
    ]
    counts = Counter(name for picked in picks for name in picked)
    assert min(counts.values()) > 15


labels = st.tuples(st.sampled_from("abc"), st.integers(0, 3))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(labels, max_size=8),
    st.sampled_from([(1, 1), (2, 2), (3, 2), (5, 3), (4, 3)]),
    st.integers(0, 9),
)
def test_any_pick_is_distinct_full_where_possible_and_truthful(
    places: list[tuple[str, int]], pair: tuple[int, int], seed: int
) -> None:
    sites = [
        site(f"s{n}", f"rack={rack}", f"host={rack}{host}") for n, (rack, host) in enumerate(places)
    ]
    n, a = pair
    chosen = pick(sites, n, a, chance=random.Random(seed))
    assert len(set(names(chosen.sites))) == len(chosen.sites) == min(n, len(sites))
    assert (chosen.loses_no_data, chosen.keeps_writing) == survives(chosen.sites, a)
    racks = Counter(found.domain("rack") for found in chosen.sites)
    if len(chosen.sites) == n and (n, a) == (3, 2) and len({r for r, _ in places}) == 3:
        assert max(racks.values()) == 1
