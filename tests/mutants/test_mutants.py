"""The registry of deliberate faults is whole, and its runner cannot be fooled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.mutants import runner
from tests.mutants.faults import OPEN
from tests.mutants.moments import WORKLOADS
from tests.mutants.registry import MUTANTS, Mutant, owner_of

from lunalog.core import quorum, recovery

ABSENT = {"R20", "R23", "R24"}
"""Those of repair, archive and chain come with them."""


@pytest.fixture
def registered() -> Iterator[Any]:
    added: list[str] = []

    def register(mutant: Mutant) -> str:
        MUTANTS[mutant.name] = mutant
        added.append(mutant.name)
        return mutant.name

    yield register
    for name in added:
        del MUTANTS[name]


def harmless(real: Any, *args: Any) -> Any:
    return real(*args)


def test_there_are_enough_of_them():
    assert set(MUTANTS) >= OPEN
    assert len(set(MUTANTS) - OPEN) >= 50


def test_every_rule_that_has_code_is_broken_by_some():
    run = [mutant for mutant in MUTANTS.values() if mutant.name not in OPEN]
    named = {rule for mutant in run for rule in re.findall(r"R\d+", mutant.rule)}
    assert named == {f"R{n}" for n in range(1, 32)} - ABSENT


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_each_goes_where_the_shipped_code_still_is(mutant: Mutant):
    before = [vars(owner)[name] for owner, name in map(owner_of, mutant.places)]
    with mutant.applied():
        during = [vars(owner)[name] for owner, name in map(owner_of, mutant.places)]
    after = [vars(owner)[name] for owner, name in map(owner_of, mutant.places)]
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert before == after
    assert mutant.workload in WORKLOADS


def test_a_place_that_is_gone_is_an_error():
    with pytest.raises(AttributeError, match="has to follow the code"):
        owner_of("lunalog.core.quorum:no_such_function")


def test_a_fault_that_takes_other_things_than_its_function_is_an_error():
    """Its calls would fail, and pass for a kill."""

    def takes_less(real: Any, members: Any) -> Any:
        return real(members, 1)

    place = "lunalog.core.recovery:seal_quorum"
    with (
        pytest.raises(TypeError, match=r"takes_less does not take what seal_quorum takes"),
        Mutant("less", "R6", "", "takeover", (place,), takes_less).applied(),
    ):
        pass
    assert recovery.seal_quorum is quorum.seal_quorum


def test_calls_are_counted_and_the_fault_is_taken_out_again():
    mutant = Mutant("x", "R6", "", "split", ("lunalog.core.quorum:seal_quorum",), lambda *_: 0)
    with mutant.applied() as calls:
        assert (quorum.seal_quorum(3, 2), calls.count) == (0, 1)
    assert quorum.seal_quorum(3, 2) == 2


def test_a_fault_that_breaks_nothing_survives(registered: Any):
    places = ("lunalog.core.recovery:seal_quorum",)
    name = registered(Mutant("harmless", "R6", "nothing", "split", places, harmless))
    outcome = runner.hunt((name, 0, 1))
    assert outcome.calls > 0
    assert not outcome.is_killed
    assert runner.conclude([outcome], False, 1.0) == 1


def test_a_kill_without_a_call_is_none(registered: Any, monkeypatch: pytest.MonkeyPatch):
    places = ("lunalog.core.quorum:check_set",)
    name = registered(Mutant("unused", "R4", "nothing", "broken", places, harmless))
    runs = iter([["wrong"], []])
    monkeypatch.setitem(WORKLOADS, "broken", lambda seed: next(runs))
    outcome = runner.hunt((name, 0, 1))
    assert outcome.killed_by == "wrong"
    assert not outcome.is_killed


def test_a_seed_that_fails_anyway_kills_nobody(registered: Any, monkeypatch: pytest.MonkeyPatch):
    def spoiled(seed: int) -> list[str]:
        recovery.seal_quorum(3, 2)
        return ["always wrong"]

    places = ("lunalog.core.recovery:seal_quorum",)
    name = registered(Mutant("blamed", "R6", "nothing", "spoiled", places, harmless))
    monkeypatch.setitem(WORKLOADS, "spoiled", spoiled)
    outcome = runner.hunt((name, 0, 3))
    assert (outcome.is_killed, outcome.spoiled) == (False, 3)


def test_one_fault_is_killed_by_the_focused_workload_it_names():
    outcome = runner.hunt(("seal-quorum-confirms", 0, 20))
    assert outcome.is_killed
    assert outcome.killed_by.startswith("I8")
