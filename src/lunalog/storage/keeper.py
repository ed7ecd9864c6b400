"""The keeper: disk work beside the WAL writer, one job after another.

It makes the next extent ready, writes checkpoints and looks at the free space, so that the writer does
nothing but write.  Source: design.md section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from lunalog.errors import StorageError
from lunalog.runtime import Mailbox
from lunalog.storage.writer import failure

Job = Callable[[], Coroutine[Any, Any, None]]


class Keeper:
    """A worker that runs jobs; an I/O error that a job lets out ends the node (R16)."""

    def __init__(self, mailbox: Mailbox[Job], failed: Callable[[StorageError], None]) -> None:
        self._mailbox = mailbox
        self._failed = failed

    async def main(self) -> None:
        """Run until the mailbox is closed and empty."""
        while jobs := await self._mailbox.take_all():
            for job in jobs:
                try:
                    await job()
                except OSError as error:
                    self._failed(failure("keeping", error))
                    return
