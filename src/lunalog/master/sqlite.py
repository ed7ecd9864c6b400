"""The metadata store on SQLite: one file, one process, one connection on a worker of its own.

All transactions that wait at once share one COMMIT, which is synced before any of them is answered.
A crash leaves the file as of some COMMIT; SQLite's own journal sees to that.

Source: design.md section 4; R16, M1; trap 24.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from lunalog.errors import (
    ClosedError,
    CorruptRecordError,
    DirectoryLockedError,
    LunalogError,
    StorageError,
)
from lunalog.master.store import ABSENT, Record
from lunalog.runtime import Mailbox, Runtime, Worker, to_the_end

SCHEMA_VERSION: Final = 1
CACHE_KIB: Final = 4096
PAST_ALL: Final = "\U0010ffff"


class _Job(msgspec.Struct):
    """One call that waits for the worker; `result` is set before `answer` is told."""

    kind: str
    arguments: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    result: Any = None


class SqliteStore:
    """Keys and values in the SQLite file at `path`; its directory is made if it is not there."""

    def __init__(self, path: str | Path, runtime: Runtime) -> None:
        self.path = Path(path)
        self._runtime = runtime
        self._mailbox: Mailbox[_Job] | None = None
        self._worker: Worker | None = None

    async def start(self) -> None:
        """Open the file and take it for this process."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[LunalogError | None] = loop.create_future()
        mailbox: Mailbox[_Job] = self._runtime.mailbox()

        async def main() -> None:
            try:
                connection = _open(self.path)
            except LunalogError as error:
                loop.call_soon_threadsafe(_tell, opened, error)
                return
            loop.call_soon_threadsafe(_tell, opened, None)
            try:
                while jobs := await mailbox.take_all():
                    _run(connection, jobs)
                    for job in jobs:
                        with contextlib.suppress(RuntimeError):  # who asked has ended
                            job.loop.call_soon_threadsafe(_tell, job.answer, job.result)
            except sqlite3.Error as error:  # nothing is known of the file any more (R16)
                raise StorageError(f"metadata file {self.path}: {error}") from error
            finally:
                connection.close()

        self._mailbox, self._worker = mailbox, self._runtime.start_worker("metadata", main)
        if (error := await opened) is not None:
            self._mailbox = self._worker = None
            raise error

    async def stop(self) -> None:
        """Finish what was asked and close the file, also when this is cancelled."""
        mailbox, self._mailbox = self._mailbox, None
        worker, self._worker = self._worker, None
        if mailbox is not None and worker is not None:
            mailbox.close()
            await to_the_end(worker.join())

    async def get(self, key: str) -> Record | None:
        """Read one key."""
        found: Record | None = await self._ask("get", key)
        return found

    async def scan(self, prefix: str) -> list[tuple[str, Record]]:
        """Read all keys that begin with `prefix`, in order."""
        found: list[tuple[str, Record]] = await self._ask("scan", prefix)
        return found

    async def transact(
        self,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> int | None:
        """Write all or nothing, synced when this returns."""
        found: int | None = await self._ask("transact", dict(compares), dict(puts), tuple(deletes))
        return found

    async def _ask(self, kind: str, *arguments: Any) -> Any:
        if self._mailbox is None:
            raise ClosedError(f"the metadata store {self.path} is not open")
        loop = asyncio.get_running_loop()
        job = _Job(kind, arguments, loop, loop.create_future())
        self._mailbox.put(job)
        return await job.answer


def _tell(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


# ---------------------------------------------------------------- on the worker


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StorageError(
            f"cannot open metadata file {path}: {why}; nothing was changed; "
            "use a directory that can be written"
        ) from error
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("BEGIN EXCLUSIVE")
        _prepare(connection, path)
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error):
            raise DirectoryLockedError(
                f"metadata file {path} is in use by another process; nothing was changed; "
                "end that one first"
            ) from error
        raise StorageError(f"cannot use metadata file {path}: {error}") from error
    except sqlite3.Error as error:
        connection.close()
        raise CorruptRecordError(
            f"{path} is not a metadata file of lunalog, or damaged: {error}", file=str(path)
        ) from error
    except StorageError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version != 0 or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StorageError(f"{path} has layout {version}, this program knows {SCHEMA_VERSION}")
    connection.execute(
        "CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL)"
        " WITHOUT ROWID"
    )
    connection.execute("CREATE TABLE revision (last INTEGER NOT NULL)")
    connection.execute("INSERT INTO revision VALUES (0)")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _run(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
    """Carry out what waits, in order, under one COMMIT."""
    connection.execute("BEGIN IMMEDIATE")
    (revision,) = connection.execute("SELECT last FROM revision").fetchone()
    before = revision
    for job in jobs:
        if job.kind == "get":
            job.result = _get(connection, *job.arguments)
        elif job.kind == "scan":
            job.result = _scan(connection, *job.arguments)
        else:
            job.result = _transact(connection, revision + 1, *job.arguments)
            revision = job.result or revision
    if revision != before:
        connection.execute("UPDATE revision SET last = ?", (revision,))
    connection.execute("COMMIT")


def _get(connection: sqlite3.Connection, key: str) -> Record | None:
    found = connection.execute(
        "SELECT value, version FROM records WHERE key = ?", (key,)
    ).fetchone()
    return None if found is None else Record(*found)


def _scan(connection: sqlite3.Connection, prefix: str) -> list[tuple[str, Record]]:
    rows = connection.execute(
        "SELECT key, value, version FROM records WHERE key >= ? AND key < ? ORDER BY key",
        (prefix, prefix + PAST_ALL),
    )
    return [(key, Record(value, version)) for key, value, version in rows]


def _transact(
    connection: sqlite3.Connection,
    revision: int,
    compares: dict[str, int],
    puts: dict[str, bytes],
    deletes: tuple[str, ...],
) -> int | None:
    for key, version in compares.items():
        found = _get(connection, key)
        if (found.version if found is not None else ABSENT) != version:
            return None
    connection.executemany(
        "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (key)"
        " DO UPDATE SET value = excluded.value, version = excluded.version",
        [(key, value, revision) for key, value in puts.items()],
    )
    connection.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in deletes])
    return revision
