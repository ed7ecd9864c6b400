"""People are told that streams wait for servers, and not once for each of a thousand."""

from __future__ import annotations

import logging

import pytest

from lunalog.client.wanting import TELL_EVERY_S, ServersWanted

Log = pytest.LogCaptureFixture


@pytest.fixture
def told(caplog: Log) -> Log:
    caplog.set_level(logging.WARNING, "lunalog.client")
    return caplog


def wait(wanted: ServersWanted, number: int, now: float) -> None:
    wanted.wait(number.to_bytes(16, "big"), f"orders-{number}", 3, "0 can take a segment", now)


def lines(told: Log) -> list[tuple[str, int]]:
    return [(vars(record)["stream"], vars(record)["streams"]) for record in told.records]


def test_one_stream_is_told_at_once_and_with_its_reason(told: Log) -> None:
    wait(ServersWanted(), 1, now=0.0)
    (record,) = told.records
    assert record.message == "servers_wanted"
    assert (vars(record)["epoch"], vars(record)["why"]) == (3, "0 can take a segment")
    assert lines(told) == [("orders-1", 1)]


def test_a_thousand_that_wait_at_once_are_two_lines(told: Log) -> None:
    wanted = ServersWanted()
    for now in (0.0, 1.0, TELL_EVERY_S, TELL_EVERY_S + 1, 3 * TELL_EVERY_S):
        for number in range(1000):
            wait(wanted, number, now)
    assert lines(told) == [("orders-0", 1), ("orders-1", 1000)]


def test_those_that_wait_no_more_are_not_counted(told: Log) -> None:
    wanted = ServersWanted()
    for number in range(10):
        wait(wanted, number, now=0.0)
    for number in range(8):
        wanted.end(number.to_bytes(16, "big"))
        wanted.end(number.to_bytes(16, "big"))
    wait(wanted, 9, now=TELL_EVERY_S)
    assert lines(told) == [("orders-0", 1), ("orders-9", 2)]


def test_one_that_waits_anew_is_told_anew_but_not_at_once(told: Log) -> None:
    wanted = ServersWanted()
    for now in (0.0, TELL_EVERY_S / 2, TELL_EVERY_S, TELL_EVERY_S + 1):
        wait(wanted, 1, now)
        if now < TELL_EVERY_S:
            wanted.end((1).to_bytes(16, "big"))
    assert lines(told) == [("orders-1", 1)] * 2
