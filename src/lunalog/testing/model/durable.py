"""Model: what a server has written, synced and said, when processes and power fail (R16).

A log is a run of records, its beginning `safe` on the disk, all of it in the page cache.
A killed process leaves the page cache; a power cut leaves what is safe and any prefix of the rest.
A sync that fails leaves its pages clean: the next sync passes over them and reports success.

One segment, its leader, one recoverer.  Names: safe <= clean <= length; `synced` is what the process
believes.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lunalog.core.quorum import held_by, seal_quorum
from lunalog.testing.model.explore import Args, Model, Steps, action, distinct, fault, invariant

EVENT, PROMISE = 1, 2


class Server(NamedTuple):
    """One member and its disk."""

    runs: int
    log: Args
    """Records as the page cache shows them."""
    safe: int
    """So many of them a power cut leaves."""
    clean: int
    """So many of them a sync takes for written."""
    synced: int
    """So many of them the process takes for durable."""
    acked: int
    """Events that it has told the leader it holds."""
    told: int
    """End that it has told the recoverer, + 1; 0: no answer yet."""


class State(NamedTuple):
    """The recoverer's decision and the members."""

    tail: int
    """T, or -1."""
    faults: int
    servers: tuple[Server, ...]


class Durable(Model[State]):
    """N, A, events, and how many crashes, power cuts and failed syncs in all."""

    name: ClassVar = "durable"

    def __init__(self, n: int, a: int, *, events: int = 1, faults: int = 3) -> None:
        self.n, self.a, self.events, self.faults = n, a, events, faults

    def initial(self) -> State:
        """All run, all logs are empty."""
        return State(-1, 0, (Server(1, (), 0, 0, 0, 0, 0),) * self.n)

    def canonical(self, state: State) -> State:
        """Servers have no names."""
        return State(state[0], state[1], tuple(sorted(state[2])))

    def is_goal(self, state: State) -> bool:
        """L1: T is decided."""
        return state.tail >= 0

    # ------------------------------------------------------------------ rules that mutants break

    def may_say(self, server: Server, record: int) -> int:
        """R16: what may be told rests on what is synced, for acks as for fences."""
        del record
        return server.synced

    def booted(self, server: Server) -> Server:
        """R16: what replay kept is written again and synced before the first word."""
        size = len(server.log)
        return server._replace(runs=1, safe=size, clean=size, synced=size)

    def sync_failed(self, server: Server) -> Server:
        """R16, D2: the process ends; what it wrote is clean in the page cache and not on the disk."""
        return server._replace(runs=0, clean=len(server.log))

    # ------------------------------------------------------------------ actions

    @action
    def append(self, state: State) -> Steps[State]:
        """R3: the next event is written, unless a promise is in the way."""
        for i, server in distinct(state.servers):
            log = server.log
            if server.runs and PROMISE not in log and len(log) < self.events:
                yield (i,), _with(state, i, server._replace(log=(*log, EVENT)))

    @action
    def promise(self, state: State) -> Steps[State]:
        """R5: a fence goes through the same log."""
        for i, server in distinct(state.servers):
            if server.runs and PROMISE not in server.log:
                yield (i,), _with(state, i, server._replace(log=(*server.log, PROMISE)))

    @action
    def sync(self, state: State) -> Steps[State]:
        """One sync covers all that is dirty."""
        for i, server in distinct(state.servers):
            if server.runs and server.synced < len(server.log):
                yield (i,), _with(state, i, synced(server))

    @action
    def acknowledge(self, state: State) -> Steps[State]:
        """R4, R16: tell the leader the end."""
        for i, server in distinct(state.servers):
            end = server.log[: self.may_say(server, EVENT)].count(EVENT)
            if server.runs and end > server.acked:
                yield (i,), _with(state, i, server._replace(acked=end))

    @action
    def answer(self, state: State) -> Steps[State]:
        """R5, R16: tell the recoverer the end, once the promise is durable."""
        for i, server in distinct(state.servers):
            said = server.log[: self.may_say(server, PROMISE)]
            if server.runs and not server.told and PROMISE in said:
                yield (i,), _with(state, i, server._replace(told=said.count(EVENT) + 1))

    @action
    def decide(self, state: State) -> Steps[State]:
        """R6: T is the largest end of S answers, or what an unfenced member still holds."""
        answers = [s.told - 1 for s in state.servers if s.told]
        if state.tail < 0 and len(answers) >= seal_quorum(self.n, self.a):
            most = max(answers + [s.log.count(EVENT) for s in state.servers if not s.told])
            for tail in range(max(answers), most + 1):
                yield (tail,), state._replace(tail=tail)

    @fault
    def kill(self, state: State) -> Steps[State]:
        """P1: the process ends, the page cache stays."""
        for i, server in distinct(state.servers):
            if server.runs and state.faults < self.faults:
                yield (i,), _with(state, i, server._replace(runs=0, synced=0), 1)

    @fault
    def fail_sync(self, state: State) -> Steps[State]:
        """D2: fdatasync reports an error."""
        for i, server in distinct(state.servers):
            if server.runs and server.clean < len(server.log) and state.faults < self.faults:
                yield (i,), _with(state, i, self.sync_failed(server), 1)

    @fault
    def cut_power(self, state: State) -> Steps[State]:
        """D4, D13: what is safe stays, and any prefix of what was on its way."""
        for i, server in distinct(state.servers):
            if state.faults < self.faults:
                for size in range(server.safe, len(server.log) + 1):
                    left = Server(0, server.log[:size], size, size, 0, server.acked, server.told)
                    yield (i, size), _with(state, i, left, 1)

    @action
    def boot(self, state: State) -> Steps[State]:
        """R16: start again."""
        for i, server in distinct(state.servers):
            if not server.runs:
                yield (i,), _with(state, i, self.booted(server))

    # ------------------------------------------------------------------ invariants

    @invariant
    def i2_nothing_acknowledged_is_lost(self, state: State) -> bool:
        """What A members have acknowledged is below T."""
        return state.tail < 0 or held_by((s.acked for s in state.servers), self.a) <= state.tail

    @invariant
    def i9_what_was_said_is_on_the_disk(self, state: State) -> bool:
        """No power cut takes what was acknowledged or promised aloud."""
        for server in state.servers:
            safe = server.log[: server.safe]
            if safe.count(EVENT) < server.acked or (server.told and PROMISE not in safe):
                return False
        return True


class Consequence(Durable):
    """The same without I9, to see what its breach leads to."""

    name: ClassVar = "durable, I2 alone"

    def i9_what_was_said_is_on_the_disk(self, state: State) -> bool:
        """Look away."""
        del state
        return True


def synced(server: Server) -> Server:
    """What a sync does: dirty pages reach the disk, those that an earlier one failed on do not."""
    size = len(server.log)
    safe = size if server.safe == server.clean else server.safe
    return server._replace(safe=safe, clean=size, synced=size)


def _with(state: State, i: int, server: Server, faults: int = 0) -> State:
    servers = state.servers
    return State(state.tail, state.faults + faults, (*servers[:i], server, *servers[i + 1 :]))
