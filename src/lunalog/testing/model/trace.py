"""Hold a simulated run against the models: each transaction of the master must be a step of one.

The abstraction is taken at the moment of the transaction: what every member of the two sets has promised
and holds durably, and what was acknowledged so far, become a state of `recover`, `roll`, `close` or
`grant`; there the model's own guard must allow the step, and its invariants must hold behind it.

A server whose disk was ever harmed is given the benefit of the doubt: it counts as having promised and
held what the step needs (its loss is inside what is promised; the checkers of I2 and I11 judge the
outcome).

Source: docs/protocol.md "The model".
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any, Final

from lunalog.testing.history import Append, Finding, HeadChange, History, ServerFact
from lunalog.testing.model import close, grant, recover, roll
from lunalog.testing.model.explore import Model
from lunalog.types import Member, OpenSegment, Sequence, StreamHead

NOT_OPEN: Final = -1


def trace_check(history: History) -> Finding:
    """Every change of the head is a step of a model, and so is every acknowledgement."""
    finding = Finding()
    heads = [c for c in history.heads if c.head.stream == history.stream or not history.stream]
    acked = sorted(history.acked, key=lambda append: append.done)
    for before, after in pairwise(heads):
        if before.head == after.head or before.head.generation != after.head.generation:
            continue
        why = _step(before.head, after, acked)
        finding.require(
            not why, "model: {w}\n  from {b}\n  to {a}", w=why, b=before.head, a=after.head
        )
    for append in acked:
        finding.require(
            _may_ack(heads, append),
            "model: acked before its segment was known to be open (R9, R11): {a}",
            a=append,
        )
    return finding


# ---------------------------------------------------------------- which step it was


def _step(old: StreamHead, change: HeadChange, acked: list[Append]) -> str:
    """Say why a change of the head is no step of any model; empty if it is one."""
    new = change.head
    if new.version != old.version + 1:
        return f"version {old.version} is followed by {new.version}"
    if new.epoch != old.epoch:
        return _granted(old, new)
    if new.open == old.open and (new.next, new.chain) == (old.next, old.chain):
        if new.truncated_before != old.truncated_before:
            return _trimmed(old, change, acked)
        return "" if new.leader == old.leader else "another leader in the same epoch (R1)"
    if new.truncated_before != old.truncated_before or new.leader != old.leader:
        return "a seal that changes more than segments (R8)"
    return _sealed(old, change, acked)


def _sealed(old: StreamHead, change: HeadChange, acked: list[Append]) -> str:
    new = change.head
    if new.open is None:
        return _closed(old, change, acked)
    if new.open.id.epoch != new.epoch or new.open.first != new.next:
        return "a segment of another epoch, or one that begins elsewhere (R8)"
    if old.open is None:
        return "" if new.next == old.next else "the next segment does not begin at `next` (R31)"
    if not change.servers:
        return ""  # a history that tells nothing of servers
    if old.open.id.epoch == new.epoch:
        return _rolled(old.open, new.open, change)
    return _taken_over(old.open, new.open, change, acked)


# ---------------------------------------------------------------- grant: R1


def _granted(old: StreamHead, new: StreamHead) -> str:
    """Model `grant`: land."""
    if new.epoch == old.epoch + 1 and new.deleted and new.leader is None:
        return ""  # a tombstone: an epoch that nobody leads (R22)
    leader = int(new.leader is not None)
    model = grant.Grant(masters=1, peers=1)
    record = grant.Record(old.version, old.epoch, 0)
    master = grant.Master(record, leader)
    sent = ((old.version, old.epoch + 1, leader),)
    state = grant.State(record, (master,), (1,), sent, (), ())
    found = grant.Record(new.version, new.epoch, leader)
    if not leader or found not in [after.record for _, after in model.land(state)]:
        return "no grant leads here (R1)"
    same = (old.open, old.next, old.truncated_before) == (new.open, new.next, new.truncated_before)
    return "" if same else "a grant that changes more than the leader (R1)"


# ---------------------------------------------------------------- takeover: R5 to R8


def _taken_over(old: OpenSegment, new: OpenSegment, change: HeadChange, acked: list[Append]) -> str:
    """Model `recover`: decide, then commit."""
    base = new.first
    ends = [f.ends.get(new.id, NOT_OPEN) for f in change.servers if not f.is_harmed]
    tail = max([base, *ends])
    if base < old.first:  # C0 may lie below the trim: at the first of the frame that it cuts
        return f"C0 = {base} is below the segment's first (R7)"
    servers = _recovering(old, new, change, base, tail)
    before, after = (
        recover.State(1, chain, ((0, old.first, old.first), (0, base, tail)), servers)
        for chain in ((0,), (0, 1))
    )
    if not _can_decide(old, servers, base, tail):
        return f"no S answers of {old.id} lead to T = {tail} (R5, R6)"
    if not recover.Recover(len(new.members), new.ack_quorum).may_commit(before, 1):
        return f"{base}..{tail} is not on A members of {new.id} (R7)"
    late = max((a.sequence or 0 for a in acked if a.epoch < new.id.epoch), default=-1)
    if late >= tail:
        return f"{late} was or will be acked by an earlier leader, T is {tail} (R6)"
    return _broken(recover.Recover(len(old.members), old.ack_quorum), after)


def _recovering(
    old: OpenSegment, new: OpenSegment, change: HeadChange, base: Sequence, tail: Sequence
) -> tuple[recover.Server, ...]:
    """Members of either set as servers of the model; the old one is its segment 0."""
    found = []
    for member in dict.fromkeys((*old.members, *new.members)):
        fact = _fact(change, member)
        belongs = (member in old.members) + 2 * (member in new.members)
        if fact is None:  # it was never there, or lives under another incarnation
            found.append(recover.Server(0, 0, belongs, (NOT_OPEN, NOT_OPEN), (0, 0)))
            continue
        has_promised = fact.is_harmed or fact.promise.epoch >= new.id.epoch
        ends = fact.ends.get(old.id, NOT_OPEN), fact.ends.get(new.id, NOT_OPEN)
        if fact.is_harmed:
            ends = min(max(ends[0], base), tail), tail
        told = 2 if has_promised and member in old.members else 0
        found.append(recover.Server(int(has_promised), told, belongs, ends, (0, 0)))
    return tuple(found)


def _can_decide(
    old: OpenSegment, servers: tuple[recover.Server, ...], base: Sequence, tail: Sequence
) -> bool:
    """True if some S or more of the members that have promised can have led to T."""
    model = recover.Recover(len(old.members), old.ack_quorum)
    members = [server for server in servers if server.member & 1]
    promised = [server for server in members if server.told]
    for size in range(model.fences_needed(len(members)), len(promised) + 1):
        for chosen in combinations(range(len(promised)), size):
            answers = [promised[i] for i in chosen]
            others = list(members)
            for answer in answers:
                others.remove(answer)
            if tail in model.tails(base, answers, others, 0):
                return True
    return False


# ---------------------------------------------------------------- roll: R11


def _rolled(old: OpenSegment, new: OpenSegment, change: HeadChange) -> str:
    """Model `roll`: ask, then land."""
    boundary = new.first
    servers = tuple(
        roll.Server(
            0,
            (member in old.members) + 2 * (member in new.members),
            (_end(change, member, old, boundary), _end(change, member, new, boundary)),
        )
        for member in dict.fromkeys((*old.members, *new.members))
    )
    model = roll.Roll(len(old.members), old.ack_quorum, rolls=1)
    leader = roll.Leader(0, 1, boundary, min(boundary, model.held(servers, 0)))
    rolls = ((0, old.first, 0, 1), (0, boundary, boundary, 1))
    before, after = (
        roll.State(1, opened, 0, NOT_OPEN, leader, rolls, servers) for opened in (0, 1)
    )
    if not roll.Roll(len(new.members), new.ack_quorum).may_send(before, 0, boundary, 1):
        return f"a roll to {new.id} at {boundary} before A members were ready (R11)"
    return _broken(model, after)


# ---------------------------------------------------------------- close and trim: R22, R31


def _closed(old: StreamHead, change: HeadChange, acked: list[Append]) -> str:
    """Model `close`: land the close of a leader that resigns."""
    new, was = change.head, old.open
    if was is None or not new.released or was.id.epoch != new.epoch:
        return "nothing is open, and it was not the leader's own segment that was closed (R31)"
    if not change.servers:
        return ""
    ends = [_end(change, member, was, new.next) for member in was.members]
    return _broken(
        close.Close(len(was.members), was.ack_quorum),
        _closing(ends, acked, change.at)._replace(open=NOT_OPEN, next=new.next, rows=1),
    )


def _trimmed(old: StreamHead, change: HeadChange, acked: list[Append]) -> str:
    """Model `close`: land a trim; what is below an open segment is committed (R8)."""
    del acked
    trim, was = change.head.truncated_before, old.open
    if was is None or not change.servers:
        return "" if was is not None or trim <= old.next else "a trim behind the end (R22)"
    ends = [_end(change, member, was, trim) for member in was.members]
    held = sorted(ends, reverse=True)[was.ack_quorum - 1]
    state = _closing(ends, [], change.at)._replace(trim=trim, acked=max(was.first, held))
    return _broken(close.Close(len(was.members), was.ack_quorum), state)


def _closing(ends: list[Sequence], acked: list[Append], at: float) -> close.State:
    """The state of `close` in which these members hold so much, and so much is acknowledged."""
    servers = tuple(close.Server(1, 0, end, close.NONE, 0) for end in ends)
    told = max((1 + (a.sequence or 0) for a in acked if a.done <= at), default=0)
    return close.State(1, 0, 0, 0, told, told, close.NONE, 0, close.NONE, 0, 0, close.NONE, servers)


# ---------------------------------------------------------------- acknowledgements, words


def _may_ack(heads: list[HeadChange], append: Append) -> bool:
    """R9, R11: the segment of its epoch in which it lies was in the metadata when it was acked."""
    opened = [
        (change.head.open.first, change.at)
        for change in heads
        if change.head.open is not None and change.head.open.id.epoch == append.epoch
    ]
    sequence = append.sequence or 0
    own = max((first for first, _ in opened if first <= sequence), default=None)
    return own is not None and min(at for first, at in opened if first == own) <= append.done


def _fact(change: HeadChange, member: Member) -> ServerFact | None:
    """What a member had; if its disk was harmed, it may live under another incarnation by now."""
    for fact in change.servers:
        if fact.member == member or (fact.is_harmed and fact.member.server == member.server):
            return fact
    return None


def _end(change: HeadChange, member: Member, segment: OpenSegment, least: Sequence) -> Sequence:
    """Durable end of a member; a harmed one has what the step needs."""
    fact = _fact(change, member)
    if fact is None:
        return NOT_OPEN
    end = fact.ends.get(segment.id, NOT_OPEN)
    return max(end, least) if fact.is_harmed else end


def _broken(model: Model[Any], state: tuple[Any, ...]) -> str:
    """Name the first invariant of the model that does not hold in a state."""
    checks: list[Callable[[Any], bool]] = model.methods("invariant")
    return next((f"{holds.__name__} ({model.name})" for holds in checks if not holds(state)), "")
