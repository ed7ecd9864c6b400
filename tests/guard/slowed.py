"""A real server that is slower on purpose: `python -m tests.guard.slowed NAME,NAME server ...`.

Each is a way in which a change might make it so; the guards of system calls must find it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from lunalog.__main__ import run
from lunalog.server import serving
from lunalog.storage import fetch, files, writer
from lunalog.storage.log import Log
from lunalog.wire import connection


def every_commit_on_the_writer() -> None:
    """A lone append pays two hops to another thread."""
    Log._may_inline = lambda self: False  # type: ignore[method-assign]


def two_syncs() -> None:
    """A batch is synced twice."""
    sync = files.SystemFile.sync

    async def twice(self: files.SystemFile) -> None:
        await sync(self)
        await sync(self)

    files.SystemFile.sync = twice  # type: ignore[method-assign]


def a_write_for_each_buffer() -> None:
    """A batch is written piece by piece."""
    write = files.SystemFile.write

    async def one_by_one(self: files.SystemFile, offset: int, buffers: Any) -> None:
        for buffer in buffers:
            await write(self, offset, [buffer])
            offset += len(buffer)

    files.SystemFile.write = one_by_one  # type: ignore[method-assign]


def a_sync_for_each_put() -> None:
    """No group commit."""
    writer.BATCH_BYTES_SOFT = 1  # type: ignore[misc]
    every_commit_on_the_writer()


def an_answer_told_twice() -> None:
    """Each ack is sent in two writes."""
    send = serving.Acks.send

    def twice(self: serving.Acks) -> None:
        due = list(self._due)
        send(self)
        self._due = due
        send(self)

    serving.Acks.send = twice  # type: ignore[method-assign]


def reads_of_half_a_kilobyte() -> None:
    """What arrives is taken in little pieces."""
    get_buffer = connection.Connection.get_buffer

    def little(self: connection.Connection, sizehint: int) -> memoryview:
        return get_buffer(self, sizehint)[:512]

    connection.Connection.get_buffer = little  # type: ignore[method-assign]


def no_chunks() -> None:
    """Old frames are read one at a time, head and body."""
    fetch.CHUNK_BYTES = 4 << 10  # type: ignore[misc]


def one_frame_an_answer() -> None:
    """A reader that is behind must ask for each frame."""
    fetch.FRAMES_MAX = 1  # type: ignore[misc]


SLOWDOWNS: dict[str, Callable[[], None]] = {
    slow.__name__: slow
    for slow in (
        every_commit_on_the_writer, two_syncs, a_write_for_each_buffer, a_sync_for_each_put,
        an_answer_told_twice, reads_of_half_a_kilobyte, no_chunks,
        one_frame_an_answer,
    )
}  # fmt: skip

if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        SLOWDOWNS[name]()
    sys.exit(run())
