"""Redis Streams: a primary and two replicas, each syncs its file at every turn, WAIT for one replica."""

from __future__ import annotations

from peers import install
from peers.nodes import Nodes, free_ports
from peers.peer import Clients, Peer, Setting

PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1")
PYTHON = ("redis==8.1.0", "hiredis==3.5.0")


class RedisStreams(Peer):
    """A replica answers WAIT after it has synced, because it syncs before it answers anything."""

    name = "redis"
    title = "Redis Streams"
    settings = (Setting("appendfsync always, WAIT 1", fsyncs=True),)

    def install(self) -> Clients:
        clients = Clients()
        root = install.debian(self.name, PACKAGES)
        self.server = root / "usr/bin/redis-server"
        self.libraries = ":".join({str(path.parent) for path in root.glob("usr/lib/*/lib*.so*")})
        install.add_python(clients, self.name, PYTHON, "bare sockets", "redis_bare.py")
        install.add_python(clients, self.name, PYTHON, "redis-py", "redis_python.py")
        return clients

    def start(self, nodes: Nodes, setting: Setting) -> str:
        ports = free_ports(3)
        for n, port in enumerate(ports):
            home = nodes.directory / f"data{n}"
            home.mkdir()
            options = {
                "bind": "127.0.0.1",
                "port": port,
                "dir": home,
                "appendonly": "yes",
                "appendfsync": "always",
                "save": '""',
                "repl-diskless-sync-delay": 0,
            }
            if n:
                options["replicaof"] = f"127.0.0.1 {ports[0]}"
            path = nodes.write(f"r{n}.conf", options, "{} {}")
            nodes.start(f"r{n}", [self.server, path], {"LD_LIBRARY_PATH": self.libraries})
            nodes.wait_for(f"r{n}", port)
        return f"127.0.0.1:{ports[0]}"
