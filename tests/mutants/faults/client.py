"""Faults of the rest of the client: identity, beats, outcomes, reading."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.mutants.registry import fault

from lunalog.client.batching import AppendQueue
from lunalog.client.fetch import Nothing
from lunalog.client.journal import SingleWriteJournal
from lunalog.client.session import Session
from lunalog.errors import LunalogError, NotLeaderError
from lunalog.types import Peer


@fault(
    "R15, K5",
    "a client whose loop stands still keeps its lease",
    "wedged",
    "lunalog.client.session:Session._beat_once",
)
async def beats_of_a_wedged_loop(real: Any, self: Session, *rest: Any) -> Any:
    self._last_turn = self.runtime.now()
    return await real(self, *rest)


@fault(
    "R2, K3",
    "a client that starts again under its name is the same incarnation",
    "takeover",
    "lunalog.client.journal:SingleWriteJournal.__init__",
)
def incarnation_is_the_name(real: Any, self: SingleWriteJournal, *rest: Any, **fields: Any) -> None:
    real(self, *rest, **fields)
    name = self.peer.name
    self.peer = self._link.peer = Peer(name, hashlib.sha256(name.encode()).digest()[:16])


@fault(
    "R4, trap 18",
    "appends are acknowledged once they are sent",
    "takeover",
    "lunalog.client.batching:AppendQueue.flush",
)
def acknowledged_when_sent(real: Any, self: AppendQueue) -> None:
    real(self)
    self.commit(self.framed)


@fault(
    "trap 17",
    "what was sent when the epoch ended is said to be refused",
    "zombie",
    "lunalog.client.batching:AppendQueue._outcome",
)
def fenced_means_refused(real: Any, self: AppendQueue, sequence: int, error: LunalogError) -> Any:
    real(self, sequence, error)
    return NotLeaderError("not sent")


@fault(
    "trap 18",
    "an append is acknowledged before those ahead of it are committed",
    "takeover",
    "lunalog.client.batching:AppendQueue.commit",
)
def oldest_acknowledged_too(real: Any, self: AppendQueue, committed: int) -> None:
    real(self, max([committed, *(frame[-1].end for frame in list(self._unacked)[:2])]))


@fault(
    "R13, trap 46",
    "a replica that has nothing ends the segment",
    "short_reads",
    "lunalog.client.fetch:_Answers.sum",
)
def silence_ends_a_segment(real: Any, self: Any) -> Any:
    found = real(self)
    return found if self.fetched is not None else Nothing(self._ask.place)


@fault(
    "R13, R22",
    "a reader skips what is not kept any more, and says nothing",
    "trims",
    "lunalog.core.reading:resolve_start",
)
def truncated_is_skipped(real: Any, start: int | None, first: int, end: int) -> int:
    return max(first, int(real(start, first, end)))
