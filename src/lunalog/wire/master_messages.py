"""What clients ask of the master, and what it answers and pushes.

Array-like structs: a field is only ever added at the end, with a default.  Tags are for ever.
"""

from __future__ import annotations

import msgspec

from lunalog.types import (
    Chain,
    Count,
    OpenSegment,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    Sequence,
    ServerAddress,
    StreamHead,
    StreamId,
    StreamView,
)


class CreateStream(msgspec.Struct, frozen=True, array_like=True, tag=48):
    """Create -> ViewReply.  `stream` is drawn by the client, so a repeat finds its own."""

    name: str
    stream: StreamId
    policy: Policy
    exist_ok: bool = False


class DeleteStream(msgspec.Struct, frozen=True, array_like=True, tag=49):
    """Tombstone, and an epoch that nobody leads (R22) -> Done."""

    name: str
    stream: StreamId
    """Which one is meant: the name may be taken again by now."""


class ListStreams(msgspec.Struct, frozen=True, array_like=True, tag=50):
    """Heads in order of name, those behind `after` -> StreamList."""

    prefix: str = ""
    after: str = ""


class StreamList(msgspec.Struct, frozen=True, array_like=True, tag=51):
    """One page; an empty one is the end."""

    heads: tuple[StreamHead, ...]


class GetStream(msgspec.Struct, frozen=True, array_like=True, tag=52):
    """Look a stream up by name -> ViewReply."""

    name: str


class ViewReply(msgspec.Struct, frozen=True, array_like=True, tag=53):
    """A whole view."""

    view: StreamView
    is_vacant: bool = False
    """True when the lease of who the head names is over, or it names nobody: nobody leads now."""


class WatchStream(msgspec.Struct, frozen=True, array_like=True, tag=54):
    """Push every change of this stream to this connection -> ViewReply (whole)."""

    stream: StreamId
    is_candidate: bool = False
    """Also stand for election (until Unwatch, or a WatchStream without it)."""


class UnwatchStream(msgspec.Struct, frozen=True, array_like=True, tag=55):
    """No more pushes, no candidate any more -> Done."""

    stream: StreamId


class StreamChanged(msgspec.Struct, frozen=True, array_like=True, tag=56):
    """Push: the head, the rows that changed since the last push, servers (all that are named)."""

    view: StreamView


class StreamGone(msgspec.Struct, frozen=True, array_like=True, tag=57):
    """Push: the stream was deleted."""

    stream: StreamId


class Propose(msgspec.Struct, frozen=True, array_like=True, tag=58):
    """Name servers for a new segment, without those this leader cannot reach -> Proposal."""

    stream: StreamId
    promise: Promise
    exclude: tuple[str, ...] = ()


class Proposal(msgspec.Struct, frozen=True, array_like=True, tag=59):
    """At most N live servers, best first; fewer than A is told as NotEnoughServersError."""

    servers: tuple[ServerAddress, ...]


class SealSegment(msgspec.Struct, frozen=True, array_like=True, tag=60):
    """One transaction: seal `old` (as `row`, or as empty) and open the next, or none (R8, R11, R31).

    Applied iff the head has this epoch and leader and `old` open; an identical repeat finds itself
    done (R28) -> HeadReply.  FencedError: the epoch is over.  ConflictError: the head shows another
    open segment of this epoch.
    """

    stream: StreamId
    promise: Promise
    old: SegmentId | None
    row: SealedSegment | None
    open: OpenSegment | None
    next: Sequence
    chain: Chain
    """At `next`."""
    release: bool = False
    """The leader resigns with it (R31)."""
    reason: str = ""


class HeadReply(msgspec.Struct, frozen=True, array_like=True, tag=61):
    """The head as it is now."""

    head: StreamHead


class Truncate(msgspec.Struct, frozen=True, array_like=True, tag=62):
    """Raise `truncated_before` under this epoch (R22) -> HeadReply."""

    stream: StreamId
    promise: Promise
    before: Sequence


class Release(msgspec.Struct, frozen=True, array_like=True, tag=63):
    """Give the epoch back without closing anything: this leader cannot work (N2) -> Done."""

    stream: StreamId
    promise: Promise


class Transfer(msgspec.Struct, frozen=True, array_like=True, tag=64):
    """Hand leadership over to the candidate named `to`; empty: to any other -> Done when led."""

    stream: StreamId
    to: str
    timeout_ms: int


class ResignWanted(msgspec.Struct, frozen=True, array_like=True, tag=65):
    """Push to a leader: close and release; somebody else shall lead."""

    stream: StreamId
    epoch: int


class RollWanted(msgspec.Struct, frozen=True, array_like=True, tag=66):
    """Push to a leader: open a new segment, for `reason`, when that is possible."""

    stream: StreamId
    segment: SegmentId
    reason: str


class GetServers(msgspec.Struct, frozen=True, array_like=True, tag=67):
    """All servers that the master knows -> ServerList."""


class ServerStatus(msgspec.Struct, frozen=True, array_like=True):
    """One server as the master sees it."""

    address: ServerAddress
    labels: tuple[str, ...]
    state: str
    """alive, lost, leaving, or gone."""
    free_bytes: int
    total_bytes: int
    append_bytes_per_s: int
    open_segments: int
    sealed_segments: int
    boot: Count
    pid: int = 0
    """Of a process that the local orchestrator runs; 0: not its own."""


class ServerList(msgspec.Struct, frozen=True, array_like=True, tag=68):
    """In order of name."""

    servers: tuple[ServerStatus, ...]
    wanted: int | None
    """How many the orchestrator keeps alive; none: there is no orchestrator."""


class ScaleServers(msgspec.Struct, frozen=True, array_like=True, tag=69):
    """Change the wanted number, durably -> Done."""

    wanted: int


class GetHealth(msgspec.Struct, frozen=True, array_like=True, tag=70):
    """Is all well -> Health."""


class Health(msgspec.Struct, frozen=True, array_like=True, tag=71):
    """Findings by urgency; all empty: healthy."""

    errors: tuple[str, ...]
    """Data or writes are at risk now: a person must act."""
    warnings: tuple[str, ...]
    """Degraded, heals by itself."""
    numbers: dict[str, int]
