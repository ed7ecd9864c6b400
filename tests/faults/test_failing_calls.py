"""Every call to the disk fails once, with every error, and short writes too.

The server ends (R16, R27), or takes the error for what it is: a disk that is full is no broken one (D3),
and a busy one no damage.  What was told is there afterwards, and the next start is clean.
"""

from __future__ import annotations

import errno
import os
from collections import Counter

import pytest
from tests.faults.explorer import small_steps
from tests.faults.stories import SMALL, TINY, Steps, Story, StoryWorld, live, lives, remember

from lunalog.errors import DiskFullError, StorageError
from lunalog.testing.directory import Directory
from lunalog.testing.simulation import Simulation

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EACCES)
FULL = {errno.ENOSPC, errno.EDQUOT}
DEADLY = ("write", "write_rest", "sync", "create", "allocate", "rename", "sync_directory", "remove")
"""What a server may not survive, unless the disk is only full."""
OTHERS = ("read", "open", "names", "lock")
IS_WHOLE = os.environ.get("SWEEP") == "all"
"""Every error at every call, as at night; else each call has one of them, in turn."""
pytestmark = pytest.mark.timeout(3600 if IS_WHOLE else 240)


class Case:
    """A story on the disk that its base left."""

    def __init__(self, story: Story) -> None:
        self.story = story
        with small_steps(1 << 10):
            lived = live(story)
        self.before: Directory = lived.before
        self.memory = lived.told[0].memory

    def fails(self, kind: str, number: int, code: int) -> str | None:
        """Let one call fail; what came of it, or none if there was no such call."""
        with small_steps(1 << 10), Simulation(number) as simulation:
            world = StoryWorld(simulation, TINY)
            world.memory, world.disk.directory = remember(self.memory), self.before.copy()
            world.disk.faults.tear_rate = float(kind == "write_rest")
            world.disk.faults.fail_call(number, code, kind)
            for life in lives(self.story.steps):
                world.live(Steps(life, 0).run, close=False)
                if world.node.failure is not None:
                    break
                world.node.crash()
            failure, has_bitten = world.node.failure, world.disk.faults.bites > 0
            world.disk.faults.heal()
            world.restart(power=True)
            assert world.owner.log.damage == []
            assert not world.owner.log.may_have_lost
            world.restart(power=True)
        if not has_bitten:
            return None
        if failure is None:
            assert kind not in DEADLY or code in FULL, f"{kind} {number} failed, and nobody minded"
            return "lives on"
        assert isinstance(failure, StorageError), repr(failure)
        assert isinstance(failure, DiskFullError) <= (code in FULL)
        return "ends"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*DEADLY, *OTHERS])
def test_nothing_told_is_lost_when_any_call_fails(kind: str) -> None:
    outcomes: Counter[str] = Counter()
    steps = SMALL if IS_WHOLE else ("burst", "roll", "reclaim")
    for at, step in enumerate(steps):
        case = Case(Story("used", (step, "append")))
        for number in range(1, 200):
            codes = ERRORS if IS_WHOLE else (ERRORS[(number + at) % len(ERRORS)],)
            found = [case.fails(kind, number, code) for code in codes]
            if None in found:
                break
            outcomes.update(map(str, found))
        else:
            raise AssertionError("the story has no end")
    print(f"{outcomes.total()} {kind} calls failed: {dict(outcomes)}")
    assert outcomes.total() >= len(steps)
    assert outcomes["ends"] or kind not in DEADLY
