"""One stream of a journal: epochs of ours start a leadership, roles follow R9, read points R14."""

import asyncio

import pytest

from lunalog.client.lead import LeadScope
from lunalog.client.roles import RoleStates
from lunalog.client.session import Session
from lunalog.client.stream import LocalStream, Parts
from lunalog.errors import (
    ClosedError,
    DeadlineExceededError,
    FencedError,
    MetadataLostError,
    NotEnoughServersError,
    NotLeaderError,
    OverloadedError,
    StreamNotFoundError,
    UsageError,
)
from lunalog.runtime import Tasks
from lunalog.types import Member, OpenSegment, Peer, Role, SegmentId
from lunalog.wire.messages import GetStream, Release

STREAM = b"s" * 16
ME = Peer("engine-1", b"i" * 16)
OTHER = Peer("engine-2", b"j" * 16)
MEMBERS = tuple(Member(f"s{n}", 1) for n in range(3))


class Queue:
    """Takes appends until it has an error."""

    error = None


class FakeLeading:
    """An epoch whose every step the test makes."""

    def __init__(self, watch):
        loop = asyncio.get_running_loop()
        self.epoch = watch.head.epoch
        self.ready, self.ended = loop.create_future(), loop.create_future()
        self.queue = None
        self.is_unwanted, self.hindrance = False, None
        self.writers = []
        self.is_started = False
        self.resigned = 0
        self.point = 7
        self.resign_gate = None

    def start(self):
        self.is_started = True

    async def read_point(self):
        return self.point

    async def resign(self):
        self.resigned += 1
        if self.resign_gate is not None:
            await self.resign_gate
        if not self.ended.done():
            self.ended.set_result(None)

    def register_writer(self, writer):
        self.writers.append(writer)

    def become_ready(self):
        self.queue = Queue()
        self.ready.set_result(None)

    def abandon(self, error):
        self.ended.set_result(error)

    def lose(self, error=None):
        self.ended.set_result(error or FencedError("epoch 9 was promised"))


class Bench:
    """One local stream and what the master says of it."""

    def __init__(self, link, links, master, view, servers):
        self.make_view, self.master, self.link = view, master, link
        self.servers = servers
        self.leadings, self.closed = [], []
        self.session = Session(link)
        self.tasks = Tasks(link.runtime)
        parts = Parts(
            link, links, self.session, self.tasks, self.lead, lambda w: object(), self.close
        )
        self.version = 1
        self.local = LocalStream(parts, link.watch(view()))
        self.local.users = 1

    def lead(self, watch):
        self.leadings.append(FakeLeading(watch))
        return self.leadings[-1]

    def close(self, local):
        local.users -= 1
        self.closed.append(local)

    async def open(self):
        self.local.users += 1
        return self.local

    def head(self, **fields):
        """The master says this now."""
        self.version += 1
        view = self.make_view(version=self.version, **fields)
        view = type(view)(view.head, view.rows, tuple(s.address for s in self.servers))
        self.master.views[STREAM] = view
        self.local.watch.merge(view)

    def grant(self, epoch, peer=ME):
        self.head(epoch=epoch, leader=peer, released=False)

    async def leads(self, epoch):
        """Make this client the leader of `epoch`, ready."""
        self.local.watch.stand(is_candidate=True)
        self.grant(epoch)
        self.leadings[-1].become_ready()
        await asyncio.sleep(0)
        return self.leadings[-1]

    def scope(self, *, timeout=None, resign_timeout=1.0):
        return LeadScope(
            self.open,
            self.close,
            name="orders",
            timeout=timeout,
            resign_timeout=resign_timeout,
            check=lambda: None,
        )

    def states(self, *, is_candidate=True, check=lambda: None):
        return RoleStates(self.open, self.close, is_candidate=is_candidate, check=check)


@pytest.fixture
async def bench(link, links, master, view, servers):
    found = Bench(link, links, master, view, servers)
    yield found
    await found.tasks.cancel()


async def until(condition):
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.001)


# ---------------------------------------------------------------------------- grants and roles


async def test_a_new_epoch_of_ours_starts_one_leadership(bench):
    bench.local.watch.stand(is_candidate=True)
    bench.grant(3)
    bench.head(epoch=3, leader=ME, released=False, next=5)
    assert len(bench.leadings) == 1
    assert bench.leadings[0].is_started
    bench.grant(4, OTHER)
    bench.grant(5)
    assert [found.epoch for found in bench.leadings] == [3, 5]


async def test_the_grant_of_a_namesake_is_not_ours(bench):
    """The incarnation decides, not the name (R2)."""
    bench.local.watch.stand(is_candidate=True)
    bench.grant(3, Peer("engine-1", b"k" * 16))
    assert bench.leadings == []


