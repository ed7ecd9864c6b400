"""The orchestrator seam: what a master may ask of whoever runs its journal servers.

The master decides (how many, which one to end), the orchestrator executes.  It restarts by itself what
died, on its own directory and with backoff; `ProcessInfo.is_failing` says when that does not help, so
that the master provisions another one.

Source: docs/design.md "Parts".
"""

from __future__ import annotations

from typing import Protocol

import msgspec

FAILING_STARTS = 3
"""Starts in a row that ended early, after which a server counts as failing."""
LEFT_EXIT_CODE = 11
"""Of a server that the master has told to leave: it is not started again."""


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One journal server of this orchestrator."""

    name: str
    pid: int
    """0 while it does not run."""
    alive: bool
    failures: int = 0
    """Starts in a row that ended early."""

    @property
    def is_failing(self) -> bool:
        """True when restarting it does not help; it is still tried, at long intervals."""
        return self.failures >= FAILING_STARTS


class Orchestrator(Protocol):
    """Runs journal servers.  All calls are idempotent and raise `LunalogError` only."""

    async def start(self, cluster: str, master_address: tuple[str, int]) -> None:
        """Adopt what an earlier master left running, and restart what died meanwhile.

        Raises `WrongClusterError` when its servers belong to another cluster.
        """
        ...

    async def provision(self, name: str | None = None) -> str:
        """Start a server (`None`: a new name, on an empty directory) and return its name.

        It registers with the master by itself.  Raises `StorageError` when it cannot be started.
        """
        ...

    async def list(self) -> list[ProcessInfo]:
        """All servers that were provisioned and not de-provisioned, in order of name."""
        ...

    async def deprovision(self, name: str) -> None:
        """End a server for good: SIGTERM, then SIGKILL after a grace; an unknown name is fine."""
        ...

    async def stop(self, end_servers: bool) -> None:
        """Stop looking after the servers; with `end_servers` end them all first."""
        ...
