"""Model: a leader that resigns, a custodian, and what is trimmed meanwhile (R22, R31).

One leader writes segment 0.  It may send one transaction that closes it with nothing open.
Epoch 2 is a custodian's: if segment 0 is open it fences, decides, copies C0..T into segment 1 on the
same servers, and closes both.  Epoch 3 is a successor's: it fences what it finds open, or opens at
`next`.  The run ends there.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lunalog.core.quorum import held_by, seal_quorum
from lunalog.testing.model.explore import Model, Steps, action, distinct, fault, invariant

NONE = -1
DEAD = 9
"""Promise of a server that is down for good; its bytes are safe and out of reach."""
CUSTODIAN, SUCCESSOR = 2, 3


class Server(NamedTuple):
    """One server; it is a member of both segments."""

    promise: int
    """Epoch that it has promised itself to."""
    told: int
    """Epoch whose fence it has answered."""
    end: int
    copied: int
    """End of what it holds of the custodian's segment, or `NONE`."""
    gone: int
    """Events below were deleted here."""


class State(NamedTuple):
    """The head, the first leader, the custodian's plan, the servers."""

    epoch: int
    open: int
    """0, or `NONE`."""
    next: int
    """First sequence of the segment to come; of the open one while there is one."""
    trim: int
    sent: int
    acked: int
    closing: int
    """End in the close that was sent, or `NONE`."""
    asked_trim: int
    """Trim that was sent."""
    base: int
    """C0 of the custodian, or `NONE`."""
    tail: int
    """T of the custodian."""
    rows: int
    """0: none; 1: row 0 up to `next`; 2: row 0 up to `base`, row 1 up to `next`."""
    goes_on: int
    """Where the successor goes on, or `NONE`."""
    servers: tuple[Server, ...]


