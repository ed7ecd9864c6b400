"""Model: fence, decide, carry over, commit, by duelling recoverers (R3 to R10).

Segment 0 is the first leader's, open on servers 0 to N-1.  Recoverer j is the leader of the j-th later
epoch and opens segment j.  All of `sent` events were sent in segment 0 and arrive when they like, as
do those that recoverer j appends behind its tail once its segment is in the metadata.

What is left out, because it changes nothing or is looked at in another model: a segment is written by
one leader, so its content is known by its end; a message that is lost is a step that is not taken; an
answer to a fence may be as late as it likes, because what it says stays true while the promise holds;
acknowledgements count the moment A members hold an event, before their leader can know.  Servers
sync at once here (`durable.py` does not) and nothing is lost (`wipe.py` does).
"""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import ClassVar, NamedTuple

from lunalog.core.quorum import held_by, seal_quorum
from lunalog.testing.model.explore import Model, Steps, action, distinct, fault, invariant, put

NOT_OPEN = -1


class Server(NamedTuple):
    """One journal server."""

    promise: int
    """Highest recoverer that it has promised itself to; 0: the first leader."""
    told: int
    """Bit j: recoverer j has its answer to a fence."""
    member: int
    """Bit j: it belongs to the set of segment j."""
    ends: tuple[int, ...]
    """Of each segment: end of what it holds, or `NOT_OPEN`."""
    marks: tuple[int, ...]
    """Of each segment: known committed sequence (R12)."""


class State(NamedTuple):
    """The master's head, what each recoverer has decided, and the servers."""

    granted: int
    """Who holds the newest epoch."""
    chain: tuple[int, ...]
    """Segments in the metadata, in order; the last one is open, the others have rows."""
    plans: tuple[tuple[int, ...], ...]
    """Of each segment: (), (old,) while fencing the set of `old`, (old, C0, T) once decided."""
    servers: tuple[Server, ...]


