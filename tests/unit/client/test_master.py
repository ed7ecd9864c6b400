"""The main link: it outlives lost connections, watches resync whole, errors say what is known."""

import asyncio

import pytest

from lunalog.client.master import MasterLink
from lunalog.errors import (
    ClosedError,
    ConflictError,
    CorruptFrameError,
    DeadlineExceededError,
    MasterUnavailableError,
    NotActiveError,
    StreamNotFoundError,
    WrongClusterError,
)
from lunalog.types import Peer, SegmentId
from lunalog.wire.messages import (
    Done,
    GetHealth,
    GetServers,
    GetStream,
    Health,
    Ping,
    ResignWanted,
    RollWanted,
    StreamChanged,
    StreamGone,
    UnwatchStream,
    WatchStream,
)

HEALTH = Health((), (), {})


async def until(condition) -> None:
    """Let the loop turn until `condition()` holds; the test's timeout is the bound."""
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.001)


async def test_start_learns_the_cluster_and_says_who_it_is(link, master):
    assert link.is_connected
    assert link.cluster == "c1"
    hello = master.hellos[0]
    assert (hello.role, hello.name, hello.incarnation) == ("client", "engine-1", b"i" * 16)
    assert hello.purpose == "main"
    assert "connected" in repr(link)


async def test_an_unreachable_master_is_told_within_the_connect_timeout(runtime, config):
    link = MasterLink(runtime, [("nowhere", 1)], Peer("p", b"i" * 16), config)
    started = runtime.now()
    with pytest.raises(
        MasterUnavailableError, match=r"nowhere:1 within 0.3 s.*nothing was changed"
    ) as caught:
        await link.start()
    assert not caught.value.maybe_applied
    assert runtime.now() - started < 0.5


async def test_a_server_is_not_taken_for_a_master(runtime, master, config):
    master.role = "server"
    link = MasterLink(runtime, [("master", 7600)], Peer("p", b"i" * 16), config)
    with pytest.raises(WrongClusterError, match="not a master"):
        await link.start()


async def test_a_refusal_at_the_handshake_is_told_at_once(runtime, master, config):
    master.refuse = WrongClusterError("another cluster")
    link = MasterLink(runtime, [("master", 7600)], Peer("p", b"i" * 16), config)
    with pytest.raises(WrongClusterError, match="another cluster"):
        await link.start()


async def test_the_second_address_is_tried_when_the_first_is_dead(runtime, master, config):
    addresses = [("nowhere", 1), ("master", 7600)]
    link = MasterLink(runtime, addresses, Peer("p", b"i" * 16), config)
    await link.start()
    assert link.is_connected
    await link.aclose()


async def test_a_request_is_asked_again_after_the_connection_broke(link, master):
    def answer(message):
        if len(master.asked_for(GetHealth)) == 1:
            master.connections[0].abort()
        return HEALTH

    master.answers[GetHealth] = answer
    assert await link.request(GetHealth()) == HEALTH
    assert len(master.asked_for(GetHealth)) == 2


async def test_a_request_is_asked_again_while_the_master_is_not_active(link, master):
    def answer(message):
        if len(master.asked_for(GetHealth)) < 3:
            raise NotActiveError("starting")
        return HEALTH

    master.answers[GetHealth] = answer
    assert await link.request(GetHealth()) == HEALTH


async def test_an_answer_of_the_master_is_raised_as_it_is(link, master):
    with pytest.raises(StreamNotFoundError, match="no stream 'x'"):
        await link.request(GetStream("x"))


async def test_a_silent_master_ends_in_a_deadline_that_names_the_doubt(link):
    with pytest.raises(DeadlineExceededError, match="may still be applied") as caught:
        await link.request(GetServers(), timeout=0.05)
    assert caught.value.maybe_applied


async def test_a_master_that_went_away_is_told_as_unavailable(link, master):
    await master.stop()
    with pytest.raises(MasterUnavailableError) as caught:
        await link.request(GetServers(), timeout=0.05)
    told = "may still be applied" if caught.value.maybe_applied else "nothing was changed"
    assert told in str(caught.value)
    assert not link.is_connected


async def test_another_cluster_at_the_same_address_ends_the_link(link, master):
    master.cluster = "c2"
    master.connections[0].abort()
    await until(lambda: link.error is not None)
    with pytest.raises(WrongClusterError, match="c2"):
        await link.request(GetHealth())


async def test_a_master_that_sends_us_away_for_good_ends_the_link(link, master):
    ended = []
    link.on_ended = ended.append
    watch = link.watch(master.views[b"s" * 16])
    master.connections[0].close(ConflictError("peer engine-1 has a newer incarnation"))
    await until(lambda: ended)
    assert isinstance(ended[0], ConflictError)
    assert watch.gone is ended[0]
    with pytest.raises(ConflictError, match="newer incarnation"):
        await link.request(GetHealth())


async def test_a_closed_link_refuses_requests_and_frees_who_waits(link, master):
    waiting = asyncio.create_task(link.request(GetServers()))
    await until(lambda: master.asked_for(GetServers))
    await link.aclose()
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await link.request(GetHealth())


