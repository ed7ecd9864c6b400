"""One round: everybody does the same work in turn, lunalog and the yardstick among them."""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Callable, Iterable, Sequence

import run  # the harness of our own targets, beside this package
from origin import commit, machine
from peers.bookkeeper import BookKeeper
from peers.etcd import Etcd
from peers.install import NotInstalledError
from peers.jetstream import JetStream
from peers.kafka import Kafka
from peers.nodes import Nodes, PeerFailedError, last_words
from peers.peer import Clients, Peer, Setting
from peers.redis_streams import RedisStreams
from peers.results import Absent, Round, Row

PEERS: dict[str, type[Peer]] = {
    kind.name: kind for kind in (Kafka, BookKeeper, JetStream, RedisStreams, Etcd)
}
PATIENCE_S = 90
"""What a driver may take beside its spans: connecting, draining what is in flight, counting."""
Tell = Callable[[str], None]
Keep = Callable[[Round], None]


def read_rows(output: str) -> dict[str, dict[str, float]]:
    """The JSON lines of a driver, by their tests."""
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {str(row.pop("test")): row for row in found}


def drive(command: Sequence[object], warm: float, seconds: float) -> dict[str, dict[str, float]]:
    """Run a driver to its end.

    Raises:
        PeerFailedError: if it fails, or if fewer events are held than were acknowledged.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * (warm + seconds) + PATIENCE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerFailedError("the driver did not end in time") from error
    if done.returncode:
        raise PeerFailedError(f"the driver ended with {done.returncode}: {last_words(done.stderr)}")
    return complete(read_rows(done.stdout))


def complete(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Check that a driver has done all of the work, and that all acknowledged events are held."""
    missing = {"lone 1024B", "window 100B", "window 1024B", "kept"} - set(rows)
    if missing:
        raise PeerFailedError(f"the driver said nothing of {', '.join(sorted(missing))}")
    acked, held = rows["kept"]["acked"], rows["kept"]["held"]
    if held < acked:
        raise PeerFailedError(f"{acked} events were acknowledged, {held} are held")
    return rows


def yardstick() -> dict[str, Row]:
    """The floor and the prototype."""
    found = run.yardstick()
    lone = found["lone 1KiB 2 of 3"]
    return {
        "floor": Row(
            "floor",
            "three writes and fdatasyncs, two wait",
            "blocking sockets",
            True,
            {"lone 1024B": lone},
        ),
        "prototype": Row("prototype", "A2 of 3", "batches", True, ours(found, "batches")),
    }


def ours(found: dict[str, dict[str, float]], way: str) -> dict[str, dict[str, float]]:
    """Rows of our own clients under the names that the peers' drivers use."""
    return {
        "lone 1024B": found["lone 1KiB"],
        "window 100B": found[f"{way} 100B"],
        "window 1024B": found[f"{way} 1024B"],
    }


def lunalog() -> dict[str, Row]:
    """The product, written by one process and read back by another."""
    found = run.throughput()
    return {
        f"lunalog/{way}": Row("lunalog", "A2 of 3", client, True, ours(found, way))
        for way, client in (("batches", "append_many"), ("futures", "append_soon"))
    }


class Contest:
    """Those that take part: what can be installed, is; `only` the clients of these labels, or all."""

    def __init__(
        self,
        names: Iterable[str],
        only: Sequence[str] | None,
        warm: float,
        seconds: float,
        tell: Tell,
    ) -> None:
        self.only = only
        self.warm, self.seconds, self.tell = warm, seconds, tell
        self.peers: list[tuple[Peer, Clients]] = []
        self.absent: list[Absent] = []
        for name in names:
            self._install(PEERS[name]())

    def round(self, keep: Keep) -> Round:
        """Let everybody do the work once; `keep` gets the round again after each contestant."""
        found = Round(
            when=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}",
            machine=machine(),
            commit=commit(),
            seconds=self.seconds,
            rows={},
            absent=list(self.absent),
        )
        self.tell("yardstick")
        try:
            found.rows.update(yardstick())
        except subprocess.CalledProcessError as error:
            self.tell(f"failed: {error}")
            found.absent.append(Absent("yardstick", "yardstick", "", "", f"failed: {error}"))
        self.tell("lunalog")
        found.rows.update(lunalog())
        for peer, clients in self.peers:
            for setting in peer.settings:
                for label, command in clients.commands.items():
                    self._take(found, peer, setting, label, command)
                    keep(found)
        return found

    def _take(
        self, found: Round, peer: Peer, setting: Setting, label: str, command: list[object]
    ) -> None:
        """Measure one contestant, or say why not."""
        self.tell(f"{peer.title}, {setting.label}, by {label}")
        try:
            figures = self._measure(peer, setting, command)
        except (PeerFailedError, OSError) as error:
            self.tell(f"failed: {error}")
            reason = f"failed: {error}"
            found.absent.append(Absent(peer.name, peer.title, setting.label, label, reason))
            return
        self.tell(json.dumps(figures))
        row = Row(peer.title, setting.label, label, setting.fsyncs, figures)
        found.rows[f"{peer.name}/{setting.label}/{label}"] = row

    def _install(self, peer: Peer) -> None:
        self.tell(f"install {peer.title}")
        try:
            clients = peer.install()
        except NotInstalledError as error:
            self.tell(f"not installed: {error}")
            self.absent.append(Absent(peer.name, peer.title, "", "", f"not installed: {error}"))
            return
        for label in [*clients.commands]:
            if self.only is not None and label not in self.only:
                del clients.commands[label]
        self.peers.append((peer, clients))
        for label, reason in clients.absent.items():
            self.absent.append(Absent(peer.name, peer.title, "", label, f"not installed: {reason}"))

    def _measure(
        self, peer: Peer, setting: Setting, command: list[object]
    ) -> dict[str, dict[str, float]]:
        with Nodes() as nodes:
            address = peer.start(nodes, setting)
            warm = max(self.warm, peer.warm_s)
            words = [*command, address, "bench", warm, self.seconds]
            return drive([*words, *peer.driven_by(setting)], warm, self.seconds)
