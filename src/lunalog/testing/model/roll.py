"""Model: a leader rolls while its transactions hang in doubt and another takes over (R11, R28).

One leader writes segment 0, and opens segments 1, 2 ... ahead when it rolls.  A transaction that it has
sent lands when it likes, as long as the head allows it; its reply is a look at the head.
A second leader may be granted the next epoch at any moment: it fences the set of the segment that is
open then.  What it does with the answers is one step here (`recover.py` takes it apart), the last one.

The leader dies by taking no more steps.  Acknowledgements reach it at once: late ones allow less.
"""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar, NamedTuple

from lunalog.core.quorum import seal_quorum
from lunalog.testing.model.explore import Model, Steps, action, distinct, fault, invariant, put

NOT_OPEN = -1


class Server(NamedTuple):
    """One journal server."""

    fenced: int
    """1 once it has promised itself to the second leader, and answered."""
    member: int
    """Bit k: it belongs to the set of segment k."""
    ends: tuple[int, ...]
    """Of each segment: end of what it holds, or `NOT_OPEN`."""


class Leader(NamedTuple):
    """What the first leader believes and has done."""

    current: int
    """The segment whose acks count."""
    ahead: int
    """The segment that it rolls to; 0: it does not roll."""
    sent: int
    """Tail: events that the application has appended."""
    acked: int
    """Committed: events that it has acknowledged to the application."""


class State(NamedTuple):
    """The master's head, the leader, its rolls, the servers."""

    epoch: int
    """1, and 2 once somebody else was granted it."""
    open: int
    found: int
    """The open segment as the second leader read it with its grant."""
    tail: int
    """T of the takeover, or -1."""
    leader: Leader
    rolls: tuple[tuple[int, ...], ...]
    """Of each segment: (), or (old, boundary, end of what went to the old one, txn was sent)."""
    servers: tuple[Server, ...]


