"""Every byte of a small store is flipped, and every file lost, cut, swapped, or another server's.

After any of it a server refuses to start with an error that says so, or what was told is there, or
said to be unknown, or the incarnation is over, by the log's own word (R18) or because its end is behind
what the master has heard of (R19).  What is silent is shown to be harmless.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.faults.explorer import Explorer, abandon, recover, small_steps
from tests.faults.power_cuts import power_cuts
from tests.faults.stories import Story, live
from tests.unit.storage.conftest import Memory, check_or_unknown, check_told, essence

from lunalog.core.replica import Replica
from lunalog.errors import StorageError, UsageError
from lunalog.storage import checkpoint
from lunalog.storage import format as layout
from lunalog.storage.format import Body
from lunalog.storage.log import Log
from lunalog.testing.directory import Directory
from lunalog.testing.disk import SimulatedDisk

IS_WHOLE = os.environ.get("SWEEP") == "all"
"""Every byte, as at night; else one bit of every few bytes."""
STRIDE = 1 if IS_WHOLE else 7
pytestmark = pytest.mark.timeout(3600 if IS_WHOLE else 240)
STORY = Story("used", ("burst", "certify", "roll", "fence", "append", "idle"))


@dataclass
class Witness:
    """What a check wants of an owner."""

    memory: Memory
    replica: Replica
    log: Log


class Store:
    """A small store at rest; by its story full extents, sidecars, two checkpoints, an attested tail."""

    def __init__(self, story: Story = STORY, collapse_bytes: int = 1 << 10) -> None:
        self.collapse_bytes = collapse_bytes
        with small_steps(collapse_bytes):
            lived = live(story)
        self.told = lived.told[-1]
        self.directory = next(power_cuts(lived.after, random.Random(1)))
        self.explorer = Explorer(1)
        self.essence: Any = None
        assert self.outcome(self.directory) == "same"
        self.names = sorted(self.directory.names)

    def disk(self) -> SimulatedDisk:
        """The store on a disk of its own, to be harmed."""
        disk = SimulatedDisk("store", random.Random(1))
        disk.directory = self.directory.copy()
        return disk

    def outcome(self, directory: Directory) -> str:
        """Start on it: what came of it; raises where something was lost in silence."""
        with small_steps(self.collapse_bytes):
            return self.explorer._loop.run_until_complete(self._outcome(directory))

    async def _outcome(self, directory: Directory) -> str:
        _, runtime, server = self.explorer._server(directory)
        try:
            try:
                await recover(server)
            except (StorageError, UsageError):  # it says so, and does not start
                return "refused"
            log, told = server.log, self.told
            found = essence(server.replica)
            if self.essence is None:
                self.essence = found
            witness: Any = Witness(told.memory, server.replica, log)
            if server.identity.incarnation < told.incarnation:
                return "another server"  # it registers anew: all it holds is a witness's (R19)
            if server.identity.found_position < told.position:
                return "behind"  # a cut end; the master, which heard of more, ends the incarnation
            await check_or_unknown(witness)
            if log.may_have_lost:
                return "incarnation over"
            if log.damage:
                return "told"
            assert found == self.essence, "something else, in silence"
            await check_told(told.memory, server.replica, log)
            return "same"
        finally:
            await abandon(server, runtime)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    made = Store()
    kinds = {name.rpartition(".")[2][:5] for name in made.names}
    assert kinds >= {"wal", "index", "check", "ident"}, made.names
    yield made
    made.explorer.close()


def used(directory: Directory, name: str) -> int:
    """Where a file holds nothing more but zeros."""
    inode = directory.names[name]
    return len(inode.durable.read(0, inode.durable.size).rstrip(b"\0"))


def alike(store: Store, content: bytes) -> set[int]:
    """Places of frames and runs of zeros, which are looked at by a checksum alone."""
    kept = [frame for held in store.told.memory.frames.values() for frame in held.values()]
    patterns = [b"\\0{32,}", *map(re.escape, kept)]
    return {
        place
        for pattern in patterns
        for match in re.finditer(pattern, content)
        for place in range(*match.span())
    }


def flips(store: Store, kind: str, stride: int = STRIDE) -> Counter[str]:
    """Flip bits of all files of a kind, one at a time, newest files first.

    Of a byte one bit, which goes by its place; all eight in the whole sweep, but where they are alike.
    """
    found: Counter[str] = Counter()
    for name in [name for name in reversed(store.names) if kind in name]:
        durable = store.directory.names[name].durable
        end = min(used(store.directory, name) + 600, durable.size)
        one = alike(store, durable.read(0, end)) if IS_WHOLE else range(end)
        for offset in range(random.Random(name).randrange(stride), end, stride):
            for bit in (offset * 5 % 8,) if offset in one else range(8):
                disk = store.disk()
                disk.flip(name, offset, 1 << bit)
                try:
                    found[store.outcome(disk.directory)] += 1
                except AssertionError as error:
                    raise AssertionError(f"{name}, byte {offset}, bit {bit}: {error}") from error
    print(f"{found.total()} flips in {kind}: {dict(found)}")
    return found


@pytest.mark.slow
def test_every_flip_in_an_extent_is_told_or_harmless(store: Store) -> None:
    found = flips(store, ".wal")
    assert found["told"] > found.total() // 8
    assert found["incarnation over"] > 0


@pytest.mark.slow
def test_every_flip_in_a_checkpoint_is_noticed_and_the_one_before_serves(store: Store) -> None:
    found = flips(store, "checkpoint")
    assert found["told"] > found.total() // 4
    assert not found["incarnation over"] + found["refused"]


@pytest.mark.slow
def test_every_flip_in_a_sidecar_is_repaired_from_its_extent(store: Store) -> None:
    """Reads find the frames again; a sidecar is asked only when somebody reads."""
    found = flips(store, ".index", 1)
    assert found["same"] == found.total() > 50


@pytest.mark.slow
def test_every_flip_in_the_identity_is_refused(store: Store) -> None:
    assert set(flips(store, "identity", 1)) == {"refused"}


@pytest.mark.slow
def test_a_log_that_believes_bad_bytes_is_caught(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep can fail: control records are not checked, or damage is not told."""
    decode_body = layout.decode_body

    def trusting(body: memoryview, head: Any) -> Body:
        found = decode_body(body, head)
        found.is_whole = True
        return found

    monkeypatch.setattr(layout, "decode_body", trusting)
    with pytest.raises(AssertionError, match="byte"):
        flips(store, ".wal", 5)


