"""The master's record of streams through any history of requests, repeats, lost replies and restarts.

The model is a dictionary that follows the rules in few words.  Whatever the store does to a transaction,
each request is applied once or refused, and what a new master reads is the model (I4, I5, R1, R8, R28).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.machines import machine_settings

from lunalog.core import streams
from lunalog.core.streams import Change, SealRequest
from lunalog.errors import LunalogError, NotActiveError
from lunalog.master import records
from lunalog.master.metadata import Metadata
from lunalog.testing.metadata import SimulatedStore, StoreFaults
from lunalog.testing.simulation import Simulation
from lunalog.types import (
    Member,
    OpenSegment,
    Peer,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    StreamHead,
)

SET = (Member("s1", 1), Member("s2", 1), Member("s3", 1))
PEERS = tuple(Peer(name, name[:1].encode() * 16) for name in ("ann", "bob"))
NAMES = ("orders", "trades")

names = st.sampled_from(NAMES)
FAULTS = (
    StoreFaults(),
    StoreFaults(lost_reply=0.8),
    StoreFaults(lost_reply=0.5, unavailable=0.5),
    StoreFaults(late=0.7, never=0.2, late_calls=12),
    StoreFaults(late=0.5, lost_reply=0.4, unavailable=0.3, latency_s=(0.0, 0.2)),
)


@dataclass
class ModelStream:
    """One stream, as the rules have it."""

    stream: bytes
    name: str
    epoch: int = 0
    leader: Peer | None = None
    released: bool = True
    next: int = 0
    chain: int = 0
    open: SegmentId | None = None
    truncated_before: int = 0
    rows: list[tuple[SegmentId, int, int]] = field(default_factory=list)
    numbers: int = 0

    @property
    def promise(self) -> Promise:
        return Promise(self.epoch, self.leader.incarnation if self.leader else b"")

    @property
    def holds(self) -> bool:
        return self.epoch > 0 and not self.released


class StandIn:
    """The runtime of one master: it remembers that it was told to end."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.failures: list[BaseException] = []

    def random_bytes(self, size: int) -> bytes:
        return self._chance.randbytes(size)

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)


Decide = Callable[[Any], Change | None]


class RecordMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation(1)
        self.simulation.__enter__()
        self.store = SimulatedStore(random.Random(1))
        self.model: dict[str, ModelStream] = {}
        self.buried: set[bytes] = set()
        self.sent: list[tuple[str, bytes, Decide]] = []
        """Every request that was ever made, to be heard again."""
        self.latest: dict[bytes, Decide] = {}
        """The one that each stream shows."""
        self.created = 0
        self.masters = 0
        self.old: Metadata | None = None
        self.start()

    def teardown(self) -> None:
        self.simulation.__exit__(None, None, None)

    # ------------------------------------------------------------ tools

    def run(self, work: Any) -> Any:
        return self.simulation.run(work, timeout_s=10_000)

    def start(self) -> None:
        self.masters += 1
        self.runtime = StandIn(self.masters)
        self.metadata = Metadata(self.runtime, self.store)  # type: ignore[arg-type]
        self.run(self.metadata.load())

    async def change(self, metadata: Metadata, stream: bytes, decide: Decide) -> bool:
        """Decide and commit until the store agrees, as a master does; true if anything changed."""
        while True:
            found = metadata.table.get(stream)
            if found is None:
                return False
            change = decide(found)
            if change is None:
                return False
            if await metadata.change(found, change.head, "led", change.row):
                return True

    def ask(self, name: str, decide: Decide) -> bool:
        """Make a request now, and remember it."""
        stream = self.model[name].stream
        self.sent.append((name, stream, decide))
        self.latest[stream] = decide
        return bool(self.run(self.change(self.metadata, stream, decide)))

    def seal(self, known: ModelStream, grown: int, *, opens: bool, releases: bool) -> Decide:
        """What the leader of `known` asks for: its segment ends `grown` events later."""
        end = known.next + (grown if known.open else 0)
        chain = known.chain + (end - known.next)
        row = None
        if known.open is not None and end > known.next:
            row = SealedSegment(known.open, known.next, end, chain, SET, 2, "", "", 0)
        opened = None
        if opens:
            opened = OpenSegment(SegmentId(known.epoch, known.numbers), end, chain, SET, 2)
        request = SealRequest(
            promise=known.promise, old=known.open, row=row, open=opened, next=end, chain=chain,
            release=releases,
        )  # fmt: skip
        return lambda stream: streams.seal(
            stream.head,
            stream.rows,
            request,
            sealed_leader="led",
            is_known=lambda server: True,
            now_us=5,
        )

    def sealed(self, known: ModelStream, grown: int, *, opens: bool, releases: bool) -> None:
        end = known.next + (grown if known.open else 0)
        if known.open is not None and end > known.next:
            known.rows.append((known.open, known.next, end))
        known.chain += end - known.next
        known.next, known.open, known.released = end, None, releases
        if opens:
            known.open = SegmentId(known.epoch, known.numbers)
            known.numbers += 1

    # ------------------------------------------------------------ requests

    @rule(name=names)
    def create(self, name: str) -> None:
        self.created += 1
        stream = b"%016d" % self.created
        made = self.run(self.metadata.create(streams.create(name, stream, Policy(), 1)))
        assert (made is not None) == (name not in self.model)
        self.model.setdefault(name, ModelStream(stream, name))

    @rule(name=names, peer=st.sampled_from(PEERS))
    def grant(self, name: str, peer: Peer) -> None:
        known = self.model.get(name)
        if known is not None:
            epoch = known.epoch  # a grant is decided on the head that the master saw

            def decide(stream: Any) -> Change | None:
                return streams.grant(stream.head, peer) if stream.head.epoch == epoch else None

            assert self.ask(name, decide)
            known.epoch, known.leader, known.released = epoch + 1, peer, False

    @rule(name=names, grown=st.integers(0, 3))
    def roll(self, name: str, grown: int) -> None:
        known = self.model.get(name)
        if known is not None and known.holds:
            assert self.ask(name, self.seal(known, grown, opens=True, releases=False))
            self.sealed(known, grown, opens=True, releases=False)

    @rule(name=names, grown=st.integers(0, 3))
    def resign(self, name: str, grown: int) -> None:
        known = self.model.get(name)
        if known is not None and known.holds:
            assert self.ask(name, self.seal(known, grown, opens=False, releases=True))
            self.sealed(known, grown, opens=False, releases=True)

    @rule(name=names)
    def release(self, name: str) -> None:
        known = self.model.get(name)
        if known is not None and known.holds:
            promise = known.promise
            assert self.ask(name, lambda stream: streams.release(stream.head, promise))
            known.released = True

    @rule(name=names, before=st.integers(0, 12))
    def truncate(self, name: str, before: int) -> None:
        known = self.model.get(name)
        if known is not None and known.holds and (known.open or before <= known.next):
            promise = known.promise
            did = self.ask(name, lambda stream: streams.truncate(stream.head, promise, before))
            assert did == (before > known.truncated_before)
            known.truncated_before = max(before, known.truncated_before)

    @rule(name=names)
    def delete(self, name: str) -> None:
        known = self.model.pop(name, None)
        if known is None:
            return
        stream = self.metadata.table.get(known.stream)
        assert stream is not None
        head = streams.delete(stream.head).head
        assert self.run(self.metadata.delete(stream, head, ["s1"]))
        self.buried.add(known.stream)
        made = self.run(self.metadata.create(streams.create(name, known.stream, Policy(), 1)))
        assert made is None, "R22: an id is never used again"

    # ------------------------------------------------------------ what must change nothing

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 200), is_last=st.booleans())
    def repeat(self, pick: int, is_last: bool) -> None:
        """Any request again, however late: it is found applied, or refused (R28)."""
        _, stream, decide = self.sent[-1] if is_last else self.sent[pick % len(self.sent)]
        try:
            assert not self.run(self.change(self.metadata, stream, decide))
        except LunalogError:
            assert self.latest[stream] is not decide, "R28: what the head shows is no conflict"

    @rule()
    def restart(self) -> None:
        """A new master reads what there is; the old one may do nothing more."""
        self.old, self.was = self.metadata, self.runtime
        self.start()

    @precondition(lambda self: self.old is not None and self.model)
    @rule()
    def wake_the_old_master(self) -> None:
        """It decides on what it remembers, and ends at the store (R30)."""
        old = self.old
        assert old is not None
        stream = next(iter(old.table), None)
        if stream is None:
            return

        async def act() -> None:
            async with asyncio.timeout(60):
                await self.change(old, stream.id, lambda found: streams.grant(found.head, PEERS[0]))

        try:
            self.run(act())
        except TimeoutError:
            assert [type(error) for error in self.was.failures] == [NotActiveError]
        else:
            raise AssertionError("two masters changed one record")
        self.old = None

    @rule(faults=st.sampled_from(FAULTS))
    def the_store_is(self, faults: StoreFaults) -> None:
        self.store.faults = replace(faults)

    # ------------------------------------------------------------ what must hold

    @invariant()
    def the_store_and_the_master_hold_the_model(self) -> None:
        found: dict[str, StreamHead] = {}
        rows: dict[bytes, list[tuple[SegmentId, int, int]]] = {}
        for key, record in sorted(self.store._records.items()):
            if key.startswith(records.HEADS):
                head = records.decode(record.value, records.HeadRecord, key).head
                found[head.name] = head
            elif key.startswith(records.ROWS):
                row = records.decode(record.value, SealedSegment, key)
                rows.setdefault(records.stream_of(key), []).append((row.id, row.first, row.end))
        assert found.keys() == self.model.keys()
        for name, known in self.model.items():
            self._compare(known, found[name])
            held = self.metadata.table.named(name)
            assert held is not None
            self._compare(known, held.head)
            assert sorted(rows.get(known.stream, [])) == known.rows
            assert [(row.id, row.first, row.end) for row in held.rows] == known.rows
        assert set(rows) <= {known.stream for known in self.model.values()}
        assert set(self.metadata.tombstones) == self.buried

    @staticmethod
    def _compare(known: ModelStream, head: StreamHead) -> None:
        opened = head.open.id if head.open else None
        assert (head.stream, head.epoch, head.leader) == (known.stream, known.epoch, known.leader)
        assert (head.next, head.chain, opened) == (known.next, known.chain, known.open)
        assert (head.released, head.truncated_before) == (known.released, known.truncated_before)


RecordMachine.TestCase.settings = machine_settings(50, 40)
TestRecordMachine = RecordMachine.TestCase