async def test_leader_shows_once_it_may_acknowledge_and_not_at_the_grant(bench):
    bench.local.watch.stand(is_candidate=True)
    bench.grant(3)
    assert bench.local.role_state(is_candidate=True).role is Role.FOLLOWER
    bench.leadings[0].become_ready()
    assert bench.local.role_state(is_candidate=True).role is Role.LEADER
    bench.grant(4, OTHER)  # the watch knows before the leadership does
    state = bench.local.role_state(is_candidate=True)
    assert (state.role, state.epoch, state.leader) == (Role.FOLLOWER, 4, OTHER)


async def test_a_takeover_that_failed_is_no_leadership(bench):
    bench.local.watch.stand(is_candidate=True)
    bench.grant(3)
    bench.leadings[0].lose()
    await asyncio.sleep(0)
    assert not bench.local.is_leading
    assert bench.local.leading is None
    assert isinstance(bench.local.last_error, FencedError)


async def test_a_leader_that_resigns_is_none_any_more(bench):
    leading = await bench.leads(3)
    assert bench.local.is_leading
    leading.queue.error = NotLeaderError("resigning")
    assert not bench.local.is_leading


async def test_no_epoch_is_ever_started_twice(bench):
    """The journal may forget a stream and open it again: the same grant starts nothing (R2)."""
    leading = await bench.leads(3)
    leading.lose()
    await asyncio.sleep(0)
    bench.local.close()
    LocalStream(bench.local.parts, bench.link.watch(bench.local.watch.view))
    bench.head(epoch=3, leader=ME, released=False, next=8)
    assert len(bench.leadings) == 1


async def test_the_end_of_the_journal_ends_the_epoch(bench):
    leading = await bench.leads(3)
    bench.local.end(ClosedError("closed"))
    assert isinstance(leading.ended.result(), ClosedError)
    assert isinstance(bench.local.watch.gone, ClosedError)


async def test_a_grant_that_nobody_wants_any_more_is_given_back(bench, master):
    master.answers[Release] = lambda m: GetStream("x")
    bench.grant(3)
    await until(lambda: master.asked_for(Release))
    assert bench.leadings == []
    assert master.asked_for(Release)[0].promise.epoch == 3


async def test_a_lapsed_lease_shows_as_unconfirmed(bench):
    await bench.leads(3)
    assert not bench.local.role_state(is_candidate=True).is_confirmed
    bench.session.lease_deadline = bench.link.runtime.now() + 10
    assert bench.local.role_state(is_candidate=True).is_confirmed


async def test_states_are_yielded_in_order_up_to_the_newest(bench):
    async with bench.states() as states:
        first = await anext(states)
        assert (first.role, first.epoch, first.leader) == (Role.FOLLOWER, 0, None)
        waiting = asyncio.create_task(anext(states))
        await asyncio.sleep(0)
        assert not waiting.done()
        bench.grant(1, OTHER)
        bench.grant(2, OTHER)
        assert (await waiting).epoch == 2
        leading = await bench.leads(3)
        assert (await anext(states)).role is Role.LEADER
        leading.lose()
        await asyncio.sleep(0)
        assert (await anext(states)).role is Role.FOLLOWER


async def test_an_observer_stands_only_if_it_is_a_candidate(bench):
    observer = bench.states(is_candidate=False)
    assert (await anext(observer)).role is Role.OBSERVER
    assert not bench.local.watch.is_candidate
    candidate = bench.states()
    await anext(candidate)
    assert bench.local.watch.is_candidate
    await candidate.aclose()
    await candidate.aclose()
    assert not bench.local.watch.is_candidate
    await observer.aclose()
    with pytest.raises(ClosedError, match="observe_state again"):
        await anext(observer)


async def test_closing_an_observer_frees_who_waits(bench):
    states = bench.states()
    await anext(states)
    waiting = asyncio.create_task(anext(states))
    await asyncio.sleep(0)
    await states.aclose()
    with pytest.raises(ClosedError):
        await waiting


async def test_a_deleted_stream_ends_its_observers(bench):
    states = bench.states()
    await anext(states)
    waiting = asyncio.create_task(anext(states))
    await asyncio.sleep(0)
    bench.local.watch.end(StreamNotFoundError("deleted"))
    with pytest.raises(StreamNotFoundError):
        await waiting
    await states.aclose()


# ------------------------------------------------------------------------------------- writers


async def test_a_writer_binds_to_the_first_epoch_and_to_no_other(bench):
    early = bench.local.open_writer()
    leading = await bench.leads(3)
    late = bench.local.open_writer()
    assert leading.writers == [early, late]
    leading.lose()
    await asyncio.sleep(0)
    again = await bench.leads(5)
    assert again.writers == []


