"""The identity file: whose data directory this is (R19, O4).

Text, so that a person can read it: one `key = value` a line, the last one a checksum.  It is replaced
as a whole: written beside, synced, renamed, directory synced; a crash leaves the old one or the new.
"""

from __future__ import annotations

import errno
from typing import Final

import msgspec
from crc32c import crc32c

from lunalog.errors import (
    CorruptRecordError,
    DirectoryLockedError,
    DiskFullError,
    StorageError,
    UsageError,
    WrongClusterError,
)
from lunalog.storage.files import Disk
from lunalog.wording import plainly

VERSION: Final = 1
ADMITTED: Final = -1
"""A master has admitted this start: what the next one finds is what counts."""
NAME = "identity"
TEMPORARY = "identity.tmp"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this directory belongs to."""

    version: int = VERSION
    cluster: str
    """Uuid as hex; empty until the master has told it."""
    name: str
    incarnation: int = 0
    """0 until the master has given one."""
    boot: int = 0
    """Counts starts; each is synced before the first reply (R16)."""
    found_position: int = ADMITTED
    """Log position that the first start found which no master has admitted since (R19)."""


async def lock(disk: Disk) -> None:
    """Take the directory; raises `DirectoryLockedError`, or `StorageError` if it cannot be used."""
    try:
        await disk.lock()
    except BlockingIOError as error:
        raise DirectoryLockedError(
            f"{disk.name} is in use by another process; nothing was changed; end that process, or "
            "choose another directory"
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot use the directory {disk.name}: {plainly(error)}; nothing was changed; use one that "
            "can be written"
        ) from error


async def load(disk: Disk) -> Identity | None:
    """Read the identity; none in a directory without one.

    Raises:
        CorruptRecordError: It is damaged; nothing was changed.
        StorageError: It cannot be read.
    """
    try:
        file = await disk.open(NAME)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {disk.name}/{NAME}: {plainly(error)}") from error
    try:
        data = await file.read(0, 1 << 16)
    except OSError as error:
        raise StorageError(f"cannot read {disk.name}/{NAME}: {plainly(error)}") from error
    finally:
        await file.close()
    return parse(data, disk.name)


def parse(data: bytes, where: str) -> Identity:
    """Read the text of an identity file.

    Raises:
        CorruptRecordError: It is damaged.
        StorageError: Another version of lunalog wrote it.
    """
    body, mark, rest = data.partition(b"crc32c = ")
    try:
        if not mark or rest != b"%08x\n" % crc32c(body):
            raise ValueError("its checksum is wrong")
        pairs = dict(line.split(" = ", 1) for line in body.decode().splitlines())
        found = msgspec.convert(pairs, Identity, strict=False)
    except ValueError as error:  # msgspec's and unicode's errors are ValueErrors
        raise CorruptRecordError(
            f"{where}/{NAME} is damaged ({error}): restore it, or start with an empty directory "
            "as a new server",
            file=NAME,
        ) from error
    if found.version != VERSION:
        raise StorageError(
            f"{where}/{NAME} is of version {found.version}, and this lunalog reads {VERSION}; "
            "nothing was changed; use the lunalog that wrote it"
        )
    return found


def render(identity: Identity) -> bytes:
    """Text of the identity file."""
    fields = msgspec.structs.asdict(identity)
    body = "".join(f"{key} = {value}\n" for key, value in fields.items()).encode()
    return body + b"crc32c = %08x\n" % crc32c(body)


async def store(disk: Disk, identity: Identity) -> None:
    """Replace the identity file, durably; raises `StorageError`, after which either may be there."""
    try:
        file = await disk.open(TEMPORARY, create=True)
        try:
            await file.write(0, [render(identity)])
            await file.sync()
        finally:
            await file.close()
        await disk.rename(TEMPORARY, NAME)
        await disk.sync_directory()
    except OSError as error:
        kind = DiskFullError if error.errno == errno.ENOSPC else StorageError
        raise kind(f"cannot write {disk.name}/{NAME}: {plainly(error)}") from error


def check(identity: Identity, *, cluster: str = "", name: str = "", where: str = "") -> None:
    """Raise unless the directory belongs to this cluster and server; empty means any (O4)."""
    if cluster and identity.cluster and identity.cluster != cluster:
        raise WrongClusterError(
            f"{where} belongs to cluster {identity.cluster}, not {cluster}: wrong directory, or "
            "wrong master"
        )
    if name and identity.name != name:
        raise UsageError(
            f"{where} belongs to server {identity.name}, not {name}; nothing was changed"
        )
