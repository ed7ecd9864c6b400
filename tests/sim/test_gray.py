"""L3: a member that is slow and not dead costs little, after a while."""

from __future__ import annotations

import pytest

from lunalog.core import pace
from lunalog.testing import sim
from lunalog.testing.checkers import CHECKERS
from lunalog.testing.gray import GraySchedule


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


@pytest.mark.parametrize(
    ("seed", "pair", "what", "slowdown"),
    [
        (1, (3, 2), "disk", 100.0),
        (1, (3, 2), "link", 100.0),
        (1, (4, 2), "link", 3000.0),
        (1, (3, 3), "disk", 5000.0),
        (1, (2, 2), "link", 3000.0),
        (1, (2, 2), "disk", 10.0),
        (1, (3, 3), "link", 100.0),
        # It was left too late in these when a frame was timed at every fourth tick only.
        *((seed, (2, 2), "disk", 10.0) for seed in (4, 8, 10)),
    ],
)
def test_a_gray_member_costs_less_than_twice_the_p99(
    seed: int, pair: tuple[int, int], what: str, slowdown: float
) -> None:
    """Where A others answer, or where it is so slow that the segment is rolled away from it."""
    history = GraySchedule(seed, pair, what, slowdown).run()
    finding = CHECKERS["L3"](history)
    assert finding.checked == 1
    assert finding.violations == []


def test_a_slow_quorum_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: every ack waits for a member that is slow and answers, and nobody rolls away."""
    monkeypatch.setattr(pace, "LATE_FRAMES", 1_000_000)
    history = GraySchedule(1, (2, 2), "disk", 10.0).run()
    finding = CHECKERS["L3"](history)
    assert len(finding.violations) == 1
    assert finding.violations[0].startswith("L3: p99 ")
