"""Disks that refuse, programs that are not there, processes that end in between: told, and survived."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from lunalog.errors import ClosedError, StorageError
from lunalog.orchestrator import dev, process
from lunalog.orchestrator.dev import DevCluster, DevDirectory
from lunalog.orchestrator.local import LocalOrchestrator, live_servers
from lunalog.orchestrator.process import PidRecord, boot_id, start_time, watch_lifeline
from lunalog.runtime import SystemRuntime

MASTER = ("127.0.0.1", 7600)


def orchestrator(base: Path, program: str = "/nowhere/to/be/found") -> LocalOrchestrator:
    return LocalOrchestrator(
        SystemRuntime(), base, lifeline=None, command=lambda *_: [program, "60"]
    )


async def test_a_directory_that_cannot_be_used_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="no server was started"):
        await orchestrator(tmp_path / "file" / "below").start("c1", MASTER)


async def test_a_server_whose_directory_cannot_be_made_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    made = orchestrator(tmp_path)
    await made.start("c1", MASTER)
    with pytest.raises(StorageError, match=r"cannot create .*; nothing was started"):
        await made.provision("a")
    await made.stop(end_servers=True)


async def test_a_program_that_is_not_there_is_a_failure_of_its_server(tmp_path: Path) -> None:
    (tmp_path / "a" / "data").mkdir(parents=True)  # a server that was there before
    made = orchestrator(tmp_path)
    await made.start("c1", MASTER)
    with pytest.raises(StorageError, match="cannot start /nowhere"):
        await made.provision("b")
    async with asyncio.timeout(60):
        while not (await made.list())[0].failures:
            await asyncio.sleep(0.01)
    assert not (await made.list())[0].alive
    await made.stop(end_servers=True)


async def test_a_retired_server_whose_files_cannot_be_moved_is_told(tmp_path: Path) -> None:
    (tmp_path / "a" / "data").mkdir(parents=True)
    made = orchestrator(tmp_path)
    await made.start("c1", MASTER)
    (tmp_path / "retired").write_text("a file")
    with pytest.raises(StorageError, match=r"a has ended, but .* cannot be moved"):
        await made.deprovision("a")
    await made.stop(end_servers=True)


def test_where_nothing_is_nothing_lives(tmp_path: Path) -> None:
    assert live_servers(tmp_path / "none") == {}


def test_a_process_that_ends_before_the_signal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    started = start_time(os.getpid())
    assert started is not None
    me = PidRecord(pid=os.getpid(), started=started, boot=boot_id())

    def gone(*_: int) -> None:
        raise ProcessLookupError

    assert me.send(0)
    monkeypatch.setattr(process.os, "kill", gone)
    assert not me.send(0)


def test_a_kernel_that_tells_no_boot_id_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert boot_id() == ""


def test_a_lifeline_that_cannot_be_read_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    told, exited = threading.Event(), threading.Event()
    monkeypatch.setattr(process.os, "_exit", lambda code: exited.set())
    reading, writing = os.pipe()
    try:
        watch_lifeline(writing, told.set, grace_s=0.0)
        assert told.wait(60)
        assert exited.wait(60)
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_cluster_that_is_not_up_has_no_lifeline_and_no_last_words(tmp_path: Path) -> None:
    directory = DevDirectory(tmp_path)
    assert directory.last_words() == ""
    cluster: Any = DevCluster(SystemRuntime(), tmp_path, servers=3)
    with pytest.raises(ClosedError, match="not up"):
        _ = cluster.lifeline


async def test_a_master_that_cannot_be_started_gives_the_cluster_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("no room for a log")

    monkeypatch.setattr(dev, "spawn", refuse)
    cluster = DevCluster(SystemRuntime(), tmp_path, servers=3)
    await cluster.start()
    async with asyncio.timeout(60):
        await cluster.given_up.wait()
    assert cluster.failed == "no room for a log"
    await cluster.stop()
