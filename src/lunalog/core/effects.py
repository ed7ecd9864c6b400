"""What the leader's machine asks of the world: plain records, executed by the client in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from lunalog.core.replication import Replica, SegmentReplication
from lunalog.errors import LunalogError
from lunalog.types import (
    Certificate,
    Chain,
    Member,
    OpenSegment,
    SealedSegment,
    SegmentId,
    Sequence,
)


@dataclass(frozen=True, slots=True)
class FenceSet:
    """Ask every member of `segment` for a fence, again until it answers (R5)."""

    segment: OpenSegment


@dataclass(frozen=True, slots=True)
class StopFencing:
    """No more fences are needed."""


@dataclass(frozen=True, slots=True)
class ReadFrom:
    """Recovery read of `segment` at `member`, from the frame that holds `start` on (R6)."""

    segment: OpenSegment
    member: Member
    start: Sequence
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class ProposeSet:
    """Ask the master for servers, without those named."""

    exclude: tuple[str, ...]
    is_needed: bool = True
    """False if appends go on without them."""


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Open `segment` on each of its members, and again after every lost connection (R3)."""

    segment: SegmentReplication


@dataclass(frozen=True, slots=True)
class SendFrom:
    """Send `replica`, which is open, the frames from `start` on, and all new ones of its segment."""

    segment: SegmentReplication
    replica: Replica
    start: Sequence


@dataclass(frozen=True, slots=True)
class DropSet:
    """This segment is of no more interest here: close its slots."""

    segment: SegmentReplication


@dataclass(frozen=True, slots=True)
class Seal:
    """One transaction, to be sent again unchanged until its outcome is known (R8, R11, R28, R31)."""

    old: SegmentId | None
    row: SealedSegment | None
    open: OpenSegment | None
    next: Sequence
    chain: Chain
    release: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Certify:
    """Tell the members of a sealed segment its end (R21)."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class RereadHead:
    """Fetch the head from the master: `head_read` gets it."""


@dataclass(frozen=True, slots=True)
class CheckSet:
    """Ask every member whether we are still unfenced there (R14); `checked` gets each answer."""

    round: int
    segment: OpenSegment


@dataclass(frozen=True, slots=True)
class AnswerRead:
    """Who asked under `token` may read everything below `committed`; or there is no answer."""

    token: int
    committed: Sequence
    error: LunalogError | None = None


@dataclass(frozen=True, slots=True)
class Led:
    """R9 holds: everything below `tail` is committed, and appends may begin."""

    tail: Sequence


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Ask the master to release the epoch, nothing closed: this leader cannot work (N2)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The epoch is over for this leader: nothing more is acknowledged."""

    error: LunalogError
    is_release_due: bool
    """True if the master still believes that we lead."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A person must look: a rule's evidence was seen."""

    event: str
    fields: dict[str, object] = field(default_factory=dict)


Effect = (
    FenceSet | StopFencing | ReadFrom | ProposeSet | OpenSet | SendFrom | DropSet | Seal | Certify
    | RereadHead | CheckSet | AnswerRead | Led | GiveBack | Ended | Alarm
)  # fmt: skip
