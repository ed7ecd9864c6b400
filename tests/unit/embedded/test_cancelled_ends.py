"""Whatever is cancelled while a cluster starts or stops, nothing of it is left: locks, files, tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lunalog import DirectoryLockedError, SingleWriteJournal
from lunalog.client.url import FileUrl, MemoryUrl
from lunalog.embedded import cluster
from lunalog.embedded.cluster import EmbeddedCluster
from lunalog.master.memory import MemoryStore
from lunalog.storage import identity
from lunalog.storage.files import SystemDisk

TURNS_MAX = 2_000
"""More than any start or stop in memory takes."""


class OpenOrClosed(MemoryStore):
    is_open = False

    async def start(self) -> None:
        await super().start()
        self.is_open = True

    async def stop(self) -> None:
        self.is_open = False


Make = Callable[[], tuple[EmbeddedCluster, OpenOrClosed]]


async def cancel_twice(work: Coroutine[Any, Any, None], turn: int) -> bool:
    """Cancel `work` in its `turn`-th turn of the loop and in the next one; false if it was over."""
    task = asyncio.ensure_future(work)
    for _ in range(turn):
        await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    if not task.cancelled():
        await task
    return task.cancelled()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made() -> tuple[EmbeddedCluster, OpenOrClosed]:
        store = OpenOrClosed()
        monkeypatch.setattr(cluster, "MemoryStore", lambda: store)
        return cluster.make(MemoryUrl("ended")), store

    return made


async def check_nothing_is_left(left: EmbeddedCluster, store: OpenOrClosed) -> None:
    assert not store.is_open
    for server in left.servers:
        await server.disk.lock()  # raises if it is still taken
    assert left.runtime.error is None
    running = asyncio.all_tasks() - {asyncio.current_task()}
    assert not running, running


async def test_a_stop_that_is_cancelled_twice_ends_everything(make: Make) -> None:
    for turn in range(1, TURNS_MAX):
        found, store = make()
        await found.start()
        was_cancelled = await cancel_twice(found.stop(), turn)
        await check_nothing_is_left(found, store)
        if not was_cancelled:
            assert turn > 10
            return
    raise AssertionError("a stop has no end")


async def test_a_start_that_is_cancelled_twice_leaves_nothing_behind(make: Make) -> None:
    for turn in range(1, TURNS_MAX):
        found, store = make()
        was_cancelled = await cancel_twice(found.start(), turn)
        if not was_cancelled:
            assert turn > 10
            await found.stop()
            return
        await check_nothing_is_left(found, store)
    raise AssertionError("a start has no end")


async def test_a_directory_is_free_again_only_when_no_thread_works_on_it(tmp_path: Path) -> None:
    """Boot is held up on its thread; who gives up the start waits for it before the lock goes."""
    before = set(threading.enumerate())
    found = cluster.make(FileUrl(str(tmp_path)))
    (server,) = found.servers
    entered, release = threading.Event(), threading.Event()
    names = server.disk.names

    async def slow() -> list[str]:
        entered.set()
        release.wait()
        return await names()

    server.disk.names = slow  # type: ignore[method-assign]
    starting = asyncio.ensure_future(found.start())
    try:
        await asyncio.to_thread(entered.wait)
        for _ in range(2):
            starting.cancel()
            await asyncio.sleep(0)
        with pytest.raises(DirectoryLockedError):
            await identity.lock(SystemDisk(tmp_path / "server"))
    finally:
        release.set()
    await asyncio.wait([starting])
    assert starting.cancelled()
    async with SingleWriteJournal.connect(f"file://{tmp_path}") as journal:
        await journal.create_stream("orders")
    left = set(threading.enumerate()) - before
    assert not [t.name for t in left if t.name.startswith("lunalog")]
