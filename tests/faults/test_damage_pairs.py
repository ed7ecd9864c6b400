"""Every two damages of a small store, found at the start or under a running server.

After any of them a frame is read as it was, or said to be unknown, and no reply leaves one out; what was
promised, sealed and acknowledged is there, or the log says that it may have lost it, or ends behind what
the master has heard of (R18, R19).  What certificates come later finds no replica complete that is not
(R21).
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.faults.explorer import abandon, recover
from tests.faults.stories import Story
from tests.faults.test_damaged_stores import IS_WHOLE, Store, Witness, cut
from tests.unit.storage.conftest import check_or_unknown, essence

from lunalog.errors import UnknownDataError
from lunalog.server.process import JournalServer
from lunalog.storage import format as layout
from lunalog.storage.format import BATCH_HEAD_BYTES, RECORD_HEAD_BYTES
from lunalog.testing.directory import Directory
from lunalog.testing.disk import SimulatedDisk
from lunalog.types import Certificate, Promise, SealedSegment

PAIRS_MAX = 1 << 30 if IS_WHOLE else 120
"""Of all pairs of a store, so many are drawn."""
STORIES = {
    "young": Story("fresh", ("append", "append", "fence", "append", "idle")),
    "restarted": Story(
        "fresh", ("burst", "fence", "idle", "kill", "append", "idle", "kill", "idle")
    ),
    "full": Story("used", ("burst", "certify", "roll", "fence", "append", "idle")),
}
pytestmark = pytest.mark.timeout(3600 if IS_WHOLE else 60)


class Harm(NamedTuple):
    """One damage: a wrong bit at a place, or what became of a whole file."""

    name: str
    kind: str
    at: int = 0

    def do(self, disk: SimulatedDisk) -> None:
        if self.name not in disk.directory.names:
            return  # lost by the other one, or given back
        if self.kind == "lost":
            disk.lose(self.name)
        elif self.kind == "cut":
            cut(disk.directory, self.name, self.at)
        elif self.kind == "zeros":
            disk.overwrite(self.name, 0, bytes(disk.directory.names[self.name].durable.size))
        elif self.at < disk.directory.names[self.name].durable.size:
            disk.flip(self.name, self.at)


def harms_of(directory: Directory) -> Iterator[Harm]:
    """A bit of each part of each file that the log is made of, and whole files."""
    for name, inode in sorted(directory.names.items()):
        if name == "identity":
            continue
        yield Harm(name, "lost")
        if name.endswith(".wal"):
            yield from _harms_of_extent(name, inode.durable.read(0, inode.durable.size))
        else:
            yield Harm(name, "bit", 50)


def _harms_of_extent(name: str, data: bytes) -> Iterator[Harm]:
    number, at = int(name[7:17]), 0
    yield Harm(name, "zeros")
    while (head := layout.parse_batch_head(data, 0, number, at)) is not None:
        body = layout.decode_body(memoryview(data)[BATCH_HEAD_BYTES : head.size], head)
        yield Harm(name, "batch header", at + 20)
        yield Harm(name, "cut", at)
        for found in body.found:
            yield Harm(name, "record header", found.offset + 20)
            yield Harm(name, "record", found.offset + RECORD_HEAD_BYTES + 2)
        data, at = data[head.size :], head.end


class PairStore(Store):
    """A store whose starts are looked at more closely, and may be harmed while they live."""

    late: tuple[Harm, ...] = ()

    async def _outcome(self, directory: Directory) -> str:
        disk, runtime, server = self.explorer._server(directory)
        try:
            await recover(server)
            if self.essence is None:
                self.essence = essence(server.replica)
            for harm in self.late:
                harm.do(disk)
            is_behind = server.identity.found_position < self.told.position
            if not is_behind:
                witness: Any = Witness(self.told.memory, server.replica, server.log)
                await check_or_unknown(witness)
            await self._check_complete(server)
            assert runtime.error is None
            if server.log.may_have_lost:
                return "incarnation over"
            return "behind" if is_behind else "told" if server.log.damage else "same"
        finally:
            await abandon(server, runtime)

    async def _check_complete(self, server: JournalServer) -> None:
        """R21: seal what is not sealed, as the master would by now; complete is who has all of it."""
        for key, found in self.essence.items():
            if not isinstance(key, tuple):
                continue
            (stream, segment), (first, _, end, _, chain, *_) = key, found
            row = SealedSegment(segment, first, end, chain, (), 1, "ann", "age", 0)
            held, _ = server.replica.certify(Certificate(stream, row, Promise(99, b"z" * 16)))
            at = first
            while held.is_complete and at < end:
                try:
                    frames = await server.log.read(stream, segment, at, 1 << 20)
                except UnknownDataError:  # known from now on, and told to the replica
                    break
                assert frames, f"{segment} is complete, and lacks {at}"
                at = frames[-1][0].end


@pytest.mark.parametrize("name", STORIES)
def test_every_two_damages_are_told_or_harmless(name: str) -> None:
    store = PairStore(STORIES[name])
    harms = [*harms_of(store.directory)]
    pairs = [*itertools.combinations(harms, 2), *((harm,) for harm in harms)]
    found: Counter[str] = Counter()
    for pair in random.Random(name).sample(pairs, min(PAIRS_MAX, len(pairs))):
        for is_late in (False, True):
            disk = store.disk()
            store.late = pair if is_late else ()
            if not is_late:
                for harm in pair:
                    harm.do(disk)
            try:
                found[store.outcome(disk.directory)] += 1
            except Exception as error:
                raise AssertionError(f"{pair}, late: {is_late}: {error!r}") from error
    store.explorer.close()
    print(f"{name}: {found.total()} of {2 * len(pairs)} pairs: {dict(found)}")
    assert min(found["told"], found["incarnation over"], found["same"]) > found.total() // 50
