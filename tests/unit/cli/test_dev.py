"""`lunalog dev` in this process, on a cluster that does what the test says."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lunalog.cli import dev, exits
from lunalog.cli.main import main
from lunalog.cli.options import DEFAULT_URL, Settings
from lunalog.errors import MasterUnavailableError
from lunalog.orchestrator import dev as orchestrated
from lunalog.orchestrator import process

SETTINGS = Settings(DEFAULT_URL, "table", None, False)


class Home:
    """A directory of processes, each of which ends by the signals it heeds."""

    path = Path("/data/dev")
    log = Path("/data/dev/none.log")
    servers = path / "servers"

    def __init__(
        self,
        *names: str,
        is_held: bool = False,
        is_stubborn: bool = False,
        is_immortal: bool = False,
        lingers: int = 0,
    ) -> None:
        self.names = {name: 100 + at for at, name in enumerate(names)}
        self.is_held, self.is_stubborn, self.is_immortal = is_held, is_stubborn, is_immortal
        self.lingers = lingers
        """So often the process that held it is still there when it has let go of its file."""
        self.sent: list[Any] = []

    def holder(self) -> Any:
        return Holder(self) if self.is_held else None

    def is_alive(self) -> bool:
        if self.is_held:
            return True
        self.lingers -= 1
        return self.lingers >= 0

    def url(self) -> str | None:
        return "lunalog://127.0.0.1:7601" if self.is_held else None

    def send(self, signum: int) -> None:
        self.sent.append(signum)
        if (signum == signal.SIGKILL or not self.is_stubborn) and not self.is_immortal:
            self.is_held = False
        if not self.is_stubborn:
            self.names.clear()

    def members(self) -> dict[str, int]:
        return dict(self.names)

    def kill(self, name: str) -> int:
        self.sent.append(name)
        return self.names.pop(name, 0)


class Holder:
    """The process that holds a directory, as it was when somebody looked."""

    pid = 99

    def __init__(self, home: Home) -> None:
        self.home, self.send = home, home.send

    @property
    def is_alive(self) -> bool:
        return self.home.is_alive()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "PAUSE_S", 0.0)


# ------------------------------------------------------------------ down, status, kill


async def test_where_nothing_is_up_down_has_nothing_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = Home()
    assert await dev._down(home) == exits.OK  # type: ignore[arg-type]
    assert (home.sent, capsys.readouterr().err) == ([], "no cluster is up in /data/dev\n")


async def test_down_asks_and_waits_until_all_have_ended(capsys: pytest.CaptureFixture[str]) -> None:
    home = Home("master", "s1", is_held=True)
    assert await dev._down(home) == exits.OK  # type: ignore[arg-type]
    assert home.sent == [signal.SIGTERM]
    assert "its data stay" in capsys.readouterr().err


async def test_down_waits_also_for_the_process_that_held_the_cluster() -> None:
    """It lets go of its pid file a little before it ends."""
    home = Home("master", "s1", is_held=True, lingers=3)
    assert await dev._down(home) == exits.OK  # type: ignore[arg-type]
    assert (home.lingers, home.sent) == (-1, [signal.SIGTERM])


async def test_down_says_who_does_not_even_die(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "END_S", 0.0)
    home = Home("s1", is_held=True, is_stubborn=True, is_immortal=True)
    with pytest.raises(
        exits.CommandError, match=r"although they were killed: dev up \(process 99\)"
    ):
        await dev._down(home)  # type: ignore[arg-type]
    assert home.sent == [signal.SIGTERM, signal.SIGKILL, "s1"]


class Hung(Home):
    """A directory whose servers do not heed even a kill."""

    def kill(self, name: str) -> int:
        self.sent.append(name)
        return self.names[name]


async def test_who_has_ended_is_not_among_those_who_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "END_S", 0.0)
    for home in (Hung("s1", is_held=True, is_stubborn=True), Hung("s1")):
        with pytest.raises(
            exits.CommandError, match=r"were killed: s1 \(process 100\); their data"
        ):
            await dev._down(home)  # type: ignore[arg-type]


def test_processes_are_listed_as_people_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home("s1", "s10", "s2", "master", is_held=True)
    monkeypatch.setattr(dev, "_find", lambda *_: home)

    async def states(_: Settings) -> dict[str, dict[str, str]]:
        return {"s11": {"state": "lost"}, "s2": {"state": "alive"}}

    monkeypatch.setattr(dev, "_states", states)
    assert main(["dev", "kill", "nope"]) == exits.NOT_FOUND
    assert "these do: master, s1, s2, s10\n" in capsys.readouterr().err
    assert main(["dev", "status"]) == exits.OK
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["NAME", "master", "s1", "s2", "s10", "s11"]


async def test_down_ends_what_a_killed_holder_has_left() -> None:
    home = Home("master", "s1")
    assert await dev._down(home) == exits.OK  # type: ignore[arg-type]
    assert home.sent == ["master", "s1"]


async def test_down_kills_who_does_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "END_S", 0.0)
    home = Home("master", "s1", is_held=True, is_stubborn=True)
    assert await dev._down(home) == exits.OK  # type: ignore[arg-type]
    assert home.sent == [signal.SIGTERM, signal.SIGKILL, "master", "s1"]


def test_of_a_cluster_that_is_not_up_there_is_no_status_and_nobody_to_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["dev", "status"]) == exits.UNAVAILABLE
    told = f"error: no cluster is up in {tmp_path}/lunalog/dev; `lunalog dev up` starts one\n"
    assert capsys.readouterr().err == told
    assert main(["dev", "kill", "s7"]) == exits.NOT_FOUND
    assert "nothing was killed; no cluster is up; `lunalog dev up`" in capsys.readouterr().err
    assert main(["dev", "status", "--dir", "/data/my dev"]) == exits.UNAVAILABLE
    assert "`lunalog dev up --dir '/data/my dev'` starts one" in capsys.readouterr().err
    assert main(["dev", "down"]) == exits.OK


def test_a_cluster_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "_find", lambda *_: Home(is_held=True))
    with pytest.raises(exits.CommandError, match=r"is up already, at lunalog://127\.0\.0\.1:7601"):
        dev.refuse_second(Home(is_held=True))  # type: ignore[arg-type]
    assert main(["dev", "up", "--detach"]) == exits.CONFLICT
    dev.refuse_second(Home())  # type: ignore[arg-type]


def test_only_a_cluster_that_is_not_where_all_look_needs_a_hint() -> None:
    assert dev.hint(DEFAULT_URL) == ""
    assert dev.hint("lunalog://h:1") == "export LUNALOG_URL=lunalog://h:1\n"


# ------------------------------------------------------------------ up


class Cluster:
    """What `DevCluster` is to the command."""

    url = "lunalog://127.0.0.1:7601"

    def __init__(self, *_: Any, **__: Any) -> None:
        self.directory = Home("master", "s1")
        self.failed: str | None = None
        self.given_up = asyncio.Event()
        self.is_up = self.has_stopped = False
        self.stopping = asyncio.Event()
        self.stopping.set()

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await self.stopping.wait()
        self.has_stopped = True

    def note_up(self) -> None:
        self.is_up = True


class Journal:
    """Of three servers more are alive each time somebody looks."""

    def __init__(self, wanted: int | None = 3, alive: int = 0) -> None:
        self.wanted, self.alive = wanted, alive
        self.grows = True

    async def servers(self) -> Any:
        self.alive += self.grows
        listed = [SimpleNamespace(state="alive")] * self.alive + [SimpleNamespace(state="lost")]
        return SimpleNamespace(wanted=self.wanted, servers=listed)

    async def scale(self, wanted: int) -> None:
        self.wanted = wanted


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    """What the command connects to; the first time nobody answers."""
    made, asked = Journal(), []

    @asynccontextmanager
    async def connected(settings: Settings, *, tells_waiting: bool) -> AsyncIterator[Journal]:
        asked.append(settings.cluster)
        if len(asked) == 1:
            raise MasterUnavailableError("nobody there")
        assert settings.cluster == Cluster.url
        yield made

    monkeypatch.setattr(dev, "connected", connected)
    return made


@pytest.mark.parametrize(("servers", "alive"), [(None, 3), (5, 5)])
async def test_a_cluster_is_ready_when_all_that_were_asked_for_live(
    journal: Journal, servers: int | None, alive: int
) -> None:
    cluster = Cluster()
    assert await dev.ready(SETTINGS, cluster, servers) == alive  # type: ignore[arg-type]
    assert cluster.is_up
    assert journal.wanted == alive


async def test_a_cluster_whose_servers_do_not_come_is_told_with_where_to_look(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "READY_S", 0.02)
    journal.grows = False
    with pytest.raises(exits.CommandError, match=r"only 0 of 3 servers are up after 0\.02 s"):
        await dev.ready(SETTINGS, Cluster(), None)  # type: ignore[arg-type]


async def test_a_cluster_that_cannot_start_says_why(journal: Journal) -> None:
    cluster = Cluster()
    cluster.failed = "the port is in use"
    with pytest.raises(exits.CommandError, match="cannot start: the port is in use"):
        await dev.ready(SETTINGS, cluster, None)  # type: ignore[arg-type]


async def test_a_cluster_that_gives_up_ends_the_command_and_is_stopped(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster()
    monkeypatch.setattr(orchestrated, "DevCluster", lambda *_, **__: cluster)
    running = asyncio.get_running_loop().create_task(
        dev._foreground(SETTINGS, Home(), None, "127.0.0.1", 7601)  # type: ignore[arg-type]
    )
    while not cluster.is_up:
        await asyncio.sleep(0)
    cluster.failed = "the master ends again and again"
    cluster.given_up.set()
    with pytest.raises(exits.CommandError, match="gave up: the master ends again") as found:
        await running
    assert found.value.exit_code == exits.UNAVAILABLE
    assert cluster.has_stopped
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("lunalog is up at lunalog://127.0.0.1:7601: master and 3 servers")
    assert told[1:3] == ["export LUNALOG_URL=lunalog://127.0.0.1:7601", "Ctrl-C ends it"]
    assert told[-1] == "the cluster is down; its data stay in /data/dev"


async def test_a_second_ctrl_c_kills_what_takes_its_time() -> None:
    cluster = Cluster()
    cluster.stopping.clear()
    ending = asyncio.get_running_loop().create_task(dev.end_in_peace(cluster))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.sleep(0)
    assert cluster.directory.sent == ["master", "s1"]
    assert not ending.done()
    cluster.stopping.set()
    await ending
    assert cluster.has_stopped


# ------------------------------------------------------------------ up --detach


class Child:
    """A process that has ended, or lives until it is told to end."""

    def __init__(self, returncode: int | None) -> None:
        self.returncode = returncode
        self.has_been_told = False

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.has_been_told = True

    def wait(self) -> int:
        assert self.has_been_told
        return 0


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Have a child take the place of the process that is started, and say something."""

    def begin(returncode: int | None, said: str | None = None) -> tuple[Home, Child, list[Any]]:
        child, started = Child(returncode), []
        home = Home(is_held=True)
        home.log = tmp_path / "up.log"
        home.log.write_text("of another time")

        def spawn(arguments: list[str], log: Path) -> Child:
            assert not log.exists()
            if said is not None:
                log.write_text(said)
            started.extend(arguments)
            return child

        monkeypatch.setattr(orchestrated, "free_port", lambda *_: None)
        monkeypatch.setattr(process, "spawn", spawn)
        monkeypatch.setattr(process, "forget", started.append)
        return home, child, started

    return begin


