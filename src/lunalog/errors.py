"""Every error that lunalog raises, as one tree.

    LunalogError (code, retryable, maybe_applied, exit_code)
      UsageError              BadNameError BadAddressError PayloadTooLargeError
                              BadCertificateError ClosedError ConflictError
      StreamError             StreamNotFoundError StreamExistsError TruncatedError DataLostError
      NotLeaderError          FencedError
      AvailabilityError       NotEnoughServersError OverloadedError MasterUnavailableError
                              ServerUnavailableError NotActiveError DeadlineExceededError
      OutcomeUnknownError
      PeerError               CorruptFrameError UnsupportedVersionError WrongClusterError
                              TlsError, its kinds: UntrustedPeerError TlsMismatchError
      StorageError            CorruptRecordError DiskFullError DirectoryLockedError
      RefusedError            a replica's answers to a leader (wire only, handled in the client)
      InvariantError          a rule was broken here: the process (or journal) ends (R27)

`code` is stable and unique: it travels on the wire, labels metrics and picks the exit code.
`maybe_applied` tells whether the operation may have taken effect.  Fields are set by keyword and
travel with the error.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "str": (str,),
    "str | None": (str, type(None)),
    "bytes": (bytes,),
}
"""Annotations that make an attribute of an error class a field that travels."""


class LunalogError(Exception):
    """Something failed; see `code`, and `maybe_applied` for what is known of the effect."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    maybe_applied: bool = False
    exit_code: ClassVar[int] = 1
    by_code: ClassVar[dict[str, type[LunalogError]]] = {}
    carries: ClassVar[dict[str, tuple[type, ...]]] = {}
    """Fields of this kind of error, and what they may be."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = vars(cls).get("__annotations__", {})
        kinds = {name: FIELD_TYPES[kind] for name, kind in own.items() if kind in FIELD_TYPES}
        cls.carries = cls.carries | kinds
        if "code" in cls.__dict__ and cls.by_code.setdefault(cls.code, cls) is not cls:
            raise TypeError(f"error code {cls.code!r} is taken")

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        for name, value in fields.items():
            if name not in self.carries:
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)
        self._fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (type(self), self.message, self._fields),
            {"maybe_applied": self.maybe_applied},
        )

    def without_effect(self) -> Self:
        """Say that this one certainly changed nothing, although others of its kind may have."""
        self.maybe_applied = False
        return self

    @property
    def fields(self) -> dict[str, Any]:
        """What travels beside the message: plain values only."""
        return dict(self._fields)

    @staticmethod
    def from_wire(code: str, message: str, fields: dict[str, Any]) -> LunalogError:
        """Rebuild an error that a peer sent.

        A code from the future becomes a `PeerError`, as does a rule that was broken over there: it
        ends nobody here (R27).  Fields that the kind does not carry, or not so, are left behind.
        """
        kind = LunalogError.by_code.get(code)
        if kind is None or issubclass(kind, InvariantError):
            return PeerError(f"{message} ({code})")
        known = {k: v for k, v in fields.items() if type(v) in kind.carries.get(k, ())}
        return kind(message, **known)


def _rebuild(kind: type[LunalogError], message: str, fields: dict[str, Any]) -> LunalogError:
    return kind(message, **fields)


# ------------------------------------------------------------- the caller's bug; nothing was sent


class UsageError(LunalogError):
    """The call cannot mean anything; nothing was sent."""

    code = "usage"
    exit_code = 2


class BadNameError(UsageError):
    """Not a legal stream, peer or server name."""

    code = "bad_name"


class BadAddressError(UsageError):
    """Not a URL or address that lunalog understands."""

    code = "bad_address"


class BadCertificateError(UsageError):
    """A certificate, key or authority of this side cannot be used."""

    code = "bad_certificate"


class PayloadTooLargeError(UsageError):
    """An event or an `append_many` is past the limit."""

    code = "payload_too_large"


class ClosedError(UsageError):
    """This journal, writer or reader was closed by its owner."""

    code = "closed"


class ConflictError(UsageError):
    """`expected` is not the tail, or a record changed meanwhile; nothing was applied."""

    code = "conflict"
    exit_code = 4
    expected: int | None = None
    found: int | None = None


# ------------------------------------------------------------------------------------- streams


class StreamError(LunalogError):
    """About one stream."""

    code = "stream"
    exit_code = 3


class StreamNotFoundError(StreamError):
    """No stream of that name, or it was deleted."""

    code = "stream_not_found"


class StreamExistsError(StreamError):
    """A stream of that name is there already; nothing was changed."""

    code = "stream_exists"
    exit_code = 4


class TruncatedError(StreamError):
    """The sequence lies below the first event that is kept (`start`)."""

    code = "truncated"
    start: int = 0


class DataLostError(StreamError):
    """An operator declared `[first, end)` lost."""

    code = "data_lost"
    first: int = 0
    end: int = 0


# ---------------------------------------------------------------------------------- leadership


class NotLeaderError(LunalogError):
    """This client does not lead the stream (any more); the event was not sent."""

    code = "not_leader"
    exit_code = 4
    leader: str | None = None
    """Name of the peer that leads, if one is known."""


class FencedError(NotLeaderError):
    """A replica has promised a higher epoch: this writer is finished."""

    code = "fenced"
    epoch: int = 0
    """The epoch that was promised."""
    incarnation: bytes = b""


# -------------------------------------------------------------------------------- availability


class AvailabilityError(LunalogError):
    """Not possible now; the same call may succeed later."""

    code = "unavailable"
    retryable = True
    exit_code = 5


class NotEnoughServersError(AvailabilityError):
    """Fewer live journal servers than the ack quorum needs."""

    code = "not_enough_servers"
    have: int = 0
    need: int = 0


class OverloadedError(AvailabilityError):
    """A bounded buffer is full; nothing was sent."""

    code = "overloaded"


class MasterUnavailableError(AvailabilityError):
    """No master answers; a change of metadata that was asked for may still be applied."""

    code = "master_unavailable"
    maybe_applied = True


class ServerUnavailableError(AvailabilityError):
    """A journal server cannot be reached."""

    code = "server_unavailable"
    server: str = ""


class NotActiveError(AvailabilityError):
    """The node is not ready to answer yet, or another one is active."""

    code = "not_active"


class DeadlineExceededError(AvailabilityError, TimeoutError):
    """The caller's time is over; never raised for an append that was sent."""

    code = "deadline_exceeded"
    maybe_applied = True


