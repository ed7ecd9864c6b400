"""`lunalog dev`: a cluster on this machine, for trying things out."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lunalog.cli import exits
from lunalog.cli.groups import Group
from lunalog.cli.options import (
    DEFAULT_URL,
    PORT,
    Number,
    Settings,
    read_only,
    refuse_cluster,
    without_cluster,
)
from lunalog.cli.render import count, natural, show_rows
from lunalog.cli.running import connected, note, past_return, run
from lunalog.errors import AvailabilityError, LunalogError
from lunalog.wording import shown

if TYPE_CHECKING:
    from lunalog.orchestrator.dev import DevCluster, DevDirectory
    from lunalog.orchestrator.process import PidRecord

READY_S = 30.0
"""How long a cluster may take to be ready."""
END_S = 30.0
PAUSE_S = 0.05
DIRECTORY_VARIABLE = "LUNALOG_DEV_DIR"


def default_directory() -> Path:
    """Return where `dev` keeps its cluster unless told otherwise."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "lunalog" / "dev"


directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=DIRECTORY_VARIABLE,
    help="Where the cluster lives.  [LUNALOG_DEV_DIR; default: ~/.local/share/lunalog/dev]",
)


@click.group("dev", cls=Group)
@without_cluster
def dev_command() -> None:
    """Run a cluster on this machine: a master and journal servers."""


def _find(settings: Settings, directory: Path | None) -> DevDirectory:
    """Return the cluster that is meant; raises `UsageError` for one that cannot be."""
    from lunalog.orchestrator.dev import DevDirectory

    refuse_cluster(settings, "--dir says which cluster of this machine is meant")
    return DevDirectory((directory or default_directory()).absolute())


# ---------------------------------------------------------------------------------------- up


@dev_command.command("up")
@click.option("--servers", type=Number(int, above=0), metavar="N", help="[default: 3]")
@click.option(
    "--host", default="127.0.0.1", metavar="HOST", show_default=True, help="Address of the master."
)
@click.option(
    "--port",
    type=PORT,
    metavar="PORT",
    default=7600,
    show_default=True,
    help="Port of the master; 0: any free one.",
)
@click.option("--detach", is_flag=True, help="Return when it is ready, and leave it running.")
@directory_option
@without_cluster
@click.pass_obj
def up_command(
    settings: Settings,
    /,
    *,
    servers: int | None,
    host: str,
    port: int,
    detach: bool,
    directory: Path | None,
) -> int:
    """Start the cluster.

    In the foreground Ctrl-C, a closed terminal or any death of this process ends all of it;
    with --detach `lunalog dev down` does.  Data stay, and the next `up` finds them.
    """
    home = _find(settings, directory)
    refuse_second(home)
    if detach:
        return run(settings, _detach(settings, home, servers, host, port))
    return run(settings, _foreground(settings, home, servers, host, port))


def refuse_second(home: DevDirectory) -> None:
    """Raise a `CommandError` if the cluster is up."""
    holder = home.holder()
    if holder is not None:
        raise exits.CommandError(
            f"the cluster in {home.path} is up already, at {home.url()} (process {holder.pid}); "
            f"nothing was started; {how_to_end(home)}",
            exits.CONFLICT,
        )


def hint(url: str) -> str:
    """How other commands find a cluster that is not where they look by default."""
    return f"export LUNALOG_URL={url}\n" if url != DEFAULT_URL else ""


def how_to_end(home: DevDirectory) -> str:
    """Say how to end the cluster of `home`, which `dev down` alone may not find."""
    return f"`lunalog dev down{_where(home)}` ends it"


def how_to_start(home: DevDirectory) -> str:
    """Say how to start the cluster of `home`."""
    return f"`lunalog dev up{_where(home)}` starts one"


def _where(home: DevDirectory) -> str:
    usual = Path(os.environ.get(DIRECTORY_VARIABLE) or default_directory()).absolute()
    return "" if home.path == usual else f" --dir {shlex.quote(str(home.path))}"


