"""What lies in the metadata store: keys, and records as MessagePack.

    meta/cluster           the cluster's id, 32 hex digits
    meta/active            nonce of the master that is active; every transaction compares its version
    meta/wanted            how many journal servers the orchestrator keeps alive
    name/NAME              id of the stream that has this name
    head/ID                HeadRecord
    row/ID/EPOCH.N         SealedSegment
    lost/ID                why the stream is read-only (R25)
    gone/ID                Tombstone (R22)
    server/NAME            ServerRecord

ID is the stream's id in hex; epochs have 16 hex digits, n has 8, so that rows scan in order.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from lunalog.errors import CorruptRecordError
from lunalog.types import Promise, SegmentId, StreamHead, StreamId

T = TypeVar("T")

CLUSTER: Final = "meta/cluster"
ACTIVE: Final = "meta/active"
WANTED: Final = "meta/wanted"
NAMES: Final = "name/"
HEADS: Final = "head/"
ROWS: Final = "row/"
LOST: Final = "lost/"
GONE: Final = "gone/"
SERVERS: Final = "server/"

_encoder = msgspec.msgpack.Encoder()


class HeadRecord(msgspec.Struct, frozen=True, array_like=True):
    """A head, and what the master alone needs beside it."""

    head: StreamHead
    open_leader: str = ""
    """Name of the peer that led the epoch of the open segment, for its row."""
    superseded: tuple[SegmentId, ...] = ()
    """The last segments that ended where they began, and left no row.

    What they held is carried over; a member that nobody heard then may know some of it as committed.
    """


class Tombstone(msgspec.Struct, frozen=True, array_like=True):
    """A deleted stream: who must still confirm that it holds nothing of it (R22)."""

    stream: StreamId
    name: str
    promise: Promise
    holders: tuple[str, ...]


class ServerRecord(msgspec.Struct, frozen=True, array_like=True):
    """What must be known of a journal server before it comes back (R19)."""

    name: str
    incarnation: int
    boot: int
    synced_position: int
    host: str
    port: int
    labels: tuple[str, ...] = ()
    is_leaving: bool = False
    is_retired: bool = False


def encode(record: object) -> bytes:
    """Put a record into the form that is stored."""
    return _encoder.encode(record)


def decode(value: bytes, kind: type[T], key: str) -> T:
    """Read a stored record; raises `CorruptRecordError`."""
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptRecordError(f"the metadata at {key!r} cannot be read: {error}") from error


def name_key(name: str) -> str:
    """Key of a stream's name."""
    return NAMES + name


def head_key(stream: StreamId) -> str:
    """Key of a head."""
    return HEADS + stream.hex()


def lost_key(stream: StreamId) -> str:
    """Key of the mark of a stream whose metadata went back."""
    return LOST + stream.hex()


def gone_key(stream: StreamId) -> str:
    """Key of a tombstone."""
    return GONE + stream.hex()


def rows_prefix(stream: StreamId) -> str:
    """What all rows of a stream begin with."""
    return f"{ROWS}{stream.hex()}/"


def row_key(stream: StreamId, segment: SegmentId) -> str:
    """Key of one row."""
    return f"{rows_prefix(stream)}{segment.epoch:016x}.{segment.n:08x}"


def server_key(name: str) -> str:
    """Key of a server's record."""
    return SERVERS + name


def stream_of(key: str) -> StreamId:
    """Return the stream that a `head/`, `row/`, `lost/` or `gone/` key is about."""
    return bytes.fromhex(key.split("/", 2)[1])
