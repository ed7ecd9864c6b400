"""How fast a simulated cluster lives: the timeouts and sizes that its nodes are configured with.

A short storm shows little of timeouts that are longer than it, so most runs live fast; small extents
are closed, checkpointed and removed in it, small caches miss.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Self

from lunalog import limits
from lunalog.config import ClientConfig, MasterConfig, ServerConfig

USUAL_LEASE_MS = 2000


class SmallServerConfig(ServerConfig):
    """Settings whose extents need not hold the largest frames, since nobody makes such frames."""

    __slots__ = ()

    def validate(self) -> None:
        """Accept them."""


@dataclass(frozen=True, slots=True)
class Tempo:
    """One run's settings.  What waits for people or for bad networks scales with the lease."""

    lease_ms: int = USUAL_LEASE_MS
    roll_ack_timeout_ms: int = 250
    session_grace_ms: int = 250
    extent_bytes: int = 2 * limits.MESSAGE_BYTES_MAX
    batch_bytes_max: int = 256 * limits.KIB
    tail_cache_bytes: int = limits.MIB
    inline_sync_ms_max: int = 5

    @classmethod
    def draw(cls, chance: random.Random) -> Self:
        """Draw a tempo."""
        return cls(
            lease_ms=chance.choice((400, 400, 800, USUAL_LEASE_MS)),
            roll_ack_timeout_ms=chance.choice((50, 250)),
            session_grace_ms=chance.choice((20, 250)),
            extent_bytes=chance.choice((128, 256, 256, 1024, 4096)) * limits.KIB,
            batch_bytes_max=chance.choice((1, 16, 64)) * limits.KIB,
            tail_cache_bytes=chance.choice((4 * limits.KIB, limits.MIB)),
            inline_sync_ms_max=chance.choice((0, 5, 5)),
        )

    @property
    def pace(self) -> float:
        """How long everything takes, compared with a cluster as it is shipped."""
        return self.lease_ms / USUAL_LEASE_MS

    @property
    def client(self) -> ClientConfig:
        """What clients are configured with."""
        return ClientConfig(
            heartbeat_ms=self.lease_ms // 4,
            leader_stall_ms=5 * self.lease_ms,
            roll_ack_timeout_ms=self.roll_ack_timeout_ms,
            planned_roll_gap_ms=self.lease_ms,
            batch_bytes_max=self.batch_bytes_max,
            read_wait_ms=self.lease_ms // 2,
            retry_ms_max=max(100, self.lease_ms // 2),
        )

    @property
    def server(self) -> ServerConfig:
        """What journal servers are configured with."""
        return SmallServerConfig(
            heartbeat_ms=self.lease_ms // 4,
            extent_bytes=self.extent_bytes,
            tail_cache_bytes=self.tail_cache_bytes,
            read_bytes_max=min(self.extent_bytes // 4, 4 * limits.MIB),
            inline_sync_ms_max=self.inline_sync_ms_max,
        )

    def master(self, host: str, port: int) -> MasterConfig:
        """What the master is configured with."""
        return MasterConfig(
            host=host,
            port=port,
            lease_ms=self.lease_ms,
            heartbeat_ms=self.lease_ms // 4,
            session_grace_ms=self.session_grace_ms,
            server_lost_ms=self.lease_ms * 3 // 2,
        )
