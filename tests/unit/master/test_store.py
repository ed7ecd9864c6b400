"""One suite for every metadata store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lunalog.errors import (
    ClosedError,
    CorruptRecordError,
    DirectoryLockedError,
    OutcomeUnknownError,
    StorageError,
)
from lunalog.master import MemoryStore, MetadataStore, SqliteStore, records
from lunalog.runtime import SystemRuntime
from lunalog.testing.metadata import SimulatedStore


@pytest.fixture(params=["memory", "sqlite", "simulated"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MetadataStore]:
    made: MetadataStore
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "deep" / "metadata.sqlite", SystemRuntime())
    else:
        made = SimulatedStore(random.Random(1))
    await made.start()
    yield made
    await made.stop()


async def test_a_key_that_was_never_written_is_absent(store: MetadataStore) -> None:
    assert await store.get("a") is None
    assert await store.scan("") == []


async def test_what_is_put_is_read_with_the_version_that_was_returned(store: MetadataStore) -> None:
    version = await store.transact({"a": 0}, {"a": b"1", "b": b"2"})
    assert version
    assert await store.get("a") == (b"1", version)
    assert await store.get("b") == (b"2", version)


async def test_a_compare_that_fails_changes_nothing(store: MetadataStore) -> None:
    first = await store.transact({}, {"a": b"1"})
    assert first
    assert await store.transact({"a": 0}, {"a": b"2", "b": b"2"}) is None
    assert await store.transact({"a": first, "c": 1}, {"a": b"2"}, ["a"]) is None
    assert await store.get("a") == (b"1", first)
    assert await store.get("b") is None


async def test_versions_only_grow_also_over_a_delete(store: MetadataStore) -> None:
    first = await store.transact({}, {"a": b"1"})
    assert first
    assert await store.transact({"a": first}, {}, ["a"])
    assert await store.get("a") is None
    second = await store.transact({"a": 0}, {"a": b"1"})
    assert second
    assert second > first


async def test_scan_finds_a_prefix_in_order(store: MetadataStore) -> None:
    await store.transact(
        {}, {"row/b/2": b"", "row/a/2": b"", "row/a/10": b"", "rowx": b"", "r": b""}
    )
    assert [key for key, _ in await store.scan("row/")] == ["row/a/10", "row/a/2", "row/b/2"]


async def test_of_many_at_once_on_one_key_one_wins(store: MetadataStore) -> None:
    results = await asyncio.gather(*(store.transact({"a": 0}, {"a": b"%d" % n}) for n in range(20)))
    assert sum(result is not None for result in results) == 1
    winner = next(n for n, result in enumerate(results) if result is not None)
    found = await store.get("a")
    assert found
    assert found.value == b"%d" % winner


async def test_sqlite_keeps_all_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    store = SqliteStore(path, SystemRuntime())
    await store.start()
    version = await store.transact({}, {"a": b"1"})
    await store.stop()
    await store.stop()
    with pytest.raises(ClosedError):
        await store.get("a")
    again = SqliteStore(path, SystemRuntime())
    await again.start()
    assert await again.get("a") == (b"1", version)
    newer = await again.transact({"a": version or 0}, {"a": b"2"})
    assert newer
    assert version
    assert newer > version
    await again.stop()


async def test_sqlite_lets_one_process_in(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    store = SqliteStore(path, SystemRuntime())
    await store.start()
    with pytest.raises(DirectoryLockedError):
        await SqliteStore(path, SystemRuntime()).start()
    await store.transact({}, {"a": b"1"})
    await store.stop()


async def test_sqlite_tells_a_strange_file_from_its_own(tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(CorruptRecordError):
        await SqliteStore(strange, SystemRuntime()).start()
    with pytest.raises(StorageError):
        await SqliteStore(tmp_path, SystemRuntime()).start()


async def test_simulated_a_lost_reply_was_applied() -> None:
    store = SimulatedStore(random.Random(1))
    store.faults.lost_reply = 1.0
    with pytest.raises(OutcomeUnknownError):
        await store.transact({}, {"a": b"1"})
    assert await store.get("a") is not None


async def test_simulated_a_late_one_lands_after_others_and_by_its_own_compares() -> None:
    store = SimulatedStore(random.Random(1))
    store.faults.late = 1.0
    store.faults.late_calls = 1
    with pytest.raises(OutcomeUnknownError):
        await store.transact({"a": 0}, {"a": b"late"})
    store.faults.late = 0.0
    assert (await store.get("b"), (await store.get("a"))) != (None, None)
    store.faults.late, store.faults.late_calls = 1.0, 8
    with pytest.raises(OutcomeUnknownError):
        await store.transact({"b": 0}, {"b": b"late"})
    store.faults.late = 0.0
    await store.transact({}, {"b": b"first"})
    for _ in range(10):
        await store.get("b")
    found = await store.get("b")
    assert found
    assert found.value in (b"first", b"late")  # it may have landed before `first`, never over it


async def test_simulated_crash_before_or_after() -> None:
    for when, applied in (("before", False), ("after", True)):
        store = SimulatedStore(random.Random(1))
        crashed: list[str] = []
        store.crash_at(1, when, lambda crashed=crashed: crashed.append("yes"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await store.transact({}, {"a": b"1"})
        assert crashed == ["yes"]
        assert (await store.get("a") is not None) is applied


async def test_simulated_crashes_wait_each_for_its_own_transaction() -> None:
    store = SimulatedStore(random.Random(1))
    crashed: list[str] = []
    for name in ("found", "activate"):
        store.crash_at(name, "before", lambda name=name: crashed.append(name))
    for key, found in ((records.ACTIVE, ["activate"]), (records.CLUSTER, ["activate", "found"])):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await store.transact({}, {key: b"1"})
        assert crashed == found
        assert await store.transact({}, {key: b"1"}) is not None


def test_simulated_a_crash_is_before_or_after_a_transaction() -> None:
    with pytest.raises(ValueError, match="before or after, not 'while'"):
        SimulatedStore().crash_at(1, "while", lambda: None)
