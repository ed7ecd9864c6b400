"""Crash states of stories, and that the enumerator gives every one that it should."""

from __future__ import annotations

import random

import pytest
from tests.faults import crashes
from tests.faults.explorer import Explorer, small_steps
from tests.faults.power_cuts import PowerCuts, fingerprint, pending_in, power_cuts
from tests.faults.stories import BASES, SMALL, Story, drawn, live, short

from lunalog.runtime import drive
from lunalog.testing.disk import SimulatedDisk


def disk_with(synced: bytes, unsynced: bytes, *, at: int = 0) -> SimulatedDisk:
    disk = SimulatedDisk("d", random.Random(1))
    file = drive(disk.open("f", create=True))
    drive(file.write(0, [synced]))
    drive(file.sync())
    drive(disk.sync_directory())
    drive(file.write(at, [unsynced]))
    return disk


def contents(disk: SimulatedDisk) -> list[dict[str, bytes]]:
    return [
        {name: inode.durable.read(0, 1 << 20) for name, inode in state.names.items()}
        for state in power_cuts(disk.directory, random.Random(1))
    ]


def test_an_unsynced_write_arrives_whole_torn_as_zeros_or_not_at_all() -> None:
    """Three sectors over synced ones: old, new, zeros, and each cut kept from both sides."""
    found = [state["f"] for state in contents(disk_with(b"o" * 1536, b"n" * 1536))]
    o, n = b"o" * 512, b"n" * 512
    wanted = [o * 3, n * 3, bytes(1536), n + o * 2, o + n * 2, n * 2 + o, o * 2 + n]
    assert sorted(found) == sorted(wanted)


def test_a_length_that_was_not_synced_is_there_or_not() -> None:
    found = {state["f"] for state in contents(disk_with(b"o" * 512, b"n" * 512, at=512))}
    assert found == {b"o" * 512, b"o" * 512 + b"n" * 512, b"o" * 512 + bytes(512)}


def test_a_kill_is_not_the_power_cut_that_keeps_everything() -> None:
    """Equal bytes, but what is unsynced may still be lost (R16)."""
    killed = disk_with(b"o" * 512, b"n" * 512).directory
    cuts = list(power_cuts(killed, random.Random(1)))
    whole = [cut for cut in cuts if fingerprint(cut) == fingerprint(killed)]
    assert len(whole) == 1
    assert pending_in(whole[0]) != pending_in(killed)


def test_what_was_synced_is_in_every_state() -> None:
    disk = disk_with(b"o" * 512, b"n" * 512, at=512)
    drive(drive(disk.open("f")).sync())
    assert contents(disk) == [{"f": b"o" * 512 + b"n" * 512}]


def test_each_name_that_was_not_synced_is_there_or_not() -> None:
    """A rename over a name, a new name, and a removal, each by itself."""
    disk = disk_with(b"o", b"o")
    drive(drive(disk.open("f")).sync())
    for name in ("beside", "new"):
        file = drive(disk.open(name, create=True))
        drive(file.write(0, [b"n"]))
        drive(file.sync())
    drive(disk.rename("beside", "f"))
    found = contents(disk)
    assert {"f": b"o"} in found
    assert {"f": b"n"} in found
    assert {"f": b"n", "new": b"n"} in found
    assert {"f": b"o", "new": b"n"} in found
    drive(disk.sync_directory())
    drive(disk.remove("new"))
    assert contents(disk) == [{"f": b"n", "new": b"n"}, {"f": b"n"}]


def test_too_many_states_are_drawn_and_the_extremes_are_among_them() -> None:
    disk = disk_with(b"o" * 16384, b"n" * 512)
    file = drive(disk.open("f"))
    for at in range(1, 16):
        drive(file.write(at * 512, [b"n" * 512]))
    found = contents(disk)
    assert 64 < len(found) <= 256
    assert found[0]["f"] == b"o" * 16384
    assert {"f": b"n" * 8192 + b"o" * 8192} in found


@pytest.mark.parametrize("samples", [8, 256, 4096])
def test_a_state_of_every_number_can_be_made_and_the_first_has_nothing_unsynced(
    samples: int,
) -> None:
    """Whether all combinations are listed, only what is whole or missing, or most are drawn."""
    disk = disk_with(b"o" * 4096, b"n" * 512)
    file = drive(disk.open("f"))
    for at in (1, 2, 3):
        drive(file.write(at * 512, [b"n" * 512]))
    cuts = PowerCuts(disk.directory, random.Random(1), samples=samples)
    found = [cuts.make(number).names["f"].durable.read(0, 4096) for number in range(len(cuts))]
    assert found[0] == b"o" * 4096
    assert b"n" * 2048 + b"o" * 2048 in found
    assert len(found) == {8: 2 + 4, 256: 162, 4096: 162}[samples]
    assert {state[at * 512] for state in found[:2] for at in range(4)} <= {*b"on"}


def test_a_run_stops_at_the_states_that_it_was_given() -> None:
    explorer = Explorer(1)
    try:
        with small_steps(1 << 10):
            explorer.explore(Story("used", ("burst",)), 40)
    finally:
        explorer.close()
    assert 40 <= explorer.states.total() <= 45
    assert explorer.states[1] >= 20
    assert explorer.states[2] > 0
    assert explorer.states[3] > 0


def test_equal_stories_give_equal_calls() -> None:
    """Or no state could be found again."""
    story = Story("used", ("roll", "kill", "reclaim"))
    first, second = live(story), live(story)
    assert list(first.operations) == list(second.operations)
    assert fingerprint(first.after) == fingerprint(second.after)
    assert {o.kind for o in first.operations} >= {
        "create", "write", "sync", "size", "rename", "remove", "sync_directory",
    }  # fmt: skip


def test_every_combination_of_small_operations_is_a_story() -> None:
    assert len(short(1)) == len(BASES) * len(SMALL)
    assert len(short(2)) == len(BASES) * len(SMALL) ** 2
    assert drawn(7) == drawn(7) != drawn(8)
    for story in (*short(1), drawn(7)):
        assert crashes.parse_story(str(story)) == story


@pytest.mark.slow
def test_nothing_told_is_lost_in_some_hundred_crash_states(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A taste of `make crashes`, which tries twenty thousand."""
    tasks = [task._replace(states=12) for task in crashes.tasks_of(600, 5)][::9]
    assert crashes.run(tasks, 600, jobs=1) == 0, capsys.readouterr().out


def test_a_run_that_tries_nothing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert crashes.run([], 100, jobs=1) == 1
    assert "BLIND" in capsys.readouterr().out
