"""A server whose disk is slow reads no more from who appends (R5), also inside one process."""

from __future__ import annotations

import asyncio

from lunalog import limits
from lunalog.client.journal import SingleWriteJournal
from lunalog.client.url import MemoryUrl
from lunalog.config import ClientConfig, ServerConfig
from lunalog.embedded.cluster import EmbeddedCluster
from lunalog.embedded.disk import MemoryDisk, MemoryFile
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.master.memory import MemoryStore
from lunalog.types import Policy

EVENT = bytes(limits.PAYLOAD_BYTES_MAX)
QUEUE_BYTES = limits.MESSAGE_BYTES_MAX


class SlowDisk(MemoryDisk):
    """Syncs only while it is told to."""

    def __init__(self) -> None:
        super().__init__("memory://slow/1")
        self.syncs = asyncio.Event()
        self.syncs.set()

    async def open(self, name: str, *, create: bool = False) -> MemoryFile:
        file = await super().open(name, create=create)
        file.sync = self.syncs.wait  # type: ignore[method-assign,assignment]
        return file


async def test_appends_wait_for_a_disk_that_is_slow() -> None:
    disk = SlowDisk()
    cluster = EmbeddedCluster(
        MemoryUrl("slow"),
        runtime=MemoryRuntime(),
        store=MemoryStore(),
        disks=[disk],
        config=ServerConfig(host="server", wal_queue_bytes_max=QUEUE_BYTES),
        policy=Policy(replicas=1, ack_quorum=1),
    )
    (server,) = cluster.servers
    await cluster.start()
    journal = SingleWriteJournal(
        cluster.runtime,
        cluster.masters,
        url=str(cluster.where),
        peer="writer",
        config=ClientConfig(batch_bytes_max=limits.PAYLOAD_BYTES_MAX),
        default_policy=cluster.policy,
        shares_process=True,
    )
    await journal.start()
    async with journal:
        await journal.create_stream("orders")
        async with journal.lead("orders") as writer:
            disk.syncs.clear()
            acks = [writer.append_soon(EVENT) for _ in range(6)]
            while server.log.queued_bytes <= QUEUE_BYTES:
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            assert server.log.queued_bytes < len(acks) * len(EVENT), "it has read on"
            assert not any(ack.done() for ack in acks)
            disk.syncs.set()
            assert await asyncio.gather(*acks) == list(range(6))
    await cluster.stop()
