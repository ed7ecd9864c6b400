"""A leader for tests, and what its world answers when all is well."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from lunalog.core import effects as fx
from lunalog.core.leader_state import Phase
from lunalog.core.leadership import LeaderMachine
from lunalog.core.rolling import LeaderSettings
from lunalog.errors import LunalogError
from lunalog.types import Member, OpenSegment, Peer, Policy, SegmentId, StreamHead

T = TypeVar("T")
ME, OTHER = Peer("me", b"m" * 16), Peer("other", b"o" * 16)
A, B, C, D = (Member(name, 1) for name in "abcd")
SET = (A, B, C)
SETTINGS = LeaderSettings()
replace = msgspec.structs.replace


def head(**more: Any) -> StreamHead:
    fields: dict[str, Any] = {"version": 5, "epoch": 3, "leader": ME, "released": False}
    return StreamHead("orders", b"s" * 16, Policy(), **(fields | more))


def old_segment(first: int = 0) -> OpenSegment:
    return OpenSegment(SegmentId(2, 0), first, 0, SET, 2)


def only(kind: type[T], effects: list[Any]) -> T:
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


def kinds(effects: list[Any]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def machine(**more: Any) -> LeaderMachine:
    return LeaderMachine(head(**more), ME, SETTINGS)


def open_all(m: LeaderMachine, now: float = 0.0) -> list[Any]:
    """Every member of the next segment says that it has it open, with all before it."""
    assert m.next is not None
    out: list[Any] = []
    ahead = m.next
    for replica in ahead.replicas:
        out += m.opened(ahead, replica, ahead.first, ahead.chain, now)
    return out


def sealed(m: LeaderMachine, now: float = 0.0) -> list[Any]:
    """The master has applied the transaction that was sent."""
    seal = m.seal
    assert seal is not None
    seen = replace(
        m.head,
        version=m.head.version + 1,
        open=seal.open,
        next=seal.next,
        chain=seal.chain,
        released=seal.release,
    )
    return m.head_seen(seen, now)


def leading(**more: Any) -> LeaderMachine:
    m = machine(**more)
    only(fx.ProposeSet, m.start(0.0))
    only(fx.OpenSet, m.proposed(SET, 0.0))
    only(fx.Seal, open_all(m))
    only(fx.Led, sealed(m))
    assert m.phase is Phase.LEADING
    return m


def append(m: LeaderMachine, count: int = 1, size: int = 10) -> None:
    m.appended(m.tail, count, 7, bytes(size))


def ack(m: LeaderMachine, *members: Member, end: int | None = None, now: float = 0.0) -> list[Any]:
    assert m.current is not None
    out: list[Any] = []
    for replica in m.current.replicas:
        if replica.member in members:
            m.current.accepted(replica, m.tail if end is None else end, m.tail)
            out += m.moved(m.current, now)
    return out


def ended(m: LeaderMachine, effects: list[Any]) -> tuple[LunalogError, bool]:
    assert m.phase is Phase.ENDED
    assert m.next_tick is None
    end = only(fx.Ended, effects)
    assert m.error is end.error
    return end.error, end.is_release_due