async def _foreground(
    settings: Settings, home: DevDirectory, servers: int | None, host: str, port: int
) -> int:
    from lunalog.orchestrator.dev import DevCluster
    from lunalog.runtime import SystemRuntime

    cluster = DevCluster(SystemRuntime(), home.path, servers=servers or 3, host=host, port=port)
    settings.has_begun = True
    await cluster.start()
    try:
        alive = await ready(settings, cluster, servers)
        note(
            f"lunalog is up at {cluster.url}: master and {count(alive, 'server')}, "
            f"data in {home.path}"
        )
        note(hint(cluster.url) + "Ctrl-C ends it")
        await cluster.given_up.wait()
        raise exits.CommandError(f"the cluster gave up: {cluster.failed}", exits.UNAVAILABLE)
    finally:
        await end_in_peace(cluster)
        note(f"the cluster is down; its data stay in {home.path}")


async def end_in_peace(cluster: DevCluster) -> None:
    """Stop the cluster; a second Ctrl-C must not leave half of it, but kills it at once."""
    from lunalog.runtime import SystemRuntime, Tasks

    tasks = Tasks(SystemRuntime())
    ending = tasks.start(cluster.stop(), "cluster-stop")
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            for name in cluster.directory.members():
                cluster.directory.kill(name)


async def ready(settings: Settings, cluster: DevCluster, servers: int | None) -> int:
    """Wait until the master answers and the wanted servers live; returns how many."""
    mine = Settings(cluster.url, settings.output, 2.0, settings.verbose)
    deadline = asyncio.get_running_loop().time() + READY_S
    alive, wanted = 0, servers or 3
    while asyncio.get_running_loop().time() < deadline:
        if cluster.failed is not None:
            raise exits.CommandError(f"cannot start: {cluster.failed}", exits.ERROR)
        try:
            async with connected(mine, tells_waiting=False) as journal:
                alive, wanted = await _count(journal, servers, wanted, deadline)
        except AvailabilityError:
            await asyncio.sleep(PAUSE_S)
            continue
        if alive >= wanted:
            cluster.note_up()
            return alive
    raise exits.CommandError(
        f"only {alive} of {wanted} servers are up after {READY_S:g} s; "
        f"see the logs below {cluster.directory.servers}",
        exits.UNAVAILABLE,
    )


async def _count(
    journal: Any, servers: int | None, wanted: int, deadline: float
) -> tuple[int, int]:
    """Poll one connection until all live; scale first if another number was asked for."""
    listed = await journal.servers()
    if servers is not None and listed.wanted != servers:
        await journal.scale(servers)
    while True:
        listed = await journal.servers()
        wanted = listed.wanted if listed.wanted is not None else wanted
        alive = sum(1 for s in listed.servers if s.state == "alive")
        if alive >= wanted or asyncio.get_running_loop().time() >= deadline:
            return alive, wanted
        await asyncio.sleep(PAUSE_S)


async def _detach(
    settings: Settings, home: DevDirectory, servers: int | None, host: str, port: int
) -> int:
    """Start `dev up` in a session of its own and wait until it says that it is ready."""
    from lunalog.orchestrator.dev import free_port
    from lunalog.orchestrator.process import forget, spawn

    free_port(host, port)
    arguments = [sys.executable, "-m", "lunalog", "dev", "up", "--dir", str(home.path)]
    arguments += ["--host", host, "--port", str(port)]
    if servers is not None:
        arguments += ["--servers", str(servers)]
    home.log.unlink(missing_ok=True)
    child = spawn(arguments, home.log)
    try:
        while True:
            said = home.log.read_text(errors="replace") if home.log.exists() else ""
            if "lunalog is up at" in said:
                break
            if child.poll() is not None:
                last = said.strip().splitlines()[-1:] or ["it ended without a word"]
                code = child.returncode if child.returncode > 0 else exits.ERROR
                raise exits.CommandError(last[0].removeprefix("error: "), code)
            await asyncio.sleep(PAUSE_S)
        await past_return()
    except asyncio.CancelledError:
        child.terminate()
        await asyncio.get_running_loop().run_in_executor(None, child.wait)
        raise
    note(next(line for line in said.splitlines() if "lunalog is up at" in line))
    note(hint(home.url() or DEFAULT_URL) + how_to_end(home))
    forget(child)
    return exits.OK


