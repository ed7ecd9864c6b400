"""How much of each model is explored: in CI on every commit, at night, and to catch each mutant.

Every scope of a model is explored to its end; one that was cut short is a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lunalog.testing.model import mutants as broken
from lunalog.testing.model.close import Close
from lunalog.testing.model.durable import Durable
from lunalog.testing.model.explore import Model, Report, explore, probe
from lunalog.testing.model.grant import Grant
from lunalog.testing.model.reader import Reader
from lunalog.testing.model.recover import Recover
from lunalog.testing.model.roll import Roll
from lunalog.testing.model.wipe import Wipe

Examine = Callable[[Model[Any]], Report]


@dataclass(frozen=True)
class Scope:
    """One model of one size, and what is done with it."""

    model: type[Model[Any]]
    sizes: dict[str, int]
    examine: Examine = explore

    def run(self) -> Report:
        """Do it."""
        return self.examine(self.model(**self.sizes))

    def __str__(self) -> str:
        sizes = dict(self.sizes)
        pair = [f"({sizes.pop('n')},{sizes.pop('a')})"] if "n" in sizes else []
        rest = [f"{name}={value}" for name, value in sizes.items()]
        return " ".join([self.model.name, *pair, *rest])


def _scope(model: type[Model[Any]], n: int = 0, a: int = 0, **sizes: int) -> Scope:
    return Scope(model, {**({"n": n, "a": a} if n else {}), **sizes})


def _probe(model: type[Model[Any]], n: int = 0, a: int = 0, **sizes: int) -> Scope:
    return Scope(model, {**({"n": n, "a": a} if n else {}), **sizes}, probe)


LINEAR = {"has_reader": 0, "has_linear": 1}

CI = [
    _scope(Grant, epochs=2, others=1),
    _scope(Recover, 3, 2, sent=2),
    _scope(Recover, 4, 3, sent=1),
    _scope(Recover, 4, 2, sent=1, appends=0),
    _scope(Recover, 2, 2, recoverers=3, sent=1, spare=1),
    _scope(Recover, 3, 2, sent=1, appends=0, has_marks=1),
    _scope(Roll, 3, 2, rolls=1),
    _scope(Roll, 2, 2, rolls=2, events=1),
    _scope(Reader, 3, 2, sent=1),
    _scope(Reader, 4, 3, sent=1, spare=1, **LINEAR),
    _scope(Wipe, 3, 2),
    _scope(Wipe, 4, 3),
    _scope(Wipe, 5, 3),
    _scope(Durable, 3, 2),
    _scope(Durable, 3, 2, events=2),
    _scope(Close, 3, 2),
    _scope(Close, 3, 2, has_trim=1, deaths=1, events=1),
]

PROBES = [
    _probe(Grant),
    _probe(Recover, 3, 2, sent=1),
    _probe(Roll, 2, 2, rolls=1),
    _probe(Reader, 3, 2, sent=1),
    _probe(Wipe, 3, 2),
    _probe(Wipe, 4, 3, events=1),
    _probe(Durable, 3, 2),
    _probe(Close, 3, 2, has_trim=1, deaths=1, events=1),
]

NIGHTLY = [
    _scope(Wipe, 5, 4, events=3),
    _scope(Recover, 3, 2, sent=1, has_marks=1),
    _scope(Recover, 3, 2, sent=2, appends=0, has_marks=1),
    _scope(Wipe, 5, 3, events=3),
    _scope(Recover, 4, 2, sent=2, has_small_sets=0),
    _scope(Reader, 3, 2, sent=2),
    _scope(Close, 3, 2, has_trim=1, deaths=1),
    _scope(Close, 4, 3),
    _scope(Wipe, 5, 4),
    _scope(Durable, 3, 2, events=2, faults=4),
    _scope(Durable, 4, 3, events=1, faults=3),
    _scope(Roll, 4, 3, rolls=1, events=1),
    _scope(Grant, epochs=3, others=0),
]
"""16.9 million states with those of CI, 6.9 of them in the first, which one of two processes takes."""

WIDE = [
    _scope(Grant, epochs=3, others=1),
    _scope(Recover, 3, 2, recoverers=3, sent=1),
    _scope(Recover, 4, 3, sent=2),
    _scope(Recover, 5, 3, sent=1, appends=0, has_small_sets=0),
    _scope(Roll, 3, 2, rolls=2, events=1),
    _scope(Roll, 4, 3, rolls=1),
    _scope(Reader, 4, 3, sent=2, spare=1, **LINEAR),
]
"""For who has the time: nobody has seen the end of these yet."""

SMALL = {"n": 3, "a": 2}
PAIR = {"n": 2, "a": 2}
ROLL = {**PAIR, "rolls": 1, "events": 1}
CHECKS = {"n": 4, "a": 3, "sent": 0, "spare": 1, **LINEAR}
TRIM = {**SMALL, "has_trim": 1}

MUTANTS = [
    Scope(broken.ToldBeforeTheTransaction, {}),
    Scope(broken.BlindPut, {}),
    Scope(broken.MineIfTheEpochFits, {}),
    Scope(broken.NameForAnIncarnation, {}),
    Scope(broken.OneFenceTooFew, SMALL),
    Scope(broken.FenceWithoutPromise, SMALL),
    Scope(broken.CommitBeforeCarryOver, SMALL),
    Scope(broken.CommitWithoutComparing, PAIR),
    Scope(broken.SmallestEnd, SMALL),
    Scope(broken.BaseAtLargestEnd, SMALL),
    Scope(broken.MarkOfTheServer, {**SMALL, "has_marks": 1}),
    Scope(broken.AcksBeforeTheTransaction, ROLL),
    Scope(broken.AcksOfAnOldSet, ROLL),
    Scope(broken.AcksBeyondTheBoundary, ROLL),
    Scope(broken.UnchangedMeansFailed, ROLL),
    Scope(broken.RollAheadOfItsBoundary, ROLL),
    Scope(broken.GrantInAnotherRecord, ROLL),
    Scope(broken.OneMarkForAllSegments, SMALL),
    Scope(broken.MarkLostAtRestart, SMALL),
    Scope(broken.ServesWhatItHolds, SMALL),
    Scope(broken.SilenceEndsASegment, {**SMALL, "sent": 1}),
    Scope(broken.SealQuorumOfChecks, CHECKS),
    Scope(broken.CheckBeforeTheRead, {**SMALL, "sent": 1, **LINEAR}),
    Scope(broken.WipedUnderItsOldName, SMALL),
    Scope(broken.OldImageUnderItsName, SMALL),
    Scope(broken.DamageIsAbsence, SMALL),
    Scope(broken.DamagedTailIsTorn, SMALL),
    Scope(broken.LargestEnd, SMALL, probe),
    Scope(broken.AckBeforeSync, PAIR),
    Scope(broken.FenceBeforeSync, PAIR),
    Scope(broken.BootWithoutSync, PAIR),
    Scope(broken.BootWithoutRewriting, PAIR),
    Scope(broken.SyncTriedAgain, PAIR),
    Scope(broken.AcksWhileClosing, SMALL),
    Scope(broken.CloseAtTheTail, SMALL),
    Scope(broken.CustodianForgetsTheTail, SMALL),
    Scope(broken.CustodianTooEarly, SMALL),
    Scope(broken.BlindClose, SMALL),
    Scope(broken.TrimBeyondTheCommit, TRIM),
    Scope(broken.BytesBeforeTheRecord, TRIM),
    Scope(broken.BaseBelowTheTrim, {**PAIR, "has_trim": 1, "deaths": 1, "events": 1}, probe),
]

SCOPES = {"ci": [*CI, *PROBES], "nightly": [*NIGHTLY, *CI], "wide": WIDE}
