"""Heartbeats: on their own connection, with the loop's last turn; the lease from before the send."""

import asyncio
import threading

import pytest

from lunalog.client.session import Session
from lunalog.config import ClientConfig
from lunalog.errors import ConflictError, WrongClusterError
from lunalog.wire.messages import ClientBeat, EndSession

PATIENCE_S = 60.0
"""A real thread needs the processor for it; this is only reached where it hangs."""


async def until(condition) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def session(link):
    found = Session(link)
    yield found
    await found.aclose()


async def test_beats_come_on_a_connection_of_their_own(session, master):
    session.start()
    await until(lambda: session.beats >= 2)
    assert sorted(h.purpose for h in master.hellos) == ["beat", "main"]
    assert {h.incarnation for h in master.hellos} == {b"i" * 16}


async def test_the_lease_runs_from_before_the_beat_was_sent(session, master, runtime):
    assert session.lease_remaining == 0.0
    session.start()
    await until(session.__class__.is_confirmed.fget.__get__(session))
    assert session.lease_deadline <= runtime.now() + 0.8 * 2.0
    assert 1.0 < session.lease_remaining <= 1.6


async def test_a_lease_that_lapses_is_told_and_one_that_comes_back_too(session, master):
    heard = []
    session.subscribe(lambda: heard.append(session.is_confirmed))
    master.lease_ms = 40
    session.start()
    await until(lambda: heard == [True])
    answer = master.answers.pop(ClientBeat)
    await until(lambda: heard == [True, False])
    master.answers[ClientBeat] = answer
    await until(lambda: heard[-1])


async def test_a_wedged_main_loop_gets_no_renewal(session, master, runtime):
    """The stamp of the last turn is what decides, not whether the beat loop lives (K5)."""
    session.start()
    await until(lambda: session.beats >= 1)
    session._timer.cancel()
    session._last_turn = runtime.now() - 31
    beats = session.beats
    await asyncio.sleep(0.06)
    assert session.beats == beats
    assert session.turn_age_s_max > 30
    session._turn()
    await until(lambda: session.beats > beats)


async def test_applied_positions_travel_as_deltas_and_whole_after_a_reconnect(session, master):
    session.note_applied(b"a" * 16, 5)
    session.start()
    await until(lambda: session.beats >= 2)
    beats = master.asked_for(ClientBeat)
    assert beats[0].applied == ((b"a" * 16, 5),)
    assert beats[1].applied == ()
    session.note_applied(b"b" * 16, 1)
    session.note_applied(b"a" * 16, 4)  # never back
    await until(lambda: master.asked_for(ClientBeat)[-1].applied)
    assert master.asked_for(ClientBeat)[-1].applied == ((b"b" * 16, 1),)
    master.asked.clear()
    next(c for c in master.connections if c.peer.purpose == "beat").abort()
    await until(lambda: master.asked_for(ClientBeat))
    assert dict(master.asked_for(ClientBeat)[0].applied) == {b"a" * 16: 5, b"b" * 16: 1}


async def test_a_lost_connection_is_back_within_the_session_grace(session, master, runtime):
    session.start()
    await until(lambda: session.beats >= 1)
    lost = runtime.now()
    next(c for c in master.connections if c.peer.purpose == "beat").abort()
    await until(lambda: [h.purpose for h in master.hellos].count("beat") == 2)
    assert runtime.now() - lost < 0.1


async def test_closing_ends_the_session_at_the_master(session, master):
    session.start()
    await until(lambda: session.beats >= 1)
    await session.aclose()
    assert master.asked_for(EndSession)
    await session.aclose()


async def test_closing_before_the_first_beat_hangs_nothing(session, master):
    session.start()
    await session.aclose()


async def test_a_replaced_incarnation_is_told_to_the_main_loop(session, master):
    errors = []
    session.on_error = errors.append
    session.start()
    await until(lambda: session.beats >= 1)
    beat = next(c for c in master.connections if c.peer.purpose == "beat")
    beat.close(ConflictError("engine-1 has a newer incarnation"))
    await until(lambda: errors)
    assert isinstance(errors[0], ConflictError)


async def test_beats_from_a_thread_of_their_own(link, master):
    """With the system's runtime the beat loop is another thread, and nothing is shared but values."""
    from lunalog.client.ending import JournalRuntime

    dials: list[object] = []
    is_dialled_again = threading.Event()

    class Threaded(JournalRuntime):
        async def refuse(self, factory, address):
            dials.append(threading.current_thread())
            if len(dials) == 2:
                is_dialled_again.set()
            raise ConnectionRefusedError("no network in this test")

    runtime = Threaded()
    runtime.network.connect = runtime.refuse
    link.runtime = runtime
    link.config = ClientConfig(heartbeat_ms=10, retry_ms_max=5)
    session = Session(link)
    session.start()
    assert is_dialled_again.wait(PATIENCE_S), "while the main loop stands still"
    assert not session.is_confirmed
    await session.aclose()
    assert runtime.error is None
    assert threading.current_thread() not in dials


async def test_a_beat_that_is_refused_for_good_ends_the_session(session, master):
    errors = []

    def refuse(_):
        raise WrongClusterError("this is another cluster")

    session.on_error = errors.append
    master.answers[ClientBeat] = refuse
    session.start()
    await until(lambda: errors)
    assert isinstance(errors[0], WrongClusterError)
