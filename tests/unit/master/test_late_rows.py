"""A row's transaction whose reply was lost may land behind a later one of the same row (R28, M5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lunalog.core import streams
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import OutcomeUnknownError
from lunalog.master.memory import MemoryStore
from lunalog.master.metadata import Metadata
from lunalog.types import Member, OpenSegment, Peer, Policy, SealedSegment, SegmentId

STREAM = b"s" * 16
ONE, TWO, THREE = (Member("s1", incarnation) for incarnation in (1, 2, 3))
ROW = SealedSegment(SegmentId(1, 0), 0, 4, 44, (ONE,), 1, "ann", "", 0, 1)


class LateStore(MemoryStore):
    """Keeps the next transaction back, and hears of it when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_late = False
        self.kept: list[Any] = []

    async def transact(
        self,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> int | None:
        if self.is_late:
            self.is_late = False
            self.kept.append((dict(compares), dict(puts), tuple(deletes)))
            raise OutcomeUnknownError("no answer")
        return await super().transact(compares, puts, deletes)

    def land(self) -> None:
        for kept in self.kept:
            self.apply(*kept)


async def test_a_late_row_does_not_replace_a_newer_one() -> None:
    store = LateStore()
    metadata = Metadata(MemoryRuntime(), store)
    await metadata.load()
    stream = await metadata.create(streams.create("orders", STREAM, Policy(1, 1), 0))
    assert stream is not None
    head = streams.grant(stream.head, Peer("ann", b"a" * 16)).head
    opened = OpenSegment(SegmentId(1, 0), 0, 0, (ONE,), 1)
    assert await metadata.change(stream, msgspec.structs.replace(head, open=opened), "ann")
    closed = msgspec.structs.replace(stream.head, version=head.version + 1, open=None, next=4)
    assert await metadata.change(stream, closed, "", ROW)
    store.is_late = True
    second = msgspec.structs.replace(ROW, members=(TWO,), version=2)
    assert await metadata.change_row(stream, second)
    third = msgspec.structs.replace(ROW, members=(THREE,), version=3)
    assert await metadata.change_row(stream, third)
    store.land()
    await metadata.reload(stream)
    assert [(row.version, row.members) for row in stream.rows] == [(3, (THREE,))]
    assert stream.head == closed
