"""`lunalog master` and `lunalog server`: the processes of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lunalog import limits
from lunalog.cli import exits
from lunalog.cli.options import PORT, Number, Settings, refuse_cluster, without_cluster
from lunalog.errors import BadAddressError, UsageError
from lunalog.wording import shown

if TYPE_CHECKING:
    from lunalog.config import MasterConfig, ServerConfig
    from lunalog.orchestrator.process import PidFile
    from lunalog.runtime import Address, Network, SystemRuntime

from lunalog.orchestrator.base import LEFT_EXIT_CODE

logger = logging.getLogger("lunalog.cli")


def process_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every long-running process."""
    options = (
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Settings file (TOML).",
        ),
        click.option(
            "--pid-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write and lock this file while the process lives.",
        ),
        click.option(
            "--lifeline",
            type=Number(int, 0),
            metavar="FD",
            help="End when the other side of this inherited pipe closes.",
        ),
    )
    for option in reversed((*tls_options(), *options)):
        command = option(command)
    return command


def tls_options() -> tuple[Callable[..., Any], ...]:
    """Options of TLS; they are settings, too."""
    helps = {
        "--tls-certificate": "Certificate of this node; all connections are under TLS.",
        "--tls-key": "Its key.  [default: in the certificate's file]",
        "--tls-authority": "Who signs the cluster's certificates.  [default: whom the system trusts]",
    }
    return tuple(click.option(name, metavar="FILE", help=text) for name, text in helps.items())


def tls_arguments(config: ServerConfig | MasterConfig) -> tuple[str, ...]:
    """Return the options that give a server the TLS of `config`, by paths good in any directory."""
    files = {
        "--tls-certificate": config.tls_certificate,
        "--tls-key": config.tls_key,
        "--tls-authority": config.tls_authority,
    }
    given = {name: str(Path(file).absolute()) for name, file in files.items() if file}
    return tuple(word for option in given.items() for word in option)


def network_of(config: ServerConfig | MasterConfig, host: str | None) -> Network | None:
    """Return the network that a node's settings ask for; none: the machine's as it is."""
    if not config.tls_certificate:
        return None
    from lunalog.runtime import TcpNetwork
    from lunalog.wire.certificates import node_contexts
    from lunalog.wire.tls import TlsNetwork

    contexts = node_contexts(config.tls_certificate, config.tls_key, config.tls_authority, host)
    return TlsNetwork(TcpNetwork(), contexts)


@click.command("server")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Data directory; made if it is not there.",
)
@click.option(
    "--masters",
    metavar="HOST:PORT[,...]",
    envvar="LUNALOG_MASTERS",
    default="127.0.0.1:7600",
    show_default=True,
    help="Where the master listens.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the server.  [default: drawn once, kept in the directory]",
)
@click.option("--host", metavar="HOST", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=PORT, metavar="PORT", help="Port.  [default: any free one]")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Where it stands (host=a, rack=7): copies are spread over labels.",
)
@process_options
@without_cluster
@click.pass_obj
def server_command(
    settings: Settings,
    /,
    *,
    data: Path,
    masters: str,
    config: Path | None,
    pid_file: Path | None,
    lifeline: int | None,
    **flags: Any,
) -> int:
    """Run a journal server: it keeps events on its disk.

    SIGTERM and Ctrl-C finish what is queued and end it with code 0; when the
    master has told it to leave it ends with 11.
    """
    from lunalog.config import ServerConfig, load

    refuse_cluster(settings, "--masters says where the master of a server listens")
    flags["labels"] = flags["labels"] or None
    for label in flags["labels"] or ():
        if "=" not in label:
            raise UsageError(f"label {label!r} is not KEY=VALUE; nothing was started")
    chosen = load(ServerConfig, file=config, environment=os.environ, flags=flags)
    addresses = parse_addresses(masters)
    network = network_of(chosen, chosen.host)

    async def start(runtime: SystemRuntime) -> Node:
        from lunalog.server import JournalServer
        from lunalog.storage.files import SystemDisk

        server = JournalServer(runtime, SystemDisk(data), addresses, chosen)
        try:
            await server.start()
        except OSError as error:
            where = shown((chosen.host, chosen.port))
            raise exits.from_os_error(error, f"cannot listen on {where}") from error
        line = {"server": server.name, "address": shown(server.address), "data": str(data)}
        return Node("server_listening", line, server.stop, server.wait_left)

    arguments = (masters, *tls_arguments(chosen))
    return run_node(settings, start, pid_file, lifeline, network=network, arguments=arguments)


