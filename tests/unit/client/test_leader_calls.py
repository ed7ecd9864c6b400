"""What a leader does with the master's answers."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from lunalog.client.leader_calls import LeaderCalls
from lunalog.core.effects import ProposeSet
from lunalog.errors import MasterUnavailableError, NotEnoughServersError
from lunalog.runtime import SystemRuntime, Tasks
from lunalog.wire.messages import Proposal


class Leadership:
    """Notes what the machine would have been told."""

    epoch, promise, hindrance = 3, None, None

    def __init__(self):
        self.machine = SimpleNamespace(proposed="proposed", not_proposed="not_proposed")
        self.fed = []

    def feed(self, step, *args):
        self.fed.append(step)


class Master:
    """Answers with what comes next."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def request(self, message, timeout=None):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.asyncio
async def test_missing_servers_are_told_once_and_known_until_some_are_named(caplog):
    few, silent = NotEnoughServersError("0 can take a segment"), MasterUnavailableError("away")
    master, leadership = Master(silent, few, few, Proposal(())), Leadership()
    runtime = SystemRuntime()
    calls = LeaderCalls(
        runtime,
        None,
        SimpleNamespace(learn=lambda servers: None),
        master,
        SimpleNamespace(name="orders", stream=b"s" * 16),
        Tasks(runtime),
        leadership,
    )
    caplog.set_level(logging.WARNING, "lunalog.client")
    seen = []
    for _ in range(4):
        await calls.propose(ProposeSet(()))
        seen.append(leadership.hindrance)
    await asyncio.sleep(0)
    assert seen == [silent, few, few, None]
    assert leadership.fed == ["not_proposed"] * 3 + ["proposed"]
    assert [(r.message, r.epoch, r.why) for r in caplog.records] == [
        ("servers_wanted", 3, "0 can take a segment")
    ]
