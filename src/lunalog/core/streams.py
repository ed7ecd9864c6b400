"""What may happen to a stream's head: each function takes the head as it is and returns the next one.

Nothing is changed here; the caller commits what is returned by compare-and-swap on the head, and asks
again on the newer head when that fails.  `None` says that the head shows the wish already, so that an
identical repeat finds itself applied (R28).

Source: design.md section 4; R1, R8, R11, R22, R25, R31, I5.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from lunalog import limits
from lunalog.errors import (
    ConflictError,
    FencedError,
    InvariantError,
    MetadataLostError,
    NotLeaderError,
    UsageError,
)
from lunalog.types import (
    Chain,
    Epoch,
    OpenSegment,
    Peer,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    StreamHead,
    StreamId,
)

EPOCH_MAX: Final = (1 << 62) - 1


class SealRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a leader asks for in one transaction (the wire's `SealSegment`, R8, R11, R31)."""

    promise: Promise
    old: SegmentId | None
    row: SealedSegment | None
    open: OpenSegment | None
    next: int
    chain: Chain
    release: bool
    reason: str = ""


class Change(msgspec.Struct, frozen=True):
    """The next head, and the row that is sealed with it."""

    head: StreamHead
    row: SealedSegment | None = None


def create(name: str, stream: StreamId, policy: Policy, now_us: int) -> StreamHead:
    """Return the first head of a stream; nobody leads it and nothing is open."""
    policy.validate()
    if len(stream) != 16:
        raise UsageError(f"a stream id has 16 bytes, not {len(stream)}")
    return StreamHead(name=name, stream=stream, policy=policy, created_us=now_us)


def grant(head: StreamHead, peer: Peer) -> Change:
    """Give the next epoch to `peer`; the caller knows that the last lease is void (R1)."""
    _check_living(head)
    if head.epoch >= EPOCH_MAX:
        raise InvariantError(f"epochs of {head.name!r} are used up")
    return _next(head, epoch=head.epoch + 1, leader=peer, released=False)


def check_leader(head: StreamHead, promise: Promise) -> None:
    """Raise unless `promise` names the leader of this head, released or not."""
    ours = head.promise
    if promise.epoch > ours.epoch:
        raise MetadataLostError(
            f"{head.name!r} is at epoch {ours.epoch} here, but epoch {promise.epoch} was granted once: "
            "the metadata went back (R25)"
        )
    if promise != ours:
        name = None if head.released or head.leader is None else head.leader.name
        raise FencedError(
            f"epoch {promise.epoch} of {head.name!r} is over: epoch {ours.epoch} was granted"
            + (f" to {name}" if name else ""),
            leader=name,
            epoch=ours.epoch,
            incarnation=ours.leader,
        )


def _check_holds(head: StreamHead, promise: Promise) -> None:
    check_leader(head, promise)
    if head.released or head.epoch == 0:
        raise FencedError(
            f"epoch {head.epoch} of {head.name!r} was released by its leader",
            epoch=head.epoch,
            incarnation=head.promise.leader,
        )


def _check_living(head: StreamHead) -> None:
    if head.deleted:
        raise InvariantError(f"the tombstone of {head.name!r} was asked to change (R22)")


# ---------------------------------------------------------------- seal and open