class Recover(Model[State]):
    """A and N of the first set, `spare` servers beside it, and how much may happen."""

    name: ClassVar = "recover"

    def __init__(
        self,
        n: int,
        a: int,
        *,
        recoverers: int = 2,
        sent: int = 2,
        appends: int = 1,
        spare: int = 0,
        has_marks: bool = False,
        has_small_sets: bool = True,
    ) -> None:
        self.n, self.a, self.recoverers, self.sent = n, a, recoverers, sent
        self.appends, self.spare, self.has_marks = appends, spare, has_marks
        self.sizes = range(a if has_small_sets else n, n + 1)

    def initial(self) -> State:
        """Segment 0 is open and empty."""
        later = self.recoverers
        ends, marks = (0, *[NOT_OPEN] * later), (0,) * (later + 1)
        members = (Server(0, 0, 1, ends, marks),) * self.n
        spares = (Server(0, 0, 0, (NOT_OPEN, *ends[1:]), marks),) * self.spare
        return State(0, (0,), ((0, 0, 0), *[()] * later), members + spares)

    def canonical(self, state: State) -> State:
        """Servers have no names; who was overtaken before its commit leaves only promises (R10)."""
        granted, chain, plans, servers = state
        if granted > 1 and len(chain) <= granted:
            for j in range(1, granted):
                if plans[j] and j not in chain and self.is_overtaken(state, j):
                    plans = (*plans[:j], (), *plans[j + 1 :])
                    servers = tuple([_forget(server, j) for server in servers])
        return State(granted, chain, plans, tuple(sorted(servers)))

    def is_goal(self, state: State) -> bool:
        """Whoever holds the newest epoch has opened its segment (L1)."""
        return state.chain[-1] == state.granted

    # ------------------------------------------------------------------ rules that mutants break

    def fences_needed(self, members: int) -> int:
        """R6: S = N - A + 1."""
        return seal_quorum(members, self.a)

    def promised(self, promise: int, recoverer: int) -> int:
        """R5: what a fence leaves behind."""
        return max(promise, recoverer)

    def base(self, first: int, answers: list[Server], old: int) -> int:
        """R7: C0, below which all is on A members of the old set already."""
        known = [first, *(server.marks[old] for server in answers)]
        if len(answers) >= self.a:
            known.append(held_by((s.ends[old] for s in answers), self.a))
        return max(known)

    def tails(self, base: int, answers: list[Server], others: list[Server], old: int) -> range:
        """R6: the walk up; what is held must be kept, what some witness holds may be."""
        least = max(base, *(server.ends[old] for server in answers))
        return range(least, max([least, *(server.ends[old] for server in others)]) + 1)

    def may_commit(self, state: State, j: int) -> bool:
        """R7, R8: T is durable on A of the new set; the head is as it was when epoch j was granted."""
        old, _, tail = state.plans[j]
        held = sum(s.ends[j] >= tail for s in state.servers if s.member >> j & 1)
        return held >= self.a and self.head_is(state, j, old)

    def head_is(self, state: State, j: int, old: int) -> bool:
        """R8: what the transaction compares."""
        return state.granted == j and state.chain[-1] == old

    def is_overtaken(self, state: State, j: int) -> bool:
        """R8, R10: recoverer j can never commit."""
        return j < state.granted

    def mark_of(self, server: Server, j: int, committed: int) -> Server:
        """R12: a known committed sequence belongs to one segment."""
        return server._replace(marks=put(server.marks, j, committed))

    # ------------------------------------------------------------------ actions

    @fault
    def grant(self, state: State) -> Steps[State]:
        """R1: the next recoverer gets the next epoch, and the head as it is now."""
        granted, chain, plans, servers = state
        j = granted + 1
        if j <= self.recoverers:
            yield (j,), State(j, chain, (*plans[:j], (chain[-1],), *plans[j + 1 :]), servers)

    @action
    def append(self, state: State) -> Steps[State]:
        """R3: the next event of a segment arrives at a server that has promised nothing higher."""
        granted, chain, plans, servers = state
        for i, (promise, told, member, ends, marks) in distinct(servers):
            end = ends[promise]
            if end == NOT_OPEN:
                continue
            limit = self.sent
            if promise:
                limit = plans[promise][2] + (self.appends if promise in chain else 0)
            if end < limit:
                after = Server(promise, told, member, put(ends, promise, end + 1), marks)
                yield (promise, i), State(granted, chain, plans, _with(servers, i, after))

    @action
    def fence(self, state: State) -> Steps[State]:
        """R5: a member of the old set promises, and says where it ends."""
        granted, chain, plans, servers = state
        for j in range(1, granted + 1):
            if len(plans[j]) == 3 or j in chain:
                continue
            old = plans[j][0] if plans[j] else -1
            for i, (promise, told, member, ends, marks) in distinct(servers):
                if old < 0:
                    if promise < j:  # late words of who was overtaken: its promise, and no answer
                        after = Server(self.promised(promise, j), told, member, ends, marks)
                        yield (j, i), State(granted, chain, plans, _with(servers, i, after))
                    continue
                if promise > j or told >> j & 1 or not member >> old & 1:
                    continue
                after = Server(self.promised(promise, j), told | 1 << j, member, ends, marks)
                yield (j, i), State(granted, chain, plans, _with(servers, i, after))

    @action
    def decide(self, state: State) -> Steps[State]:
        """R6, R7: with S answers C0 and T are found; some new set is chosen."""
        granted, chain, plans, servers = state
        for j in range(1, granted + 1):
            if len(plans[j]) != 1:
                continue
            old = plans[j][0]
            members = [s for s in servers if s.member >> old & 1]
            answers = [s for s in members if s.told >> j & 1]
            if len(answers) < self.fences_needed(len(members)):
                continue
            others = [s for s in members if not s.told >> j & 1]
            base = self.base(plans[old][1], answers, old)
            for tail in self.tails(base, answers, others, old):
                decided = (*plans[:j], (old, base, tail), *plans[j + 1 :])
                for chosen in self._sets(servers, j):
                    yield (j, base, tail), State(granted, chain, decided, chosen)

    @action
    def open(self, state: State) -> Steps[State]:
        """R3, R7: a member of the new set opens the segment; this is a promise, too."""
        granted, chain, plans, servers = state
        for j in range(1, granted + 1):
            if len(plans[j]) != 3:
                continue
            for i, (promise, told, member, ends, marks) in distinct(servers):
                if promise > j or ends[j] != NOT_OPEN or not member >> j & 1:
                    continue
                after = Server(j, told, member, put(ends, j, plans[j][1]), marks)
                yield (j, i), State(granted, chain, plans, _with(servers, i, after))

    @action
    def commit(self, state: State) -> Steps[State]:
        """R8: one transaction seals the old segment at C0 and opens the new one."""
        granted, chain, plans, servers = state
        for j in range(1, granted + 1):
            if j not in chain and len(plans[j]) == 3 and self.may_commit(state, j):
                yield (j,), State(granted, (*chain, j), plans, servers)

    @action
    def mark(self, state: State) -> Steps[State]:
        """R12: a server that the leader still reaches learns what is committed."""
        if not self.has_marks:
            return
        granted, chain, plans, servers = state
        for i, server in distinct(servers):
            j = server.promise
            committed = self.committed(servers, j) if j in chain else 0
            if server.ends[j] != NOT_OPEN and committed > server.marks[j]:
                after = self.mark_of(server, j, committed)
                yield (j, i), State(granted, chain, plans, _with(servers, i, after))

    # ------------------------------------------------------------------ invariants

    @invariant
    def i2_nothing_acknowledged_is_lost(self, state: State) -> bool:
        """What a segment of the metadata ever had on A members is below every later tail."""
        if len(state.chain) == 1:
            return True
        kept = 1 << 30
        for j in reversed(state.chain):
            if self.committed(state.servers, j) > kept:
                return False
            kept = min(kept, state.plans[j][2] if j else kept)
        return True

    @invariant
    def i11_rows_are_on_a_members(self, state: State) -> bool:
        """Where a row ends (C0 of its successor), A of its members have all of it."""
        chain, plans = state.chain, state.plans
        return all(
            self.committed(state.servers, old) >= plans[new][1] for old, new in pairwise(chain)
        )

    @invariant
    def i5_segments_join(self, state: State) -> bool:
        """Each segment names the one before it, and begins where that one's row ends."""
        chain, plans = state.chain, state.plans
        for old, new in pairwise(chain):
            if plans[new][0] != old or not plans[old][1] <= plans[new][1] <= plans[new][2]:
                return False
        return True

    @invariant
    def i10_marks_are_committed(self, state: State) -> bool:
        """No server believes more to be committed than what A members of the segment hold."""
        if not self.has_marks:
            return True
        committed = [self.committed(state.servers, j) for j in range(self.recoverers + 1)]
        return all(m <= c for s in state.servers for m, c in zip(s.marks, committed, strict=True))

    # ------------------------------------------------------------------ words

    def committed(self, servers: tuple[Server, ...], j: int) -> int:
        """R4: the A-th largest end of the segment's members."""
        ends = sorted([s.ends[j] for s in servers if s.member >> j & 1], reverse=True)
        return max(0, ends[self.a - 1]) if len(ends) >= self.a else 0

    def _sets(self, servers: tuple[Server, ...], j: int) -> list[tuple[Server, ...]]:
        """Every choice of members for segment j, A to N of all servers; equal servers count once.

        The answers to j's fences have been used and are forgotten.
        """
        found: dict[tuple[Server, ...], tuple[Server, ...]] = {}
        bit = 1 << j
        for size in self.sizes:
            for chosen in combinations(range(len(servers)), size):
                marked = tuple(
                    Server(s[0], s[1] & ~bit, s[2] | bit if i in chosen else s[2], s[3], s[4])
                    for i, s in enumerate(servers)
                )
                found.setdefault(tuple(sorted(marked)), marked)
        return list(found.values())


def _forget(server: Server, j: int) -> Server:
    promise, told, member, ends, marks = server
    return Server(promise, told & ~(1 << j), member & ~(1 << j), put(ends, j, NOT_OPEN), marks)


def _with(servers: tuple[Server, ...], i: int, server: Server) -> tuple[Server, ...]:
    return (*servers[:i], server, *servers[i + 1 :])