async def test_the_error_of_a_lost_epoch_names_the_leader(bench):
    bench.grant(4, OTHER)
    error = bench.local.why_not_leader(3, "fenced")
    assert error.leader == "engine-2"
    assert "engine-2 leads epoch 4" in str(error)
    bench.head(epoch=4, leader=OTHER, released=True)
    assert "nobody is known to lead" in str(bench.local.why_not_leader(3))


# ---------------------------------------------------------------------------------- lead scope


async def test_a_scope_waits_leads_and_resigns(bench):
    scope = bench.scope()
    entering = asyncio.create_task(scope.__aenter__())
    await asyncio.sleep(0)
    await until(lambda: bench.local.watch.is_candidate)
    leading = await bench.leads(3)
    bench.local.watch.stand(is_candidate=False)  # the bench's own
    assert await entering is leading.writers[0]
    await scope.__aexit__(None, None, None)
    assert leading.resigned == 1
    assert not bench.local.watch.is_candidate
    assert not bench.local.is_scoped


async def test_a_failed_takeover_is_waited_out(bench):
    async def body():
        async with bench.scope() as writer:
            return writer

    task = asyncio.create_task(body())
    await until(lambda: bench.local.watch.is_candidate)
    bench.grant(3)
    bench.leadings[0].lose()
    await asyncio.sleep(0.01)
    assert not task.done()
    bench.grant(5)
    bench.leadings[1].become_ready()
    await task
    assert bench.leadings[1].resigned == 1


async def test_losing_the_epoch_cancels_the_body_and_is_told_as_such(bench):
    leading = await bench.leads(3)
    entered = asyncio.Event()

    async def body():
        async with bench.scope():
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await entered.wait()
    leading.lose()
    bench.grant(4, OTHER)
    with pytest.raises(NotLeaderError, match="engine-2 leads epoch 4") as caught:
        await task
    assert caught.value.leader == "engine-2"
    assert task.cancelling() == 0
    assert leading.resigned == 0


async def test_who_was_asked_to_hand_over_is_told_so(bench):
    leading = await bench.leads(3)

    async def body():
        async with bench.scope():
            leading.is_unwanted = True
            leading.lose(NotLeaderError("this leader has resigned"))
            await asyncio.sleep(60)

    with pytest.raises(NotLeaderError, match="it was asked to hand over"):
        await body()


async def test_a_body_that_ended_in_that_very_moment_is_told_too(bench):
    leading = await bench.leads(3)

    async def body():
        async with bench.scope():
            leading.lose()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        raise AssertionError("not reached")

    task = asyncio.create_task(body())
    with pytest.raises(NotLeaderError):
        await task
    assert task.cancelling() == 0


async def test_no_cancel_is_left_behind(bench):
    """The cancel that was asked for as the body ended must not hit what comes after the scope."""
    leading = await bench.leads(3)

    async def body():
        async with bench.scope():
            leading.lose()  # heard only after the scope was left
        await asyncio.sleep(0.01)
        return "alive"

    assert await asyncio.create_task(body()) == "alive"


async def test_a_cancel_from_outside_stays_one(bench):
    leading = await bench.leads(3)
    entered = asyncio.Event()

    async def body():
        async with bench.scope():
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leading.resigned == 1  # leaves nothing open, also then (R31)


async def test_a_cancel_from_outside_wins_over_the_loss_of_the_epoch(bench):
    leading = await bench.leads(3)
    entered = asyncio.Event()

    async def body():
        async with bench.scope():
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await entered.wait()
    leading.lose()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_from_outside_while_the_scope_is_left_stays_one(bench):
    """It comes when ours has been taken back already, and is nobody else's."""
    leading = await bench.leads(3)
    entered = asyncio.Event()

    async def body():
        async with bench.scope():
            entered.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(body())
    await entered.wait()
    leading.lose()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_around_the_scope_is_a_timeout(bench):
    await bench.leads(3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), bench.scope():
            await asyncio.sleep(60)


async def test_a_task_group_in_the_body_ends_with_the_epoch(bench):
    leading = await bench.leads(3)
    ended = []

    async def child():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def body():
        async with bench.scope(), asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    task = asyncio.create_task(body())
    await asyncio.sleep(0.01)
    leading.lose()
    with pytest.raises(NotLeaderError):
        await task
    assert ended == [True, True]


async def test_an_error_of_the_body_is_raised_and_the_epoch_resigned(bench):
    leading = await bench.leads(3)
    with pytest.raises(KeyError):
        async with bench.scope():
            raise KeyError("mine")
    assert leading.resigned == 1


async def test_a_resignation_that_hangs_is_bounded(bench):
    leading = await bench.leads(3)
    leading.resign_gate = asyncio.get_running_loop().create_future()
    with pytest.raises(DeadlineExceededError, match="may or may not be kept"):
        async with bench.scope(resign_timeout=0.01):
            pass
    assert not bench.local.is_scoped


