"""Model: epochs are granted by comparing and swapping a record; replies are lost and late (R1, R2, R28).

Several masters (one of them, or all, out of date) read the record, propose the next epoch to a peer, and
tell it once they know that their transaction is in.  A transaction lands when it likes, any time after
it was sent; a master that hears nothing reads the record again.  A peer that restarts is another
incarnation under its old name.  There are no leases: they decide when to grant, and here it is always
time.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lunalog.testing.model.explore import (
    Args,
    Model,
    Steps,
    action,
    distinct,
    fault,
    invariant,
    put,
)


class Record(NamedTuple):
    """The stream's head."""

    version: int
    epoch: int
    leader: int
    """Incarnation that holds the epoch; 0: nobody's."""


class Master(NamedTuple):
    """One master: what it read last, and for whom it waits."""

    seen: Record
    asked: int
    """Incarnation that its transaction names; 0: none is in doubt."""


class State(NamedTuple):
    """The store, the masters, the peers, and all that is under way."""

    record: Record
    masters: tuple[Master, ...]
    lives: tuple[int, ...]
    """Of each peer: how often it was started."""
    sent: tuple[Args, ...]
    """Transactions that may still land: (version compared, epoch, leader)."""
    told: tuple[Args, ...]
    """Messages (epoch, leader) to peers; they arrive late, twice or never."""
    led: tuple[Args, ...]
    """(epoch, incarnation) of everybody who has ever led."""


class Grant(Model[State]):
    """How many masters, peers, grants, restarts of peers, and changes of the record by others."""

    name: ClassVar = "grant"

    def __init__(
        self, *, masters: int = 2, peers: int = 2, epochs: int = 2, lives: int = 2, others: int = 1
    ) -> None:
        self.masters, self.peers, self.epochs = masters, peers, epochs
        self.lives, self.others = lives, others

    def initial(self) -> State:
        """Nobody leads."""
        record = Record(0, 0, 0)
        return State(record, (Master(record, 0),) * self.masters, (1,) * self.peers, (), (), ())

    def canonical(self, state: State) -> State:
        """Masters have no names; a transaction that can never land is forgotten."""
        record, masters, lives, sent, told, led = state
        alive = tuple(sorted({txn for txn in sent if self.can_land(record, txn)}))
        return State(record, tuple(sorted(masters)), lives, alive, told, led)

    def is_goal(self, state: State) -> bool:
        """The newest epoch is led, or its peer has restarted since."""
        record = state.record
        return (record.epoch, record.leader) in state.led or (
            record.leader > 0
            and record.leader
            not in [self.incarnation(peer, life) for peer, life in enumerate(state.lives)]
        )

    # ------------------------------------------------------------------ rules that mutants break

    def incarnation(self, peer: int, life: int) -> int:
        """R2: who is granted; a restart makes another one."""
        return 1 + peer + self.peers * (life - 1)

    def can_land(self, record: Record, txn: Args) -> bool:
        """R1: the transaction compares the version."""
        return record.version == txn[0]

    def is_mine(self, record: Record, master: Master) -> bool:
        """R1: after silence, the grant is in if and only if the record names the incarnation."""
        return record.leader == master.asked

    def tells_early(self) -> bool:
        """R1: told only after the transaction."""
        return False

    # ------------------------------------------------------------------ actions

    @action
    def read(self, state: State) -> Steps[State]:
        """A master without a transaction in doubt reads the record."""
        for m, master in distinct(state.masters):
            if not master.asked and master.seen != state.record:
                yield (m,), self._with(state, m, Master(state.record, 0))

    @action
    def propose(self, state: State) -> Steps[State]:
        """R1: send the transaction that makes some peer the leader of the next epoch."""
        for m, master in distinct(state.masters):
            epoch = master.seen.epoch + 1
            if master.asked or epoch > self.epochs:
                continue
            for peer, life in enumerate(state.lives):
                leader = self.incarnation(peer, life)
                sent = (*state.sent, (master.seen.version, epoch, leader))
                told = _add(state.told, (epoch, leader)) if self.tells_early() else state.told
                after = self._with(state, m, Master(master.seen, leader))
                yield (m, peer), after._replace(sent=sent, told=told)

    @action
    def land(self, state: State) -> Steps[State]:
        """M5: a transaction takes effect, however long ago it was sent."""
        for number, txn in enumerate(state.sent):
            if self.can_land(state.record, txn):
                record = Record(state.record.version + 1, txn[1], txn[2])
                yield (number,), state._replace(record=record)

    @action
    def learn(self, state: State) -> Steps[State]:
        """R28: the master sees what became of its transaction; an unchanged record says nothing."""
        for m, master in distinct(state.masters):
            if not master.asked:
                continue
            if self.is_mine(state.record, master):
                told = _add(state.told, (state.record.epoch, master.asked))
                yield (m, 1), self._with(state, m, Master(state.record, 0))._replace(told=told)
            elif state.record.version > master.seen.version:
                yield (m, 0), self._with(state, m, Master(state.record, 0))

    @action
    def publish(self, state: State) -> Steps[State]:
        """R1: any master that reads the record pushes it to whom it names, as if for the first time."""
        told = (state.record.epoch, state.record.leader)
        if state.record.leader and told not in state.told:
            yield (), state._replace(told=_add(state.told, told))

    @fault
    def restart_master(self, state: State) -> Steps[State]:
        """M1: a master forgets what it waits for; its transaction may land all the same."""
        for m, master in distinct(state.masters):
            if master.asked:
                yield (m,), self._with(state, m, Master(state.record, 0))

    @fault
    def restart_peer(self, state: State) -> Steps[State]:
        """K3: a peer starts again under its old name."""
        for peer, life in enumerate(state.lives):
            if life < self.lives:
                yield (peer,), state._replace(lives=put(state.lives, peer, life + 1))

    @action
    def lead(self, state: State) -> Steps[State]:
        """A peer hears of its epoch and writes."""
        for epoch, leader in state.told:
            for peer, life in enumerate(state.lives):
                mine = (epoch, 1 + peer + self.peers * (life - 1))
                if self.incarnation(peer, life) == leader and mine not in state.led:
                    yield (peer, epoch), state._replace(led=_add(state.led, mine))

    @fault
    def change(self, state: State) -> Steps[State]:
        """Something else of the record is changed (a trim, a policy): only its version tells."""
        version, epoch, leader = state.record
        if version < epoch + self.others:
            yield (), state._replace(record=Record(version + 1, epoch, leader))

    # ------------------------------------------------------------------ invariants

    @invariant
    def i4_one_leader_per_epoch(self, state: State) -> bool:
        """No two incarnations ever lead in one epoch."""
        epochs = [epoch for epoch, _ in state.led]
        return len(epochs) == len(set(epochs))

    @invariant
    def i5_epochs_only_grow(self, state: State) -> bool:
        """The record is never behind what somebody was told."""
        return all(epoch <= state.record.epoch for epoch, _ in state.told)

    # ------------------------------------------------------------------ words

    @staticmethod
    def _with(state: State, m: int, master: Master) -> State:
        masters = state.masters
        return state._replace(masters=(*masters[:m], master, *masters[m + 1 :]))


def _add(values: tuple[Args, ...], value: Args) -> tuple[Args, ...]:
    return tuple(sorted({*values, value}))
