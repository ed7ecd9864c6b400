"""A trial runs a user's program on simulated nodes, breaks things, and says what is wrong."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest

import lunalog.testing
from lunalog import (
    ClosedError,
    ConflictError,
    InvariantError,
    MasterUnavailableError,
    NotLeaderError,
    SingleWriteJournal,
    UsageError,
)
from lunalog.testing import (
    NotConvergedError,
    SimulationError,
    Trial,
    ViolationError,
    fault_kinds,
)
from lunalog.testing.trial import is_restarted

STREAM = "counter"


async def never(journal: SingleWriteJournal) -> None:
    await asyncio.get_running_loop().create_future()


async def lead_for_ever(journal: SingleWriteJournal) -> None:
    """Append all the time."""
    await journal.create_stream(STREAM, exist_ok=True)
    while True:
        try:
            async with journal.lead(STREAM) as writer:
                while True:
                    await writer.append(b"event")
                    await asyncio.sleep(0.05)
        except NotLeaderError:
            continue


def test_the_public_names_are_there_and_come_when_asked_for() -> None:
    for name in lunalog.testing.__all__:
        assert getattr(lunalog.testing, name) is not None
    assert set(lunalog.testing.__all__) <= set(dir(lunalog.testing))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lunalog.testing.Nonsense


def test_a_program_that_comes_before_its_master_dials_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect, dialled, came = SingleWriteJournal.connect, [], []

    async def refused() -> None:
        raise MasterUnavailableError("nobody there")

    def flaky(*arguments: object, **more: object) -> object:
        dialled.append(more["peer"])
        return refused() if len(dialled) == 1 else connect(*arguments, **more)  # type: ignore[arg-type]

    async def program(journal: SingleWriteJournal) -> None:
        came.append(journal.peer.name)

    monkeypatch.setattr(SingleWriteJournal, "connect", flaky)
    with Trial(1, nodes=1, faults=()) as trial:
        trial.start(program)
        trial.storm(1.0)
    assert len(dialled) >= 2
    assert came == [dialled[0]]


def test_a_program_runs_on_every_node_with_its_own_journal() -> None:
    seen: Counter[str] = Counter()

    async def program(journal: SingleWriteJournal) -> None:
        seen[journal.peer.name] += 1
        await never(journal)

    with Trial(1, nodes=2, faults=()) as trial:
        trial.start(program)
        trial.storm(1.0)
        assert seen == {"node-1": 1, "node-2": 1}
        assert trial.now == 1.0
        assert "happened: nothing" in trial.report()
        assert trial.report()[-1] == "node-2: runs"
        with pytest.raises(SimulationError, match="once"):
            trial.start(program)


def test_a_crashed_process_starts_again_with_nothing_but_its_name() -> None:
    starts: Counter[str] = Counter()
    incarnations: set[bytes] = set()

    async def program(journal: SingleWriteJournal) -> None:
        starts[journal.peer.name] += 1
        incarnations.add(journal.incarnation)
        await never(journal)

    with Trial(1, nodes=1, servers=3, faults=["kill"], gap=0.2) as trial:
        trial.start(program)
        trial.storm(5.0)
        trial.converge(lambda: trial.nodes[0].is_running)
        crashes = sum("kill: node-1" in line for line in trial.story)
        assert crashes > 0
        assert trial.simulation.counters["kill"] > crashes  # servers and the master, too
        assert len(incarnations) == starts["node-1"] > 1


def test_a_program_that_is_done_is_left_alone() -> None:
    starts: list[str] = []

    async def program(journal: SingleWriteJournal) -> None:
        starts.append(journal.peer.name)

    with Trial(1, nodes=1, faults=()) as trial:
        trial.start(program)
        trial.storm(5.0)
        assert starts == ["node-1"]
        assert trial.report()[-1] == "node-1: returned"


def test_a_lunalog_error_that_leaves_a_program_starts_it_again() -> None:
    starts: list[str] = []

    async def program(journal: SingleWriteJournal) -> None:
        starts.append(journal.peer.name)
        if len(starts) < 3:
            raise MasterUnavailableError("gone")
        await never(journal)

    with Trial(1, nodes=1, faults=()) as trial:
        trial.start(program)
        trial.storm(5.0)
        assert len(starts) == 3
        assert any("node-1 failed: MasterUnavailableError" in line for line in trial.story)


def test_any_other_error_that_leaves_a_program_fails_the_run() -> None:
    async def program(journal: SingleWriteJournal) -> None:
        raise ZeroDivisionError("a bug")

    with Trial(1, nodes=1, faults=()) as trial:
        trial.start(program)
        with pytest.raises(ViolationError, match="node-1 failed: ZeroDivisionError") as failed:
            trial.storm(5.0)
        assert isinstance(failed.value.__cause__, ZeroDivisionError)
        assert trial.report()[-1] == "node-1: failed: ZeroDivisionError('a bug')"


def test_an_error_that_a_task_swallows_fails_the_run() -> None:
    async def program(journal: SingleWriteJournal) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await never(journal)

    with Trial(1, nodes=1, faults=()) as trial:
        trial.start(program)
        with pytest.raises(ViolationError, match="ZeroDivisionError"):
            trial.storm(5.0)


@pytest.mark.parametrize(
    ("error", "is_ours"),
    [
        (NotLeaderError("lost it"), True),
        (ClosedError("its name was taken"), True),
        (ConflictError("somebody was first"), True),
        (UsageError("no such thing"), False),
        (InvariantError("broken"), False),
        (ValueError("a bug"), False),
        (ExceptionGroup("tasks", [NotLeaderError("lost it"), ClosedError("gone")]), True),
        (ExceptionGroup("tasks", [NotLeaderError("lost it"), ValueError("a bug")]), False),
    ],
    ids=repr,
)
def test_what_a_supervisor_starts_again(error: Exception, is_ours: bool) -> None:
    assert is_restarted(error) == is_ours


def test_a_check_is_asked_all_the_time_and_its_error_fails_the_run() -> None:
    asked: list[float] = []

    def check() -> None:
        asked.append(trial.now)
        assert trial.now < 2.0, "it is late"

    with Trial(1, nodes=1, faults=()) as trial:
        trial.always(check)
        trial.start(never)
        trial.storm(1.0)
        assert len(asked) >= 19
        with pytest.raises(ViolationError, match="AssertionError: it is late") as failed:
            trial.storm(5.0)
        assert isinstance(failed.value.__cause__, AssertionError)
        assert trial.now < 2.1


def test_what_does_not_come_true_after_the_cure_fails_the_run() -> None:
    def all_is_well() -> bool:
        return False

    with Trial(3, nodes=1, faults=()) as trial:
        trial.start(never)
        with pytest.raises(NotConvergedError, match=r"seed 3: 5 s after .*: all_is_well"):
            trial.converge(all_is_well, timeout=5.0)
        assert trial.now == pytest.approx(5.0, abs=0.1)


def test_a_machine_outside_reads_what_was_acknowledged() -> None:
    async def all_events(end: int) -> list[bytes]:
        journal = await trial.connect()
        return [event.payload async for event in journal.read(STREAM, start=0)][:end]

    with Trial(1, nodes=2, faults=()) as trial:
        trial.start(lead_for_ever)
        end = trial.committed(STREAM)  # waits until there is a stream
        trial.storm(1.0)
        later = trial.committed(STREAM)
        assert later > end
        assert trial.run(all_events(later)) == [b"event"] * later
        with pytest.raises(TimeoutError):
            trial.committed("another", timeout=3.0)


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    def trace(seed: int) -> tuple[int, list[str]]:
        with Trial(seed, nodes=1, servers=3, faults=["kill", "reset"]) as trial:
            trial.start(lead_for_ever)
            trial.storm(3.0)
            return trial.trace, trial.story

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


def test_faults_are_drawn_by_seed_where_none_are_chosen() -> None:
    drawn = [frozenset(Trial(seed).nemesis.kinds) for seed in range(8)]
    assert len(set(drawn)) > 4
    assert set().union(*drawn) <= set(fault_kinds())


def test_a_gap_overrides_the_drawn_one() -> None:
    assert Trial(1, gap=0.25).nemesis.mean_gap_s == 0.25


def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no kinds of faults: \['kil'\]; known: .*'kill'"):
        Trial(1, faults=["kil", "kill"])


def test_each_kind_says_what_it_does() -> None:
    assert all(fault_kinds().values())


async def test_a_trial_inside_a_loop_is_refused() -> None:
    with pytest.raises(SimulationError, match="outside of any event loop"), Trial(1):
        pass


def test_a_trial_leaves_logging_as_it_was() -> None:
    logger = logging.getLogger("lunalog")
    logger.setLevel(logging.INFO)
    with Trial(1) as trial:
        assert not logger.isEnabledFor(logging.CRITICAL)
        assert repr(trial) == "<Trial of seed 1 at 0.000 s>"
    assert logger.level == logging.INFO


def test_a_long_story_is_cut() -> None:
    with Trial(1, nodes=1, faults=()) as trial:
        trial.story.extend(f"line {n}" for n in range(50))
        told = trial.report()
    assert "(10 lines of its story are left out)" in told
    assert "line 9" not in told
    assert "line 49" in told
