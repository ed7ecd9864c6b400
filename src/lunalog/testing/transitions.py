"""Names for what a transaction does to the master's metadata, so that a crash can be aimed at each.

Source: M1; docs/design.md "Metadata and the master"; `master/metadata.py` makes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Run
from typing import Final

from lunalog.master import records
from lunalog.master.records import HeadRecord, ServerRecord, Tombstone
from lunalog.types import StreamHead

Read = Callable[[str], bytes | None]

OF_STORMS: Final = (
    "activate",
    "found",
    "create",
    "grant",
    "release",
    "open",
    "takeover",
    "roll",
    "close",
    "truncate",
    "forget rows",
    "relist",
    "delete",
    "confirm drop",
    "hold again",
    "register",
    "restart",
    "replace",
    "report",
)
"""What a simulated schedule does."""
OF_OTHERS: Final = ("lose", "leave", "stay", "retire", "want")
"""What takes metadata that went back (R25, M4), or an orchestrator: a schedule has neither."""
OTHER: Final = "other"
"""What has no name here; there is no such transaction."""
TRANSITIONS: Final = (*OF_STORMS, *OF_OTHERS)
"""All of them."""


def transition(read: Read, puts: Mapping[str, bytes], deletes: Run[str]) -> str:
    """Name what a transaction is about to do, given what `read(key)` finds before it."""
    for key, value in puts.items():
        if key.startswith(records.HEADS):
            change = _of_head(read(key), value, key)
            return change or _of_rows(puts, deletes)
        if key.startswith(records.SERVERS):
            return _of_server(read(key), value, key)
        if key.startswith(records.GONE):
            return _of_tombstone(read(key), value, key)
        for prefix, name in _BY_KEY.items():
            if key.startswith(prefix):
                return name
    return OTHER


_BY_KEY = {
    records.ACTIVE: "activate",
    records.CLUSTER: "found",
    records.LOST: "lose",
    records.WANTED: "want",
}


def _of_head(before: bytes | None, after: bytes, key: str) -> str:
    """Name what happens to a head; nothing, where it is only written for its version."""
    if before is None:
        return "create"
    old = records.decode(before, HeadRecord, key).head
    new = records.decode(after, HeadRecord, key).head
    return "" if new == old else _of_change(old, new)


def _of_rows(puts: Mapping[str, bytes], deletes: Run[str]) -> str:
    if any(key.startswith(records.ROWS) for key in deletes):
        return "forget rows"
    return "relist" if any(key.startswith(records.ROWS) for key in puts) else OTHER


def _of_change(old: StreamHead, new: StreamHead) -> str:
    if new.epoch > old.epoch:
        return "grant"
    if new.open != old.open:
        if old.open is None or new.open is None:
            return "close" if new.open is None else "open"
        return "roll" if old.open.id.epoch == new.open.id.epoch else "takeover"
    if new.truncated_before > old.truncated_before:
        return "truncate"
    return "release" if new.released and not old.released else OTHER


def _of_server(before: bytes | None, after: bytes, key: str) -> str:
    if before is None:
        return "register"
    old = records.decode(before, ServerRecord, key)
    new = records.decode(after, ServerRecord, key)
    changes = (
        ("retire", new.is_retired and not old.is_retired),
        ("replace", new.incarnation != old.incarnation),
        ("restart", new.boot != old.boot),
        ("leave", new.is_leaving and not old.is_leaving),
        ("stay", old.is_leaving and not new.is_leaving),
    )
    found = (name for name, has_changed in changes if has_changed)
    return next(found, "report")  # of its position, perhaps of one that was written meanwhile


def _of_tombstone(before: bytes | None, after: bytes, key: str) -> str:
    if before is None:
        return "delete"
    old, new = (records.decode(value, Tombstone, key) for value in (before, after))
    return "confirm drop" if len(new.holders) < len(old.holders) else "hold again"
