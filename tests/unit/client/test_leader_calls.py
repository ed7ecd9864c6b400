"""What a leader does with the master's answers."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from lunalog.client.leader_calls import LeaderCalls
from lunalog.client.wanting import TELL_EVERY_S, ServersWanted
from lunalog.config import ClientConfig
from lunalog.core.effects import Certify, ProposeSet, Seal
from lunalog.errors import (
    ClosedError,
    ConflictError,
    FencedError,
    MasterUnavailableError,
    NotEnoughServersError,
    ServerUnavailableError,
    StreamNotFoundError,
)
from lunalog.runtime import SystemRuntime, Tasks
from lunalog.types import (
    Certificate,
    Member,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    ServerAddress,
    StreamHead,
    StreamView,
)
from lunalog.wire.messages import Done, HeadReply, Proposal, ViewReply

STREAM = b"s" * 16
HEAD = StreamHead("orders", STREAM, Policy(), epoch=3, released=False)
SEAL = Seal(None, None, None, 0, 0)


class Leadership:
    """Notes what the machine would have been told."""

    epoch, promise, hindrance = 3, None, None

    def __init__(self):
        steps = ("proposed", "not_proposed", "lost", "seal_refused", "head_seen", "head_read",
                 "head_unread", "kept", "given_back")  # fmt: skip
        self.machine = SimpleNamespace(seal=SEAL, **{step: step for step in steps})
        self.fed = []
        self.ended = asyncio.get_running_loop().create_future()

    def feed(self, step, *args):
        self.fed.append(step)
        if step == "head_seen":
            self.machine.seal = None


class Master:
    """Answers with what comes next."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def request(self, message, timeout=None):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def calls_of(leadership, *answers, head=HEAD):
    """What a leadership asks its master, who answers with these."""
    runtime = SystemRuntime()
    watch = SimpleNamespace(
        name="orders", stream=STREAM, gone=None, head=head,
        merge=lambda view: None, note_head=lambda head: None,
    )  # fmt: skip
    config = ClientConfig(retry_ms_max=1)
    links = SimpleNamespace(wanted=ServersWanted(), learn=lambda servers: None)
    return LeaderCalls(runtime, config, links, Master(*answers), watch, Tasks(runtime), leadership)


async def test_r28_a_transaction_is_sent_until_its_outcome_is_known():
    leadership = Leadership()
    silent = MasterUnavailableError("away")
    await calls_of(leadership, silent, silent, HeadReply(HEAD)).seal(SEAL)
    assert leadership.fed == ["head_seen"]


@pytest.mark.parametrize(
    ("answer", "step"),
    [(ClosedError("closed"), "lost"), (ConflictError("no"), "seal_refused")],
    ids=["closed", "refused"],
)
async def test_a_transaction_that_cannot_be_sent_or_is_refused_ends(answer, step):
    leadership = Leadership()
    await calls_of(leadership, answer).seal(SEAL)
    assert leadership.fed == [step]


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (ViewReply(StreamView(HEAD, (), ())), "head_read"),
        (ViewReply(StreamView(StreamHead("orders", b"t" * 16, Policy()), (), ())), "head_unread"),
        (MasterUnavailableError("away"), "head_unread"),
    ],
    ids=["read", "made anew", "silent"],
)
async def test_the_head_is_read_or_not(answer, step):
    leadership = Leadership()
    await calls_of(leadership, answer).reread()
    assert leadership.fed == [step]


@pytest.mark.parametrize(
    ("answer", "step"), [(Done(), "given_back"), (FencedError("no"), "kept")], ids=["yes", "no"]
)
async def test_giving_back_is_the_masters_to_grant(answer, step):
    leadership = Leadership()
    await calls_of(leadership, answer).give_back()
    assert leadership.fed == [step]


@pytest.mark.parametrize(
    "answers",
    [
        (MasterUnavailableError("away"), MasterUnavailableError("away"), Done()),
        (ClosedError("closed"),),
        (FencedError("another leads"),),
        (StreamNotFoundError("gone"),),
    ],
    ids=["silent", "closed", "fenced", "gone"],
)
async def test_an_epoch_is_released_until_there_is_an_answer(answers):
    calls = calls_of(Leadership(), *answers)
    await calls.release()
    assert calls._master.answers == []


