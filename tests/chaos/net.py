"""Machines of their own on one machine: network namespaces on a bridge, and what nftables drops there.

    root        bridge lc<id>            10.77.<id>.254      the harness and its proxies
    lc<id>-<n>  eth0 on the bridge       10.77.<id>.<n>      one node

Each namespace has one table, `chaos`, whose rules go with it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from chaos import tools

ROOT_HOST = 254
NETWORK = "10.77"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Lan:
    """A bridge and the namespaces on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.bridge = f"lc{number}"
        self.root = f"{NETWORK}.{number}.{ROOT_HOST}"
        self.hosts: dict[str, str] = {}
        """Addresses by namespace."""

    def up(self) -> None:
        """Make the bridge."""
        _run("ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        _run("ip", "addr", "add", f"{self.root}/24", "dev", self.bridge)
        _run("ip", "link", "set", self.bridge, "up")

    def add(self) -> tuple[str, str]:
        """Make one more machine; returns its namespace and address."""
        n = len(self.hosts) + 1
        name, host, here = (
            f"{self.bridge}-{n}",
            f"{NETWORK}.{self.number}.{n}",
            f"{self.bridge}v{n}",
        )
        inside = ("ip", "-n", name)
        _run("ip", "netns", "add", name)
        self.hosts[name] = host
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", here, "master", self.bridge, "up")
        _run(*inside, "addr", "add", f"{host}/24", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "link", "set", "lo", "up")
        self._nft(
            name,
            "add table inet chaos;"
            "add chain inet chaos in { type filter hook input priority 0; };"
            "add chain inet chaos out { type filter hook output priority 0; };",
        )
        return name, host

    def down(self) -> None:
        """Take everything away; what is not there is fine.

        A namespace takes its end of a link with it, but only some time later: the links go first.
        """
        for link in self._links():
            subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
        for name in list(self.hosts):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        self.hosts.clear()

    def _links(self) -> list[str]:
        return [path.name for path in Path("/sys/class/net").glob(f"{self.bridge}v*")]

    # ------------------------------------------------------------------ what is dropped

    def drop(self, name: str, chain: str, peer: str = "", percent: int = 100) -> None:
        """Drop what `name` receives ("in") or sends ("out"), of one peer's address or of all."""
        field = {"in": "saddr", "out": "daddr"}[chain]
        where = f"ip {field} {peer} " if peer else 'iifname != "lo" ' if chain == "in" else ""
        if chain == "out" and not peer:
            where = 'oifname != "lo" '
        share = f"numgen random mod 100 < {percent} " if percent < 100 else ""
        self._nft(name, f"add rule inet chaos {chain} {where}{share}counter drop")

    def dropped(self, name: str) -> int:
        """How many packets the rules of a namespace have dropped."""
        done = subprocess.run(
            [*self._inside(name), "nft", "list", "table", "inet", "chaos"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        words = done.stdout.split()
        return sum(int(words[i + 1]) for i, word in enumerate(words) if word == "packets")

    def connections(self, name: str, peer: str) -> int:
        """How many connections a namespace has with an address, as its kernel sees it."""
        done = subprocess.run(
            [
                *self._inside(name),
                "ss",
                "--no-header",
                "--tcp",
                "state",
                "established",
                "dst",
                peer,
            ],
            capture_output=True,
            text=True,
            timeout=30,
        )
        return len(done.stdout.splitlines())

    def heal(self, name: str) -> None:
        """Drop nothing any more."""
        self._nft(name, "flush chain inet chaos in; flush chain inet chaos out")

    @staticmethod
    def _inside(name: str) -> list[str]:
        return ["nsenter", f"--net={tools.NETNS_DIRECTORY / name}"]

    def _nft(self, name: str, rules: str) -> None:
        _run(*self._inside(name), "nft", rules)


def sweep(number: int) -> None:
    """Remove what a run of this number may have left behind when it was killed."""
    lan = Lan(number)
    names = [path.name for path in tools.NETNS_DIRECTORY.glob(f"{lan.bridge}-*")]
    lan.hosts = dict.fromkeys(names, "")
    lan.down()
