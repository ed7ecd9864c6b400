"""A timeout measures silence: an answer that keeps coming is waited for, within a bound (N3, L2)."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.wire.peers import play

from lunalog.errors import DeadlineExceededError
from lunalog.wire.patience import PROGRESS_BYTES, Patience


class Peer:
    """A connection on which bytes arrive when the test says so."""

    received_bytes = 0

    async def send(self, seconds: float, rate: int) -> None:
        for _ in range(round(seconds)):
            await asyncio.sleep(1)
            self.received_bytes += rate


def wait_for(rate: int, timeout_max: float) -> tuple[float, bool]:
    """How long an asker with a timeout of 2 s waits, of a peer that sends for 10 s; did it fail?"""
    told: list[tuple[float, bool]] = []

    async def story(world: object) -> None:
        loop = asyncio.get_running_loop()
        peer, answer, began = Peer(), loop.create_future(), loop.time()
        sending = loop.create_task(peer.send(10, rate))
        sending.add_done_callback(lambda _: answer.done() or answer.set_result(None))
        patience = Patience(peer, answer, "Read", 2.0, timeout_max)
        try:
            await answer
        except DeadlineExceededError:
            told.append((round(loop.time() - began, 3), True))
        else:
            told.append((round(loop.time() - began, 3), False))
        patience.end()
        await sending

    play(story)
    return told[0]


@pytest.mark.parametrize(
    ("rate", "timeout_max", "waited"),
    [
        (PROGRESS_BYTES, 60.0, (10.0, False)),
        (PROGRESS_BYTES, 2.0, (2.0, True)),
        (PROGRESS_BYTES, 5.0, (5.0, True)),
        (PROGRESS_BYTES // 4, 60.0, (2.0, True)),
        (0, 60.0, (2.0, True)),
    ],
)
def test_a_peer_that_sends_is_waited_for_and_a_silent_one_is_not(rate, timeout_max, waited):
    assert wait_for(rate, timeout_max) == waited


def test_the_end_of_the_connection_and_a_deadline_may_come_at_once():
    """In one turn of the loop: whichever is first counts."""

    async def story(world: object) -> None:
        answer = asyncio.get_running_loop().create_future()
        patience = Patience(Peer(), answer, "Ping", 1.0, 1.0)
        answer.set_exception(ConnectionError())
        patience._expire()
        with pytest.raises(ConnectionError):
            await answer
        await asyncio.sleep(2)

    play(story)
