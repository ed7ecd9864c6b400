"""One tree of errors: stable codes, fields that travel, and a claim about effects."""

import copy
import pickle

import pytest

from lunalog import errors
from lunalog.errors import (
    AvailabilityError,
    ConflictError,
    DeadlineExceededError,
    FencedError,
    GapError,
    InvariantError,
    LunalogError,
    NotLeaderError,
    OutcomeUnknownError,
    PeerError,
    TruncatedError,
    UsageError,
)

ALL = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, LunalogError)
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_each_has_a_code_of_its_own_and_comes_back_from_the_wire(kind):
    assert LunalogError.by_code[kind.code] is kind
    assert kind.__doc__
    error = kind("what happened")
    back = LunalogError.from_wire(error.code, error.message, error.fields)
    if kind is InvariantError:
        assert type(back) is PeerError  # a rule that was broken over there ends nobody here (R27)
    else:
        assert type(back) is kind
        assert str(back) == "what happened"


def test_codes_are_stable():
    """They are on the wire, in metrics and in exit codes: a change here breaks others."""
    ours = [
        code for code, kind in LunalogError.by_code.items() if kind.__module__ == errors.__name__
    ]
    assert sorted(ours) == sorted({kind.code for kind in ALL})
    assert len(ours) == len(ALL)


def test_a_code_cannot_be_taken_twice():
    with pytest.raises(TypeError, match="is taken"):
        type("Other", (LunalogError,), {"code": "usage"})


def test_fields_travel_and_unknown_ones_are_left_behind():
    error = TruncatedError("gone", start=7)
    assert error.fields == {"start": 7}
    back = LunalogError.from_wire(error.code, error.message, {**error.fields, "newer": 1})
    assert isinstance(back, TruncatedError)
    assert back.start == 7


def test_a_field_that_the_kind_does_not_have_is_our_bug():
    with pytest.raises(TypeError, match="no field 'nonsense'"):
        TruncatedError("gone", nonsense=1)


@pytest.mark.parametrize(
    "fields",
    [
        {"args": 5},
        {"fields": 1},
        {"message": "x"},
        {"__class__": 1},
        {"__dict__": {}},
        {"code": "usage"},
        {"retryable": True},
        {"end": "text"},
        {"end": None},
        {"end": True},
    ],
)
@pytest.mark.parametrize("kind", [GapError, FencedError], ids=lambda kind: kind.__name__)
def test_no_field_of_a_peer_touches_more_than_what_the_error_carries(kind, fields):
    back = LunalogError.from_wire(kind.code, "m", fields)
    assert (type(back), str(back), back.args, back.fields) == (kind, "m", ("m",), {})
    assert not back.retryable


def test_a_code_from_the_future_is_a_peer_error():
    back = LunalogError.from_wire("quantum", "flux", {})
    assert type(back) is PeerError
    assert "flux (quantum)" in str(back)


def test_errors_survive_copies_and_processes():
    error = ConflictError("no", expected=1, found=2)
    for back in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(back), str(back), back.expected, back.found) == (ConflictError, "no", 1, 2)


def test_who_may_be_applied_and_who_not():
    assert OutcomeUnknownError("x").maybe_applied
    assert DeadlineExceededError("x").maybe_applied
    assert not NotLeaderError("x").maybe_applied
    assert not UsageError("x").maybe_applied
    assert AvailabilityError("x").retryable
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(FencedError, NotLeaderError)


def test_one_that_certainly_changed_nothing_says_so_also_in_another_process():
    error = DeadlineExceededError("late").without_effect()
    for found in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(found), found.maybe_applied) == ("late", False)
    assert DeadlineExceededError("x").maybe_applied, "others of its kind may have changed something"


def test_an_invariant_is_checked_also_without_asserts():
    InvariantError.check(True, "R4")
    with pytest.raises(InvariantError, match=r"R4: .'end': 3."):
        InvariantError.check(False, "R4", end=3)
