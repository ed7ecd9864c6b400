"""What a bench has found, in the fields that docs/cli.md "bench" promises."""

from __future__ import annotations

import datetime
import enum
import importlib.metadata
import os
import platform
from dataclasses import dataclass, field
from typing import Any, Final

from lunalog import __version__
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Part, clock
from lunalog.cli.bench.verify import Verdict

FORMAT: Final = 1
"""Grows when a field changes its meaning or goes; new ones may come any time."""


class Ended(enum.Enum):
    """How a run ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """By a signal."""
    STALLED = "stalled"
    """Nothing got on for too long."""
    FAILED = "failed"
    """An error ended it."""


@dataclass(slots=True)
class Result:
    """One run, whole or cut short."""

    workload: str
    plan: Plan
    url: str
    is_own: bool
    parts: list[Part]
    directory: str | None = None
    servers: int | None = None
    started_at: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC)
    )
    ended: Ended = Ended.FINISHED
    why: str | None = None
    verdict: Verdict = field(default_factory=Verdict)
    notes: list[str] = field(default_factory=list)
    """What happened meanwhile that figures do not tell."""
    streams_left: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return all as plain values."""
        now = clock()
        return {
            "format": FORMAT,
            "workload": self.workload,
            "started_at": self.started_at.isoformat(timespec="milliseconds"),
            "ended": self.ended.value,
            "why": self.why,
            "parameters": self.plan.row(),
            "cluster": {
                "url": self.url,
                "own": self.is_own,
                "servers": self.servers,
                "directory": self.directory,
            },
            "machine": machine(),
            "parts": [part.row(now) for part in self.parts],
            "verified": self.verdict.row(),
            "notes": self.notes,
            "streams_left": self.streams_left,
        }


def machine() -> dict[str, Any]:
    """Return what figures depend on."""
    try:
        loop = f"uvloop {importlib.metadata.version('uvloop')}"
    except importlib.metadata.PackageNotFoundError:
        loop = "asyncio"
    return {
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "loop": loop,
        "lunalog": __version__,
    }