async def test_a_watch_is_told_and_takes_pushes(link, master, view):
    watch = link.watch(view())
    await until(lambda: master.asked_for(WatchStream))
    assert not master.asked_for(WatchStream)[0].is_candidate
    revision = watch.revision
    master.push(StreamChanged(view(version=2, epoch=1)))
    assert await watch.changed(revision) == revision + 1
    assert watch.head.epoch == 1


async def test_the_first_candidate_and_the_last_are_told(link, master, view):
    watch = link.watch(view())
    watch.stand(is_candidate=True)
    watch.stand(is_candidate=True)
    await until(lambda: master.asked_for(WatchStream))
    assert [m.is_candidate for m in master.asked_for(WatchStream)] == [True]
    watch.stand(is_candidate=False)
    watch.stand(is_candidate=False)
    await until(lambda: len(master.asked_for(WatchStream)) == 2)
    assert not master.asked_for(WatchStream)[1].is_candidate


async def test_the_last_user_ends_the_watch_at_the_master(link, master, view):
    first, second = link.watch(view()), link.watch(view())
    assert first is second
    first.release()
    second.release()
    await until(lambda: master.asked_for(UnwatchStream))
    assert link.watch(view()) is not first


async def test_a_watch_is_answered_whole_after_a_reconnect(link, master, view):
    watch = link.watch(view(), is_candidate=True)
    await until(lambda: master.asked_for(WatchStream))
    master.views[b"s" * 16] = view(version=7, epoch=3)
    master.connections[0].abort()
    await until(lambda: watch.head.version == 7)
    assert master.asked_for(WatchStream)[-1].is_candidate


async def test_a_deleted_stream_ends_its_watch(link, master, view):
    watch = link.watch(view())
    waiting = asyncio.create_task(watch.changed(watch.revision))
    await until(lambda: master.asked_for(WatchStream))
    master.push(StreamGone(b"s" * 16))
    await waiting
    assert isinstance(watch.gone, StreamNotFoundError)


async def test_a_stream_that_went_while_we_were_away_ends_its_watch(link, master, view):
    watch = link.watch(view())
    await until(lambda: master.asked_for(WatchStream))
    master.views.clear()
    master.connections[0].abort()
    await until(lambda: watch.gone is not None)
    assert isinstance(watch.gone, StreamNotFoundError)


async def test_wishes_of_the_master_reach_the_leader_of_that_stream(link, master, view):
    heard = []

    class Leader:
        def on_resign_wanted(self, message):
            heard.append(message)

        def on_roll_wanted(self, message):
            heard.append(message)

    watch = link.watch(view())
    await until(lambda: master.asked_for(WatchStream))
    resign = ResignWanted(b"s" * 16, 3)
    roll = RollWanted(b"s" * 16, SegmentId(3, 1), "leaving")
    master.push(resign)  # nobody leads: nothing to tell
    await asyncio.sleep(0)
    await link.request(GetStream("orders"))
    watch.leader = Leader()
    master.push(resign)
    master.push(roll)
    master.push(ResignWanted(b"x" * 16, 3))
    await until(lambda: len(heard) == 2)
    assert heard == [resign, roll]


async def test_a_silent_connection_is_given_up_and_dialled_again(link, master, monkeypatch):
    monkeypatch.setattr("lunalog.client.master.PING_EVERY_S", 0.01)
    monkeypatch.setattr("lunalog.client.master.PING_TIMEOUT_S", 0.01)
    master.connections[0].abort()
    await until(lambda: len(master.hellos) == 2)
    del master.answers[Ping]
    await until(lambda: len(master.hellos) >= 3)
    master.answers[Ping] = lambda m: Done()


async def test_an_ended_link_says_why_even_to_who_has_no_time_left(link):
    await link.aclose()
    with pytest.raises(ClosedError):
        await link.request(GetHealth(), timeout=0)


async def test_a_master_that_answers_no_ping_but_an_error_is_alive(link, master, monkeypatch):
    monkeypatch.setattr("lunalog.client.master.PING_EVERY_S", 0.01)

    def refuse(message):
        raise NotActiveError("not the active master")

    master.answers[Ping] = refuse
    master.connections[0].abort()  # the link looks at its new connection from now on
    await until(lambda: len(master.asked_for(Ping)) >= 2)
    assert len(master.hellos) == 2
    assert link.is_connected


async def test_what_listens_there_and_is_no_master_is_dialled_again(link, master, runtime):
    """A stranger on the master's port for a while: bytes that make no frame end nothing for good."""
    await master.stop()

    class Stranger(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)

    listener = await runtime.network.listen(Stranger, ("master", 7600))
    await until(lambda: isinstance(link._last_error, CorruptFrameError))
    await listener.close()
    await master.start()
    await until(lambda: link.is_connected)
    assert await link.request(Ping()) == Done()


async def test_a_watch_that_was_refused_for_now_is_told_again(link, master, view):
    refused = []

    def watched(message):
        if not refused:
            refused.append(message)
            raise NotActiveError("starting")
        return master.watched(message)

    master.answers[WatchStream] = watched
    master.views[b"s" * 16] = view(version=4)
    watch = link.watch(view())
    await until(lambda: watch.head.version == 4)
    assert refused
