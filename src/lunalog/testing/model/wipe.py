"""Model: disks that forget: wiped, set back to an old image, damaged (R6, R17 to R19).

One segment, its leader, one recoverer that walks up sequence by sequence.  Up to A - 1 members lose
something; whatever order that happens in, the recoverer comes to a decision, and no acknowledged
event is behind it.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lunalog.core.quorum import held_by, seal_quorum
from lunalog.testing.model.explore import Model, Steps, action, distinct, fault, invariant


class Server(NamedTuple):
    """One member of the segment's set."""

    lives: int
    """1 while it lives under the incarnation that the set names; else its slot is failed."""
    fenced: int
    end: int
    bad: int
    """Bit s: its copy of event s is damaged."""
    acked: int
    """End that it has told the leader; what was told cannot be taken back."""
    told: int
    """End that it has told the recoverer, + 1; 0: no answer yet."""
    unknown: int
    """Bit s: it told the recoverer that it cannot say anything of s."""


class State(NamedTuple):
    """The leader's acks, the recoverer's walk, the members."""

    acked: int
    at: int
    """The recoverer has read all below."""
    done: int
    """1 once `at` is T."""
    faults: int
    servers: tuple[Server, ...]


class Wipe(Model[State]):
    """N, A, events, and how many members may lose something (A - 1 is what is promised)."""

    name: ClassVar = "wipe"

    def __init__(self, n: int, a: int, *, events: int = 2, faults: int | None = None) -> None:
        self.n, self.a, self.events = n, a, events
        self.faults = a - 1 if faults is None else faults

    def initial(self) -> State:
        """Open and empty."""
        return State(0, 0, 0, 0, (Server(1, 0, 0, 0, 0, 0, 0),) * self.n)

    def canonical(self, state: State) -> State:
        """Servers have no names."""
        return State(*state[:4], tuple(sorted(state.servers)))

    def is_goal(self, state: State) -> bool:
        """L1: the recoverer has come to its decision."""
        return bool(state.done)

    # ------------------------------------------------------------------ rules that mutants break

    def wiped(self, server: Server) -> Server:
        """R19: an empty disk is another incarnation; the slot of the old one is failed."""
        return server._replace(lives=0, fenced=0, end=0, bad=0)

    def set_back(self, server: Server, end: int, fenced: int) -> Server:
        """R19: so is an old image of it."""
        return server._replace(lives=0, fenced=fenced, end=end, bad=server.bad & (1 << end) - 1)

    def damaged(self, server: Server, s: int) -> Server:
        """R17: bad bytes below what is attested are damage; the rest of the log is read on."""
        return server._replace(bad=server.bad | 1 << s)

    def tail_damaged(self, server: Server) -> Server:
        """R18: where an end or a promise may be hidden, the server loses its incarnation."""
        return server._replace(lives=0, fenced=0, end=server.end - 1)

    def lacks(self, server: Server, s: int) -> bool:
        """R6: a definitive negative: it ended at or below s, and can speak of s."""
        return 0 < server.told <= s + 1 and not server.unknown >> s & 1

    def fences_needed(self) -> int:
        """R6: S = N - A + 1."""
        return seal_quorum(self.n, self.a)

    def may_end(self, servers: tuple[Server, ...], s: int) -> bool:
        """R6: S negatives at s decide, whoever else may hold what behind."""
        return sum(self.lacks(server, s) for server in servers) >= self.fences_needed()

    # ------------------------------------------------------------------ actions

    @action
    def append(self, state: State) -> Steps[State]:
        """R3, R4: a member takes the next event and acknowledges it."""
        for i, server in distinct(state.servers):
            if server.lives and not server.fenced and server.end < self.events:
                end = server.end + 1
                after = server._replace(end=end, acked=max(server.acked, end))
                yield (i,), _with(state, i, after)

    @action
    def acknowledge(self, state: State) -> Steps[State]:
        """R4: A members have told the leader that they hold the next event."""
        if state.acked < held_by((s.acked for s in state.servers), self.a):
            yield (state.acked,), state._replace(acked=state.acked + 1)

    @action
    def fence(self, state: State) -> Steps[State]:
        """R5, R18: promise, and tell the end and what is damaged."""
        for i, server in distinct(state.servers):
            if server.lives and not server.told:
                after = server._replace(fenced=1, told=server.end + 1, unknown=server.bad)
                yield (i,), _with(state, i, after)

    @action
    def walk(self, state: State) -> Steps[State]:
        """R6: a verified copy of the next event is read, from whoever holds it; it is kept."""
        s = state.at
        if state.done or sum(server.told > 0 for server in state.servers) < self.fences_needed():
            return
        if any(server.end > s and not server.bad >> s & 1 for server in state.servers):
            yield (s,), state._replace(at=s + 1)

    @action
    def decide(self, state: State) -> Steps[State]:
        """R6: S definitive negatives end the walk."""
        if not state.done and self.may_end(state.servers, state.at):
            yield (state.at,), state._replace(done=1)

    @fault
    def lose_disk(self, state: State) -> Steps[State]:
        """D9: a disk is wiped; the server comes back."""
        for i, server in self._faulty(state):
            yield (i,), _with(state, i, self.wiped(server), 1)

    @fault
    def restore_disk(self, state: State) -> Steps[State]:
        """D10: an old image of a disk comes back, older by an event or a promise."""
        for i, server in self._faulty(state):
            for end in range(server.end + 1):
                for fenced in range(server.fenced + 1):
                    if (end, fenced) != (server.end, server.fenced):
                        yield (
                            (i, end, fenced),
                            _with(state, i, self.set_back(server, end, fenced), 1),
                        )

    @fault
    def damage(self, state: State) -> Steps[State]:
        """D5: a copy of one event goes bad, where a checkpoint or a later record still tells the end."""
        for i, server in self._faulty(state):
            for s in range(server.end):
                yield (i, s), _with(state, i, self.damaged(server, s), 1)

    @fault
    def damage_tail(self, state: State) -> Steps[State]:
        """D6: the newest part of a log goes bad, with what was promised there."""
        for i, server in self._faulty(state):
            if server.end:
                yield (i,), _with(state, i, self.tail_damaged(server), 1)

    # ------------------------------------------------------------------ invariants

    @invariant
    def i2_nothing_acknowledged_is_lost(self, state: State) -> bool:
        """Whatever the leader acknowledges, before or after the decision, is below T."""
        if not state.done:
            return True
        return max(state.acked, held_by((s.acked for s in state.servers), self.a)) <= state.at

    @invariant
    def i13_negatives_are_true(self, state: State) -> bool:
        """Who says that it never had an event never acknowledged it."""
        return all(
            server.acked <= s
            for server in state.servers
            for s in range(self.events)
            if self.lacks(server, s)
        )

    # ------------------------------------------------------------------ words

    def _faulty(self, state: State) -> list[tuple[int, Server]]:
        """Who may lose something; a member loses only once."""
        if state.faults >= self.faults:
            return []
        return [(i, s) for i, s in distinct(state.servers) if s.lives and not s.bad]


class Consequence(Wipe):
    """The same without I13, to see what its breach leads to."""

    name: ClassVar = "wipe, I2 alone"

    def i13_negatives_are_true(self, state: State) -> bool:
        """Look away."""
        del state
        return True


def _with(state: State, i: int, server: Server, faults: int = 0) -> State:
    servers = state.servers
    return State(*state[:3], state.faults + faults, (*servers[:i], server, *servers[i + 1 :]))