async def test_an_epoch_that_is_over_is_not_released():
    over = StreamHead("orders", STREAM, Policy(), epoch=4, released=False)
    await calls_of(Leadership(), head=over).release()


async def test_missing_servers_are_told_once_and_known_until_some_are_named(caplog):
    few, silent = NotEnoughServersError("0 can take a segment"), MasterUnavailableError("away")
    leadership = Leadership()
    calls = calls_of(leadership, silent, few, silent, few, Proposal(()))
    caplog.set_level(logging.WARNING, "lunalog.client")
    seen = []
    for _ in range(5):
        await calls.propose(ProposeSet(()))
        seen.append(leadership.hindrance)
    assert seen == [silent, few, silent, few, None]
    assert leadership.fed == ["not_proposed"] * 4 + ["proposed"]
    assert [(r.message, r.epoch, r.why) for r in caplog.records] == [
        ("servers_wanted", 3, "0 can take a segment")
    ]


@pytest.mark.parametrize("is_over", [True, False])
async def test_who_got_its_servers_or_leads_no_more_waits_no_more(is_over, caplog):
    """The next line counts only others."""
    few = NotEnoughServersError("0 can take a segment")
    leadership = Leadership()
    calls = calls_of(leadership, few, few if is_over else Proposal(()), few)
    caplog.set_level(logging.WARNING, "lunalog.client")
    await calls.propose(ProposeSet(()))
    if is_over:
        leadership.ended.set_result(ClosedError("over"))
        await asyncio.sleep(0)
    await calls.propose(ProposeSet(()))
    later = calls._runtime.now() + TELL_EVERY_S
    calls._links.wanted.wait(b"another stream..", "others", 1, "none", later)
    assert [record.streams for record in caplog.records] == [1, 1]


@pytest.mark.parametrize(
    "found", [Proposal((ServerAddress(Member("s1", 1), "new", 1),)), MasterUnavailableError("away")]
)
async def test_l1_who_is_needed_although_it_was_excluded_is_looked_for(found):
    few, learnt, leadership = NotEnoughServersError("0 besides s1"), [], Leadership()
    calls = calls_of(leadership, few, found, few)
    calls._links.learn = learnt.extend
    await calls.propose(ProposeSet(("s1",)))
    assert [server.host for server in learnt] == (["new"] if isinstance(found, Proposal) else [])
    await calls.propose(ProposeSet(()))
    assert calls._master.answers == [], "nobody was excluded: there is nobody to look for"
    assert leadership.fed == ["not_proposed"] * 2


async def test_a_set_that_is_only_wished_for_hinders_nothing():
    leadership = Leadership()
    calls = calls_of(leadership, NotEnoughServersError("0 besides s1"))
    await calls.propose(ProposeSet(("s1",), is_needed=False))
    assert calls._master.answers == []
    assert (leadership.hindrance, leadership.fed) == (None, ["not_proposed"])


async def test_r21_a_member_that_cannot_be_told_of_an_end_hears_it_from_the_master():
    """One task for each member: who is away keeps nobody from being told, and ends nothing."""
    told, away = [], "s1"

    class Links:
        def address_of(self, server):
            return None if server == away else ServerAddress(Member(server, 1), server, 1)

        async def connection_to(self, server):
            if server == away:
                raise ServerUnavailableError(f"{server} is down", server=server)
            return self

        async def request(self, message, timeout):
            told.append(message)

    members = tuple(Member(f"s{n}", 1) for n in range(3))
    row = SealedSegment(SegmentId(3, 0), 0, 9, 0, members, 2, "p", "size", 0)
    certificate = Certificate(STREAM, row, Promise(3, b"i" * 16))
    calls = calls_of(Leadership())
    calls._links = Links()
    calls.certify(Certify(certificate))
    for _ in range(5):
        await asyncio.sleep(0)
    assert [message.certificate for message in told] == [certificate] * 2
    assert {s.member.server for s in told[0].sources} == {"s0", "s2"}