def seal(
    head: StreamHead,
    rows: Sequence[SealedSegment],
    request: SealRequest,
    *,
    sealed_leader: str,
    is_known: Callable[[str], bool],
    now_us: int,
) -> Change | None:
    """Seal the open segment (if any) and open the next (or none) in one step.

    Args:
        head: The stream's head.
        rows: Its sealed segments in order of `first`.
        request: What the leader asks for.
        sealed_leader: Name of the peer that led the epoch of the segment that is open now.
        is_known: Whether a server of that name was ever registered.
        now_us: For people.

    Returns:
        What to commit; none when the head shows it already (R28).

    Raises:
        FencedError: The epoch is over, or was released.
        ConflictError: Another segment is open, or bounds do not fit; nothing is applied.
        UsageError: The request cannot mean anything.
        MetadataLostError: The leader holds an epoch that this head never granted (R25).
    """
    _check_living(head)
    check_leader(head, request.promise)
    if _is_shown(head, request):
        return None
    _check_holds(head, request.promise)
    if request.open is not None and request.release:
        raise UsageError("who releases leaves nothing open (R31)")
    found = head.open.id if head.open is not None else None
    if found != request.old:
        raise ConflictError(f"{head.name!r} has segment {found} open, not {request.old}")
    row = _sealed(head, request, sealed_leader, now_us)
    if request.open is not None:
        _check_open(head, rows, request.open, request, is_known)
    head_after = _next(
        head,
        next=request.next,
        chain=request.chain,
        open=request.open,
        released=request.release,
    ).head
    _check_monotone(head, head_after)
    return Change(head_after, row)


def _is_shown(head: StreamHead, request: SealRequest) -> bool:
    """True when this head is what the same request has left behind."""
    if request.open is not None:
        if head.open is None or head.open.id != request.open.id:
            return False
        if (head.open.first, head.open.chain, head.open.members, head.open.ack_quorum) != (
            request.open.first,
            request.open.chain,
            request.open.members,
            request.open.ack_quorum,
        ):
            raise ConflictError(
                f"segment {head.open.id} of {head.name!r} is open with another beginning or set"
            )
        return not head.released
    at = (head.next, head.chain, head.released)
    return (
        head.open is None
        and (request.old is not None or request.release)
        and at == (request.next, request.chain, request.release)
    )


def _sealed(
    head: StreamHead, request: SealRequest, leader: str, now_us: int
) -> SealedSegment | None:
    """Check the end of the open segment and return its row; an empty one leaves none (R8)."""
    old, row = head.open, request.row
    if old is None:
        if row is not None or (request.next, request.chain) != (head.next, head.chain):
            raise ConflictError(
                f"{head.name!r} goes on at {head.next}, not at {request.next}, or its chain differs",
                expected=request.next,
                found=head.next,
            )
        return None
    if request.next < old.first:
        raise ConflictError(
            f"segment {old.id} of {head.name!r} begins at {old.first} and cannot end at {request.next}",
            expected=request.next,
            found=old.first,
        )
    if row is None:
        if (request.next, request.chain) != (old.first, old.chain):
            raise ConflictError(f"segment {old.id} of {head.name!r} is not empty, it needs a row")
        return None
    asked = (row.id, row.first, row.end, row.chain, frozenset(row.members), row.ack_quorum)
    wanted = (
        *(old.id, old.first, request.next, request.chain),
        *(frozenset(old.members), old.ack_quorum),
    )
    if asked != wanted or row.end <= row.first:
        raise ConflictError(f"the row of segment {old.id} of {head.name!r} does not fit the head")
    return msgspec.structs.replace(
        row,
        members=old.members,
        leader=leader,
        reason=(row.reason or request.reason)[:64],
        sealed_us=now_us,
        version=1,
    )


def _check_open(
    head: StreamHead,
    rows: Sequence[SealedSegment],
    new: OpenSegment,
    request: SealRequest,
    is_known: Callable[[str], bool],
) -> None:
    if new.id.epoch != head.epoch:
        raise UsageError(f"segment {new.id} is not one of epoch {head.epoch} (R8)")
    if (new.first, new.chain) != (request.next, request.chain):
        raise UsageError(
            f"segment {new.id} begins at {new.first}, the old one ends at {request.next}"
        )
    last = head.open.id if head.open is not None else rows[-1].id if rows else None
    if last is not None and new.id <= last:
        raise ConflictError(f"segment {new.id} is not newer than {last} (R7: a fresh one each try)")
    servers = [member.server for member in new.members]
    if len(set(servers)) != len(servers):
        raise UsageError(f"segment {new.id} names a server twice")
    unknown = [server for server in servers if not is_known(server)]
    if unknown:
        raise UsageError(f"segment {new.id} names servers that nobody knows: {unknown}")
    n, a = len(servers), new.ack_quorum
    if not (2 <= a <= n <= limits.REPLICAS_MAX or n == a == 1) or a < head.policy.ack_quorum:
        raise UsageError(
            f"ack quorum {a} of {n} servers is not legal, or below the policy's "
            f"{head.policy.ack_quorum}"
        )


