"""Faults of processes, clocks and the network: each does one thing and says what, or finds no victim.

Source: docs/design.md "Seams"; P1 to P4, N1 to N8, C1, C2, K5, D13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lunalog.testing.nemesis import Kind, Nemesis


def kill(nemesis: Nemesis) -> str | None:
    """P1, P2: kill -9 anybody."""
    node = nemesis.pick(nemesis.targets.nodes)
    if node is None:
        return None
    nemesis.crash(node)
    return node.name


def kill_server(nemesis: Nemesis) -> str | None:
    """P1: kill -9 a server, now and then with a power cut soon after (R16)."""
    node = nemesis.pick(nemesis.targets.servers)
    if node is None:
        return None
    nemesis.crash(node)
    if nemesis.chance.random() < 0.5:
        return node.name
    node.restart()
    nemesis.later(nemesis.chance.random() * 0.05, lambda: nemesis.crash(node, power=True))
    return f"{node.name}, then its power"


def kill_master(nemesis: Nemesis) -> str | None:
    """M1: kill -9 a master."""
    node = nemesis.pick(nemesis.targets.masters)
    if node is None:
        return None
    nemesis.crash(node)
    return node.name


def crash_at_commit(nemesis: Nemesis) -> str | None:
    """M1: crash the master right before or after one of its next transactions."""
    node, store = nemesis.pick(nemesis.targets.masters), nemesis.targets.store
    if node is None or store is None:
        return None
    number, when = nemesis.chance.randint(1, 6), nemesis.chance.choice(("before", "after"))
    store.crash_at(store.transactions + number, when, lambda: nemesis.crash(node))
    return f"{node.name} {when} transaction {number}"


def power_cut(nemesis: Nemesis) -> str | None:
    """D4, N5: take one host's power."""
    node = nemesis.pick(nemesis.targets.nodes)
    if node is None:
        return None
    nemesis.crash(node, power=True)
    return node.name


def power_cut_all(nemesis: Nemesis) -> str | None:
    """D13: take the power of all servers at once."""
    for node in nemesis.targets.servers:
        nemesis.crash(node, power=True)
    return "all servers"


def crash_at_call(nemesis: Nemesis) -> str | None:
    """P1, D4: crash a server right after one of its next disk calls, before it can reply."""
    node = nemesis.pick(nemesis.targets.servers)
    if node is None or not node.disks:
        return None
    disk = nemesis.chance.choice(list(node.disks.values()))
    kind = nemesis.chance.choice(("sync", "sync", "write", "rename", "sync_directory", "create"))
    number, power = nemesis.chance.randint(1, 6), nemesis.chance.random() < 0.5
    disk.faults.trap(number, lambda: nemesis.crash(node, power=power), kind)
    return f"{node.name} after {kind} {number}{', with its power' if power else ''}"


def pause(nemesis: Nemesis) -> str | None:
    """P3, P4, C2: SIGSTOP, or a suspended machine."""
    node = nemesis.pick(nemesis.targets.nodes)
    if node is None:
        return None
    seconds = nemesis.lasting_s()
    node.pause(suspend=nemesis.chance.random() < 0.3)
    nemesis.later(seconds, node.resume)
    return f"{node.name} for {seconds:.3f} s"


def wedge(nemesis: Nemesis) -> str | None:
    """K5: one loop stands still, the others go on."""
    node = nemesis.pick(nemesis.targets.nodes)
    if node is None:
        return None
    seconds, loop = nemesis.lasting_s(), nemesis.chance.choice(node.loop_names)
    node.wedge(loop)
    nemesis.later(seconds, lambda: node.unwedge(loop))
    return f"{node.name}/{loop} for {seconds:.3f} s"


def jump_wall(nemesis: Nemesis) -> str | None:
    """C1: the wall clock jumps, back or forth."""
    node = nemesis.chance.choice(nemesis.targets.nodes)
    seconds = nemesis.chance.choice((-1, 1)) * 10 ** nemesis.chance.uniform(-2, 5)
    node.clock.jump_wall(seconds)
    return f"{node.name} by {seconds:.3f} s"


