"""Every typed control message, as one tagged union; docs/wire.md lists them for other languages.

Array-like structs: a field is only ever added at the end, with a default.  Tags are for ever.
Requests are answered by the message named in their docstring, or by an ERROR (code, message, fields).
Pushes are one way.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lunalog.types import (
    Certificate,
    Chain,
    LeaderIncarnation,
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


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """First message of who dialled -> Welcome."""

    version_min: int
    version_max: int
    cluster: str
    """Empty while the dialler knows none."""
    role: str
    """client, server, master or admin."""
    name: str
    incarnation: bytes
    """A client's `linc`; empty for others."""
    nonce: bytes
    """Fresh random bytes a connection, so that late bytes of a dead one are told apart (N8)."""
    purpose: str = "main"
    """`beat` for a client's heartbeat connection."""
    features: tuple[str, ...] = ()


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Answer to Hello: what the two sides speak."""

    version: int
    cluster: str
    role: str
    name: str
    features: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Body of an ERROR message, and of refusals inside pushes."""

    code: str
    message: str
    fields: dict[str, Any]


class Done(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The request took effect; there is nothing to tell."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Is anybody there -> Done."""


# ------------------------------------------------------------------------- client -> journal server


class OpenSlot(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Open a segment here (R3), or find it again after a reconnect -> Opened.

    From then on APPEND, ACK and MARK on this connection name it by `slot`.
    """

    slot: int
    stream: StreamId
    segment: SegmentId
    leader: LeaderIncarnation
    incarnation: int
    first: Sequence
    chain: Chain
    """At `first`."""
    generation: int


class Opened(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """The segment is open, durably; appends go on at `end`."""

    end: Sequence
    chain: Chain


class CloseSlot(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Push: this connection will not name `slot` again."""

    slot: int


class AppendRefused(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Push from the server: frames of `slot` are not accepted (again) before another OpenSlot."""

    slot: int
    failure: Failure


class Fence(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Promise to refuse lower epochs, durably (R5) -> Fenced."""

    stream: StreamId
    segment: SegmentId
    """The open segment to report on."""
    first: Sequence
    promise: Promise
    incarnation: int


class Fenced(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """The promise is durable; the rest is as of the same point of the log."""

    end: Sequence
    chain: Chain
    committed: Sequence
    """Known committed sequence of this segment; 0: none known."""
    unknown: tuple[tuple[Sequence, Sequence], ...] = ()
    """Damaged ranges: they count neither as held nor as absent (R18)."""
    certificate: Certificate | None = None


class Check(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Is (epoch, leader) still unfenced, and the segment open here, not sealed (R14) -> Done."""

    stream: StreamId
    segment: SegmentId
    promise: Promise
    incarnation: int


class Read(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """Read frames from the one that holds `start` on -> FRAMES (see `wire.codec`).

    Without `promise`: only frames below the known committed sequence or a certificate's end (R12);
    waits up to `wait_ms` for some.  With `promise`: a recovery read, also past committed, that is
    refused if another epoch was promised since (R6).
    """

    stream: StreamId
    segment: SegmentId
    start: Sequence
    bytes_max: int
    wait_ms: int = 0
    promise: Promise | None = None


class Certify(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Here is your segment's end: cut, complete yourself from `sources` (R21) -> Certified."""

    certificate: Certificate
    sources: tuple[ServerAddress, ...] = ()


class Certified(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """The certificate is durable; `is_complete` when all below its end is held too."""

    is_complete: bool


class AskLeader(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """Ask the leader, through one replica of the open segment, for a read point (R14) -> ReadPoint."""

    stream: StreamId
    segment: SegmentId


class LeaderAsked(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """Push from the server to the leader's connection; answered by the push LeaderAnswer."""

    token: int
    stream: StreamId
    segment: SegmentId


class LeaderAnswer(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """Push from the leader: the read point for `token`, or why there is none."""

    token: int
    committed: Sequence
    failure: Failure | None = None


class ReadPoint(msgspec.Struct, frozen=True, array_like=True, tag=29):
    """All that was acknowledged before the question arrived lies below `committed`."""

    committed: Sequence


class DescribeServer(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """What does this server hold -> ServerReport."""


class ServerReport(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """Numbers for people and tests."""

    name: str
    incarnation: int
    boot: int
    facts: tuple[SegmentFact, ...]
    counters: dict[str, int]


# --------------------------------------------------------------------------------- client -> master


class CreateStream(msgspec.Struct, frozen=True, array_like=True, tag=48):
    """Create -> StreamView.  `stream` is drawn by the client, so a repeat finds its own."""

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
    boot: int
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


# ------------------------------------------------------------------------------------- heartbeats


class ClientBeat(msgspec.Struct, frozen=True, array_like=True, tag=80):
    """On a client's beat connection -> ClientBeatReply.  Renews every stream it leads (R15)."""

    turn_age_ms: int
    """How long ago the client's main loop last took a turn."""
    applied: tuple[tuple[StreamId, Sequence], ...] = ()
    """Changed since the last confirmed beat: how far this peer has replayed each stream."""


class ClientBeatReply(msgspec.Struct, frozen=True, array_like=True, tag=81):
    """The lease runs from when the beat was *sent* (R15)."""

    lease_ms: int
    heartbeat_ms: int


class EndSession(msgspec.Struct, frozen=True, array_like=True, tag=82):
    """This client closes for good; elections need not wait for a grace -> Done."""


class SegmentFact(msgspec.Struct, frozen=True, array_like=True):
    """What one server holds of one segment."""

    stream: StreamId
    segment: SegmentId
    generation: int
    first: Sequence
    end: Sequence
    committed: Sequence
    state: str
    """open, sealed (certificate known, not all held), complete, or dropped."""
    promise_epoch: int = 0


class RegisterServer(msgspec.Struct, frozen=True, array_like=True, tag=83):
    """A server's first message to a master -> Registered.  Facts are whole, not deltas."""

    name: str
    incarnation: int
    """0: an empty directory, never registered (R19)."""
    boot: int
    synced_position: int
    """Log position that is known synced (R19: an older image shows)."""
    may_have_lost: bool
    """Damage that may hide a promise or a tail: needs a new incarnation (R18)."""
    host: str
    port: int
    labels: tuple[str, ...]
    facts: tuple[SegmentFact, ...]
    pid: int = 0


class Registered(msgspec.Struct, frozen=True, array_like=True, tag=84):
    """Under this incarnation the server acks and votes."""

    cluster: str
    incarnation: int
    heartbeat_ms: int


class CertifyCommand(msgspec.Struct, frozen=True, array_like=True, tag=85):
    """As Certify; confirmed when complete (R21, R30)."""

    id: int
    certificate: Certificate
    sources: tuple[ServerAddress, ...]


class TrimCommand(msgspec.Struct, frozen=True, array_like=True, tag=86):
    """Drop what lies below `before`; `version` is the head's (R22, R30)."""

    id: int
    stream: StreamId
    before: Sequence
    version: int


class DropSegment(msgspec.Struct, frozen=True, array_like=True, tag=87):
    """Drop one segment and promise `promise` (R10, R22, R30)."""

    id: int
    stream: StreamId
    segment: SegmentId
    promise: Promise
    version: int


class DropStream(msgspec.Struct, frozen=True, array_like=True, tag=88):
    """The stream is deleted: promise, drop all, keep the tombstone (R22)."""

    id: int
    stream: StreamId
    promise: Promise


Command = CertifyCommand | TrimCommand | DropSegment | DropStream


class ServerBeat(msgspec.Struct, frozen=True, array_like=True, tag=89):
    """Status of a server -> ServerBeatReply."""

    incarnation: int
    boot: int
    synced_position: int
    free_bytes: int
    total_bytes: int
    append_bytes_per_s: int
    facts: tuple[SegmentFact, ...] = ()
    """Changed since the last confirmed beat."""
    confirmed: tuple[int, ...] = ()
    """Ids of commands carried out durably."""
    trouble: str = ""
    """disk_full, ...: take no new segments here."""


class ServerBeatReply(msgspec.Struct, frozen=True, array_like=True, tag=90):
    """Commands not confirmed yet; they repeat until they are."""

    commands: tuple[Command, ...] = ()
    is_leaving: bool = False
    """True: the server may exit, nothing needs it any more."""


Message = (
    Hello | Welcome | Failure | Done | Ping
    | OpenSlot | Opened | CloseSlot | AppendRefused | Fence | Fenced | Check | Read
    | Certify | Certified | AskLeader | LeaderAsked | LeaderAnswer | ReadPoint
    | DescribeServer | ServerReport
    | CreateStream | DeleteStream | ListStreams | StreamList | GetStream | ViewReply
    | WatchStream | UnwatchStream | StreamChanged | StreamGone | Propose | Proposal
    | SealSegment | HeadReply | Truncate | Release | Transfer | ResignWanted | RollWanted
    | GetServers | ServerList | ScaleServers | GetHealth | Health
    | ClientBeat | ClientBeatReply | EndSession | RegisterServer | Registered
    | CertifyCommand | TrimCommand | DropSegment | DropStream | ServerBeat | ServerBeatReply
)  # fmt: skip
