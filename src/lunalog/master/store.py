"""The metadata seam: a small ordered map that changes by compare-and-swap over several keys.

Three implementations pass one suite of tests: SQLite, memory, and the simulated one.

Source: design.md section 4; R1, R28, M1, M5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Record(NamedTuple):
    """One value, and the revision of the transaction that wrote it."""

    value: bytes
    version: int


ABSENT = 0
"""What a compare expects of a key that must not be there; real versions are higher."""


class MetadataStore(Protocol):
    """Durable keys and values.

    A call raises `AvailabilityError` when nothing was done and `OutcomeUnknownError` when a
    transaction may have been, or may still be, applied.  A disk that fails ends the node (R16).
    """

    async def start(self) -> None:
        """Open it for this process alone.

        Raises `DirectoryLockedError` when another process has it, other `StorageError` when it cannot
        be used.
        """
        ...

    async def stop(self) -> None:
        """Finish what was asked and close it.  Idempotent."""
        ...

    async def get(self, key: str) -> Record | None:
        """Read one key, with everything that was committed before."""
        ...

    async def scan(self, prefix: str) -> list[tuple[str, Record]]:
        """Read all keys that begin with `prefix`, in order."""
        ...

    async def transact(
        self,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> int | None:
        """Write all or nothing, durably, iff every compared key has the expected version.

        Returns the new version of all keys in `puts`, or none when a compare failed.
        """
        ...
