"""The fuzzer finds what was planted, and says so when it cannot run."""

from __future__ import annotations

import pytest
from tests.fuzz.canaries import CANARIES
from tests.fuzz.run import fuzz, is_there
from tests.fuzz.targets import TARGETS

RUNS_MAX = 100_000
NOT_RUN = "the fuzzer is not installed, so nothing was fuzzed: pip install --group test"


@pytest.mark.slow
@pytest.mark.parametrize("name", CANARIES)
def test_a_planted_bug_is_found_within_bounded_executions(name: str) -> None:
    if not is_there():
        pytest.fail(NOT_RUN)
    result = fuzz(CANARIES[name], runs=RUNS_MAX, seed=1)
    assert result.crash is not None, f"{result.executions} executions found nothing"
    assert 0 < result.executions <= RUNS_MAX


def test_without_the_plant_the_same_inputs_are_fine() -> None:
    """It is the plant that is found: the right decoders take or refuse what the broken ones do not."""
    for canary in CANARIES.values():
        target = TARGETS[canary.name.removeprefix("broken_")]
        assert any(target.run(data) for data in target.seeds().values())


@pytest.mark.slow
def test_a_target_that_runs_reports_how_often() -> None:
    if not is_there():
        pytest.fail(NOT_RUN)
    result = fuzz(TARGETS["number"], runs=500, seed=1)
    assert result.executions >= 500
    assert result.crash is None
