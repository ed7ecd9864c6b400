"""Faults with an aim: what mixed chance reaches once in many thousand runs, done on purpose.

Source: docs/design.md "Seams"; K1, K2, K3, N2, P3, D5, D13.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lunalog.testing.diskharm import damage, flip_last

if TYPE_CHECKING:
    from lunalog.testing.machine import SimulatedNode
    from lunalog.testing.nemesis import Kind, Strike
    from lunalog.types import StreamHead

DEEP = 5
"""A recovery of a recovery of a recovery: so many leaders in a row die before they have one."""
CUT_SHORT = f"recovery after {DEEP} that were cut short"
"""What is noticed then."""


class Hunt:
    """Kills whoever is granted an epoch, somewhere in its takeover, again and again."""

    def __init__(self, strike: Strike, lives: int) -> None:
        self._strike = strike
        self._lives = lives
        self._latest = strike.chance.choice((-0.5, -2.0))  # often over by then, or hardly ever
        self._depth = 0
        self._segment: object = None

    def granted(self, head: StreamHead) -> None:
        """Send the killer after a new leader."""
        strike = self._strike
        segment = head.stream, head.open
        self._depth = self._depth + 1 if segment == self._segment else 1
        self._segment = segment
        if self._depth == DEEP + 1:  # and the segment that the first was to close is open still
            strike.simulation.notice(CUT_SHORT)
        self._lives -= 1
        if self._lives <= 0:
            strike.nemesis.when_granted.pop(strike.number, None)
        delay = 10 ** strike.chance.uniform(-4, self._latest) * strike.pace
        victim = head.leader.name if head.leader is not None else ""
        for node in strike.targets.clients:
            if node.name == victim:
                strike.later(delay, partial(self._kill, node))

    def _kill(self, node: SimulatedNode) -> None:
        if node.is_running:
            self._strike.tell(f"{node.name} dies, {self._depth} deep")
            self._strike.crash(node, back_s=0.02 * self._strike.chance.random())


def hunt(strike: Strike) -> str | None:
    """K2: kill each new leader while it recovers, many in a row; the first by killing the leader."""
    nemesis, lives = strike.nemesis, strike.chance.randint(DEEP + 1, 2 * DEEP)
    if nemesis.when_granted or not strike.targets.clients:
        return None
    nemesis.when_granted[strike.number] = Hunt(strike, lives).granted
    node = strike.leader()
    if node is not None:
        strike.crash(node, back_s=0.02 * strike.chance.random())
    return f"{lives} leaders"


def restart_leader(strike: Strike) -> str | None:
    """P2, K3: kill a leader, and start it again at once under its name."""
    node = strike.leader()
    if node is None:
        return None
    strike.crash(node, back_s=10 ** strike.chance.uniform(-4, -1))
    return node.name


def pause_leader(strike: Strike) -> str | None:
    """P3, K1: a leader stands still until another one leads, then goes on where it was."""
    node, nemesis = strike.leader(), strike.nemesis
    if node is None or nemesis.when_granted:
        return None
    node.pause()

    def granted(head: StreamHead) -> None:
        nemesis.when_granted.pop(strike.number, None)
        strike.later(10 ** strike.chance.uniform(-3, 0) * strike.pace, node.resume)

    nemesis.when_granted[strike.number] = granted
    strike.later(10 * strike.lease_s, node.resume)
    return node.name


def restart_fenced(strike: Strike) -> str | None:
    """P1, P3, K1: a leader stands still, the servers its successor fenced restart, it goes on."""
    node, nemesis = strike.leader(), strike.nemesis
    if node is None or nemesis.when_granted:
        return None
    node.pause()
    power = strike.chance.random() < 0.5

    def granted(head: StreamHead) -> None:
        nemesis.when_granted.pop(strike.number, None)
        delay = 10 ** strike.chance.uniform(-2, -0.3) * strike.pace
        for server in strike.targets.servers:
            if strike.chance.random() < 0.8:
                crash = partial(strike.crash, server, power=power, back_s=0.02)
                strike.later(delay * strike.chance.uniform(0.5, 1.0), crash)
        strike.later(delay, node.resume)

    nemesis.when_granted[strike.number] = granted
    strike.later(10 * strike.lease_s, node.resume)
    return node.name


def estrange_leader(strike: Strike) -> str | None:
    """K1, N1: a leader and the master lose each other, and both hear all others."""
    node = strike.leader()
    if node is None or not strike.targets.masters:
        return None
    pairs = [(node.name, master.name) for master in strike.targets.masters]
    return _cut_for_leases(strike, [*pairs, *((b, a) for a, b in pairs)], node.name)


def starve_leader(strike: Strike) -> str | None:
    """N2, K1: a leader hears the master and no server, or servers no longer hear it."""
    node = strike.leader()
    if node is None:
        return None
    pairs = [(node.name, server.name) for server in strike.targets.servers]
    pairs = pairs if strike.chance.random() < 0.5 else [(b, a) for a, b in pairs]
    return _cut_for_leases(strike, pairs, f"{pairs[0][0]} to {pairs[0][1]} and the like")


def kill_then_power(strike: Strike) -> str | None:
    """P1, D13: kill all servers, and take all power soon after they are back (R16)."""
    servers = strike.targets.servers
    for node in servers:
        strike.crash(node, back_s=0.01 * strike.chance.random())
    delay = 10 ** strike.chance.uniform(-3, -0.5)
    for node in servers:
        strike.later(delay, partial(strike.crash, node, power=True))
    return f"all servers, and their power {delay:.3f} s later"


def damage_promise(strike: Strike) -> str | None:
    """D5: soon after a takeover fenced a server, what it wrote last is damaged, and it restarts."""
    nemesis = strike.nemesis
    if nemesis.when_granted or strike.targets.damages_most < 1:
        return None

    def harm() -> None:
        within = strike.chance.choice((512, 2048))
        what = damage(strike, lambda disk: flip_last(disk, within))
        if what is not None:
            strike.tell(f"promise of {what}")

    def granted(head: StreamHead) -> None:
        nemesis.when_granted.pop(strike.number, None)
        strike.later(10 ** strike.chance.uniform(-3, -0.3) * strike.pace, harm)

    nemesis.when_granted[strike.number] = granted
    node = strike.leader()
    if node is not None:
        strike.crash(node)
    return "of the next epoch"


def _cut_for_leases(strike: Strike, pairs: list[tuple[str, str]], what: str) -> str:
    seconds = strike.lease_s * strike.chance.uniform(0.5, 4.0)
    for pair in pairs:
        strike.network.cut(*pair)

    def cure() -> None:
        for pair in pairs:
            strike.network.mend(*pair)

    strike.later(seconds, cure)
    return f"{what} for {seconds:.3f} s"


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        hunt,
        restart_leader,
        pause_leader,
        restart_fenced,
        estrange_leader,
        starve_leader,
        kill_then_power,
        damage_promise,
    )
}
