"""The models hold in small scopes, the explorer sees everything, and no mutant gets by."""

import os
import subprocess
import sys
from typing import NamedTuple

import pytest

from lunalog.testing.model import __main__ as command
from lunalog.testing.model import mutants, recover, scopes
from lunalog.testing.model.close import Close
from lunalog.testing.model.durable import Durable
from lunalog.testing.model.explore import (
    Model,
    action,
    distinct,
    explore,
    fault,
    invariant,
    probe,
)
from lunalog.testing.model.grant import Grant
from lunalog.testing.model.reader import Reader
from lunalog.testing.model.recover import Recover
from lunalog.testing.model.roll import Roll
from lunalog.testing.model.wipe import Wipe

SMALL = [
    Grant(epochs=1),
    Recover(2, 2, recoverers=1),
    Recover(3, 2, sent=1, appends=0, recoverers=1, has_marks=True),
    Roll(2, 2, events=1, rolls=1),
    Reader(2, 2, sent=1),
    Reader(2, 2, sent=1, spare=1, has_reader=False, has_linear=True),
    Wipe(3, 2),
    Durable(2, 2),
    Close(2, 2, events=1, deaths=1, has_trim=True),
]
MUTANTS = scopes.MUTANTS


class Jugs(NamedTuple):
    """A jug of five litres and one of three."""

    five: int
    three: int


class Pouring(Model[Jugs]):
    """The puzzle: measure four litres, by filling, emptying and pouring."""

    name = "pouring"
    wanted = 4

    def initial(self):
        return Jugs(0, 0)

    def is_goal(self, state):
        return state == Jugs(0, 0)

    @action
    def fill(self, state):
        yield (5,), Jugs(5, state.three)
        yield (3,), Jugs(state.five, 3)

    @action
    def empty(self, state):
        yield (5,), Jugs(0, state.three)
        yield (3,), Jugs(state.five, 0)

    @action
    def pour(self, state):
        both = sum(state)
        yield (5, 3), Jugs(max(0, both - 3), min(3, both))
        yield (3, 5), Jugs(min(5, both), max(0, both - 5))

    @invariant
    def nobody_measures_it(self, state):
        return state.five != self.wanted


class TwoHands(Pouring):
    """Two jugs of three; they have no names, and are called by their order."""

    def canonical(self, state):
        return Jugs(*sorted(state))

    def fill(self, state):
        yield (5,), Jugs(3, state.three)
        yield (3,), Jugs(state.five, 3)

    def pour(self, state):
        both = sum(state)
        yield (5, 3), Jugs(max(0, both - 3), min(3, both))
        yield (3, 5), Jugs(min(3, both), max(0, both - 3))


class Leaking(Pouring):
    """Once the jugs leak, nothing helps: no goal is within reach."""

    wanted = 9

    @fault
    def leak(self, state):
        if state == Jugs(5, 3):
            yield (), Jugs(7, 7)

    def fill(self, state):
        if state.five < 7:
            yield from super().fill(state)

    def empty(self, state):
        if state.five < 7:
            yield from super().empty(state)

    def pour(self, state):
        if state.five < 7:
            yield from super().pour(state)


def test_a_counterexample_is_a_shortest_one_and_can_be_replayed():
    report = explore(Pouring())
    assert (report.violation, report.is_exhausted) == ("nobody_measures_it", False)
    assert [step.action for step in report.trace] == [
        "fill",
        "pour",
        "empty",
        "pour",
        "fill",
        "pour",
    ]
    assert report.trace[-1].state == Jugs(4, 3)
    assert "nobody_measures_it after 6 steps" in report.story()


def test_what_differs_in_names_only_is_visited_once():
    report = explore(TwoHands())
    assert (report.states, report.depth, report.is_exhausted) == (3, 2, True)


def test_equal_servers_take_their_steps_once():
    assert list(distinct((2, 2, 3, 5, 5, 5))) == [(0, 2), (2, 3), (3, 5)]
    assert list(distinct(())) == []


@pytest.mark.parametrize("model", [Wipe(3, 2), Durable(2, 2), Recover(2, 2, sent=1)])
def test_skipping_equal_servers_loses_no_state(model, monkeypatch):
    """The same states at the same depth, with the steps of every server and without."""
    few = explore(model)
    monkeypatch.setattr(sys.modules[type(model).__module__], "distinct", enumerate)
    all_steps = explore(model)
    assert (few.states, few.depth) == (all_steps.states, all_steps.depth)
    assert few.transitions < all_steps.transitions


def test_a_state_from_which_no_goal_is_within_reach_is_shown():
    report = probe(Leaking())
    assert report.violation.startswith("l1_a_goal_is_within_reach (1 ")
    assert report.trace[-1].action == "leak"
    assert not report.is_exhausted


