"""The guards themselves: each is held, each has caught a slowdown, and the page says what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.guard.guards import GUARDS, Guard, caught, hold
from tests.guard.test_system_calls import MEASURES, SLOW_SERVERS, names, streams

HOME = Path(__file__).parents[2]
KINDS = ("read", "disk write", "sync", "answer", "wake", "disk read")


def named(what):
    """Guards that tests of calls and of memory name in `hold(...)` or `caught(...)`."""
    sources = [
        Path(__file__).with_name(f"test_{room}.py").read_text() for room in ("calls", "memory")
    ]
    return set(re.findall(rf'\b{what}\("([\w-]+)"', "".join(sources)))


def test_each_guard_is_held():
    traced = set().union(*(names(m, dict.fromkeys(KINDS, 0)) for m in (*MEASURES, streams)))
    assert named("hold") <= set(GUARDS)
    assert set(GUARDS) - named("hold") - traced == set()


def test_each_guard_has_a_canary():
    traced = {name for row in SLOW_SERVERS for found in row.values() for name in found}
    traced |= set(names(streams, dict.fromkeys(("disk write", "sync", "answer"), 0)))
    assert set(GUARDS) == named("caught") | traced


def test_the_page_says_what_is_guarded():
    page = (HOME / "docs" / "performance.md").read_text()
    found = re.findall(r"^\| `([\w-]+)` \| (.+?) \| (\S+) \| (\S+) \|$", page, re.M)
    table = [(name, g.what, f"{g.today:,g}", f"{g.most:,g}") for name, g in GUARDS.items()]
    assert found == table


def test_no_bound_on_the_interpreter_leaves_more_than_a_tenth():
    counted = [g for name, g in GUARDS.items() if name.startswith(("server", "client", "reader"))]
    assert [g for g in counted if not g.today <= g.most <= max(1.1 * g.today + 0.5, 20)] == []


def test_a_guard_fails_above_its_bound_and_far_below_what_it_counted(monkeypatch):
    monkeypatch.setitem(GUARDS, "known", Guard("calls", 10, 11))
    hold("known", 11)
    hold("known", 5)
    with pytest.raises(AssertionError, match="known: calls: 12, at most 11"):
        hold("known", 12)
    with pytest.raises(AssertionError, match="only 4"):
        hold("known", 4)
    assert caught("known", 12)
    assert not caught("known", 11)
