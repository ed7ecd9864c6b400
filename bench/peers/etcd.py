"""etcd: three members; an event is a key."""

from __future__ import annotations

from peers import install
from peers.nodes import Nodes, free_ports
from peers.peer import Clients, Peer, Setting

VERSION = "3.7.3"
MODULES = (
    f"go.etcd.io/etcd/server/v3@v{VERSION}",
    f"go.etcd.io/etcd/client/v3@v{VERSION}",
)
PYTHON = ("aetcd==1.0.0",)


class Etcd(Peer):
    """A majority has synced before it answers, as it comes."""

    name = "etcd"
    title = f"etcd {VERSION}"
    settings = (Setting("100 keys a transaction", fsyncs=True),)

    def install(self) -> Clients:
        clients = Clients()
        programs = {
            "etcd": ("etcd_server.go",),
            "driver": ("etcd_driver.go", "work.go"),
        }
        self.programs = install.go(self.name, MODULES, programs)
        clients.commands["Go"] = [self.programs / "driver"]
        install.add_python(clients, self.name, PYTHON, "aetcd", "etcd_python.py")
        return clients

    def start(self, nodes: Nodes, setting: Setting) -> str:
        ports = free_ports(6)
        serving, between = ports[:3], ports[3:]
        members = ",".join(f"m{n}=http://127.0.0.1:{port}" for n, port in enumerate(between, 1))
        for n, (port, peer) in enumerate(zip(serving, between, strict=True), 1):
            options = {
                "name": f"m{n}",
                "data-dir": nodes.directory / f"data{n}",
                "listen-client-urls": f"http://127.0.0.1:{port}",
                "advertise-client-urls": f"http://127.0.0.1:{port}",
                "listen-peer-urls": f"http://127.0.0.1:{peer}",
                "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
                "initial-cluster": members,
                "quota-backend-bytes": 8 << 30,
                "log-level": "error",
            }
            words = [f"--{name}={value}" for name, value in options.items()]
            nodes.start(f"m{n}", [self.programs / "etcd", *words])
        for n, port in enumerate(serving, 1):
            nodes.wait_for(f"m{n}", port)
        return ",".join(f"127.0.0.1:{port}" for port in serving)