def test_a_scope_that_is_cut_short_says_so():
    report = explore(Recover(3, 2), 100)
    assert 100 <= report.states < 1000
    assert (report.is_exhausted, report.violation) == (False, "")


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.name)
def test_every_invariant_of_a_model_holds_in_a_small_scope(model):
    report = explore(model)
    assert report.violation == "", report.story()
    assert report.is_exhausted
    assert report.states > 100


def everything(model: Model) -> tuple[set, set[str]]:
    """All states, and the names of the actions that were taken, without the explorer."""
    todo = [model.canonical(model.initial())]
    seen, taken = set(todo), set()
    while todo:
        state = todo.pop()
        for act in model.methods("action", "fault"):
            for _, raw in act(state):
                taken.add(act.__name__)
                after = model.canonical(raw)
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return seen, taken


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.name)
def test_hashes_of_different_states_differ(model):
    """64-bit hashes stand for states: as many of them as there are states."""
    assert len(everything(model)[0]) == explore(model).states


@pytest.mark.parametrize("kind", sorted({type(model) for model in SMALL}, key=lambda k: k.name))
def test_every_action_of_a_model_is_taken(kind):
    """An action whose guard never holds shows nothing."""
    never = {"restart"} if kind is Reader else set()  # it changes nothing unless a mark is lost
    models = [model for model in SMALL if type(model) is kind]
    named = {act.__name__ for act in models[0].methods("action", "fault")}
    taken = set().union(*(everything(model)[1] for model in models))
    assert taken == named - never


def test_a_goal_stays_within_reach_of_every_state():
    for model in (Recover(2, 2, sent=1, recoverers=1), Wipe(3, 2), Close(2, 2, events=1)):
        report = probe(model)
        assert report.is_exhausted, report.story()


@pytest.mark.parametrize("scope", MUTANTS, ids=lambda scope: scope.model.__name__)
def test_a_model_finds_each_of_its_mutants_out(scope):
    report = scope.run()
    assert report.violation != ""
    assert report.trace[-1].state


def test_every_mutant_is_run_by_make_model():
    made = {
        kind
        for kind in vars(mutants).values()
        if isinstance(kind, type)
        and issubclass(kind, Model)
        and kind.__module__ == mutants.__name__
    }
    assert made == {scope.model for scope in scopes.MUTANTS}


def test_a_mutant_differs_from_its_model_in_one_method():
    for scope in scopes.MUTANTS:
        own = [name for name, value in vars(scope.model).items() if callable(value)]
        allowed = {"CommitWithoutComparing": 2, "GrantInAnotherRecord": 2}
        assert len(own) == allowed.get(scope.model.__name__, 1), scope.model


def test_the_numbers_do_not_depend_on_the_hash_seed():
    code = (
        "from lunalog.testing.model.explore import explore\n"
        "from lunalog.testing.model.recover import Recover\n"
        "r = explore(Recover(2, 2, recoverers=1)); print(r.states, r.transitions, r.depth)"
    )
    told = {
        subprocess.check_output(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_servers_may_be_named_in_any_order():
    """Symmetry: what a permuted state leads to is the permutation of what the state leads to."""
    model = Recover(3, 2, sent=1)
    report = explore(mutants.OneFenceTooFew(3, 2, sent=1))
    for step in report.trace:
        state = step.state
        turned = recover.State(*state[:3], state[3][1:] + state[3][:1])
        for act in model.methods("action", "fault"):
            one = {model.canonical(after) for _, after in act(state)}
            assert one == {model.canonical(after) for _, after in act(turned)}


def test_the_command_fails_when_a_model_is_broken(monkeypatch, capsys):
    broken = scopes.Scope(mutants.OneFenceTooFew, {"n": 3, "a": 2, "sent": 1})
    whole = scopes.Scope(Wipe, {"n": 3, "a": 2})
    monkeypatch.setattr(command, "MUTANTS", [broken])
    monkeypatch.setitem(scopes.SCOPES, "ci", [whole])
    assert command.main(["--jobs", "1"]) == 0
    assert "1 of 1 mutants are found out" in capsys.readouterr().out
    monkeypatch.setattr(command, "MUTANTS", [whole])
    assert command.main(["--jobs", "1"]) == 1
    assert "SURVIVES" in capsys.readouterr().out
    monkeypatch.setitem(scopes.SCOPES, "ci", [broken])
    assert command.main(["--jobs", "1", "--only", "recover"]) == 1
    assert "i2_nothing_acknowledged_is_lost" in capsys.readouterr().out
    assert command.main(["--only", "no such model"]) == 1
