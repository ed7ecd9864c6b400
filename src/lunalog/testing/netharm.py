"""Faults of the network.

Source: docs/design.md "Seams"; N1 to N8.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lunalog.testing.nemesis import Kind, Strike


def partition(strike: Strike) -> str | None:
    """N1: split all hosts in two."""
    names = [node.name for node in strike.targets.nodes]
    strike.chance.shuffle(names)
    cut = strike.chance.randint(1, max(1, len(names) - 1))
    left, right = names[:cut], names[cut:]
    pairs = [(a, b) for a in left for b in right]
    return _cut(strike, [*pairs, *((b, a) for a, b in pairs)], f"{left} from {right}")


def isolate(strike: Strike) -> str | None:
    """N1: take one host away from all others."""
    node = strike.chance.choice(strike.targets.nodes)
    others = [other.name for other in strike.targets.nodes if other is not node]
    pairs = [(node.name, other) for other in others]
    return _cut(strike, [*pairs, *((b, a) for a, b in pairs)], node.name)


def cut_one_way(strike: Strike) -> str | None:
    """N2: a host still hears all others and is no longer heard, or the other way round."""
    node = strike.chance.choice(strike.targets.nodes)
    others = [other.name for other in strike.targets.nodes if other is not node]
    chosen = [other for other in others if strike.chance.random() < 0.6]
    if strike.chance.random() < 0.5:
        return _cut(strike, [(node.name, other) for other in chosen], f"{node.name} to {chosen}")
    return _cut(strike, [(other, node.name) for other in chosen], f"{chosen} to {node.name}")


def cut_some(strike: Strike) -> str | None:
    """N2: single links fail both ways, and no side is whole."""
    names = [node.name for node in strike.targets.nodes]
    pairs = [
        (a, b) for a in names for b in names if a < b and strike.chance.random() < 1 / len(names)
    ]
    return _cut(strike, [*pairs, *((b, a) for a, b in pairs)], str(pairs))


def clog(strike: Strike) -> str | None:
    """N3, N8: hold back everything from one host to another for a while."""
    source, target = _two(strike)
    seconds = strike.lasting_s()
    strike.network.clog(source, target, seconds)
    return f"{source} to {target} for {seconds:.3f} s"


def slow_link(strike: Strike) -> str | None:
    """N3: one direction is many times slower."""
    source, target = _two(strike)
    link = strike.network.link(source, target)
    link.slowdown = 10 ** strike.chance.uniform(0.5, 2.5)

    def cure() -> None:
        link.slowdown = 1.0

    strike.later(strike.lasting_s(), cure)
    return f"{source} to {target} by {link.slowdown:.0f}"


def reset(strike: Strike) -> str | None:
    """N7: break connections between two hosts, some or all, in the middle of frames."""
    one, other = _two(strike)
    share = strike.chance.choice((0.5, 1.0))
    broken = strike.network.reset(one, other, share=share)
    return f"{broken} between {one} and {other}" if broken else None


def late_bytes(strike: Strike) -> str | None:
    """N4, N8: a host gives connections up, and what it had sent arrives long after it came back."""
    one, other = _two(strike)
    seconds = strike.lasting_s()
    stranded = strike.network.strand(one, other, seconds)
    return f"{stranded} from {one} to {other}, {seconds:.3f} s late" if stranded else None


def swizzle(strike: Strike) -> str | None:
    """N1, N2, N3, N4: links of some hosts stop one after another, and go on in another order."""
    names = [node.name for node in strike.targets.nodes]
    chosen = strike.chance.sample(names, strike.chance.randint(1, len(names)))
    links = [(a, b) for a in names for b in names if a != b and (a in chosen or b in chosen)]
    if not links:
        return None
    network, end = strike.network, 0.0
    for change in (network.cut, network.mend):
        strike.chance.shuffle(links)
        seconds = strike.lasting_s() / len(links)
        for link in links:
            end += strike.chance.random() * 2 * seconds
            strike.later(end, partial(change, *link))
    return f"{len(links)} links of {chosen} over {end:.3f} s"


def wall(strike: Strike) -> str | None:
    """N2: one client no longer reaches some servers, or is no longer heard, and that stays so."""
    nemesis, clients = strike.nemesis, strike.targets.clients
    if not strike.targets.allows_walls or len(clients) < 2:
        return None
    client = nemesis.walled or strike.chance.choice(clients).name
    nemesis.walled = client  # another one must be left, or nobody can lead
    servers = [node.name for node in strike.targets.servers]
    chosen = strike.chance.sample(servers, strike.chance.randint(1, len(servers)))
    pairs = [(client, server) for server in chosen]
    pairs = pairs if strike.chance.random() < 0.5 else [(b, a) for a, b in pairs]
    for source, target in pairs:
        strike.network.cut(source, target)
    nemesis.walls += pairs
    return f"{pairs[0][0]} to {pairs[0][1]} and {len(pairs) - 1} more for good"


def _two(strike: Strike) -> tuple[str, str]:
    nodes = strike.targets.nodes
    one, other = strike.chance.sample(nodes, 2) if len(nodes) > 1 else (nodes[0], nodes[0])
    return one.name, other.name


def _cut(strike: Strike, pairs: list[tuple[str, str]], what: str) -> str | None:
    if not pairs:
        return None
    network, seconds = strike.network, strike.lasting_s()
    for source, target in pairs:
        network.cut(source, target)

    def cure() -> None:
        for source, target in pairs:
            network.mend(source, target)

    strike.later(seconds, cure)
    return f"{what} for {seconds:.3f} s"


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        partition,
        isolate,
        cut_one_way,
        cut_some,
        clog,
        slow_link,
        reset,
        late_bytes,
        swizzle,
        wall,
    )
}