class OutcomeUnknownError(LunalogError):
    """The append was sent, but its fate is not known; read the tail before retrying."""

    code = "outcome_unknown"
    maybe_applied = True
    exit_code = 6
    sequence: int | None = None


# --------------------------------------------------------------------------------- other side


class PeerError(LunalogError):
    """The other side broke the protocol; the connection was closed."""

    code = "peer"


class CorruptFrameError(PeerError):
    """Bytes that fail their checksum or shape."""

    code = "corrupt_frame"


class UnsupportedVersionError(PeerError):
    """The two sides share no protocol version."""

    code = "unsupported_version"


class WrongClusterError(PeerError):
    """The other side, or a data directory, belongs to another cluster or server."""

    code = "wrong_cluster"


class TlsError(PeerError):
    """No TLS handshake with the other side; nothing else was said."""

    code = "tls"


class UntrustedPeerError(TlsError):
    """The other side's certificate is not valid now, not for its name, or of nobody we trust."""

    code = "untrusted_peer"


class TlsMismatchError(TlsError):
    """One side speaks TLS and the other does not."""

    code = "tls_mismatch"


# ------------------------------------------------------------------------------------ storage


class StorageError(LunalogError):
    """A disk or data directory cannot be used."""

    code = "storage"


class CorruptRecordError(StorageError):
    """Damage in a file of ours; it is never taken for "no such event" (R17, R18)."""

    code = "corrupt_record"
    file: str = ""
    offset: int = 0


class DiskFullError(StorageError):
    """The server keeps its last space for fences and takes no append (D3); it stays readable."""

    code = "disk_full"
    retryable = True
    exit_code = 5


class DirectoryLockedError(StorageError):
    """Another process holds this data directory."""

    code = "directory_locked"


# --------------------------------------------------------------- a replica's answers to leaders


class RefusedError(LunalogError):
    """A replica will not do this for this segment; nothing was changed there."""

    code = "refused"


class WrongIncarnationError(RefusedError):
    """The server lives under another incarnation: its old slot counts as failed (R19)."""

    code = "wrong_incarnation"
    incarnation: int = 0


class NotOpenError(RefusedError):
    """The segment was never opened on this server (R3)."""

    code = "not_open"


class SealedError(RefusedError):
    """The segment is sealed, or belongs to another epoch."""

    code = "sealed"


class GoneError(RefusedError):
    """The stream is deleted, or the segment truncated away (R22)."""

    code = "gone"


class GapError(RefusedError):
    """The frame does not start at this replica's end."""

    code = "gap"
    end: int = 0


class ReplicaConflictError(RefusedError):
    """The replica holds other bytes at these sequences: the *leader* must die (R3)."""

    code = "replica_conflict"


class UnknownDataError(RefusedError):
    """The range is damaged here: neither present nor absent (R18)."""

    code = "unknown_data"


class MetadataLostError(LunalogError):
    """The metadata went back behind what servers have promised: the stream is read-only (R25)."""

    code = "metadata_lost"
    exit_code = 10


class InvariantError(LunalogError):
    """A safety rule would be broken by this very process (R27)."""

    code = "invariant"
    exit_code = 70

    @classmethod
    def check(cls, holds: bool, rule: str, **found: Any) -> None:
        """Raise unless `holds`; a plain call, so that `python -O` changes nothing."""
        if not holds:
            raise cls(f"{rule}: {found}")


LunalogError.by_code[LunalogError.code] = LunalogError
