"""Answers that are no answers: a client says so, goes on, or ends; it believes none of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lunalog.client.journal import _resign
from lunalog.client.reader import _caught
from lunalog.client.streams import LocalStreams
from lunalog.client.takeover import _copies
from lunalog.errors import (
    CorruptFrameError,
    InvariantError,
    MasterUnavailableError,
    NotLeaderError,
    TruncatedError,
)
from lunalog.wire import frames
from lunalog.wire.messages import GetStream

STREAM, OTHER = b"s" * 16, b"t" * 16


def test_r26_a_copy_of_another_stream_is_not_taken() -> None:
    ours = frames.build(STREAM, 0, 1, 0, [b"a"])
    (copy,) = _copies(STREAM, ours)
    assert (copy.first, copy.count, copy.frame) == (0, 1, ours)
    with pytest.raises(CorruptFrameError, match="another stream at 0"):
        _copies(OTHER, ours)


async def test_an_error_that_nobody_may_be_there_to_take_is_returned() -> None:
    error = TruncatedError("gone", start=5)

    async def failing() -> Any:
        raise error

    assert await _caught(failing()) is error


async def test_who_cannot_resign_is_followed_anyway() -> None:
    async def refuse() -> None:
        raise NotLeaderError("it is over")

    leading: Any = SimpleNamespace(resign=refuse)
    await _resign(leading)


def test_a_journal_is_started_before_it_is_used() -> None:
    nothing: Any = None
    streams = LocalStreams(nothing, nothing, lambda: None)
    with pytest.raises(InvariantError, match="after it was started"):
        streams._local(nothing)


async def test_a_request_without_a_master_ends_with_the_link(link: Any, master: Any) -> None:
    await master.stop()
    link._end(MasterUnavailableError("this journal is over"))
    with pytest.raises(MasterUnavailableError, match="over"):
        await link.request(GetStream("orders"))


async def test_a_connection_without_a_handshake_is_our_bug(link: Any) -> None:
    with pytest.raises(InvariantError, match="handshake"):
        link._connected(SimpleNamespace(peer=None))
    await asyncio.sleep(0)
