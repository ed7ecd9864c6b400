"""A plan is data: drawn by seed, kept as it is, and cut down without touching what is left."""

from __future__ import annotations

from collections import Counter

import pytest

from lunalog.testing.cluster import LEGAL_PAIRS, REPLICAS_MOST
from lunalog.testing.nemesis import Fault, all_kinds
from lunalog.testing.plan import LONG_S, Plan

DRAWN = [Plan.draw(seed) for seed in range(400)]


def test_equal_seeds_draw_equal_plans() -> None:
    assert Plan.draw(7) == Plan.draw(7)
    assert Plan.draw(7) != Plan.draw(8)


def test_a_plan_survives_being_written_down() -> None:
    for plan in DRAWN[:50]:
        assert Plan.decode(plan.encode()) == plan


@pytest.mark.parametrize("data", [b"", b"[]", b'{"storm_s": "long"}', b'{"storm_s": 1.0}'])
def test_what_is_no_plan_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        Plan.decode(data)


def test_a_plan_of_an_unknown_fault_is_refused() -> None:
    plan = Plan(1, faults=(Fault(1, 0.5, "earthquake"),))
    with pytest.raises(ValueError, match="no such fault: earthquake"):
        Plan.decode(plan.encode())


def test_leaving_faults_out_leaves_the_others_as_they_are() -> None:
    plan = next(p for p in DRAWN if len(p.faults) > 5)
    kept = plan.only(plan.numbers[::2])
    assert kept.faults == plan.faults[::2]


def test_a_swarm_draws_every_kind_every_legal_pair_and_long_storms() -> None:
    kinds = Counter(fault.kind for plan in DRAWN for fault in plan.faults)
    assert set(kinds) == set(all_kinds())
    streams = [stream for plan in DRAWN for stream in plan.shape.streams]
    assert {(stream.replicas, stream.ack_quorum) for stream in streams} == set(LEGAL_PAIRS)
    legal = {(n, a) for n in range(2, REPLICAS_MOST + 1) for a in range(2, n + 1)} | {(1, 1)}
    assert set(LEGAL_PAIRS) == legal
    assert any(p.storm_s > LONG_S[0] for p in DRAWN)


def test_the_settings_of_a_tempo_fit_each_other() -> None:
    for plan in DRAWN:
        plan.tempo.client.validate()
        plan.tempo.master("master", 1).validate()
        assert plan.tempo.batch_bytes_max * 2 <= plan.tempo.extent_bytes
        assert plan.tempo.server.read_bytes_max * 2 <= plan.tempo.extent_bytes
