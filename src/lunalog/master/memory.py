"""A metadata store in memory: for `memory://`, and below the simulated one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lunalog.master.store import ABSENT, Record


class MemoryStore:
    """Keys and values that live as long as this object does."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._revision = 0

    async def start(self) -> None:
        """Do nothing: it is always open."""

    async def stop(self) -> None:
        """Do nothing: what it holds stays for the next master."""

    async def get(self, key: str) -> Record | None:
        """Read one key."""
        return self._records.get(key)

    async def scan(self, prefix: str) -> list[tuple[str, Record]]:
        """Read all keys that begin with `prefix`, in order."""
        return sorted(item for item in self._records.items() if item[0].startswith(prefix))

    async def transact(
        self,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> int | None:
        """Write all or nothing."""
        return self.apply(compares, puts, deletes)

    def apply(
        self, compares: Mapping[str, int], puts: Mapping[str, bytes], deletes: Sequence[str]
    ) -> int | None:
        """Compare and write, here and now."""
        for key, version in compares.items():
            found = self._records.get(key)
            if (found.version if found is not None else ABSENT) != version:
                return None
        self._revision += 1
        for key, value in puts.items():
            self._records[key] = Record(value, self._revision)
        for key in deletes:
            self._records.pop(key, None)
        return self._revision
