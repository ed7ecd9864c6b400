"""Faults of servers' disks: errors and delays, and damage within the budget.

Source: docs/design.md "Seams"; D1 to D11.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lunalog.storage import extents
from lunalog.storage import format as layout

if TYPE_CHECKING:
    from lunalog.testing.disk import SimulatedDisk
    from lunalog.testing.machine import SimulatedNode
    from lunalog.testing.nemesis import Kind, Strike


def slow_disk(strike: Strike) -> str | None:
    """D11: everything takes many times longer."""
    found = _any_disk(strike)
    if found is None:
        return None
    disk = found[1]
    disk.faults.slowdown = 10 ** strike.chance.uniform(0.5, 2.5)

    def cure() -> None:
        disk.faults.slowdown = 1.0

    strike.later(strike.lasting_s(), cure)
    return f"{disk.name} by {disk.faults.slowdown:.0f}"


def stall_disk(strike: Strike) -> str | None:
    """D11: nothing is answered for a while."""
    found = _any_disk(strike)
    if found is None:
        return None
    seconds = strike.lasting_s()
    found[1].faults.stall(seconds)
    return f"{found[1].name} for {seconds:.3f} s"


def fail_sync(strike: Strike) -> str | None:
    """D2: a sync raises EIO, and the next one says that all is well."""
    found = _any_disk(strike)
    if found is None:
        return None
    found[1].faults.fail_sync()
    return found[1].name


def fail_call(strike: Strike) -> str | None:
    """D1: one of the next calls raises EIO."""
    found = _any_disk(strike)
    if found is None:
        return None
    number = strike.chance.randint(1, 20)
    kinds = strike.chance.choice(((), ("write",), ("allocate", "create"), ("rename",), ("read",)))
    found[1].faults.fail_call(number, errno.EIO, *kinds)
    return f"{found[1].name}: {' or '.join(kinds) or 'call'} {number}"


def fill_disk(strike: Strike) -> str | None:
    """D3: the disk is full, or nearly, for a while."""
    found = _any_disk(strike)
    if found is None:
        return None
    disk, capacity = found[1], found[1].capacity_bytes
    left = strike.chance.choice((0, 4096, 1 << 20))
    disk.capacity_bytes = min(capacity, disk.directory.used_bytes() + left)

    def cure() -> None:
        disk.capacity_bytes = max(capacity, disk.capacity_bytes)

    strike.later(strike.lasting_s(), cure)
    return f"{disk.name} but {left} bytes"


def wipe(strike: Strike) -> str | None:
    """D9: an empty disk in its place."""
    return damage(strike, lambda disk: disk.wipe())


def flip_bits(strike: Strike) -> str | None:
    """D5: some bits of what is durable, and attested (see `flip_last`), read otherwise."""
    count = strike.chance.choice((1, 1, 3, 30))
    return damage(strike, lambda disk: disk.flip_some(count, partial(attested_end, disk)))


def lose_file(strike: Strike) -> str | None:
    """D8: a file is gone with its name."""

    def lose(disk: SimulatedDisk) -> None:
        names = sorted(disk.directory.names)
        if names:
            disk.lose(strike.chance.choice(names))

    return damage(strike, lose)


def lie_sync(strike: Strike) -> str | None:
    """D7: a sync that says it is done, and is not; then the power goes."""
    found = _any_disk(strike)
    if found is None or not strike.may_damage(found[0]):
        return None
    node, disk = found
    strike.nemesis.lying.add(node.name)
    disk.faults.lie_sync(strike.chance.randint(1, 3))
    strike.later(strike.chance.random(), lambda: strike.crash(node, power=True))
    return disk.name


def stray_sync(strike: Strike) -> str | None:
    """D7: a sync writes to another place than it was asked to; then the power goes."""
    found = _any_disk(strike)
    if found is None or not strike.may_damage(found[0]):
        return None
    node, disk = found
    strike.nemesis.lying.add(node.name)
    disk.faults.stray_sync(strike.chance.randint(1, 3))
    strike.later(strike.chance.random(), lambda: strike.crash(node, power=True))
    return disk.name


def undo_names(strike: Strike) -> str | None:
    """D8: syncs of the directory say they are done, and are not; then the power goes."""
    found = _any_disk(strike)
    if found is None or not strike.may_damage(found[0]):
        return None
    node, disk = found
    strike.nemesis.lying.add(node.name)
    disk.faults.lie_directory(strike.chance.randint(1, 4))
    strike.later(strike.lasting_s(), lambda: strike.crash(node, power=True))
    return disk.name


def flip_tail(strike: Strike) -> str | None:
    """D5, D6: a bit of the last record that was synced, a promise perhaps, reads otherwise."""
    within = strike.chance.choice((64, 512, 4096))
    return damage(strike, lambda disk: flip_last(disk, within))


def flip_last(disk: SimulatedDisk, within: int) -> None:
    """Flip a bit of the last bytes of a log that its last header says were synced (R17).

    Damage of what no header attests yet cannot be told from a torn write.
    """
    names = sorted(disk.directory.names, reverse=True)
    for name in [name for name in names if extents.NAME.fullmatch(name)] or names:
        if disk.flip_before(name, attested_end(disk, name), within):
            return


def spare_tail(disk: SimulatedDisk) -> None:
    """Let no lie have lost what no header on the disk attests, before the power goes.

    It could not be told from a torn write, and its server would say that it never had it (R17).
    """
    for name, inode in disk.directory.names.items():
        if inode.lied and extents.NAME.fullmatch(name):
            inode.put_back(attested_end(disk, name))


def attested_end(disk: SimulatedDisk, name: str) -> int:
    """Where the last whole batch of an extent begins; of another file, its end."""
    found, durable = extents.NAME.fullmatch(name), disk.directory.find(name).durable
    if found is None:
        return durable.content_end()
    content = durable.read(0, durable.content_end())
    at = content.rfind(layout.MAGIC)
    while at > 0:
        if layout.parse_batch_head(content, at, int(found[1]), at) is not None:
            return at
        at = content.rfind(layout.MAGIC, 0, at)
    return 0


def restore_image(strike: Strike) -> str | None:
    """D10: an older image of the disk comes back; the first call takes the image."""
    found = _any_disk(strike)
    if found is None:
        return None
    node, disk = found
    image, position = strike.nemesis.images.get(disk.name, (None, 0))
    if image is None or strike.chance.random() < 0.3:
        strike.nemesis.images[disk.name] = disk.snapshot(), strike.targets.position(node)
        return f"{disk.name} is copied"
    if strike.targets.reported(node) <= position:
        return None
    return damage(strike, lambda disk: disk.restore(image), found)


def _any_disk(strike: Strike) -> tuple[SimulatedNode, SimulatedDisk] | None:
    node = strike.pick([server for server in strike.targets.servers if server.disks])
    if node is None:
        return None
    return node, strike.chance.choice(list(node.disks.values()))


def damage(
    strike: Strike,
    harm: Callable[[SimulatedDisk], object],
    victim: tuple[SimulatedNode, SimulatedDisk] | None = None,
) -> str | None:
    """Crash a server that the budget allows, harm its disk, and let it start again later."""
    known = [node for node in strike.targets.servers if node.name in strike.nemesis.damaged]
    if victim is None:
        node = strike.pick(known) if strike.chance.random() < 0.5 else None
        found = (node, next(iter(node.disks.values()))) if node else _any_disk(strike)
        if found is None:
            return None
        victim = found
    if not strike.may_damage(victim[0]):
        return None
    strike.crash(victim[0], power=strike.chance.random() < 0.3)
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
        stray_sync,
        undo_names,
        flip_tail,
        restore_image,
    )
}
