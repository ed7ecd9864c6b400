"""Visit every reachable state of a model, nearest first, and say which path leads to a broken one.

Of the states behind the frontier only 64-bit hashes are kept, with the number of the state that each was
first reached from: 7 M states take 1.2 GB, the frontier included.  Two different states of one hash
would hide one of them: with n states the chance is about n*n / 2**65, 3 in a million for 10 M.

States are tuples of integers and of such tuples.  Their hash does not depend on PYTHONHASHSEED, and
neither does anything else here: the same model gives the same numbers everywhere.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

S = TypeVar("S", bound=tuple[Any, ...])
Args = tuple[int, ...]
Steps = Iterator[tuple[Args, S]]
F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V")


def action(method: F) -> F:
    """Mark a method as an action: it yields (arguments, next state) for each way to take it."""
    method.kind = "action"  # type: ignore[attr-defined]
    return method


def fault(method: F) -> F:
    """Mark an action that nobody may wait for: a loss, a crash, a rival."""
    method.kind = "fault"  # type: ignore[attr-defined]
    return method


def invariant(method: F) -> F:
    """Mark a method as an invariant: true of a state that is sound."""
    method.kind = "invariant"  # type: ignore[attr-defined]
    return method


class Model(ABC, Generic[S]):
    """What a model has; actions and invariants are found by their marks, also when overridden."""

    name: ClassVar[str]

    @abstractmethod
    def initial(self) -> S:
        """Return the one state that everything begins with."""

    def canonical(self, state: S) -> S:
        """Return the one of all states that differ only in the names of servers."""
        return state

    def is_goal(self, state: S) -> bool:
        """True of a state that must stay within reach of every other one, faults aside (L1)."""
        del state
        return True

    def methods(self, *kinds: str) -> list[Callable[[S], Any]]:
        """Return bound methods of some kinds in the order in which they are written."""
        names: dict[str, None] = {}
        for cls in reversed(type(self).__mro__):
            names.update((n, None) for n, m in vars(cls).items() if getattr(m, "kind", "") in kinds)
        return [getattr(self, name) for name in names]


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One action of a counterexample."""

    action: str
    arguments: Args
    state: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.action}{self.arguments}\n      {self.state}"


@dataclass(slots=True)
class Report:
    """What an exploration saw."""

    model: str
    states: int
    transitions: int
    depth: int
    seconds: float
    """Of processor time."""
    is_exhausted: bool
    """False when it stopped at a violation or at `states_max`."""
    violation: str = ""
    trace: tuple[TraceStep, ...] = ()
    """From the initial state to the broken one, as short as can be."""

    def story(self) -> str:
        """The counterexample, for people."""
        lines = [f"{self.model}: {self.violation} after {len(self.trace)} steps"]
        lines += [f"{number:4}  {step}" for number, step in enumerate(self.trace, 1)]
        return "\n".join(lines)


class Explorer(Generic[S]):
    """One breadth-first exploration in the making."""

    def __init__(self, model: Model[S]) -> None:
        self.model = model
        self.actions = model.methods("action", "fault")
        self.invariants = model.methods("invariant")
        self.hashes = array("q")
        """Of every state, in the order in which they were found."""
        self.parents = array("I")
        self.transitions = 0
        self.depth = 0
        self.violation = ""

    def run(self, states_max: int) -> bool:
        """Explore; true when there was nothing more to see."""
        first = self.model.canonical(self.model.initial())
        seen = {hash(first)}
        self.hashes.append(hash(first))
        self.parents.append(0)
        self.violation = next((h.__name__ for h in self.invariants if not h(first)), "")
        frontier = [first]
        collects = gc.isenabled()
        gc.disable()  # nothing here makes cycles, and there is much to walk over
        try:
            while frontier and not self.violation:
                if len(self.hashes) >= states_max:
                    return False
                frontier = self._level(frontier, seen)
                self.depth += bool(frontier)
        finally:
            if collects:
                gc.enable()
        return not self.violation

    def _level(self, frontier: list[S], seen: set[int]) -> list[S]:
        """Take every step from every state of the frontier; return the new states."""
        found: list[S] = []
        canonical, actions, transitions = self.model.canonical, self.actions, 0
        for source, state in enumerate(frontier, len(self.hashes) - len(frontier)):
            for act in actions:
                for _, raw in act(state):
                    transitions += 1
                    after = canonical(raw)
                    key = hash(after)
                    if key in seen:
                        continue
                    seen.add(key)
                    found.append(after)
                    self.hashes.append(key)
                    self.parents.append(source)
                    for holds in self.invariants:
                        if not holds(after):
                            self.transitions += transitions
                            self.violation = holds.__name__
                            return found
        self.transitions += transitions
        return found

    def path(self) -> tuple[TraceStep, ...]:
        """Replay the way to the last state that was found, with servers named as they began."""
        return self.path_to(len(self.hashes) - 1)

    def path_to(self, number: int) -> tuple[TraceStep, ...]:
        """Replay the way to a state by its number."""
        wanted = []
        while number:
            wanted.append(self.hashes[number])
            number = self.parents[number]
        state, steps = self.model.initial(), []
        for key in reversed(wanted):
            step = next(
                TraceStep(act.__name__, arguments, after)
                for act in self.actions
                for arguments, after in act(state)
                if hash(self.model.canonical(after)) == key
            )
            steps.append(step)
            state = step.state  # type: ignore[assignment]
        return tuple(steps)