def drift(nemesis: Nemesis) -> str | None:
    """C2: a clock runs up to a tenth too fast or too slow."""
    node = nemesis.chance.choice(nemesis.targets.nodes)
    rate = nemesis.chance.uniform(0.9, 1.1)
    node.set_clock_rate(rate)
    nemesis.later(5 * nemesis.lasting_s(), lambda: node.set_clock_rate(1.0))
    return f"{node.name} at {rate:.3f}"


def partition(nemesis: Nemesis) -> str | None:
    """N1: split all hosts in two."""
    names = [node.name for node in nemesis.targets.nodes]
    nemesis.chance.shuffle(names)
    cut = nemesis.chance.randint(1, max(1, len(names) - 1))
    left, right = names[:cut], names[cut:]
    pairs = [(a, b) for a in left for b in right]
    return _cut(nemesis, [*pairs, *((b, a) for a, b in pairs)], f"{left} from {right}")


def isolate(nemesis: Nemesis) -> str | None:
    """N1: take one host away from all others."""
    node = nemesis.chance.choice(nemesis.targets.nodes)
    others = [other.name for other in nemesis.targets.nodes if other is not node]
    pairs = [(node.name, other) for other in others]
    return _cut(nemesis, [*pairs, *((b, a) for a, b in pairs)], node.name)


def cut_one_way(nemesis: Nemesis) -> str | None:
    """N2: a host still hears all others and is no longer heard, or the other way round."""
    node = nemesis.chance.choice(nemesis.targets.nodes)
    others = [other.name for other in nemesis.targets.nodes if other is not node]
    chosen = [other for other in others if nemesis.chance.random() < 0.6]
    if nemesis.chance.random() < 0.5:
        return _cut(nemesis, [(node.name, other) for other in chosen], f"{node.name} to {chosen}")
    return _cut(nemesis, [(other, node.name) for other in chosen], f"{chosen} to {node.name}")


def cut_some(nemesis: Nemesis) -> str | None:
    """N2: single links fail both ways, and no side is whole."""
    names = [node.name for node in nemesis.targets.nodes]
    pairs = [
        (a, b) for a in names for b in names if a < b and nemesis.chance.random() < 1 / len(names)
    ]
    return _cut(nemesis, [*pairs, *((b, a) for a, b in pairs)], str(pairs))


def clog(nemesis: Nemesis) -> str | None:
    """N3, N8: hold back everything from one host to another for a while."""
    source, target = _two(nemesis)
    seconds = nemesis.lasting_s()
    nemesis.simulation.network.clog(source, target, seconds)
    return f"{source} to {target} for {seconds:.3f} s"


def slow_link(nemesis: Nemesis) -> str | None:
    """N3: one direction is many times slower."""
    source, target = _two(nemesis)
    link = nemesis.simulation.network.link(source, target)
    link.slowdown = 10 ** nemesis.chance.uniform(0.5, 2.5)

    def cure() -> None:
        link.slowdown = 1.0

    nemesis.later(nemesis.lasting_s(), cure)
    return f"{source} to {target} by {link.slowdown:.0f}"


def reset(nemesis: Nemesis) -> str | None:
    """N7: break connections between two hosts, some or all, in the middle of frames."""
    one, other = _two(nemesis)
    share = nemesis.chance.choice((0.5, 1.0))
    broken = nemesis.simulation.network.reset(one, other, share=share)
    return f"{broken} between {one} and {other}" if broken else None


def _two(nemesis: Nemesis) -> tuple[str, str]:
    nodes = nemesis.targets.nodes
    one, other = nemesis.chance.sample(nodes, 2) if len(nodes) > 1 else (nodes[0], nodes[0])
    return one.name, other.name


def _cut(nemesis: Nemesis, pairs: list[tuple[str, str]], what: str) -> str | None:
    if not pairs:
        return None
    network, seconds = nemesis.simulation.network, nemesis.lasting_s()
    for source, target in pairs:
        network.cut(source, target)

    def cure() -> None:
        for source, target in pairs:
            network.mend(source, target)

    nemesis.later(seconds, cure)
    return f"{what} for {seconds:.3f} s"


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        kill,
        kill_server,
        kill_master,
        crash_at_commit,
        power_cut,
        power_cut_all,
        crash_at_call,
        pause,
        wedge,
        jump_wall,
        drift,
        partition,
        isolate,
        cut_one_way,
        cut_some,
        clog,
        slow_link,
        reset,
    )
}
