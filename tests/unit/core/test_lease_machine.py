"""Leases against a few plain rules: hellos, beats, closings and time in any order (R2, R15)."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.machines import machine_settings

from lunalog.core.lease import Leases
from lunalog.types import Peer

LEASE_S, GRACE_S = 2.0, 0.25
PEERS = [
    Peer(name, name[:1].encode() + bytes([number]) * 15)
    for name in ("ann", "bob")
    for number in (1, 2, 3)
]

peers = st.sampled_from(PEERS)


@dataclass
class ModelSession:
    """One incarnation that has said hello and is not over."""

    number: int
    renewed_at: float | None = None
    closed_at: float | None = None
    is_told: bool = False
    """Its end was told since its last beat."""

    def holds(self, now: float) -> bool:
        if self.renewed_at is None or now - self.renewed_at >= LEASE_S:
            return False
        return self.closed_at is None or now - self.closed_at < GRACE_S


class LeaseMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 10.0
        self.leases = Leases(self.now, LEASE_S, GRACE_S)
        self.trusted_from = self.now + LEASE_S
        self.sessions: dict[Peer, ModelSession] = {}
        self.ended: dict[Peer, bool] = {}
        self.owner: dict[str, Peer] = {}
        self.hellos = 0

    def end(self, peer: Peer, *, was_replaced: bool) -> None:
        self.sessions.pop(peer, None)
        self.ended[peer] = was_replaced
        if self.owner.get(peer.name) == peer:
            del self.owner[peer.name]

    @rule(peer=peers)
    def hello(self, peer: Peer) -> None:
        """Who was replaced is not let in; anybody else may come (back)."""
        assert self.leases.was_replaced(peer.incarnation) == self.ended.get(peer, False)
        if self.ended.get(peer, False):
            return
        found = self.leases.open(peer)
        self.ended.pop(peer, None)
        if peer not in self.sessions:
            self.hellos += 1
            self.sessions[peer] = ModelSession(self.hellos)
        assert found.peer == peer

    @rule(peer=peers)
    def beat(self, peer: Peer) -> None:
        """The first beat of a newer incarnation ends the older one, and a late one ends itself."""
        known, found = self.sessions.get(peer), self.leases.get(peer.incarnation)
        assert (known is None) == (found is None)
        if known is None or found is None:
            return
        other = self.owner.get(peer.name)
        older = self.leases.claim(found)
        if other is not None and other != peer:
            loser = min((peer, other), key=lambda one: self.sessions[one].number)
            assert older is not None
            assert older.peer == loser
            self.end(loser, was_replaced=True)
            if loser == peer:
                return
        else:
            assert older is None
        self.owner[peer.name] = peer
        had = known.holds(self.now)
        assert self.leases.beat(found, self.now) == (not had)
        known.renewed_at, known.closed_at, known.is_told = self.now, None, False

    @rule(peer=peers)
    def close(self, peer: Peer) -> None:
        found = self.leases.get(peer.incarnation)
        if found is not None:
            self.leases.closed(found, self.now)
            self.sessions[peer].closed_at = self.now

    @rule(peer=peers)
    def goodbye(self, peer: Peer) -> None:
        if peer in self.sessions:
            self.leases.end(peer.incarnation)
            self.end(peer, was_replaced=False)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.25, 1.0, 1.9, 2.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def judge(self) -> None:
        """Each end of a lease is told once, until it is renewed; closed sessions are over."""
        told = {session.peer for session in self.leases.judge(self.now)}
        wanted = set()
        for peer, known in list(self.sessions.items()):
            is_over = known.closed_at is not None and self.now - known.closed_at >= GRACE_S
            has_lapsed = known.renewed_at is not None and not known.holds(self.now)
            if is_over or (has_lapsed and not known.is_told):
                wanted.add(peer)
                known.is_told = True
            if is_over:
                self.end(peer, was_replaced=False)
        assert told == wanted

    @invariant()
    def who_holds_what_is_by_the_rules(self) -> None:
        assert {session.peer for session in self.leases.sessions()} == set(self.sessions)
        for peer in PEERS:
            known = self.sessions.get(peer)
            eligible = known is not None and known.closed_at is None and known.holds(self.now)
            assert self.leases.is_eligible(peer.incarnation, self.now) == eligible
            if known is None or known.renewed_at is None:
                void = peer in self.ended or self.now >= self.trusted_from
            else:
                void = not known.holds(self.now)
            assert self.leases.is_void(peer.incarnation, self.now) == void
            assert not (void and eligible)

    @invariant()
    def one_incarnation_of_a_name_is_eligible(self) -> None:
        for name in ("ann", "bob"):
            beating = [
                peer for peer, known in self.sessions.items()
                if peer.name == name and known.holds(self.now)
            ]  # fmt: skip
            assert len(beating) <= 1


LeaseMachine.TestCase.settings = machine_settings(80, 50)
TestLeaseMachine = LeaseMachine.TestCase
