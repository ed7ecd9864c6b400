"""A transaction whose reply was lost may have landed, or land behind later ones (R28, M5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lunalog.core import streams
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import OutcomeUnknownError
from lunalog.master import records
from lunalog.master.memory import MemoryStore
from lunalog.master.metadata import Metadata
from lunalog.types import Member, OpenSegment, Peer, Policy, SealedSegment, SegmentId

STREAM, OTHER = b"s" * 16, b"o" * 16
ONE, TWO, THREE = (Member("s1", incarnation) for incarnation in (1, 2, 3))
ROW = SealedSegment(SegmentId(1, 0), 0, 4, 44, (ONE,), 1, "ann", "", 0, 1)


class LateStore(MemoryStore):
    """Keeps the next transaction back, and hears of it when the test says so.

    With `meanwhile` its next transaction is applied, that comes behind it, and its reply is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_late = False
        self.meanwhile: Callable[[], object] | None = None
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
        version = await super().transact(compares, puts, deletes)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
            raise OutcomeUnknownError("no answer")
        return version

    def land(self) -> None:
        for kept in self.kept:
            self.apply(*kept)


async def begin() -> tuple[LateStore, Metadata]:
    store = LateStore()
    metadata = Metadata(MemoryRuntime(), store)
    await metadata.load()
    return store, metadata


async def test_a_late_row_does_not_replace_a_newer_one() -> None:
    store, metadata = await begin()
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


async def test_a_refused_creation_does_not_land_when_its_name_is_free() -> None:
    store, metadata = await begin()
    first = await metadata.create(streams.create("orders", STREAM, Policy(1, 1), 0))
    assert first is not None
    store.is_late = True
    assert await metadata.create(streams.create("orders", OTHER, Policy(1, 1), 0)) is None
    assert await metadata.delete(first, streams.delete(first.head).head, [])
    store.land()
    assert await store.scan(records.HEADS) == []
    assert await metadata.create(streams.create("orders", OTHER, Policy(1, 1), 0)) is None
    assert await metadata.create(streams.create("orders", b"t" * 16, Policy(1, 1), 0)) is not None


async def test_a_creation_that_lands_while_it_is_asked_again_is_one() -> None:
    """Its copy is refused, since the name is taken: by itself."""
    store, metadata = await begin()
    store.meanwhile = lambda: None
    made = await metadata.create(streams.create("orders", STREAM, Policy(1, 1), 0))
    assert made is not None
    assert metadata.table.named("orders") is made
    assert await store.scan(records.GONE) == []


async def test_a_deletion_is_known_though_its_name_was_taken_anew_at_once() -> None:
    """Its reply is lost, and somebody creates a stream of that name before it is asked again."""
    store, metadata = await begin()
    first = await metadata.create(streams.create("orders", STREAM, Policy(1, 1), 0))
    assert first is not None
    anew = records.HeadRecord(streams.create("orders", OTHER, Policy(1, 1), 0))
    puts = {records.name_key("orders"): OTHER, records.head_key(OTHER): records.encode(anew)}
    store.meanwhile = lambda: store.apply({records.name_key("orders"): 0}, puts, ())
    assert await metadata.delete(first, streams.delete(first.head).head, ["s1"])
    assert set(metadata.tombstones) == {STREAM}
    found = await store.get(records.name_key("orders"))
    assert found is not None
    assert found.value == OTHER