# ---------------------------------------------------------------- the rest of a stream's life


def truncate(head: StreamHead, promise: Promise, before: int) -> Change | None:
    """Raise `truncated_before` under the leader's epoch; the leader vouches for `before <= C` (R22)."""
    _check_living(head)
    _check_holds(head, promise)
    if before < 0 or before > limits.SEQUENCE_MAX:
        raise UsageError(f"cannot truncate before {before}")
    if head.open is None and before > head.next:
        raise ConflictError(
            f"cannot truncate before {before}: {head.name!r} ends at {head.next}",
            expected=before,
            found=head.next,
        )
    if before <= head.truncated_before:
        return None
    return _next(head, truncated_before=before)


def release(head: StreamHead, promise: Promise) -> Change | None:
    """Give the epoch back and leave what is open to the next leader (N2)."""
    _check_living(head)
    check_leader(head, promise)
    if head.epoch == 0:
        raise NotLeaderError(f"nobody has led {head.name!r} yet")
    return None if head.released else _next(head, released=True)


def delete(head: StreamHead) -> Change:
    """Return the tombstone: an epoch that nobody leads (R22)."""
    _check_living(head)
    return _next(head, epoch=head.epoch + 1, leader=None, released=True, deleted=True)


def _next(head: StreamHead, **fields: object) -> Change:
    after = msgspec.structs.replace(head, version=head.version + 1, **fields)
    _check_monotone(head, after)
    return Change(after)


def _check_monotone(before: StreamHead, after: StreamHead) -> None:
    """I5: nothing of a head ever goes back."""
    for name in ("generation", "version", "epoch", "truncated_before", "next"):
        old, new = getattr(before, name), getattr(after, name)
        InvariantError.check(old <= new, "I5", field=name, before=old, after=new)


# ---------------------------------------------------------------- proof that metadata went back


def proof_of_loss(
    head: StreamHead,
    rows: Sequence[SealedSegment],
    *,
    segment: SegmentId,
    generation: int,
    first: int,
    committed: int,
    has_certificate: bool,
    promise_epoch: Epoch,
    superseded: Collection[SegmentId] = (),
) -> str:
    """Say how a server's fact proves that the metadata went back (R25); empty when it does not.

    `head` must have been read from the store after the fact arrived.  Segments in `superseded` ended
    where they began: a takeover that no member told of a committed event carried over all it found.
    A segment that begins below the trim may have had a row that is trimmed away, whatever is said of
    its end: a takeover may have ended it below what this member knew.
    """
    if generation > head.generation:
        return f"segment {segment} was opened under generation {generation}"
    if promise_epoch > head.epoch:
        return f"epoch {promise_epoch} was promised, the head is at {head.epoch}"
    is_open = head.open is not None and head.open.id == segment
    if is_open:
        return f"segment {segment} is open here but was sealed once" if has_certificate else ""
    if segment.epoch > head.epoch:
        return f"segment {segment} is of an epoch above {head.epoch}"
    is_listed = any(row.id == segment for row in rows)
    is_explained = is_listed or segment in superseded
    if not is_explained and committed > first >= head.truncated_before:
        return f"segment {segment} held committed events and is not listed"
    return ""


def is_garbage(
    head: StreamHead, rows: Sequence[SealedSegment], *, segment: SegmentId, generation: int
) -> bool:
    """True when the master can confirm that nobody will ever read this copy (R10)."""
    return (
        generation == head.generation
        and segment.epoch < head.epoch
        and (head.open is None or head.open.id != segment)
        and all(row.id != segment for row in rows)
    )