class Roll(Model[State]):
    """N, A, servers beside the first set, events, and how often the leader may roll."""

    name: ClassVar = "roll"

    def __init__(self, n: int, a: int, *, spare: int = 1, events: int = 2, rolls: int = 2) -> None:
        self.n, self.a, self.spare, self.events, self.rolls = n, a, spare, events, rolls

    def initial(self) -> State:
        """Segment 0 is open and empty."""
        rest = (NOT_OPEN,) * self.rolls
        servers = (Server(0, 1, (0, *rest)),) * self.n
        spares = (Server(0, 0, (NOT_OPEN, *rest)),) * self.spare
        return State(
            1, 0, 0, -1, Leader(0, 0, 0, 0), ((0, 0, 0, 1), *[()] * self.rolls), servers + spares
        )

    def canonical(self, state: State) -> State:
        """Servers have no names."""
        return State(*state[:6], tuple(sorted(state.servers)))

    def is_goal(self, state: State) -> bool:
        """L1: all is acknowledged, or somebody has taken over."""
        return state.tail >= 0 or state.leader.acked == self.events

    # ------------------------------------------------------------------ rules that mutants break

    def counted(self, state: State) -> int:
        """R4, R11: what the acks of the current segment commit, up to the boundary of a roll."""
        leader = state.leader
        held = self.held(state.servers, leader.current)
        return min(held, state.rolls[leader.ahead][1]) if leader.ahead else held

    def compares(self, state: State, old: int) -> bool:
        """R8: a roll's transaction lands only on this head."""
        return state.epoch == 1 and state.open == old

    def takes_over(self, state: State) -> bool:
        """R8: so does the second leader's."""
        return state.epoch == 2 and state.open == state.found

    def may_send(self, state: State, old: int, boundary: int, ahead: int) -> bool:
        """R11: all below the boundary is acknowledged, and A of the new set have opened."""
        working = sum(s.ends[ahead] != NOT_OPEN and s.member >> ahead & 1 for s in state.servers)
        del old
        return state.leader.acked >= boundary and working >= self.a

    def may_take_back(self, state: State) -> bool:
        """R28: a transaction that was sent is never taken back, whatever the head shows."""
        return not state.rolls[state.leader.ahead][3]

    def urgent_boundary(self, state: State) -> int:
        """R11: C, since what lies behind it may never reach A of the old set."""
        return state.leader.acked

    def fences_needed(self, members: int) -> int:
        """R6: S = N - A + 1."""
        return seal_quorum(members, self.a)

    # ------------------------------------------------------------------ the leader

    @action
    def send(self, state: State) -> Steps[State]:
        """The application appends one event."""
        leader = state.leader
        if leader.sent < self.events:
            yield (leader.sent,), state._replace(leader=leader._replace(sent=leader.sent + 1))

    @action
    def acknowledge(self, state: State) -> Steps[State]:
        """R4: one more event is committed by the acks that count."""
        leader = state.leader
        if leader.acked < min(leader.sent, self.counted(state)):
            yield (leader.acked,), state._replace(leader=leader._replace(acked=leader.acked + 1))

    @action
    def roll(self, state: State) -> Steps[State]:
        """R11: pick a boundary and a new set; planned at the tail, urgent at C.

        An urgent one replaces another roll whose transaction was not sent.
        """
        leader, rolls = state.leader, state.rolls
        k = next((k for k, way in enumerate(rolls) if not way), 0)
        if not k or (leader.ahead and not self.may_take_back(state)):
            return
        boundaries = {self.urgent_boundary(state)}
        if not leader.ahead:
            boundaries.add(leader.sent)
        limit = rolls[leader.ahead][2] if leader.ahead else leader.sent
        for boundary in sorted(boundaries):
            way = (leader.current, boundary, limit, 0)
            moved = leader._replace(ahead=k)
            for servers in self._sets(state.servers, k):
                after = (*rolls[:k], way, *rolls[k + 1 :])
                yield (k, boundary), state._replace(leader=moved, rolls=after, servers=servers)

    @action
    def ask(self, state: State) -> Steps[State]:
        """R11: send the transaction {row(old, end = boundary), open = new}."""
        k, rolls = state.leader.ahead, state.rolls
        if k and not rolls[k][3]:
            old, boundary, limit, _ = rolls[k]
            if self.may_send(state, old, boundary, k):
                asked = (*rolls[:k], (old, boundary, limit, 1), *rolls[k + 1 :])
                yield (k,), state._replace(rolls=asked)

    @action
    def learn(self, state: State) -> Steps[State]:
        """R28: the head shows the new segment; from now on its acks count."""
        leader = state.leader
        if leader.ahead and state.open == leader.ahead:
            yield (
                (leader.ahead,),
                state._replace(leader=leader._replace(current=leader.ahead, ahead=0)),
            )

    @fault
    def take_back(self, state: State) -> Steps[State]:
        """Give a roll up and go on with the old set."""
        leader = state.leader
        if leader.ahead and self.may_take_back(state) and state.open == leader.current:
            yield (leader.ahead,), state._replace(leader=leader._replace(ahead=0))

    # ------------------------------------------------------------------ servers, master, successor

    @action
    def open_ahead(self, state: State) -> Steps[State]:
        """R3: a member of a new set opens it."""
        for k, way in enumerate(state.rolls):
            if not k or not way:
                continue
            for i, server in distinct(state.servers):
                if server.member >> k & 1 and server.ends[k] == NOT_OPEN and not server.fenced:
                    yield (k, i), self._held(state, i, k, way[1])

    @action
    def append(self, state: State) -> Steps[State]:
        """R3: the next event of a segment arrives."""
        leader = state.leader
        for i, server in distinct(state.servers):
            if server.fenced:
                continue
            for k, end in enumerate(server.ends):
                if end != NOT_OPEN and end < self._sent_to(leader, state.rolls, k):
                    yield (k, i), self._held(state, i, k, end + 1)

    @action
    def land(self, state: State) -> Steps[State]:
        """R8, M5: a transaction that was sent takes effect, at once or long after."""
        for k, way in enumerate(state.rolls):
            if k and way and way[3] and self.compares(state, way[0]):
                yield (k,), state._replace(open=k)

    @fault
    def grant(self, state: State) -> Steps[State]:
        """R1: somebody else gets the next epoch."""
        if state.epoch == 1:
            yield (), state._replace(epoch=2, found=state.open)

    @action
    def fence(self, state: State) -> Steps[State]:
        """R5: a member of the set that is open promises, and says where it ends."""
        if state.epoch == 2 and state.tail < 0:
            for i, server in distinct(state.servers):
                if server.member >> state.found & 1 and not server.fenced:
                    fenced = Server(1, server.member, server.ends)
                    yield (i,), state._replace(servers=_with(state.servers, i, fenced))

    @action
    def take_over(self, state: State) -> Steps[State]:
        """R6 to R8: decide T; it may keep what only an unfenced member holds."""
        if state.epoch != 2 or state.tail >= 0 or not self.takes_over(state):
            return
        members = [s for s in state.servers if s.member >> state.found & 1]
        answers = [s for s in members if s.fenced]
        if len(answers) >= self.fences_needed(len(members)):
            first = state.rolls[state.found][1]
            least = max(first, *(s.ends[state.found] for s in answers))
            most = max(least, *(s.ends[state.found] for s in members))
            for tail in range(least, most + 1):
                yield (tail,), state._replace(tail=tail)

    # ------------------------------------------------------------------ invariants

    @invariant
    def i2_nothing_acknowledged_is_lost(self, state: State) -> bool:
        """The takeover keeps all that was ever acknowledged, also what is acknowledged after it."""
        return state.tail < 0 or state.leader.acked <= state.tail

    @invariant
    def i11_rows_are_on_a_members(self, state: State) -> bool:
        """All below the boundary of a segment that is closed is on A of its members."""
        k = state.open
        while k:
            old, boundary = state.rolls[k][:2]
            if self.held(state.servers, old) < boundary:
                return False
            k = old
        return True

    @invariant
    def i5_segments_join(self, state: State) -> bool:
        """A segment begins where the one before it ends, and never before that one begins."""
        k = state.open
        while k:
            old, boundary = state.rolls[k][:2]
            if boundary < state.rolls[old][1]:
                return False
            k = old
        return True

    # ------------------------------------------------------------------ words

    def held(self, servers: tuple[Server, ...], k: int) -> int:
        """R4: the A-th largest end of a segment's members."""
        ends = sorted([s.ends[k] for s in servers if s.member >> k & 1], reverse=True)
        return ends[self.a - 1]

    def _sent_to(self, leader: Leader, rolls: tuple[tuple[int, ...], ...], k: int) -> int:
        """End of what was sent to segment k: the tail, until a roll directs it elsewhere."""
        if k in (leader.current, leader.ahead) and (k == leader.ahead or not leader.ahead):
            return leader.sent
        return max((way[2] for way in rolls[1:] if way and way[0] == k), default=0)

    def _held(self, state: State, i: int, k: int, end: int) -> State:
        server = state.servers[i]
        after = Server(server.fenced, server.member, put(server.ends, k, end))
        return state._replace(servers=_with(state.servers, i, after))

    def _sets(self, servers: tuple[Server, ...], k: int) -> list[tuple[Server, ...]]:
        """Every choice of N members for segment k; equal servers count once."""
        found: dict[tuple[Server, ...], tuple[Server, ...]] = {}
        for chosen in combinations(range(len(servers)), self.n):
            marked = tuple(
                Server(s.fenced, s.member | 1 << k, s.ends) if i in chosen else s
                for i, s in enumerate(servers)
            )
            found.setdefault(tuple(sorted(marked)), marked)
        return list(found.values())


def _with(servers: tuple[Server, ...], i: int, server: Server) -> tuple[Server, ...]:
    return (*servers[:i], server, *servers[i + 1 :])