@pytest.mark.slow
def test_a_checkpoint_that_is_not_checked_is_caught(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "crc32c", lambda *_: 0)
    monkeypatch.setattr(checkpoint, "decode", lambda data, _: checkpoint._decoder.decode(data[32:]))
    with pytest.raises(Exception, match=r"."):
        flips(store, "checkpoint", 1)


# ------------------------------------------------------------ whole files (D8, O4)


def cut(directory: Directory, name: str, size: int) -> None:
    inode = directory.names[name]
    inode.durable.truncate(size)
    inode.cached.truncate(size)


def test_every_file_that_is_lost_is_missed(store: Store) -> None:
    found: Counter[str] = Counter()
    for name in store.names:
        disk = store.disk()
        disk.lose(name)
        outcome = store.outcome(disk.directory)
        found[outcome] += 1
        if name == "identity":
            assert outcome == "another server"
        elif name == max(n for n in store.names if n.endswith(".wal") and used(store.directory, n)):
            assert outcome in {"incarnation over", "behind"}
    print(f"{found.total()} files lost: {dict(found)}")


@pytest.mark.slow
def test_every_file_that_is_cut_short_is_noticed(store: Store) -> None:
    found: Counter[str] = Counter()
    for name in store.names:
        end = used(store.directory, name)
        for size in {0, 1, 100, end // 2, end - 512, end - 1} & set(range(end)):
            disk = store.disk()
            cut(disk.directory, name, size)
            found[store.outcome(disk.directory)] += 1
    print(f"{found.total()} files cut: {dict(found)}")
    assert found.total() - found["same"] > found.total() // 3


def test_files_that_are_swapped_are_never_taken_for_each_other(store: Store) -> None:
    found: Counter[str] = Counter()
    for kind in (".wal", ".index", "checkpoint"):
        names = [name for name in store.names if kind in name]
        for a in names:
            for b in names:
                if a < b:
                    disk = store.disk()
                    names_of = disk.directory.names
                    names_of[a], names_of[b] = names_of[b], names_of[a]
                    disk.directory.sync()
                    found[store.outcome(disk.directory)] += 1
    print(f"{found.total()} pairs swapped: {dict(found)}")
    assert found.total() > 3


def test_files_of_another_servers_directory_are_never_taken_for_its_own(store: Store) -> None:
    """O4: the same names, another log."""
    other = Store(STORY._replace(seed=9))
    found: Counter[str] = Counter()
    for name in store.names:
        if name not in other.directory.names or name == "identity":
            continue
        disk = store.disk()
        inode = other.directory.names[name].copy()
        disk.directory.names[name] = disk.directory.durable[name] = inode
        found[store.outcome(disk.directory)] += 1
    other.explorer.close()
    print(f"{found.total()} files of another directory: {dict(found)}")
    assert found.total() > 3
