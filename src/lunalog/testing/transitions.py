"""Names for what a transaction does to the master's metadata, so that a crash can be aimed at each.

Source: M1; docs/design.md "Metadata and the master".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Run

from lunalog.master import records
from lunalog.master.records import HeadRecord, ServerRecord
from lunalog.types import StreamHead

Read = Callable[[str], bytes | None]

TRANSITIONS = (
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
    "set policy",
    "register",
    "restart",
    "replace",
    "report",
    "row",
    "delete",
    "forget",
    "other",
)
"""All of them; `transition` returns one for each transaction."""


def transition(read: Read, puts: Mapping[str, bytes], deletes: Run[str]) -> str:
    """Name what a transaction is about to do, given what `read(key)` finds before it."""
    for key, value in puts.items():
        if key.startswith(records.HEADS):
            return _of_head(_head(read(key), key), _head(value, key), puts)
        if key.startswith(records.SERVERS):
            return _of_server(read(key), value, key)
    for key in (*puts, *deletes):
        for prefix, name in _BY_KEY.items():
            if key.startswith(prefix):
                return name
    return "other"


_BY_KEY = {
    records.ACTIVE: "activate",
    records.CLUSTER: "found",
    records.ROWS: "row",
    records.GONE: "forget",
}


def _head(value: bytes | None, key: str) -> StreamHead | None:
    return None if value is None else records.decode(value, HeadRecord, key).head


def _of_head(old: StreamHead | None, new: StreamHead | None, puts: Mapping[str, bytes]) -> str:
    if old is None or new is None:
        return "create"
    changes = (
        ("delete", new.deleted and not old.deleted),
        ("grant", new.epoch > old.epoch),
        ("open", old.open is None and new.open is not None),
        ("close", old.open is not None and new.open is None),
        ("truncate", new.truncated_before > old.truncated_before),
        ("release", new.released and not old.released),
        ("set policy", new.policy != old.policy),
    )
    for name, has_changed in changes:
        if has_changed:
            return name
    if old.open is not None and new.open is not None and old.open.id != new.open.id:
        return "roll" if old.open.id.epoch == new.open.id.epoch else "takeover"
    return "row" if any(key.startswith(records.ROWS) for key in puts) else "other"


def _of_server(before: bytes | None, after: bytes, key: str) -> str:
    if before is None:
        return "register"
    old = records.decode(before, ServerRecord, key)
    new = records.decode(after, ServerRecord, key)
    if new.incarnation != old.incarnation:
        return "replace"
    return "restart" if new.boot != old.boot else "report"