async def test_a_detached_cluster_is_left_running_when_it_says_that_it_is_up(
    spawned: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    home, child, started = spawned(None, "starting\nlunalog is up at lunalog://127.0.0.1:7601: x\n")
    done = await dev._detach(SETTINGS, home, 5, "127.0.0.1", 7601)
    assert done == exits.OK
    assert started[-3:] == ["--servers", "5", child]
    assert not child.has_been_told
    assert capsys.readouterr().err.splitlines() == [
        "lunalog is up at lunalog://127.0.0.1:7601: x",
        "export LUNALOG_URL=lunalog://127.0.0.1:7601",
        "`lunalog dev down --dir /data/dev` ends it",
    ]


def test_what_ends_a_cluster_names_its_directory_where_that_is_not_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home: Any = Home()
    home.path = Path("/data/my dev")
    assert dev.how_to_end(home) == "`lunalog dev down --dir '/data/my dev'` ends it"
    monkeypatch.setenv("LUNALOG_DEV_DIR", "/data/my dev")
    assert dev.how_to_end(home) == "`lunalog dev down` ends it"
    home.path = dev.default_directory()
    assert "--dir" in dev.how_to_end(home), "the environment says another one"
    monkeypatch.delenv("LUNALOG_DEV_DIR")
    assert dev.how_to_end(home) == "`lunalog dev down` ends it"


@pytest.mark.parametrize(
    ("returncode", "said", "told", "code"),
    [
        (4, "trying\nerror: the port is in use\n", "the port is in use", 4),
        (-9, None, "it ended without a word", exits.ERROR),
    ],
)
async def test_a_detached_cluster_that_ends_is_told_with_its_last_word(
    spawned: Any, returncode: int, said: str | None, told: str, code: int
) -> None:
    home, _, _ = spawned(returncode, said)
    with pytest.raises(exits.CommandError, match=told) as found:
        await dev._detach(SETTINGS, home, None, "127.0.0.1", 7601)
    assert found.value.exit_code == code


async def test_a_start_that_is_interrupted_leaves_nothing_behind(spawned: Any) -> None:
    home, child, _ = spawned(None)
    starting = asyncio.get_running_loop().create_task(
        dev._detach(SETTINGS, home, None, "127.0.0.1", 7601)
    )
    for _ in range(3):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert child.has_been_told
