"""`lunalog.SingleWriteJournal`: the client's journal, which also opens embedded clusters by URL.

Source: design.md sections 8 and 9.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from lunalog.client import journal as client
from lunalog.client import url as urls
from lunalog.client.opening import Connecting, checked, peer_name
from lunalog.config import ClientConfig
from lunalog.errors import NotEnoughServersError
from lunalog.runtime import Runtime
from lunalog.types import Policy

if TYPE_CHECKING:
    from lunalog.embedded.cluster import EmbeddedCluster


class SingleWriteJournal(client.SingleWriteJournal):
    """One client of a cluster of processes, or of one embedded in this process."""

    _cluster: EmbeddedCluster | None = None

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        peer: str | None = None,
        config: ClientConfig | None = None,
        timeout: float | None = None,
        runtime: Runtime | None = None,
    ) -> Connecting[Self]:
        """Connect to where `url` says: `lunalog://`, `memory://` or `file:///`; else as the client's."""

        async def opening() -> Self:
            where = urls.parse(urls.find(url, os.environ))
            if isinstance(where, urls.ClusterUrl):
                return await super(SingleWriteJournal, cls).connect(
                    url, peer=peer, config=config, timeout=timeout, runtime=runtime
                )
            name, settings = peer_name(peer), checked(config)
            return await cls._embedded(where, name, settings, timeout)

        return Connecting(opening)

    @classmethod
    async def _embedded(
        cls,
        where: urls.MemoryUrl | urls.FileUrl,
        peer: str,
        config: ClientConfig,
        timeout: float | None,
    ) -> Self:
        from lunalog.embedded.cluster import CLUSTERS  # master and server, only where they run here

        cluster = await CLUSTERS.enter(where)
        try:
            journal = cls(
                cluster.runtime,
                cluster.masters,
                url=str(where),
                peer=peer,
                config=config,
                default_policy=cluster.policy,
                shares_process=True,
            )
            journal._cluster = cluster
            await journal.start(timeout)
        except BaseException:
            await CLUSTERS.leave(cluster)
            raise
        journal.on_closed(lambda: CLUSTERS.leave(cluster))
        return journal

    def check_policy(self, policy: Policy) -> None:
        """Refuse what the servers of an embedded cluster can never hold."""
        if self._cluster is None:
            return
        have = len(self._cluster.servers)
        if policy.ack_quorum > have:
            raise NotEnoughServersError(
                f"{self.url} has {have} journal server{'s' * (have > 1)}, fewer than "
                f"ack_quorum={policy.ack_quorum}; nothing was created; leave replicas and ack_quorum "
                "out, or use a cluster",
                have=have,
                need=policy.ack_quorum,
            )


connect = SingleWriteJournal.connect
