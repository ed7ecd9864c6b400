"""Faults of the rest of the client: identity, outcomes, reading."""

from __future__ import annotations

import hashlib
from typing import Any

from lunalog.client.batching import AppendQueue
from lunalog.client.fetch import Nothing
from lunalog.client.session import Session
from lunalog.core.reading import AtTail, InSegment
from lunalog.types import Peer
from tests.mutants.registry import fault


@fault(
    "R15, K5",
    "a client whose loop stands still keeps its lease",
    "wedged",
    "lunalog.client.session:Session._beat_once",
)
async def beats_of_a_wedged_loop(real: Any, self: Session, *rest: Any) -> Any:
    self._last_turn = self.runtime.now()
    return await real(self, *rest)
