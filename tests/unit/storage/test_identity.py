"""Whose data directory this is: whole or refused, and never two processes at once."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lunalog.errors import (
    CorruptRecordError,
    DirectoryLockedError,
    DiskFullError,
    StorageError,
    UsageError,
    WrongClusterError,
)
from lunalog.runtime import drive
from lunalog.storage import identity
from lunalog.storage.files import SystemDisk
from lunalog.storage.identity import Identity
from lunalog.testing.disk import SimulatedDisk

MINE = Identity(cluster="c" * 32, name="server-1", incarnation=3, boot=9)


def make(seed: int = 1) -> SimulatedDisk:
    return SimulatedDisk("d", random.Random(seed))


def test_it_is_read_back() -> None:
    disk = make()
    assert drive(identity.load(disk)) is None
    for found in (MINE, Identity(cluster="", name="x")):
        drive(identity.store(disk, found))
        assert drive(identity.load(disk)) == found
    assert drive(disk.names()) == ["identity"]


def test_a_person_can_read_it() -> None:
    assert identity.render(MINE).decode().splitlines()[:5] == [
        "version = 1", f"cluster = {'c' * 32}", "name = server-1", "incarnation = 3", "boot = 9",
    ]  # fmt: skip


def test_every_wrong_bit_is_noticed() -> None:
    data = identity.render(MINE)
    for offset in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << bit
            with pytest.raises(CorruptRecordError) as damaged:
                identity.parse(bytes(flipped), "here")
            assert damaged.value.file == "identity"
    for size in range(len(data)):
        with pytest.raises(CorruptRecordError):
            identity.parse(data[:size], "here")


@pytest.mark.parametrize("body", [b"name = x\n", b"boot\n", b"\xff\xfe\n", b"boot = x\nname = y\n"])
def test_what_is_whole_and_no_identity_is_damage_too(body: bytes) -> None:
    with pytest.raises(CorruptRecordError):
        identity.parse(body + b"crc32c = %08x\n" % identity.crc32c(body), "here")


def test_a_crash_anywhere_leaves_the_old_one_or_the_new() -> None:
    """O4, R16: a boot that was counted stays counted once `store` has returned."""
    seen = set()
    fresh = msgspec.structs.replace(MINE, boot=10)
    for seed in range(60):
        for call in range(1, 6):
            disk = make(seed)
            drive(identity.store(disk, MINE))
            disk.faults.trap(call, lambda disk=disk: disk.crash(power=True))
            try:
                drive(identity.store(disk, fresh))
            except StorageError:  # the file's process has died
                disk.crash(power=True)
            found = drive(identity.load(disk))
            assert found in (MINE, fresh)
            seen.add(found)
        disk = make(seed)
        drive(identity.store(disk, MINE))
        drive(identity.store(disk, fresh))
        disk.crash(power=True)
        assert drive(identity.load(disk)) == fresh
    assert seen == {MINE, fresh}


@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename", "sync_directory"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_store_is_told_and_leaves_a_whole_identity(kind: str, code: int) -> None:
    disk = make()
    drive(identity.store(disk, MINE))
    disk.faults.fail_call(1, code, kind)
    fresh = msgspec.structs.replace(MINE, boot=10)
    with pytest.raises(StorageError) as failed:
        drive(identity.store(disk, fresh))
    assert isinstance(failed.value, DiskFullError) == (code == errno.ENOSPC)
    assert str(failed.value).endswith(f"/identity: {os.strerror(code)}")
    disk.crash(power=True)
    assert drive(identity.load(disk)) in (MINE, fresh)


@pytest.mark.parametrize("kind", ["open", "read"])
def test_one_that_cannot_be_read_is_no_empty_directory(kind: str) -> None:
    disk = make()
    drive(identity.store(disk, MINE))
    disk.faults.fail_call(1, errno.EIO, kind)
    with pytest.raises(StorageError, match=r"/identity: Input/output error$"):
        drive(identity.load(disk))


def test_another_cluster_or_server_is_refused() -> None:
    identity.check(MINE)
    identity.check(MINE, cluster="c" * 32, name="server-1")
    identity.check(Identity(cluster="", name="x"), cluster="d" * 32)
    with pytest.raises(WrongClusterError):
        identity.check(MINE, cluster="d" * 32)
    with pytest.raises(UsageError):
        identity.check(MINE, name="server-2")


def test_a_directory_of_another_version_is_told_and_not_touched() -> None:
    data = identity.render(msgspec.structs.replace(MINE, version=2))
    with pytest.raises(StorageError, match="is of version 2, and this lunalog reads 1") as failed:
        identity.parse(data, "data")
    assert not isinstance(failed.value, CorruptRecordError)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The lock of another process, of this one, and of one that died."""
    path = tmp_path / "new" / "data"
    script = (
        "import sys; from lunalog.runtime import drive; from lunalog.storage import identity\n"
        "from lunalog.storage.files import SystemDisk\n"
        "disk = SystemDisk(sys.argv[1]); drive(identity.lock(disk)); print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    disk = SystemDisk(path)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(DirectoryLockedError, match="another process"):
            drive(identity.lock(disk))
    finally:
        other.kill()
        other.communicate()
    drive(identity.lock(disk))
    with pytest.raises(DirectoryLockedError):
        drive(identity.lock(SystemDisk(path)))
    drive(disk.unlock())
    drive(disk.unlock())
    again = SystemDisk(path)
    drive(identity.lock(again))
    drive(again.unlock())


def test_a_directory_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = r"/file: (File exists|Not a directory); nothing was changed; use one that can be written"
    with pytest.raises(StorageError, match=told):
        drive(identity.lock(SystemDisk(tmp_path / "file")))
