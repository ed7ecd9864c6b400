"""Model: a reader with old metadata, commit marks, the end of a segment; reads at a leader (R12 to R14).

Segment 0 is the first leader's.  One takeover closes it at C0 and opens segment 1 on the same servers
and `spare` others, with C0..T carried over; old replicas may hold events of segment 0 behind T, which
nobody ever gets to see.  The content of sequence s is 2s if the first leader wrote it, 2s + 1 if the
second one did.

The reader knows one version of the metadata, old or new, and asks any server.  The first leader, who may
have been replaced without knowing, answers a linearizable read after its checks.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lunalog.core.quorum import held_by, seal_quorum
from lunalog.testing.model.explore import Args, Model, Steps, action, distinct, fault, invariant

NOT_OPEN = -1


class Server(NamedTuple):
    """One server; it is a member of both segments, or a spare one and of segment 1 only."""

    fenced: int
    old: int
    """End of what it holds of segment 0; a spare one has `NOT_OPEN`."""
    new: int
    """The same of segment 1, or `NOT_OPEN`."""
    old_mark: int
    """Known committed sequence of segment 0, as recorded with what the server writes."""
    new_mark: int
    certified: int
    """1 once it has the certificate of segment 0: its end is known to be C0."""
    shown: int
    """How far it has let readers see segment 0."""
    checked: int
    """1 once it has confirmed the first leader for the read under way."""


class Read(NamedTuple):
    """A linearizable read at the first leader."""

    is_asked: int
    committed: int
    """C when it arrived."""
    floor: int
    """What somebody had acknowledged by then."""
    told: int
    """The answer, + 1; 0: none yet."""


class State(NamedTuple):
    """Who has acknowledged what, the takeover, the reader, the read, the servers."""

    acked: int
    """By the first leader."""
    acked_later: int
    """By the second one."""
    base: int
    """C0, or -1 before the takeover."""
    tail: int
    """T."""
    knows: int
    """1 once the reader has read the metadata after the takeover."""
    got: Args
    """What the reader has delivered, from sequence 0."""
    read: Read
    servers: tuple[Server, ...]


class Reader(Model[State]):
    """N and A of both sets, events of each leader, and which questions are asked."""

    name: ClassVar = "reader"

    def __init__(
        self,
        n: int,
        a: int,
        *,
        sent: int = 2,
        appends: int = 1,
        spare: int = 0,
        has_reader: bool = True,
        has_linear: bool = False,
    ) -> None:
        self.n, self.a, self.sent, self.appends, self.spare = n, a, sent, appends, spare
        self.has_reader, self.has_linear = has_reader, has_linear

    def initial(self) -> State:
        """Segment 0 is open and empty."""
        servers = (Server(0, 0, NOT_OPEN, 0, 0, 0, 0, 0),) * self.n
        spares = (Server(1, NOT_OPEN, NOT_OPEN, 0, 0, 1, 0, 0),) * self.spare
        return State(0, 0, -1, 0, 0, (), Read(0, 0, 0, 0), servers + spares)

    def canonical(self, state: State) -> State:
        """Servers have no names."""
        return State(*state[:7], tuple(sorted(state.servers)))

    def is_goal(self, state: State) -> bool:
        """The reader has all that is acknowledged, and the read is answered."""
        acked = max(state.acked, state.acked_later)
        is_read = not self.has_reader or len(state.got) >= acked
        return is_read and (not state.read.is_asked or state.read.told > 0 or state.base >= 0)

    # ------------------------------------------------------------------ rules that mutants break

    def readable(self, server: Server) -> int:
        """R12: below what is known committed of this segment, or its certificate's end."""
        return min(server.old, server.old_mark)

    def marked(self, server: Server, committed: int) -> Server:
        """R12: a mark of segment 1 says nothing of segment 0."""
        return server._replace(new_mark=committed)

    def restarted(self, server: Server) -> Server:
        """R12, R17: the marks are in the log and replay restores them."""
        return server

    def ends(self, state: State, server: Server) -> int:
        """R13: where a reader may turn to segment 1: only the sealed metadata knows."""
        del server
        return state.base if state.knows else -1

    def checks_needed(self) -> int:
        """R14: A confirmations."""
        return self.a

    def may_check(self, state: State, server: Server) -> bool:
        """R14: asked after the read arrived, not promised to anybody higher."""
        return bool(state.read.is_asked) and not server.fenced

    # ------------------------------------------------------------------ leaders and servers

    @action
    def append(self, state: State) -> Steps[State]:
        """R3: an event of segment 0 arrives."""
        for i, server in distinct(state.servers):
            if not server.fenced and server.old < self.sent:
                yield (0, i), _with(state, i, server._replace(old=server.old + 1))

    @action
    def append_later(self, state: State) -> Steps[State]:
        """R3: segment 1 is opened, or its next event arrives."""
        for i, server in distinct(state.servers):
            if state.base >= 0 and server.new < state.tail + self.appends:
                end = state.base if server.new == NOT_OPEN else server.new + 1
                yield (1, i), _with(state, i, server._replace(fenced=1, new=end))

    @action
    def acknowledge(self, state: State) -> Steps[State]:
        """R4: the first leader hears of A members, also when it is none any more."""
        if state.acked < held_by((s.old for s in state.servers), self.a):
            yield (state.acked,), state._replace(acked=state.acked + 1)

    @action
    def acknowledge_later(self, state: State) -> Steps[State]:
        """R9: the second one, once its whole tail is on A members."""
        held = held_by((s.new for s in state.servers), self.a)
        least = max(state.tail, state.acked_later)
        if state.base >= 0 and held >= least and held > state.acked_later:
            yield (held,), state._replace(acked_later=held)

    @action
    def mark(self, state: State) -> Steps[State]:
        """R12: a server that is not fenced learns what the first leader has acknowledged."""
        for i, server in distinct(state.servers):
            if self.has_reader and not server.fenced and server.old_mark < state.acked:
                yield (0, i), _with(state, i, self._seen(server._replace(old_mark=state.acked)))

    @action
    def mark_later(self, state: State) -> Steps[State]:
        """R12: a server of segment 1 learns what is committed there."""
        for i, server in distinct(state.servers):
            is_open = self.has_reader and server.new != NOT_OPEN
            if is_open and server.new_mark < state.acked_later:
                yield (1, i), _with(state, i, self._seen(self.marked(server, state.acked_later)))

    @action
    def take_over(self, state: State) -> Steps[State]:
        """R5 to R8: S members are fenced, C0 and T decided, the new segment is in the metadata.

        Whether it is on A members already is `recover.py`'s matter; nothing is acknowledged before.
        """
        answers = [s for s in state.servers if s.fenced and s.old != NOT_OPEN]
        if state.base >= 0 or len(answers) < seal_quorum(self.n, self.a):
            return
        known = [s.old_mark for s in answers]
        if len(answers) >= self.a:
            known.append(held_by((s.old for s in answers), self.a))
        tail = max(s.old for s in answers)
        yield (max(known), tail), state._replace(base=max(known), tail=tail)

    @fault
    def fence(self, state: State) -> Steps[State]:
        """R5: a member promises itself to the second leader."""
        for i, server in distinct(state.servers):
            if not server.fenced:
                yield (i,), _with(state, i, server._replace(fenced=1))

    @action
    def certify(self, state: State) -> Steps[State]:
        """R21: a server learns where segment 0 ends, cuts what is behind, pulls what it lacks."""
        for i, server in distinct(state.servers):
            if self.has_reader and state.base >= 0 and not server.certified:
                after = server._replace(
                    fenced=1, certified=1, old=state.base, old_mark=max(server.old_mark, state.base)
                )
                yield (i,), _with(state, i, self._seen(after))

    @fault
    def restart(self, state: State) -> Steps[State]:
        """P1: a server starts again."""
        for i, server in distinct(state.servers):
            after = self.restarted(server)
            if after != server:
                yield (i,), _with(state, i, after)

    # ------------------------------------------------------------------ the reader

    @action
    def refresh(self, state: State) -> Steps[State]:
        """R13: the reader reads the metadata again."""
        if self.has_reader and state.base >= 0 and not state.knows:
            yield (), state._replace(knows=1)

    @action
    def deliver(self, state: State) -> Steps[State]:
        """R12, R13: the next event from any server, from the segment that the sequence lies in."""
        s = len(state.got)
        if not self.has_reader:
            return
        for i, server in distinct(state.servers):
            end = self.ends(state, server)
            if 0 <= end <= s:
                place = max(s, state.base)
                if place < min(server.new, server.new_mark):
                    got = (*state.got, 2 * place + (place >= state.tail))
                    yield (1, i, s), state._replace(got=got)
            elif s < self.readable(server):
                yield (0, i, s), state._replace(got=(*state.got, 2 * s))

    # ------------------------------------------------------------------ a linearizable read

    @action
    def ask(self, state: State) -> Steps[State]:
        """R14: on arrival the first leader fixes C."""
        if self.has_linear and not state.read.is_asked:
            floor = max(state.acked, state.acked_later)
            yield (state.acked,), state._replace(read=Read(1, state.acked, floor, 0))

    @action
    def check(self, state: State) -> Steps[State]:
        """R14: a member confirms that it has promised nothing higher."""
        for i, server in distinct(state.servers):
            if self.has_linear and not server.checked and self.may_check(state, server):
                yield (i,), _with(state, i, server._replace(checked=1))

    @action
    def tell(self, state: State) -> Steps[State]:
        """R14: with A confirmations C is told."""
        read = state.read
        checked = sum(server.checked for server in state.servers)
        if read.is_asked and not read.told and checked >= self.checks_needed():
            yield (read.committed,), state._replace(read=read._replace(told=read.committed + 1))

    # ------------------------------------------------------------------ invariants

    @invariant
    def i1_i16_readers_get_the_log(self, state: State) -> bool:
        """What the reader got is what the log holds, and is never taken back."""
        end, tail = state.acked, len(state.got)
        if state.base >= 0:
            end, tail = max(end, state.acked_later, state.tail), state.tail
        return len(state.got) <= end and all(
            content == 2 * s + (s >= tail) for s, content in enumerate(state.got)
        )

    @invariant
    def i8_reads_are_linearizable(self, state: State) -> bool:
        """The answer covers all that was acknowledged before the question."""
        return not state.read.told or state.read.told - 1 >= state.read.floor

    @invariant
    def i10_what_was_readable_stays_so(self, state: State) -> bool:
        """A server never shows less of a segment than it did."""
        return all(self.readable(s) >= min(s.shown, s.old) for s in state.servers)

    # ------------------------------------------------------------------ words

    def _seen(self, server: Server) -> Server:
        return server._replace(shown=max(server.shown, self.readable(server)))


def _with(state: State, i: int, server: Server) -> State:
    servers = state.servers
    return State(*state[:7], (*servers[:i], server, *servers[i + 1 :]))
