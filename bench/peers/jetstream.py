"""NATS JetStream: three servers, a stream of three replicas on disk."""

from __future__ import annotations

from peers import install
from peers.nodes import Nodes, free_ports
from peers.peer import Clients, Peer, Setting

VERSION = "2.14.9"
CLIENT = "1.55.0"
EXTENSIONS = "0.3.2"
SERVER = "github.com/nats-io/nats-server/v2"
PYTHON = ("nats-py==2.16.0",)


class JetStream(Peer):
    """Synced at every append, and as it comes: a majority has it in memory, a sync every two minutes."""

    name = "jetstream"
    title = f"NATS JetStream {VERSION}"
    settings = (
        Setting("R3, sync_interval always", fsyncs=True, options=("always",)),
        Setting("R3, sync_interval default", fsyncs=False, options=("2m",)),
    )

    def install(self) -> Clients:
        clients = Clients()
        modules = [
            f"{SERVER}@v{VERSION}",
            f"github.com/nats-io/nats.go@v{CLIENT}",
            f"github.com/synadia-io/orbit.go/jetstreamext@v{EXTENSIONS}",
        ]
        programs = {"nats-server": SERVER, "driver": ("nats_driver.go", "work.go")}
        self.programs = install.go(self.name, modules, programs)
        clients.commands["Go"] = [self.programs / "driver", "each"]
        clients.commands["Go fast"] = [self.programs / "driver", "fast"]
        install.add_python(clients, self.name, PYTHON, "nats-py", "nats_python.py")
        return clients

    def start(self, nodes: Nodes, setting: Setting) -> str:
        ports = free_ports(6)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[3:])
        for n, (port, route) in enumerate(zip(ports[:3], ports[3:], strict=True), 1):
            (nodes.directory / f"n{n}.conf").write_text(
                f"server_name: n{n}\n"
                f'listen: "127.0.0.1:{port}"\n'
                f'jetstream {{ store_dir: "{nodes.directory}/data{n}", '
                f"max_file_store: 32GB, sync_interval: {setting.options[0]} }}\n"
                f'cluster {{ name: peers, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'
            )
            nodes.start(
                f"n{n}", [self.programs / "nats-server", "-c", nodes.directory / f"n{n}.conf"]
            )
        for n, port in enumerate(ports[:3], 1):
            nodes.wait_for(f"n{n}", port)
        return f"nats://127.0.0.1:{ports[0]}"
