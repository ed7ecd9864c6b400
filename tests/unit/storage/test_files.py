"""The real file system behind the disk seam."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lunalog.runtime import drive
from lunalog.storage import files
from lunalog.storage.files import Disk, SystemDisk


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return SystemDisk(tmp_path)


def test_what_was_written_is_read(disk: Disk) -> None:
    file = drive(disk.open("b", create=True))
    drive(file.write(10, [b"abc", bytearray(b"def"), memoryview(b"g")]))
    drive(file.sync())
    assert drive(file.read(8, 100)) == b"\0\0abcdefg"
    assert drive(file.read(500, 10)) == b""
    assert drive(file.size()) == 17
    drive(file.allocate(10_000))
    drive(file.allocate(100))
    assert drive(file.size()) == 10_000
    assert drive(file.read(9_990, 100)) == bytes(10)
    drive(file.close())
    drive(file.close())


def test_what_the_page_cache_forgot_is_read_from_the_disk(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[tuple[int, int, int]] = []
    advise = os.posix_fadvise

    def noted(fd: int, start: int, size: int, advice: int) -> None:
        advised.append((start, size, advice))
        advise(fd, start, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", noted)
    file = drive(disk.open("b", create=True))
    drive(file.write(0, [bytes(8192), b"kept"]))
    drive(file.sync())
    drive(file.uncache(4096, 8192))
    assert advised == [(4096, 4096, os.POSIX_FADV_DONTNEED)]
    drive(file.write(8196, [b" and not written yet"]))
    drive(file.uncache(0, 1 << 20))
    assert drive(file.read(8190, 100)) == b"\0\0kept and not written yet"
    drive(file.close())
    drive(file.uncache(0, 8192))  # a hint: where it cannot be taken nothing happens


def test_names_come_and_go(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        drive(disk.open("a"))
    for name in ("b", "a"):
        file = drive(disk.open(name, create=True))
        drive(file.write(0, [name.encode()]))
        drive(file.close())
    (tmp_path / "directory").mkdir()
    drive(disk.lock())
    assert drive(disk.names()) == ["a", "b"]
    drive(disk.rename("b", "a"))
    drive(disk.sync_directory())
    drive(disk.remove("zzz"))
    assert drive(disk.names()) == ["a"]
    file = drive(disk.open("a", create=True))
    assert drive(file.size()) == 0
    drive(disk.remove("a"))
    assert drive(disk.names()) == []
    assert drive(disk.free_bytes()) > 0
    drive(file.close())
    drive(disk.unlock())


def test_more_buffers_than_one_call_takes(disk: Disk) -> None:
    file = drive(disk.open("a", create=True))
    buffers = [b"%05d" % n for n in range(3 * files.IOV_MAX + 7)]
    drive(file.write(3, buffers))
    assert drive(file.read(3, 1 << 20)) == b"".join(buffers)
    drive(file.close())


def test_a_short_write_goes_on_from_where_it_stopped(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal or a nearly full disk cuts calls short without an error (D1)."""
    gather, write = os.pwritev, os.pwrite

    def short_gather(fd: int, buffers: Sequence[Any], offset: int) -> int:
        return gather(fd, [b"".join(buffers)[:7]], offset)

    def short(fd: int, data: Any, offset: int) -> int:
        return write(fd, bytes(data)[:5], offset)

    monkeypatch.setattr(os, "pwritev", short_gather)
    monkeypatch.setattr(os, "pwrite", short)
    file = drive(disk.open("a", create=True))
    drive(file.write(2, [b"0123", b"456789", b"abcdef", b""]))
    assert drive(file.read(2, 100)) == b"0123456789abcdef"
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match="wrote nothing") as failed:
        drive(file.write(2, [b"0123456789"]))
    assert failed.value.errno == errno.EIO
    drive(file.close())


def test_a_short_read_goes_on_to_the_end(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.pread
    file = drive(disk.open("a", create=True))
    drive(file.write(0, [b"0123456789"]))
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: read(fd, min(size, 3), offset))
    assert drive(file.read(1, 8)) == b"12345678"
    assert drive(file.read(1, 100)) == b"123456789"
    drive(file.close())


def test_files_are_not_inherited_by_children(disk: Disk) -> None:
    drive(disk.lock())
    file = drive(disk.open("a", create=True))
    for fd in (file._fd, disk._lock_fd):  # type: ignore[attr-defined]
        assert not os.get_inheritable(fd)
    drive(file.close())
    drive(disk.unlock())
