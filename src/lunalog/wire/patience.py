"""How long the asker of a request waits: a while, and longer while the peer sends.

A long answer takes its time on a slow link; who gives up on it and asks again only starts it anew,
for ever (N3).  So a timeout measures silence, up to a bound.

Source: docs/wire.md; N3, L2.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from lunalog import limits
from lunalog.errors import DeadlineExceededError

PROGRESS_BYTES: Final = 16 * limits.KIB
"""A peer that sent this much within a timeout is at work on a long answer."""


class Receiving(Protocol):
    """The connection that the answer comes by."""

    @property
    def received_bytes(self) -> int:
        """All that ever arrived."""
        ...


class Patience:
    """Fails `answer` when `connection` is silent for `timeout` seconds, or at `timeout_max`."""

    __slots__ = ("_answer", "_connection", "_left_s", "_received", "_timeout", "_timer", "_what")

    def __init__(
        self,
        connection: Receiving,
        answer: asyncio.Future[Any],
        what: str,
        timeout: float,
        timeout_max: float,
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._what = what
        self._timeout = timeout
        self._left_s = timeout_max
        self._arm()

    def _arm(self) -> None:
        seconds = min(self._timeout, self._left_s)
        self._left_s -= seconds
        self._received = self._connection.received_bytes
        self._timer = self._answer.get_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self._answer.done():
            return
        moved = self._connection.received_bytes - self._received
        if self._left_s > 0 and moved >= PROGRESS_BYTES:
            self._arm()
            return
        self._answer.set_exception(
            DeadlineExceededError(
                f"no answer to {self._what} within {self._timeout:g} s from {self._connection!r}"
            )
        )

    def end(self) -> None:
        """The answer is there, or nobody waits for it any more."""
        self._timer.cancel()
