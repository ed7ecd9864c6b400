"""Faults of processes: each does one thing and says what, or finds no victim.

Source: docs/design.md "Seams"; P1, P2, M1, D4, D13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lunalog.testing.transitions import OF_STORMS

if TYPE_CHECKING:
    import random

    from lunalog.testing.nemesis import Kind, Strike

DIED: Final = "master died"
"""What is noticed begins with this; then "before" or "after", and the transaction."""


def kill(strike: Strike) -> str | None:
    """P1, P2: kill -9 anybody."""
    node = strike.pick(strike.targets.nodes)
    if node is None:
        return None
    strike.crash(node)
    return node.name


def kill_server(strike: Strike) -> str | None:
    """P1: kill -9 a server, now and then with a power cut soon after (R16)."""
    node = strike.pick(strike.targets.servers)
    if node is None:
        return None
    strike.crash(node)
    if strike.chance.random() < 0.5:
        return node.name
    node.restart()
    strike.later(strike.chance.random() * 0.05, lambda: strike.crash(node, power=True))
    return f"{node.name}, then its power"


def kill_master(strike: Strike) -> str | None:
    """M1: kill -9 a master."""
    node = strike.pick(strike.targets.masters)
    if node is None:
        return None
    strike.crash(node)
    return node.name


def crash_at_commit(strike: Strike) -> str | None:
    """M1: crash the master right before or after one of its next transactions."""
    node, store = strike.pick(strike.targets.masters), strike.targets.store
    if node is None or store is None:
        return None
    number, when = strike.chance.randint(1, 6), strike.chance.choice(("before", "after"))
    store.crash_at(store.transactions + number, when, lambda: strike.crash(node))
    return f"{node.name} {when} transaction {number}"


def crash_at_transition(strike: Strike) -> str | None:
    """M1: crash the master right before or after the next transaction of one kind."""
    when, name = aim(strike.chance)
    node, store = strike.pick(strike.targets.masters), strike.targets.store
    if node is None or store is None:
        return None

    def crash() -> None:
        strike.simulation.notice(f"{DIED} {when} {name}")
        strike.tell(f"{node.name} dies {when} {name}")
        strike.crash(node)

    store.crash_at(name, when, crash)
    return f"{node.name} {when} the next {name}"


def aim(chance: random.Random) -> tuple[str, str]:
    """Draw before or after what a master is to die."""
    return chance.choice(("before", "after")), chance.choice(OF_STORMS)


def lose_replies(strike: Strike) -> str | None:
    """M5: the next transactions' replies are lost; each was done, lands later, or never."""
    if strike.targets.store is None:
        return None
    dooms = [strike.chance.choice(("lost_reply", "late", "never")) for _ in range(3)]
    dooms = dooms[: strike.chance.randint(1, 3)]
    strike.targets.store.doomed += dooms
    return ", ".join(dooms)


def power_cut(strike: Strike) -> str | None:
    """D4, N5: take one host's power."""
    node = strike.pick(strike.targets.nodes)
    if node is None:
        return None
    strike.crash(node, power=True)
    return node.name


def power_cut_all(strike: Strike) -> str | None:
    """D13: take the power of all servers at once."""
    for node in strike.targets.servers:
        strike.crash(node, power=True)
    return "all servers"


def crash_at_call(strike: Strike) -> str | None:
    """P1, D4, D12: crash a server right after one of its next disk calls, before it can reply."""
    node = strike.pick(strike.targets.servers)
    if node is None or not node.disks:
        return None
    disk = strike.chance.choice(list(node.disks.values()))
    kind = strike.chance.choice(
        ("sync", "sync", "write", "rename", "sync_directory", "create", "remove")
    )
    number, power = strike.chance.randint(1, 6), strike.chance.random() < 0.5
    disk.faults.trap(number, lambda: strike.crash(node, power=power), kind)
    return f"{node.name} after {kind} {number}{', with its power' if power else ''}"


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        kill,
        kill_server,
        kill_master,
        crash_at_commit,
        crash_at_transition,
        lose_replies,
        power_cut,
        power_cut_all,
        crash_at_call,
    )
}