class Close(Model[State]):
    """N, A, events, servers that go down for good, and whether anything is trimmed."""

    name: ClassVar = "close"

    def __init__(
        self, n: int, a: int, *, events: int = 2, deaths: int = 0, has_trim: bool = False
    ) -> None:
        self.n, self.a, self.events, self.has_trim = n, a, events, has_trim
        self.deaths = deaths

    def initial(self) -> State:
        """Segment 0 is open and empty."""
        servers = (Server(1, 0, 0, NONE, 0),) * self.n
        return State(1, 0, 0, 0, 0, 0, NONE, 0, NONE, 0, 0, NONE, servers)

    def canonical(self, state: State) -> State:
        """Servers have no names."""
        return State(*state[:-1], tuple(sorted(state.servers)))

    def is_goal(self, state: State) -> bool:
        """The successor goes on, or epochs have yet to be granted."""
        return state.goes_on != NONE or state.epoch < SUCCESSOR

    # ------------------------------------------------------------------ rules that mutants break

    def may_ack(self, state: State) -> bool:
        """R31: nothing from sending the close on, until it is known, and then nothing at all."""
        return state.closing == NONE

    def end(self, state: State) -> int:
        """R31: close at C."""
        return state.acked

    def compares(self, state: State) -> bool:
        """R8: the first leader's transactions land in its own epoch only."""
        return state.epoch == 1 and state.open == 0

    def kept(self, base: int, tail: int) -> int:
        """R6: the custodian keeps all up to T."""
        del base
        return tail

    def is_carried(self, state: State) -> bool:
        """R31: C0..T is durable on A servers before the transaction."""
        done = sum(server.copied >= state.tail for server in state.servers)
        return state.tail == state.base or done >= self.a

    def trims_to(self, state: State) -> int:
        """R22: no further than C."""
        return state.acked

    def may_delete(self, state: State) -> int:
        """R22: the head first, then bytes."""
        return state.trim

    def base(self, state: State, known: list[int]) -> int:
        """R7: C0 is not below the trim."""
        return max(state.trim, *known)

    # ------------------------------------------------------------------ the first leader

    @action
    def append(self, state: State) -> Steps[State]:
        """The application appends; a server takes the next event."""
        if state.sent < self.events and self.may_ack(state):
            yield (), state._replace(sent=state.sent + 1)
        for i, server in distinct(state.servers):
            if server.promise == 1 and server.end < state.sent:
                yield (i,), _with(state, i, server._replace(end=server.end + 1))

    @action
    def acknowledge(self, state: State) -> Steps[State]:
        """R4: A servers hold one more."""
        held = held_by((server.end for server in state.servers), self.a)
        if state.acked < held and self.may_ack(state):
            yield (state.acked,), state._replace(acked=state.acked + 1)

    @action
    def resign(self, state: State) -> Steps[State]:
        """R31: send {row(0, end = C), open = none, released}."""
        if state.closing == NONE:
            yield (self.end(state),), state._replace(closing=self.end(state))

    @action
    def land_close(self, state: State) -> Steps[State]:
        """R8, M5: the close takes effect, now or late."""
        if state.closing != NONE and self.compares(state):
            yield (state.closing,), state._replace(open=NONE, next=state.closing, rows=1)

    @action
    def ask_trim(self, state: State) -> Steps[State]:
        """R22: send a trim."""
        to = self.trims_to(state)
        if self.has_trim and to > state.asked_trim:
            yield (to,), state._replace(asked_trim=to)

    @action
    def land_trim(self, state: State) -> Steps[State]:
        """R22: it takes effect under the leader's epoch."""
        if state.trim < state.asked_trim and state.epoch == 1:
            yield (state.asked_trim,), state._replace(trim=state.asked_trim)

    @action
    def delete(self, state: State) -> Steps[State]:
        """R22: a server deletes bytes."""
        for i, server in distinct(state.servers):
            if server.gone < self.may_delete(state) and server.promise != DEAD:
                yield (i,), _with(state, i, server._replace(gone=self.may_delete(state)))

    # ------------------------------------------------------------------ custodian and successor

    @fault
    def grant(self, state: State) -> Steps[State]:
        """R1: the next epoch."""
        if state.epoch < SUCCESSOR:
            yield (state.epoch + 1,), state._replace(epoch=state.epoch + 1)

    @fault
    def die(self, state: State) -> Steps[State]:
        """P1: a server goes down for good."""
        if sum(server.promise == DEAD for server in state.servers) < self.deaths:
            for i, server in distinct(state.servers):
                if server.promise != DEAD:
                    yield (i,), _with(state, i, server._replace(promise=DEAD))

    @action
    def fence(self, state: State) -> Steps[State]:
        """R5: a member promises, and says where segment 0 ends there."""
        for epoch in range(CUSTODIAN, state.epoch + 1):
            for i, server in distinct(state.servers):
                if state.open == 0 and server.promise <= epoch and server.told < epoch:
                    yield (epoch, i), _with(state, i, server._replace(promise=epoch, told=epoch))

    @action
    def decide(self, state: State) -> Steps[State]:
        """R6, R7: the custodian finds C0 and T; each event between them was read from somebody."""
        if state.epoch != CUSTODIAN or state.open == NONE or state.base != NONE:
            return
        answers = [server for server in state.servers if server.told == CUSTODIAN]
        for base, tail in self._walks(state, answers):
            yield (base, tail), state._replace(base=base, tail=self.kept(base, tail))

    @action
    def carry(self, state: State) -> Steps[State]:
        """R7: a server takes the next event of the custodian's segment."""
        if state.base == NONE:
            return
        for i, server in distinct(state.servers):
            if server.promise <= CUSTODIAN and server.copied < state.tail:
                copied = state.base if server.copied == NONE else server.copied + 1
                yield (i,), _with(state, i, server._replace(promise=CUSTODIAN, copied=copied))

    @action
    def land_custody(self, state: State) -> Steps[State]:
        """R31: one transaction {row(0, C0), row(1, C0..T), open = none, released}."""
        is_due = state.epoch == CUSTODIAN and state.open == 0 and state.base != NONE
        if is_due and self.is_carried(state):
            yield (state.tail,), state._replace(open=NONE, next=state.tail, rows=2)

    @action
    def succeed(self, state: State) -> Steps[State]:
        """R31: open at `next` and fence nobody; or R6, from what is open."""
        if state.epoch != SUCCESSOR or state.goes_on != NONE:
            return
        if state.open == NONE:
            yield (state.next,), state._replace(goes_on=state.next)
            return
        answers = [server for server in state.servers if server.told == SUCCESSOR]
        for _, tail in self._walks(state, answers):
            yield (tail,), state._replace(goes_on=tail)

    # ------------------------------------------------------------------ invariants

    @invariant
    def i2_nothing_acknowledged_is_lost(self, state: State) -> bool:
        """Who goes on goes on behind all that was ever acknowledged."""
        return state.goes_on == NONE or state.acked <= state.goes_on

    @invariant
    def i5_the_head_never_goes_back(self, state: State) -> bool:
        """The successor goes on where the head says."""
        return state.goes_on == NONE or state.open == 0 or state.goes_on == state.next

    @invariant
    def i8_the_head_answers_reads(self, state: State) -> bool:
        """R31: while nothing is open, all that was acknowledged is below `next`."""
        return state.open == 0 or state.acked <= state.next

    @invariant
    def i11_rows_are_on_a_members(self, state: State) -> bool:
        """All of a row that is not trimmed is on A of its members."""
        first = state.base if state.rows == 2 else state.next
        if state.rows and held_by((s.end for s in state.servers), self.a) < first:
            return False
        held = held_by((s.copied for s in state.servers), self.a)
        return state.rows < 2 or state.tail == state.base or held >= state.tail

    @invariant
    def i14_deletion_is_safe(self, state: State) -> bool:
        """Bytes are gone only below the trim, and the trim is below what is acknowledged."""
        return state.trim <= state.acked and all(s.gone <= state.trim for s in state.servers)

    # ------------------------------------------------------------------ words

    def _walks(self, state: State, answers: list[Server]) -> list[tuple[int, int]]:
        """(C0, T) that these answers allow: up from C0, as long as somebody has the next event (R6)."""
        if len(answers) < seal_quorum(self.n, self.a):
            return []
        known = [0]
        if len(answers) >= self.a:
            known.append(held_by((server.end for server in answers), self.a))
        s = base = self.base(state, known)
        up, found = [server for server in state.servers if server.promise != DEAD], []
        while True:
            if sum(server.end <= s for server in answers) >= seal_quorum(self.n, self.a):
                found.append((base, s))
            if not any(server.gone <= s < server.end for server in up):
                return found
            s += 1


def _with(state: State, i: int, server: Server) -> State:
    servers = state.servers
    return State(*state[:-1], (*servers[:i], server, *servers[i + 1 :]))
