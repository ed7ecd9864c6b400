"""The log on real threads and a real directory: lone puts on the loop, the rest on the writer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.storage.conftest import (
    SEGMENT,
    STREAM,
    Memory,
    Owner,
    essence,
    fill,
)

from lunalog import limits
from lunalog.config import ServerConfig
from lunalog.errors import StorageError
from lunalog.runtime import SystemRuntime
from lunalog.storage.files import SystemDisk
from lunalog.storage.records import ControlRecord

CONFIG = ServerConfig(
    extent_bytes=256 << 10, reserve_bytes=0, inline_sync_ms_max=60_000, idle_batch_ms=60_000
)


class RealRuntime(SystemRuntime):
    """Remembers failures instead of ending the process."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[BaseException] = []

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)


class RealLog:
    """Lives of one log in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.memory = Memory()
        self.runtime = RealRuntime()
        self.config = CONFIG

    async def open(self) -> Owner:
        disk = SystemDisk(self.path)
        return await Owner(self.runtime, disk, self.memory, self.config).open()  # type: ignore[arg-type]


@pytest.fixture
def real(tmp_path: Path) -> RealLog:
    return RealLog(tmp_path / "data")


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that called fdatasync, as they do."""
    seen: list[str] = []
    sync = os.fdatasync

    def note(fd: int) -> None:
        seen.append(threading.current_thread().name)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", note)
    return seen


async def test_lone_puts_are_committed_on_the_loop_and_heaps_on_the_writer(
    real: RealLog, syncs: list[str]
) -> None:
    owner = await real.open()
    held = await fill(owner, 1)
    main = threading.current_thread().name
    syncs.clear()
    for _ in range(5):
        owner.append(held)
        await owner.log.flush()
    assert syncs == [main] * 5
    syncs.clear()
    owner.append(held, size=100 * limits.KIB)
    owner.append(held)
    await owner.log.flush()
    assert main not in syncs
    await owner.check()
    await owner.close()
    before = essence(owner.replica)
    again = await real.open()
    await again.check()
    assert essence(again.replica) == before
    await again.close()
    assert real.runtime.failures == []


@pytest.mark.parametrize("settings", [{"inline_sync_ms_max": 0}, {"extent_bytes": 16 << 10}])
async def test_nothing_blocks_the_loop_where_it_must_not(
    real: RealLog, syncs: list[str], settings: dict[str, int]
) -> None:
    """A slow disk, or an extent that has to grow or end: the writer does it."""
    real.config = replace(CONFIG, **settings)
    owner = await real.open()
    held = await fill(owner, 1)
    syncs.clear()
    for _ in range(40):
        owner.append(held, size=900)
        await owner.log.flush()
    main = threading.current_thread().name
    if "inline_sync_ms_max" in settings:
        assert main not in syncs
    else:
        assert {main, "lunalog-wal"} <= set(syncs)
    await owner.check()
    await owner.close()


async def test_puts_under_way_on_the_writer_keep_their_order(real: RealLog) -> None:
    """A small put behind a large one must not overtake it on the loop."""
    owner = await real.open()
    held = await fill(owner, 1)
    told: list[int] = []
    for number in range(60):
        size = 100 * limits.KIB if number % 10 == 0 else 20
        owner.append(held, size=size, told=lambda n=number: told.append(n))
        if number % 3 == 0:
            await asyncio.sleep(0)
    await owner.log.flush()
    assert told == list(range(60))
    await owner.check()
    await owner.close()


@pytest.mark.parametrize("size", [20, 100 * limits.KIB])
async def test_a_failed_sync_ends_the_log_on_either_path(
    real: RealLog, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    owner = await real.open()
    held = await fill(owner, 1)

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", fail)
    owner.append(held, size=size)
    with pytest.raises(StorageError):
        await owner.log.flush()
    monkeypatch.setattr(os, "fdatasync", sync)
    assert isinstance(real.runtime.failures[0], StorageError)
    with pytest.raises(StorageError):
        owner.log.put([])
    with pytest.raises(StorageError):
        await owner.log.flush()
    assert real.memory.ends[STREAM, SEGMENT] == 1
    await owner.close()
    again = await real.open()
    await again.check()
    await again.close()


def run_out_of_memory(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next batch end in what no disk says; those behind it go well."""
    wal = owner.log._wal
    commit = wal.commit

    async def fail(puts: object, flags: int = 0) -> None:
        monkeypatch.setattr(wal, "commit", commit)
        raise MemoryError

    monkeypatch.setattr(wal, "commit", fail)


@pytest.mark.parametrize("size", [20, 100 * limits.KIB])
async def test_p5_nothing_is_told_behind_a_batch_that_was_lost_to_a_bug(
    real: RealLog, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """An ack tells of all below it: behind a frame that is silently not written it would be a lie."""
    owner = await real.open()
    held = await fill(owner, 1)
    run_out_of_memory(owner, monkeypatch)
    told: list[str] = []
    owner.append(held, size=size, told=lambda: told.append("lost"))
    await asyncio.sleep(0)
    with contextlib.suppress(StorageError):
        owner.append(held, told=lambda: told.append("behind it"))
    await asyncio.wait([asyncio.ensure_future(owner.log.flush())], timeout=5)
    assert told == []
    assert isinstance(real.runtime.failures[0], MemoryError)
    await asyncio.wait_for(owner.close(), 5)
    again = await real.open()
    await again.check()
    await again.close()


async def test_p5_a_batch_that_cannot_be_told_of_ends_the_log(real: RealLog) -> None:
    """A durable batch closes an extent, and what a checkpoint must keep cannot be told."""
    real.config = replace(CONFIG, extent_bytes=16 << 10)
    owner = await real.open()
    held = await fill(owner, 1)

    def fail() -> list[ControlRecord]:
        raise MemoryError

    async def run() -> None:
        for _ in range(40):
            owner.append(held, size=900)
            await asyncio.wait_for(owner.log.flush(), 5)

    owner.log.snapshot = fail
    with pytest.raises(StorageError, match="MemoryError"):
        await run()
    assert isinstance(real.runtime.failures[0], MemoryError)
    await asyncio.wait_for(owner.close(), 5)
    again = await real.open()
    await again.check()
    await again.close()


async def test_a_real_directory_survives_many_lives(real: RealLog) -> None:
    real.config = replace(CONFIG, extent_bytes=64 << 10)
    for _ in range(6):
        owner = await real.open()
        await owner.check()
        held = owner.open_segment()
        for _ in range(15):
            owner.append(held, size=3000)
        await owner.log.flush()
        await owner.check()
        before = essence(owner.replica)
        await owner.close()
    again = await real.open()
    assert essence(again.replica) == before
    assert again.log.damage == []
    await again.close()