# -------------------------------------------------------------------------- down, status, kill


@dev_command.command("down")
@directory_option
@without_cluster
@click.pass_obj
def down_command(settings: Settings, directory: Path | None) -> int:
    """End the cluster; its data stay."""
    return run(settings, _down(_find(settings, directory)))


async def _down(home: DevDirectory) -> int:
    holder = home.holder()
    if holder is None and not home.members():
        note(f"no cluster is up in {home.path}")
        return exits.OK
    if holder is not None:
        holder.send(signal.SIGTERM)
    if holder is None or await _left(home, holder):
        if holder is not None:
            holder.send(signal.SIGKILL)
        for name in home.members():
            home.kill(name)
        if left := await _left(home, holder):
            raise exits.CommandError(
                "these do not end although they were killed: "
                + ", ".join(f"{name} (process {pid})" for name, pid in sorted(left.items()))
                + f"; their data stay in {home.path}; a disk that hangs may hold them"
            )
    note(f"the cluster is down; its data stay in {home.path}")
    return exits.OK


async def _left(home: DevDirectory, holder: PidRecord | None) -> dict[str, int]:
    """Wait until all have ended, `dev up` itself as the last; returns who takes too long."""
    deadline = asyncio.get_running_loop().time() + END_S
    while left := _living(home, holder):
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(PAUSE_S)
    return left


def _living(home: DevDirectory, holder: PidRecord | None) -> dict[str, int]:
    found = home.members()
    if holder is not None and holder.is_alive:
        found = {**found, "dev up": holder.pid}
    return found


@dev_command.command("status")
@directory_option
@without_cluster
@click.pass_obj
@read_only
def status_command(settings: Settings, directory: Path | None) -> int:
    """Print the processes of the cluster; exit 5 if it is not up."""
    home = _find(settings, directory)
    url = home.url()
    if url is None:
        raise exits.CommandError(
            f"no cluster is up in {home.path}; {how_to_start(home)}", exits.UNAVAILABLE
        )
    states = run(settings, _states(Settings(url, settings.output, 2.0, settings.verbose)))
    members = home.members()
    rows = [
        {
            "name": name,
            "pid": members.get(name),
            "state": states.get(name, {}).get("state", "alive" if name in members else "down"),
            "address": states.get(name, {}).get("address"),
        }
        for name in sorted(set(members) | set(states), key=_rank)
    ]
    show_rows(settings, rows, ("name", "pid", "state", "address"))
    note(f"{url}, data in {home.path}")
    return exits.OK


def _rank(name: str) -> tuple[bool, list[str | int]]:
    return name != "master", natural(name)


async def _states(settings: Settings) -> dict[str, dict[str, str]]:
    try:
        async with asyncio.timeout(2.0), connected(settings, tells_waiting=False) as journal:
            listed = await journal.servers()
    except (LunalogError, TimeoutError):
        return {"master": {"state": "silent"}}
    address = settings.cluster.removeprefix("lunalog://")
    found = {"master": {"state": "alive", "address": address}}
    for server in listed.servers:
        where = shown(server.address.address)
        found[server.address.member.server] = {"state": server.state, "address": where}
    return found


@dev_command.command("kill")
@click.argument("name")
@directory_option
@without_cluster
@click.pass_obj
def kill_command(settings: Settings, name: str, directory: Path | None) -> int:
    """Kill -9 a server, or the `master`; it comes back on its own data."""
    home = _find(settings, directory)
    pid = home.kill(name)
    if not pid:
        alive = ", ".join(sorted(home.members(), key=_rank))
        others = f"these do: {alive}" if alive else f"no cluster is up; {how_to_start(home)}"
        raise exits.CommandError(
            f"no process {name!r} lives in {home.path}; nothing was killed; {others}",
            exits.NOT_FOUND,
        )
    note(f"killed {name} (process {pid}); it will be started again")
    return exits.OK