class Prober(Explorer[S]):
    """An exploration that keeps its edges, to ask afterwards from where a goal is within reach."""

    def __init__(self, model: Model[S]) -> None:
        super().__init__(model)
        self.helpful = {act.__name__ for act in model.methods("action")}
        self.numbers: dict[int, int] = {}
        self.leaving = array("I")
        self.reached = array("I")
        """From `leaving[i]` one step of somebody who is due leads to `reached[i]`."""
        self.goals: list[int] = []

    def _level(self, frontier: list[S], seen: set[int]) -> list[S]:
        base = len(self.hashes) - len(frontier)
        for number, state in enumerate(frontier, base):
            self.numbers[self.hashes[number]] = number
            if self.model.is_goal(state):
                self.goals.append(number)
        found = super()._level(frontier, seen)
        self.numbers.update((hash(s), n) for n, s in enumerate(found, base + len(frontier)))
        for number, state in enumerate(frontier, base):
            for act in self.actions:
                if act.__name__ in self.helpful:
                    for _, raw in act(state):
                        self.leaving.append(number)
                        self.reached.append(self.numbers[hash(self.model.canonical(raw))])
        return found

    def stuck(self) -> list[int]:
        """Numbers of states from which no goal is within reach."""
        into: dict[int, list[int]] = {}
        for source, target in zip(self.leaving, self.reached, strict=True):
            into.setdefault(target, []).append(source)
        known, todo = bytearray(len(self.hashes)), list(self.goals)
        for number in todo:
            known[number] = 1
        while todo:
            for source in into.get(todo.pop(), ()):
                if not known[source]:
                    known[source] = 1
                    todo.append(source)
        return [number for number, is_known in enumerate(known) if not is_known]


def explore(model: Model[S], states_max: int = 1 << 31) -> Report:
    """Visit every state that `model` can reach, up to about `states_max`."""
    return _report(Explorer(model), states_max)


def probe(model: Model[S], states_max: int = 1 << 31) -> Report:
    """Explore; then ask whether every state has a goal within reach without further faults (L1)."""
    prober = Prober(model)
    report = _report(prober, states_max)
    stuck = prober.stuck() if report.is_exhausted else []
    if stuck:
        report.violation = f"l1_a_goal_is_within_reach ({len(stuck)} states are stuck)"
        report.trace = prober.path_to(stuck[0])
        report.is_exhausted = False
    return report


def _report(explorer: Explorer[S], states_max: int) -> Report:
    began = time.process_time()
    is_exhausted = explorer.run(states_max)
    return Report(
        explorer.model.name,
        len(explorer.hashes),
        explorer.transitions,
        explorer.depth,
        time.process_time() - began,
        is_exhausted,
        explorer.violation,
        explorer.path() if explorer.violation else (),
    )


def put(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    """Return `values` with one of them replaced."""
    return (*values[:index], value, *values[index + 1 :])


def distinct(sorted_values: tuple[V, ...]) -> Iterator[tuple[int, V]]:
    """Yield each value with its place, equal ones once: servers that are equal take equal steps.

    In a canonical state equal ones are neighbours; elsewhere some come again, which costs but time.
    """
    before = None
    for place, value in enumerate(sorted_values):
        if value != before:
            yield place, value
            before = value
