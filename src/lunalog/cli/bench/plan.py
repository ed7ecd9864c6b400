"""What a bench shall do: the options of a command line, checked as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from lunalog import limits
from lunalog.errors import UsageError

UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20}
SECONDS: Final = 5.0
"""How long a run takes unless it is told."""
WINDOW_BYTES: Final = 1 << 20
WINDOW_MIN: Final = 64
WINDOW_FRAMES: Final = 16
WINDOW_EACH_MIN: Final = 16
"""Of each of many streams."""
EVENT_OVERHEAD_BYTES: Final = 4
HEAD_BYTES_MAX: Final = 4 * limits.KIB
"""More than the head of any frame."""
STALL_S: Final = 8.0
"""Shorter than a leader waits for its servers before it gives up, which would end a run less clearly."""


CATCH_UP, TAIL = "catch-up", "tail"
READINGS: Final = (CATCH_UP, TAIL)
TRANSFER, KILL, FREEZE, KILL_SERVER = "transfer", "kill", "freeze", "kill-server"
WAYS: Final = (TRANSFER, KILL, FREEZE, KILL_SERVER)
"""What a failover does, and to whom (failing.py)."""
WAYS_UNTOLD: Final = (TRANSFER, KILL, FREEZE)


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes: 100, 4KiB, 1MiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"0*([1-9]\d{0,11})\s*([a-z]*)", str(value).lower())
        if found is None or found[2] not in UNITS:
            self.fail(f"{value!r} is no size: use 100, 4KiB or 1MiB", param, ctx)
        return int(found[1]) * UNITS[found[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run."""

    size: int = 1024
    seconds: float | None = None
    events: int | None = None
    rate: float | None = None
    """Events a second that are due; none: a closed loop."""
    window: int | None = None
    """Closed loop: events (or frames, with `batch`) in flight."""
    batch: int = 1
    """Events in one `append_many`; 1: each event is an append of its own."""
    replicas: int | None = None
    ack_quorum: int | None = None
    streams: int = 1
    rounds: int | None = None
    """How often something is done; then neither time nor events end it."""
    stall_s: float = STALL_S
    """Without any progress for this long a run ends."""

    def share(self) -> Plan:
        """Return what each of several streams does: together as much as one would alone."""
        return replace(
            self,
            streams=1,
            rate=None if self.rate is None else self.rate / self.streams,
            events=None if self.events is None else -(-self.events // self.streams),
            window=(
                None
                if self.rate is not None
                else self.window or max(WINDOW_EACH_MIN, self.in_flight // self.streams)
            ),
        )

    def phase_s(self, number: int) -> float:
        """Return how much later than the first stream `number` begins: together they send evenly."""
        if self.rate is None:
            return 0.0
        gap_s = self.streams * self.batch / self.rate
        return number / self.streams * min(gap_s, self.time_s or gap_s)

    def validate(self) -> None:
        """Raise `UsageError` for options that do not fit together."""
        if self.rate is not None and self.window is not None:
            raise UsageError(
                "--rate is an open loop, --window a closed one: they exclude each other; "
                "nothing was started"
            )
        if (
            self.batch > 1
            and self.batch * (self.size + EVENT_OVERHEAD_BYTES) + HEAD_BYTES_MAX
            > limits.FRAME_BYTES_MAX
        ) or self.batch > limits.FRAME_EVENTS_MAX:
            raise UsageError(
                f"{self.batch} events of {self.size} bytes do not fit into one append of at most "
                f"{limits.FRAME_BYTES_MAX} bytes and {limits.FRAME_EVENTS_MAX} events; "
                "nothing was started; choose a smaller --batch"
            )

    @property
    def mode(self) -> str:
        """open, closed, or lone: a closed loop with one event in flight."""
        if self.rate is not None:
            return "open"
        return "lone" if self.in_flight == 1 and self.batch == 1 else "closed"

    @property
    def in_flight(self) -> int:
        """Events, or frames of `batch` events, that a closed loop keeps in flight."""
        if self.window is not None:
            return self.window
        if self.batch > 1:
            return WINDOW_FRAMES
        return max(WINDOW_MIN, WINDOW_BYTES // self.size)

    @property
    def time_s(self) -> float | None:
        """How long it sends; none when only the number of events ends it."""
        if self.seconds is None and self.events is None and self.rounds is None:
            return SECONDS
        return self.seconds

    @property
    def units_max(self) -> int | None:
        """Sends (events, or frames) after which it ends, by `events` or by rate and time."""
        by_count = None if self.events is None else -(-self.events // self.batch)
        by_time = None
        if self.rate is not None and self.time_s is not None:
            by_time = max(1, round(self.rate / self.batch * self.time_s))
        known = [units for units in (by_count, by_time) if units is not None]
        return min(known, default=None)

    @property
    def patience_s(self) -> float:
        """Stall limit; a slow rate is no stall."""
        return self.stall_s if not self.rate else max(self.stall_s, 3 * self.batch / self.rate)

    def row(self) -> dict[str, Any]:
        """Return the fields of a result."""
        return {
            "mode": self.mode,
            "size": self.size,
            "seconds": self.time_s,
            "events": self.events,
            "rate": self.rate,
            "window": None if self.rate is not None else self.share().in_flight,
            "batch": self.batch,
            "replicas": self.replicas,
            "ack_quorum": self.ack_quorum,
            "streams": self.streams,
            "rounds": self.rounds,
            "stall_seconds": self.stall_s,
        }
