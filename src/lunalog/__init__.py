"""lunalog: a replicated single-write journal.

The public names are imported when they are first used, so that `import lunalog` costs next to nothing:
no module of the standard library either, since nobody handles a Ctrl-C yet while the command loads one.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""Type checkers take it for that of `typing`, which is not worth its time here."""

if TYPE_CHECKING:
    from typing import Any

    from lunalog.client.reader import EndState, StreamReader
    from lunalog.client.writer import StreamWriter
    from lunalog.config import ClientConfig
    from lunalog.embedded import SingleWriteJournal
    from lunalog.errors import (
        AvailabilityError,
        BadAddressError,
        BadNameError,
        ClosedError,
        ConflictError,
        CorruptFrameError,
        CorruptRecordError,
        DataLostError,
        DeadlineExceededError,
        DirectoryLockedError,
        DiskFullError,
        FencedError,
        InvariantError,
        LunalogError,
        MasterUnavailableError,
        MetadataLostError,
        NotEnoughServersError,
        NotLeaderError,
        OutcomeUnknownError,
        OverloadedError,
        PayloadTooLargeError,
        PeerError,
        ServerUnavailableError,
        StorageError,
        StreamError,
        StreamExistsError,
        StreamNotFoundError,
        TruncatedError,
        UnsupportedVersionError,
        UsageError,
        WrongClusterError,
    )
    from lunalog.types import (
        Event,
        LeaderTurn,
        Peer,
        Policy,
        Role,
        RoleState,
        StreamDescription,
        StreamHead,
    )

__version__ = "0.1.0"

__all__ = [
    "AvailabilityError",
    "BadAddressError",
    "BadNameError",
    "ClientConfig",
    "ClosedError",
    "ConflictError",
    "CorruptFrameError",
    "CorruptRecordError",
    "DataLostError",
    "DeadlineExceededError",
    "DirectoryLockedError",
    "DiskFullError",
    "EndState",
    "Event",
    "FencedError",
    "InvariantError",
    "LeaderTurn",
    "LunalogError",
    "MasterUnavailableError",
    "MetadataLostError",
    "NotEnoughServersError",
    "NotLeaderError",
    "OutcomeUnknownError",
    "OverloadedError",
    "PayloadTooLargeError",
    "Peer",
    "PeerError",
    "Policy",
    "Role",
    "RoleState",
    "ServerUnavailableError",
    "SingleWriteJournal",
    "StorageError",
    "StreamDescription",
    "StreamError",
    "StreamExistsError",
    "StreamHead",
    "StreamNotFoundError",
    "StreamReader",
    "StreamWriter",
    "TruncatedError",
    "UnsupportedVersionError",
    "UsageError",
    "WrongClusterError",
    "__version__",
]

_HOMES = {
    "ClientConfig": "lunalog.config",
    "EndState": "lunalog.client.reader",
    "SingleWriteJournal": "lunalog.embedded",
    "StreamReader": "lunalog.client.reader",
    "StreamWriter": "lunalog.client.writer",
    **dict.fromkeys(
        (
            "Event",
            "LeaderTurn",
            "Peer",
            "Policy",
            "Role",
            "RoleState",
            "StreamDescription",
            "StreamHead",
        ),
        "lunalog.types",
    ),
}
"""Where each public name lives; errors are all in `lunalog.errors`."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'lunalog' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES.get(name, "lunalog.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
