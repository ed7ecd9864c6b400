"""Servers as processes, with a stand-in for the server."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from lunalog.errors import BadNameError, WrongClusterError
from lunalog.orchestrator import local
from lunalog.orchestrator.local import LocalOrchestrator, live_servers, server_command
from lunalog.orchestrator.process import start_time
from lunalog.runtime import SystemRuntime

STAND_IN = str(Path(__file__).parent / "stand_in.py")
MASTER = ("127.0.0.1", 7600)


def stand_in(name, directory, masters):
    return [sys.executable, STAND_IN, str(directory), masters]


@pytest.fixture
async def make(tmp_path, monkeypatch):
    """Orchestrators on one base directory; whatever they started is ended."""
    monkeypatch.setattr(local, "POLL_S", 0.02)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    made = []

    def build(**more):
        made.append(LocalOrchestrator(SystemRuntime(), tmp_path, command=stand_in, **more))
        return made[-1]

    yield build
    for orchestrator in made:
        await orchestrator.stop(end_servers=True)
    for pid in live_servers(tmp_path).values():
        os.kill(pid, signal.SIGKILL)


async def until(holds, seconds=60):
    async with asyncio.timeout(seconds):
        while not (found := holds()):
            await asyncio.sleep(0.01)
    return found


async def up(orchestrator, tmp_path, names):
    await until(lambda: set(names) <= set(live_servers(tmp_path)))
    return live_servers(tmp_path)


async def test_servers_are_named_started_listed_and_retired(make, tmp_path):
    orchestrator = make()
    await orchestrator.start("c1", MASTER)
    assert await orchestrator.list() == []
    assert [await orchestrator.provision() for _ in range(2)] == ["s1", "s2"]
    assert await orchestrator.provision("s2") == "s2"
    pids = await up(orchestrator, tmp_path, ["s1", "s2"])
    infos = await orchestrator.list()
    assert [(i.name, i.pid, i.alive) for i in infos] == [
        ("s1", pids["s1"], True),
        ("s2", pids["s2"], True),
    ]
    log = tmp_path / "s1" / "server.log"
    assert await until(log.read_text) == "up\n"
    await orchestrator.deprovision("s1")
    await orchestrator.deprovision("s1")
    assert start_time(pids["s1"]) is None
    assert [i.name for i in await orchestrator.list()] == ["s2"]
    assert (tmp_path / "retired" / "s1-1" / "data").is_dir()
    assert await orchestrator.provision() == "s1"


async def test_a_server_that_was_killed_comes_back_on_its_own_directory(make, tmp_path):
    orchestrator = make()
    await orchestrator.start("c1", MASTER)
    await orchestrator.provision("a")
    first = (await up(orchestrator, tmp_path, ["a"]))["a"]
    (tmp_path / "a" / "data" / "keep").write_text("me")
    os.kill(first, signal.SIGKILL)
    second = await until(lambda: live_servers(tmp_path).get("a", first) != first)
    assert second
    assert (tmp_path / "a" / "data" / "keep").read_text() == "me"


async def test_one_that_never_comes_up_is_told_as_failing(make, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "BACKOFF_S", 0.001)
    orchestrator = make()
    await orchestrator.start("c1", MASTER)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken").write_text("")
    await orchestrator.provision("a")

    async with asyncio.timeout(60):
        while not (await orchestrator.list())[0].is_failing:
            await asyncio.sleep(0.02)
    (tmp_path / "a" / "broken").unlink()
    await up(orchestrator, tmp_path, ["a"])


async def test_the_next_master_adopts_what_lives(make, tmp_path):
    first = make()
    await first.start("c1", MASTER)
    await first.provision("a")
    await first.provision("b")
    pids = await up(first, tmp_path, ["a", "b"])
    await first.stop(end_servers=False)
    os.kill(pids["b"], signal.SIGKILL)

    second = make()
    await second.start("c1", MASTER)
    found = {i.name: i for i in await second.list()}
    assert found["a"].pid == pids["a"]
    await until(lambda: live_servers(tmp_path).get("b", pids["b"]) != pids["b"])
    os.kill(pids["a"], signal.SIGKILL)
    await until(lambda: live_servers(tmp_path).get("a", pids["a"]) != pids["a"])


async def test_one_that_looks_for_another_master_is_restarted(make, tmp_path):
    first = make()
    await first.start("c1", MASTER)
    await first.provision("a")
    pid = (await up(first, tmp_path, ["a"]))["a"]
    await first.stop(end_servers=False)
    second = make()
    await second.start("c1", ("127.0.0.1", 7700))
    await until(lambda: live_servers(tmp_path).get("a", pid) != pid)


async def test_servers_are_restarted_when_what_they_are_started_with_changes(make, tmp_path):
    """Such as a cluster that goes over to TLS, with its master at the address it had."""
    first = make()
    await first.start("c1", MASTER)
    await first.provision("a")
    pid = (await up(first, tmp_path, ["a"]))["a"]
    await first.stop(end_servers=False)
    second = make(options=("--tls-certificate", "c.pem"))
    await second.start("c1", MASTER)
    again = await until(
        lambda: live_servers(tmp_path).get("a", pid) != pid and live_servers(tmp_path)
    )
    await second.stop(end_servers=False)
    third = make(options=("--tls-certificate", "c.pem"))
    await third.start("c1", MASTER)
    assert {info.name: info.pid for info in await third.list()} == again


async def test_servers_of_another_cluster_are_left_alone(make):
    first = make()
    await first.start("c1", MASTER)
    with pytest.raises(WrongClusterError, match="c1"):
        await make().start("c2", MASTER)


async def test_a_stubborn_one_is_killed_after_the_grace(make, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "TERM_GRACE_S", 0.2)
    orchestrator = make()
    await orchestrator.start("c1", MASTER)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "stubborn").write_text("")
    await orchestrator.provision("a")
    await until(lambda: (tmp_path / "a" / "server.log").read_text() == "up\n")
    pid = live_servers(tmp_path)["a"]
    await orchestrator.deprovision("a")
    assert start_time(pid) is None


async def test_one_that_was_told_to_leave_is_not_started_again(make, tmp_path):
    orchestrator = make()
    await orchestrator.start("c1", MASTER)
    await orchestrator.provision("a")
    pid = (await up(orchestrator, tmp_path, ["a"]))["a"]
    (tmp_path / "a" / "leaves").write_text("")
    os.kill(pid, signal.SIGTERM)
    await until(lambda: not live_servers(tmp_path))
    await asyncio.sleep(0.2)
    assert [(i.name, i.alive) for i in await orchestrator.list()] == [("a", False)]
    await orchestrator.provision("a")
    await up(orchestrator, tmp_path, ["a"])


async def test_a_name_that_is_none_starts_nothing(make, tmp_path):
    orchestrator = make()
    await orchestrator.start("c1", MASTER)
    with pytest.raises(BadNameError):
        await orchestrator.provision("no/slash")
    assert await orchestrator.list() == []
    assert live_servers(tmp_path) == {}


async def test_servers_end_with_the_lifeline(make, tmp_path):
    read_end, write_end = os.pipe()
    orchestrator = make(lifeline=read_end)
    await orchestrator.start("c1", MASTER)
    await orchestrator.provision("a")
    await up(orchestrator, tmp_path, ["a"])
    await orchestrator.stop(end_servers=False)
    os.close(write_end)
    await until(lambda: not live_servers(tmp_path))
    os.close(read_end)


def test_the_real_command_names_everything(tmp_path):
    command = server_command("s1", tmp_path / "s1", "127.0.0.1:7600")
    assert command[1:4] == ["-m", "lunalog", "server"]
    assert command[command.index("--data") + 1] == str(tmp_path / "s1" / "data")
