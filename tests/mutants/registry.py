"""Deliberate protocol faults: each replaces functions of the shipped code, by name, for one run.

A fault is written as a function that gets what it replaces as its first argument:

    @fault("R6", "one negative too few decides where a segment ends", "takeover",
           "lunalog.core.recovery:seal_quorum")
    def seal_quorum_less_one(real, members, ack_quorum):
        return max(1, real(members, ack_quorum) - 1)

Every call is counted: a fault whose function nobody called proves nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Body = Callable[..., Any]


@dataclass(slots=True)
class Calls:
    """How often the replaced functions were called."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: where it goes, and the workload that must notice it."""

    name: str
    rule: str
    breaks: str
    workload: str
    places: tuple[str, ...]
    body: Body

    @contextlib.contextmanager
    def applied(self) -> Iterator[Calls]:
        """Have the fault in place for as long as this is open; then the code is as shipped."""
        calls = Calls()
        with contextlib.ExitStack() as stack:
            for place in self.places:
                stack.enter_context(_replaced(place, self.body, calls))
            yield calls


MUTANTS: dict[str, Mutant] = {}


def fault(rule: str, breaks: str, workload: str, *places: str) -> Callable[[Body], Body]:
    """Register a fault under the name of its function."""

    def register(body: Body) -> Body:
        name = body.__name__.replace("_", "-")
        if name in MUTANTS or not places:
            raise ValueError(f"mutant {name!r} is there already, or goes nowhere")
        MUTANTS[name] = Mutant(name, rule, breaks, workload, places, body)
        return body

    return register


def owner_of(place: str) -> tuple[Any, str]:
    """Find `module:Class.function`, or `module:function`; raises `AttributeError` if it is gone."""
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    owner = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    if name not in vars(owner):
        raise AttributeError(f"there is no {place}: the mutant has to follow the code")
    return owner, name


@contextlib.contextmanager
def _replaced(place: str, body: Body, calls: Calls) -> Iterator[None]:
    owner, name = owner_of(place)
    found = vars(owner)[name]
    setattr(owner, name, _wrapped(found, body, calls))
    try:
        yield
    finally:
        setattr(owner, name, found)


def _wrapped(found: Any, body: Body, calls: Calls) -> Any:
    if isinstance(found, property):
        return property(_counted(found.fget, body, calls))
    if isinstance(found, staticmethod | classmethod):
        return type(found)(_counted(found.__func__, body, calls))
    if not inspect.isfunction(found):
        raise TypeError(f"{found!r} is no function")
    return _counted(found, body, calls)


def _counted(real: Any, body: Body, calls: Calls) -> Any:
    _check_fits(real, body)

    @functools.wraps(real)
    def replacement(*args: Any, **fields: Any) -> Any:
        calls.count += 1
        return body(real, *args, **fields)

    return replacement


def _check_fits(real: Any, body: Body) -> None:
    """Raise `TypeError` if the fault does not take what the function takes: its calls would fail."""
    taken = inspect.signature(real).parameters.values()
    by_place = [
        None for one in taken if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    by_name = {one.name: None for one in taken if one.kind is one.KEYWORD_ONLY}
    try:
        inspect.signature(body).bind(real, *by_place, **by_name)
    except TypeError as error:
        raise TypeError(
            f"{body.__name__} does not take what {real.__qualname__} takes ({error}): "
            "the mutant has to follow the code"
        ) from error