async def test_who_is_elected_in_vain_is_told_what_is_missing(bench):
    bench.local.watch.stand(is_candidate=True)
    bench.grant(3)
    bench.leadings[0].hindrance = NotEnoughServersError(
        "2 servers are needed, 0 can take a segment"
    )
    with pytest.raises(DeadlineExceededError, match="still recovers: 2 servers are needed") as told:
        await bench.scope(timeout=0.01).__aenter__()
    assert str(told.value).endswith("nothing was done")
    assert not told.value.maybe_applied


async def test_leadership_that_does_not_come_in_time(bench):
    bench.grant(4, OTHER)
    with pytest.raises(DeadlineExceededError, match="engine-2 leads"):
        async with bench.scope(timeout=0.01):
            pass
    assert not bench.local.watch.is_candidate


async def test_a_second_scope_of_one_journal_is_refused(bench):
    await bench.leads(3)
    async with bench.scope():
        with pytest.raises(UsageError, match="another scope"):
            async with bench.scope():
                pass
    await bench.leads(4)
    scope = bench.scope()
    async with scope:
        with pytest.raises(UsageError, match="entered once"):
            await scope.__aenter__()


async def test_metadata_that_went_back_is_not_waited_out(bench):
    entering = asyncio.create_task(bench.scope().__aenter__())
    await until(lambda: bench.local.watch.is_candidate)
    bench.grant(3)
    bench.leadings[0].lose(MetadataLostError("the promise is above the head"))
    with pytest.raises(MetadataLostError):
        await entering


# --------------------------------------------------------------------------------- read points


def open_head(bench, **fields):
    bench.head(
        epoch=2,
        leader=OTHER,
        released=False,
        open=OpenSegment(SegmentId(2, 0), 0, 0, MEMBERS, 2),
        **fields,
    )


async def test_the_leader_answers_itself(bench):
    await bench.leads(3)
    assert await bench.local.read_point(None) == 7


async def test_with_nothing_open_a_fresh_head_answers(bench, master):
    """The head at hand may be older than an ack: only one read after the call decides (R31)."""
    bench.head(next=5)
    version, local = bench.version, bench.local
    master.views[STREAM] = bench.make_view(version=version + 1, next=9)
    assert await local.read_point(None) == 9
    assert len(master.asked_for(GetStream)) == 1


async def test_a_head_that_cannot_be_read_gives_no_point(bench, master):
    """The one at hand would do, if it were not for acks that it has not heard of."""
    bench.head(next=5)

    def refuse(message):
        raise OverloadedError("later")

    master.answers[GetStream] = refuse
    with pytest.raises(DeadlineExceededError):
        await bench.local.read_point(0.05)
    assert master.asked_for(GetStream)


async def test_the_head_of_a_namesake_gives_no_point(bench, master):
    bench.head(next=5)
    master.views[STREAM] = bench.make_view(stream=b"t" * 16, version=9, next=9)
    with pytest.raises(DeadlineExceededError):
        await bench.local.read_point(0.05)
    assert bench.local.head.next == 5


async def test_a_follower_asks_the_leader_through_a_replica(bench, servers, master):
    open_head(bench)
    for server in servers:
        server.point = 42
    assert await bench.local.read_point(None) == 42
    assert not master.asked_for(GetStream)  # the master is not in the way


async def test_another_replica_is_asked_when_one_is_gone(bench, servers, links):
    open_head(bench)
    links.cut("s0")
    servers[1].point = NotLeaderError("the leader's connection is gone")
    servers[2].point = 42
    assert await bench.local.read_point(None) == 42


async def test_nobody_leads_and_something_is_open(bench, servers):
    open_head(bench)
    for server in servers:
        server.point = NotLeaderError("nobody")
    with pytest.raises(DeadlineExceededError, match="nobody knows its end"):
        await bench.local.read_point(0.05)


async def test_a_point_is_waited_for_until_somebody_leads_or_closes(bench, servers):
    open_head(bench)
    for server in servers:
        server.point = NotLeaderError("nobody")
    asking = asyncio.create_task(bench.local.read_point(2.0))
    await asyncio.sleep(0.02)
    assert not asking.done()
    bench.head(epoch=3, leader=OTHER, released=True, next=11)
    assert await asking == 11


async def test_a_deleted_stream_has_no_read_point(bench):
    bench.local.watch.end(StreamNotFoundError("deleted"))
    with pytest.raises(StreamNotFoundError):
        await bench.local.read_point(None)


async def test_l2_a_silent_leader_of_our_own_leaves_no_time_to_ask_the_master(bench, master):
    """All that is asked shares the caller's one limit."""
    await bench.leads(3)
    silence = asyncio.get_running_loop().create_future()
    bench.local.leading.read_point = lambda: silence
    with pytest.raises(DeadlineExceededError):
        await bench.local.read_point(0.1)
    assert not master.asked_for(GetStream)
