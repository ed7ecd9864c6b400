"""Faults of servers' disks: errors and delays, and damage within the budget.

Source: docs/design.md "Seams"; D1 to D11.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lunalog.testing.disk import SimulatedDisk
    from lunalog.testing.machine import SimulatedNode
    from lunalog.testing.nemesis import Kind, Nemesis


def slow_disk(nemesis: Nemesis) -> str | None:
    """D11: everything takes many times longer."""
    found = _any_disk(nemesis)
    if found is None:
        return None
    disk = found[1]
    disk.faults.slowdown = 10 ** nemesis.chance.uniform(0.5, 2.5)

    def cure() -> None:
        disk.faults.slowdown = 1.0

    nemesis.later(nemesis.lasting_s(), cure)
    return f"{disk.name} by {disk.faults.slowdown:.0f}"


def stall_disk(nemesis: Nemesis) -> str | None:
    """D11: nothing is answered for a while."""
    found = _any_disk(nemesis)
    if found is None:
        return None
    seconds = nemesis.lasting_s()
    found[1].faults.stall(seconds)
    return f"{found[1].name} for {seconds:.3f} s"


def fail_sync(nemesis: Nemesis) -> str | None:
    """D2: a sync raises EIO, and the next one says that all is well."""
    found = _any_disk(nemesis)
    if found is None:
        return None
    found[1].faults.fail_sync()
    return found[1].name


def fail_call(nemesis: Nemesis) -> str | None:
    """D1: one of the next calls raises EIO."""
    found = _any_disk(nemesis)
    if found is None:
        return None
    number = nemesis.chance.randint(1, 20)
    kinds = nemesis.chance.choice(((), ("write",), ("allocate", "create"), ("rename",), ("read",)))
    found[1].faults.fail_call(number, errno.EIO, *kinds)
    return f"{found[1].name}: {' or '.join(kinds) or 'call'} {number}"


def fill_disk(nemesis: Nemesis) -> str | None:
    """D3: the disk is full, or nearly, for a while."""
    found = _any_disk(nemesis)
    if found is None:
        return None
    disk, capacity = found[1], found[1].capacity_bytes
    left = nemesis.chance.choice((0, 4096, 1 << 20))
    disk.capacity_bytes = min(capacity, disk.directory.used_bytes() + left)

    def cure() -> None:
        disk.capacity_bytes = max(capacity, disk.capacity_bytes)

    nemesis.later(nemesis.lasting_s(), cure)
    return f"{disk.name} but {left} bytes"


def wipe(nemesis: Nemesis) -> str | None:
    """D9: an empty disk in its place."""
    return _damage(nemesis, lambda disk: disk.wipe())


def flip_bits(nemesis: Nemesis) -> str | None:
    """D5, D6: some bits of what is durable read otherwise."""
    count = nemesis.chance.choice((1, 1, 3, 30))
    return _damage(nemesis, lambda disk: disk.flip_some(count))


def lose_file(nemesis: Nemesis) -> str | None:
    """D8: a file is gone with its name."""

    def lose(disk: SimulatedDisk) -> None:
        names = sorted(disk.directory.names)
        if names:
            disk.lose(nemesis.chance.choice(names))

    return _damage(nemesis, lose)


def lie_sync(nemesis: Nemesis) -> str | None:
    """D7: a sync that says it is done, and is not; then the power goes."""
    found = _any_disk(nemesis)
    if found is None or not nemesis.may_damage(found[0]):
        return None
    node, disk = found
    nemesis.lying.add(node.name)
    disk.faults.lie_sync(nemesis.chance.randint(1, 3))
    nemesis.later(nemesis.chance.random(), lambda: nemesis.crash(node, power=True))
    return disk.name


def restore_image(nemesis: Nemesis) -> str | None:
    """D10: an older image of the disk comes back; the first call takes the image."""
    found = _any_disk(nemesis)
    if found is None:
        return None
    node, disk = found
    image, position = nemesis.images.get(disk.name, (None, 0))
    if image is None or nemesis.chance.random() < 0.3:
        nemesis.images[disk.name] = disk.snapshot(), nemesis.targets.position(node)
        return f"{disk.name} is copied"
    if nemesis.targets.reported(node) <= position:
        return None
    return _damage(nemesis, lambda disk: disk.restore(image), found)


def _any_disk(nemesis: Nemesis) -> tuple[SimulatedNode, SimulatedDisk] | None:
    node = nemesis.pick([server for server in nemesis.targets.servers if server.disks])
    if node is None:
        return None
    return node, nemesis.chance.choice(list(node.disks.values()))


def _damage(
    nemesis: Nemesis,
    harm: Callable[[SimulatedDisk], object],
    victim: tuple[SimulatedNode, SimulatedDisk] | None = None,
) -> str | None:
    """Crash a server that the budget allows, harm its disk, and let it start again later."""
    known = [node for node in nemesis.targets.servers if node.name in nemesis.damaged]
    if victim is None:
        node = nemesis.pick(known) if nemesis.chance.random() < 0.5 else None
        found = (node, next(iter(node.disks.values()))) if node else _any_disk(nemesis)
        if found is None:
            return None
        victim = found
    if not nemesis.may_damage(victim[0]):
        return None
    nemesis.crash(victim[0], power=nemesis.chance.random() < 0.3)
    harm(victim[1])
    return victim[1].name


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        slow_disk,
        stall_disk,
        fail_sync,
        fail_call,
        fill_disk,
        wipe,
        flip_bits,
        lose_file,
        lie_sync,
        restore_image,
    )
}
