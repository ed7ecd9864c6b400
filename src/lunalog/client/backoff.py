"""Waiting between attempts: doubling, capped, and jittered so that clients do not march in step."""

from __future__ import annotations

from typing import Final

from lunalog.runtime import Runtime

FIRST_MS: Final = 10


class Backoff:
    """The pauses of one run of attempts."""

    def __init__(self, runtime: Runtime, most_ms: int, first_ms: int = FIRST_MS) -> None:
        self._random = runtime.random
        self._most_ms = most_ms
        self._first_ms = first_ms
        self._next_ms: float = first_ms

    def next_s(self) -> float:
        """How long to wait before the next attempt, in seconds."""
        bound = min(self._next_ms, self._most_ms)
        self._next_ms = min(2 * self._next_ms, self._most_ms)
        return bound * self._random.uniform(0.5, 1.0) / 1000

    def reset(self) -> None:
        """The last attempt worked."""
        self._next_ms = self._first_ms
