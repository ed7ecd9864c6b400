"""Apache Kafka: three nodes that are brokers and controllers, acks=all, two in-sync replicas at least."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence

from peers import install
from peers.nodes import Nodes, free_ports
from peers.peer import Clients, Peer, Setting

VERSION = "4.1.1"
ARTEFACTS = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    "org.slf4j:slf4j-nop:1.7.36",
)
PYTHON = ("confluent-kafka==2.16.1",)
HEAP = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")
"""As its own start script has it."""


class Kafka(Peer):
    """With a flush at every append, and as it comes."""

    name = "kafka"
    title = f"Apache Kafka {VERSION}"
    warm_s = 8.0
    settings = (
        Setting("acks=all, flush.messages=1", fsyncs=True, options=("flush.messages=1",)),
        Setting("acks=all", fsyncs=False),
    )

    def install(self) -> Clients:
        clients = Clients()
        self.classes, _ = install.java(self.name, ARTEFACTS, "KafkaDriver")
        clients.commands["Java"] = ["java", "-cp", self.classes, "KafkaDriver"]
        install.add_python(clients, self.name, PYTHON, "librdkafka", "kafka_native.py")
        install.add_python(clients, self.name, PYTHON, "confluent-kafka", "kafka_python.py")
        return clients

    def start(self, nodes: Nodes, setting: Setting) -> str:
        ports = free_ports(6)
        brokers, controllers = ports[:3], ports[3:]
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(controllers, 1))
        number = bytes(1) + random.randbytes(15)  # an id that begins with "-" reads as an option
        cluster = base64.urlsafe_b64encode(number).decode().rstrip("=")
        java = ["java", *HEAP, "-cp", self.classes]
        for n, (port, controller) in enumerate(zip(brokers, controllers, strict=True), 1):
            config = {
                "process.roles": "broker,controller",
                "node.id": n,
                "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
                "controller.listener.names": "CONTROLLER",
                "log.dirs": nodes.directory / f"data{n}",
                "offsets.topic.num.partitions": 1,
                "auto.create.topics.enable": "false",
            }
            path = nodes.write(f"broker{n}.properties", config)
            tool = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", path]
            nodes.start(f"format{n}", tool)
        for n in (1, 2, 3):
            nodes.finish(f"format{n}")
        for n in (1, 2, 3):
            nodes.start(
                f"broker{n}", [*java, "kafka.Kafka", nodes.directory / f"broker{n}.properties"]
            )
        for n, port in enumerate(brokers, 1):
            nodes.wait_for(f"broker{n}", port)
        return ",".join(f"127.0.0.1:{port}" for port in brokers)

    def driven_by(self, setting: Setting) -> Sequence[str]:
        return setting.options
