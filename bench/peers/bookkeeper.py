"""Apache BookKeeper: three bookies and a ZooKeeper; a ledger on all three, two acknowledge."""

from __future__ import annotations

from peers import install
from peers.nodes import Nodes, free_ports
from peers.peer import Clients, Peer, Setting

VERSION = "4.17.2"
ARTEFACTS = (
    f"org.apache.bookkeeper:bookkeeper-server:{VERSION}",
    "io.dropwizard.metrics:metrics-core:4.1.12.1",
    "org.xerial.snappy:snappy-java:1.1.10.5",
)
HEAP = ("-Xms1g", "-Xmx1g", "-XX:MaxDirectMemorySize=1g")
QUIET = ("-Dlog4j2.level=WARN", "-Dzookeeper.admin.enableServer=false")


class BookKeeper(Peer):
    """Its journal is synced before an entry is acknowledged, as it comes."""

    name = "bookkeeper"
    title = f"Apache BookKeeper {VERSION}"
    warm_s = 8.0
    settings = (Setting("E3 W3 A2, journalSyncData", fsyncs=True),)

    def install(self) -> Clients:
        clients = Clients()
        self.classes, _ = install.java(self.name, ARTEFACTS, "BookKeeperDriver")
        clients.commands["Java"] = ["java", *QUIET, "-cp", self.classes, "BookKeeperDriver"]
        clients.absent["Python"] = "PyPI has no client for ledgers"
        return clients

    def start(self, nodes: Nodes, setting: Setting) -> str:
        zookeeper, *bookies = free_ports(4)
        java = ["java", *QUIET, "-cp", self.classes]
        config = {
            "dataDir": nodes.directory / "zookeeper",
            "clientPort": zookeeper,
            "clientPortAddress": "127.0.0.1",
        }
        path = nodes.write("zookeeper.cfg", config)
        nodes.start("zookeeper", [*java, "org.apache.zookeeper.server.ZooKeeperServerMain", path])
        nodes.wait_for("zookeeper", zookeeper)
        metadata = f"zk+null://127.0.0.1:{zookeeper}/ledgers"
        for n, port in enumerate(bookies, 1):
            config = {
                "bookiePort": port,
                "advertisedAddress": "127.0.0.1",
                "allowLoopback": "true",
                "metadataServiceUri": metadata,
                "journalDirectories": nodes.directory / f"journal{n}",
                "ledgerDirectories": nodes.directory / f"ledgers{n}",
                "journalSyncData": "true",
            }
            nodes.write(f"bookie{n}.conf", config)
        shell = [*java, "org.apache.bookkeeper.bookie.BookieShell"]
        first = nodes.directory / "bookie1.conf"
        nodes.start("metadata", [*shell, "-conf", first, "initnewcluster"])
        nodes.finish("metadata")
        bookie = ["java", *HEAP, *java[1:], "org.apache.bookkeeper.server.Main", "--conf"]
        for n in (1, 2, 3):
            nodes.start(f"bookie{n}", [*bookie, nodes.directory / f"bookie{n}.conf"])
        for n, port in enumerate(bookies, 1):
            nodes.wait_for(f"bookie{n}", port)
        return metadata
