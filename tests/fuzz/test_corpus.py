"""Everything that was ever kept is decoded or refused, by a cost that its size bounds.

A file `corpus/TARGET/crash-…` broke something once: it stays, and does so no more.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest
from tests.fuzz.lines import cost_of, measure
from tests.fuzz.run import CORPUS, KEPT_BYTES_MAX, kept
from tests.fuzz.targets import TARGETS

STEPS_BASE, STEPS_EACH = 40_000, 150
FILES_MAX = 200


def inputs(name: str) -> dict[str, bytes]:
    return {**TARGETS[name].seeds(), **kept(name)}


@pytest.mark.parametrize("name", TARGETS)
def test_valid_inputs_are_taken_and_others_are_refused(name: str) -> None:
    target = TARGETS[name]
    assert all(isinstance(target.run(data), bool) for data in inputs(name).values())
    assert any(target.run(data) for data in target.seeds().values())
    assert not target.run(target.refused)
    assert isinstance(target.run(b""), bool)


@pytest.mark.parametrize("name", TARGETS)
def test_the_inputs_reach_what_the_target_is_about(name: str) -> None:
    """A target that executes nothing finds nothing."""
    reached, whole = measure(TARGETS[name], inputs(name).values())
    assert whole > 5
    assert reached >= 3


@pytest.mark.parametrize("name", TARGETS)
def test_size_bounds_memory_and_steps(name: str) -> None:
    target, chance = TARGETS[name], random.Random(name)
    data = list(inputs(name).values())
    longest = max(data, key=len)
    for one in (*data, longest * (1 + 4096 // len(longest)), chance.randbytes(4096)):
        tracemalloc.start()
        try:
            target.run(one)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= target.bytes_base + target.bytes_each * len(one), (len(one), peak)
        assert cost_of(target, one) <= STEPS_BASE + STEPS_EACH * len(one), len(one)


@pytest.mark.parametrize("name", TARGETS)
def test_one_wrong_byte_anywhere_is_no_surprise(name: str) -> None:
    """What the fuzzer tries first, for where it is not installed."""
    target, chance = TARGETS[name], random.Random(name)
    for data in list(target.seeds().values())[:8]:
        for _ in range(40):
            wrong = bytearray(data)
            for _ in range(chance.choice((1, 1, 3))):
                wrong[chance.randrange(len(wrong))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            target.run(
                bytes(wrong[: chance.choice((len(wrong), chance.randrange(len(wrong) + 1)))])
            )


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    folders = [path.name for path in CORPUS.iterdir()]
    assert set(folders) <= set(TARGETS)
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert 10 < len(files) <= FILES_MAX
    assert all(path.stat().st_size <= KEPT_BYTES_MAX for path in files)
