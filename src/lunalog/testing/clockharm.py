"""Faults of time: pauses, hangs, clocks that are wrong.

Source: docs/design.md "Seams"; P3, P4, C1, C2, K5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lunalog.testing.nemesis import Kind, Strike


def pause(strike: Strike) -> str | None:
    """P3, P4, C2: SIGSTOP, or a suspended machine."""
    node = strike.pick(strike.targets.nodes)
    if node is None:
        return None
    seconds = strike.lasting_s()
    node.pause(suspend=strike.chance.random() < 0.3)
    strike.later(seconds, node.resume)
    return f"{node.name} for {seconds:.3f} s"


def wedge(strike: Strike) -> str | None:
    """K5: one loop stands still, the others go on."""
    node = strike.pick(strike.targets.nodes)
    if node is None:
        return None
    seconds, loop = strike.lasting_s(), strike.chance.choice(node.loop_names)
    node.wedge(loop)
    strike.later(seconds, lambda: node.unwedge(loop))
    return f"{node.name}/{loop} for {seconds:.3f} s"


def jump_wall(strike: Strike) -> str | None:
    """C1: the wall clock jumps, back or forth."""
    node = strike.chance.choice(strike.targets.nodes)
    seconds = strike.chance.choice((-1, 1)) * 10 ** strike.chance.uniform(-2, 5)
    node.clock.jump_wall(seconds)
    return f"{node.name} by {seconds:.3f} s"


def drift(strike: Strike) -> str | None:
    """C2: a clock runs up to a tenth too fast or too slow."""
    node = strike.chance.choice(strike.targets.nodes)
    rate = strike.chance.uniform(0.9, 1.1)
    node.set_clock_rate(rate)
    strike.later(5 * strike.lasting_s(), lambda: node.set_clock_rate(1.0))
    return f"{node.name} at {rate:.3f}"


def long_pause(strike: Strike) -> str | None:
    """P3, P4, C2: a leader, or anybody, stands still for longer than a lease."""
    leader = strike.leader()
    node = leader if leader and strike.chance.random() < 0.7 else strike.pick(strike.targets.nodes)
    if node is None:
        return None
    seconds = strike.lease_s * strike.chance.uniform(1.0, 3.0)
    node.pause(suspend=strike.chance.random() < 0.3)
    strike.later(seconds, node.resume)
    return f"{node.name} for {seconds:.3f} s"


def skew(strike: Strike) -> str | None:
    """C1, C2: all clocks run apart, and some wall clocks jump, at the same time."""
    nodes = strike.targets.nodes
    for node in nodes:
        node.set_clock_rate(strike.chance.choice((0.9, 1.0, 1.1)))
        if strike.chance.random() < 0.5:
            node.clock.jump_wall(strike.chance.choice((-1, 1)) * 10 ** strike.chance.uniform(0, 5))

    def cure() -> None:
        for node in nodes:
            node.set_clock_rate(1.0)

    strike.later(5 * strike.lasting_s(), cure)
    return f"all {len(nodes)}"


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        pause,
        wedge,
        jump_wall,
        drift,
        long_pause,
        skew,
    )
}