@click.command("master")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory of the metadata; made if it is not there.",
)
@click.option("--host", metavar="HOST", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=PORT, metavar="PORT", help="Port.  [default: 7600]")
@click.option(
    "--servers",
    type=Number(int, 0),
    metavar="N",
    help="Keep N journal servers alive on this machine (at the first start; later: "
    "`lunalog servers scale`).  [default: start none]",
)
@click.option(
    "--servers-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where those servers live.  [default: DATA/servers]",
)
@process_options
@without_cluster
@click.pass_obj
def master_command(
    settings: Settings,
    /,
    *,
    data: Path,
    servers_dir: Path | None,
    config: Path | None,
    pid_file: Path | None,
    lifeline: int | None,
    **flags: Any,
) -> int:
    """Run the master: it knows streams, leaders and servers.

    With --servers it also runs journal servers as processes.  They outlive it; the next master on
    the same directory adopts them.
    """
    from lunalog.config import MasterConfig, load

    refuse_cluster(settings, "a master is its cluster, and --port says where it listens")
    chosen = load(MasterConfig, file=config, environment=os.environ, flags=flags)
    base = servers_dir or data / "servers"
    network = network_of(chosen, None)  # clients may dial another name of it

    async def start(runtime: SystemRuntime) -> Node:
        from lunalog.master import Master, SqliteStore
        from lunalog.orchestrator.local import LocalOrchestrator

        wanted = chosen.servers is not None
        options = tls_arguments(chosen)
        orchestrator = None
        if wanted:
            orchestrator = LocalOrchestrator(runtime, base, lifeline=lifeline, options=options)
        store = SqliteStore(data / "metadata.sqlite", runtime)
        master = Master(runtime, store, chosen, orchestrator)
        await master.start()
        line = {"address": shown(master.address), "cluster": master.cluster, "data": str(data)}
        return Node("master_listening", line, master.stop)

    return run_node(settings, start, pid_file, lifeline, network=network)


def parse_addresses(text: str) -> list[Address]:
    """Read `host:port,host:port`."""
    found: list[Address] = []
    for part in filter(None, text.split(",")):
        host, colon, port = part.strip().rpartition(":")
        if not (colon and host and port.isdigit() and 0 < int(port) <= limits.PORT_MAX):
            raise BadAddressError(f"{part!r} is not HOST:PORT; nothing was started")
        found.append((host.strip("[]"), int(port)))
    if not found:
        raise BadAddressError("no master address; nothing was started; use --masters HOST:PORT")
    return found


class Node:
    """A started node: what to say of it, and how it ends."""

    def __init__(
        self,
        event: str,
        line: dict[str, Any],
        stop: Callable[[], Awaitable[None]],
        left: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.event = event
        self.line = line
        self.stop = stop
        self.left = left


def run_node(
    settings: Settings,
    start: Callable[[SystemRuntime], Awaitable[Node]],
    pid_file: Path | None,
    lifeline: int | None,
    *,
    network: Network | None = None,
    arguments: tuple[str, ...] = (),
) -> int:
    """Run one node until it is told to end, on a loop of its own; returns the exit code."""
    from lunalog.cli.logs import configure_logging
    from lunalog.cli.running import loop_factory
    from lunalog.orchestrator.process import PidFile

    configure_logging(settings.verbose, default=logging.INFO)
    held = PidFile(pid_file) if pid_file is not None else None
    if held is not None:
        held.take(arguments)
    settings.has_begun = True
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(start, held, lifeline, network))


async def _serve(
    start: Callable[[SystemRuntime], Awaitable[Node]],
    held: PidFile | None,
    lifeline: int | None,
    network: Network | None,
) -> int:
    from lunalog.orchestrator.process import watch_lifeline
    from lunalog.runtime import SystemRuntime, Tasks, end_on_bugs

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(signum, stopping.set)
    if lifeline is not None:
        watch_lifeline(lifeline, lambda: _wake(loop, stopping))
    runtime = SystemRuntime(network)
    end_on_bugs(loop, runtime)
    try:
        node = await start(runtime)
    except OSError as error:
        raise exits.from_os_error(error, "cannot start") from error
    logger.info(node.event, extra={**node.line, "pid": os.getpid()})
    gc.collect()
    gc.freeze()
    tasks = Tasks(runtime)
    leaving = tasks.start(_then(node.left, stopping), "told-to-leave") if node.left else None
    await stopping.wait()
    has_left = leaving is not None and leaving.done()
    await tasks.cancel()
    await node.stop()
    if held is not None:
        held.release()
    logger.info(node.event.replace("listening", "stopped"), extra=node.line)
    return LEFT_EXIT_CODE if has_left else exits.OK


def _wake(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Set an event from another thread; a loop that is closed is about to be gone anyway."""
    with contextlib.suppress(RuntimeError):
        _ = loop.call_soon_threadsafe(stopping.set)


async def _then(left: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    await left()
    stopping.set()
