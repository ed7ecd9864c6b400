"""The faults, by name.  Each is drawn, inflicted, waited for and healed in one function.

It returns whether it bit: an injected error that no call met, a rule that dropped no packet, is not
counted as a fault.  Whoever is cancelled in the middle heals all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from chaos import nodes, tools
from chaos.injection import Injection
from chaos.nodes import Node
from chaos.proxy import DOWN, UP, Link
from chaos.world import LEASE_S, World

Inflict = Callable[[World, random.Random], Awaitable[bool]]
PAUSE_S: Final = (1.2 * LEASE_S, 3 * LEASE_S)
"""Longer than a lease."""
SOME_S: Final = (2.0, 6.0)
WRITES: Final = "pwritev2,pwritev,pwrite64"


@dataclass(frozen=True)
class Fault:
    """One kind of fault: its name, the tools that it needs, and how it is done."""

    name: str
    needs: tuple[str, ...]
    inflict: Inflict

    @property
    def why_not(self) -> str:
        """Why it cannot be inflicted here; empty: it can."""
        return "; ".join(filter(None, (tools.why_not(tool) for tool in self.needs)))


FAULTS: dict[str, Fault] = {}


class NoPreyError(Exception):
    """There is nobody to whom this can be done right now."""


def fault(name: str, *needs: str) -> Callable[[Inflict], Inflict]:
    """Put a function into the catalogue."""

    def add(inflict: Inflict) -> Inflict:
        FAULTS[name] = Fault(name, needs, inflict)
        return inflict

    return add


@contextlib.contextmanager
def claim(world: World, chance: random.Random, prey: list[Node]) -> Iterator[Node]:
    """Choose one that runs and to whom nothing else is being done."""
    free = [node for node in prey if node.is_running and node.name not in world.busy]
    if not free:
        raise NoPreyError
    node = chance.choice(free)
    world.busy.add(node.name)
    try:
        yield node
    finally:
        world.busy.discard(node.name)


async def ended(node: Node, pid: int, seconds: float) -> bool:
    """Wait for the end of a process; false if it lives on."""
    for _ in range(int(seconds / 0.05)):
        if node.pid != pid:
            return True
        await asyncio.sleep(0.05)
    return False


def leaders(world: World) -> list[Node]:
    """The client that leads, as far as we know."""
    return [node for node in world.clients if node.name == world.monitor.leader]


# ------------------------------------------------------------------ processes


async def _kill(world: World, chance: random.Random, prey: list[Node]) -> bool:
    with claim(world, chance, prey) as node:
        node.kill()
        return True


@fault("kill-leader")
async def kill_leader(world: World, chance: random.Random) -> bool:
    """P2: kill -9 of the client that leads."""
    return await _kill(world, chance, leaders(world))


@fault("kill-server")
async def kill_server(world: World, chance: random.Random) -> bool:
    """P1: kill -9 of a server."""
    return await _kill(world, chance, world.servers)


@fault("kill-master")
async def kill_master(world: World, chance: random.Random) -> bool:
    """M1: kill -9 of the master."""
    return await _kill(world, chance, [world.master])


@fault("kill-all")
async def kill_all(world: World, _: random.Random) -> bool:
    """Master and servers at once."""
    for node in [world.master, *world.servers]:
        node.excuses.add("killed")
        node.signal(signal.SIGKILL)
    return True


async def _pause(world: World, chance: random.Random, prey: list[Node]) -> bool:
    with claim(world, chance, prey) as node:
        pid = node.pid
        node.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
        finally:
            if node.pid == pid:
                node.signal(signal.SIGCONT)
        return True


@fault("pause-leader")
async def pause_leader(world: World, chance: random.Random) -> bool:
    """P3: the leader stands still for longer than its lease, and wakes as a zombie."""
    return await _pause(world, chance, leaders(world))


@fault("pause-server")
async def pause_server(world: World, chance: random.Random) -> bool:
    """P4: a server stands still."""
    return await _pause(world, chance, world.servers)


@fault("pause-master")
async def pause_master(world: World, chance: random.Random) -> bool:
    """The master stands still; trap 49."""
    return await _pause(world, chance, [world.master])


# ------------------------------------------------------------------ disks


@contextlib.asynccontextmanager
async def tampered(
    world: World, node: Node, call: str, what: str, excuse: str, *, extents: bool = False
) -> AsyncIterator[Injection]:
    """Inject something into a process; `excuse`: why it may die of it."""
    paths = []
    if extents:
        have = sorted(node.data.glob("extent-*.wal"))
        last = int(have[-1].stem.split("-")[1]) if have else 0
        numbers = range(max(0, last - 1), last + 4)
        paths = [node.data / f"extent-{n:010}.wal" for n in numbers]
    injection = Injection(node.pid, call, what, world.home / f"{node.name}.strace", paths)
    if excuse:
        node.excuses.add(excuse)
    try:
        entered = await injection.__aenter__()
    except ProcessLookupError as error:
        raise NoPreyError from error
    try:
        yield entered
    finally:
        await injection.__aexit__(None, None, None)


@fault("sync-error", "strace")
async def sync_error(world: World, chance: random.Random) -> bool:
    """D2: EIO on the n-th fdatasync of a server, which ends itself."""
    with claim(world, chance, world.servers) as node:
        pid, n = node.pid, chance.randint(1, 30)
        what = f"error=EIO:when={n}"
        async with tampered(world, node, "fdatasync", what, "eio") as injection:
            gone = await ended(node, pid, 8)
        if injection.bites and not gone and not await ended(node, pid, 5):
            world.monitor.violate(f"D2: {node.name} lives on after a failed fdatasync")
        return injection.bites > 0


@fault("write-error", "strace")
async def write_error(world: World, chance: random.Random) -> bool:
    """D1: EIO on a write to the log of a server."""
    with claim(world, chance, world.servers) as node:
        pid, n = node.pid, chance.randint(1, 30)
        what = f"error=EIO:when={n}"
        async with tampered(world, node, WRITES, what, "eio", extents=True) as injection:
            gone = await ended(node, pid, 8)
        if injection.bites and not gone and not await ended(node, pid, 5):
            world.monitor.violate(f"D1: {node.name} lives on after a failed write")
        return injection.bites > 0


@fault("no-space", "strace")
async def no_space(world: World, chance: random.Random) -> bool:
    """D3: ENOSPC where a log file of a server grows, or where it is written, by path."""
    with claim(world, chance, world.servers) as node:
        call, what = "fallocate", "error=ENOSPC:when=1+"
        if chance.random() < 0.5:
            call, what = WRITES, f"error=ENOSPC:when={chance.randint(1, 30)}"
        async with tampered(world, node, call, what, "full", extents=True) as injection:
            await asyncio.sleep(chance.uniform(*SOME_S))
        return injection.bites > 0


@fault("kill-at-call", "strace")
async def kill_at_call(world: World, chance: random.Random) -> bool:
    """P1, M1: SIGKILL at the n-th call of a kind, of a server or the master."""
    with claim(world, chance, [*world.servers, world.master]) as node:
        pid, n = node.pid, chance.randint(1, 20)
        call = chance.choice(["fdatasync", WRITES, "sendto,sendmsg,write", "recvfrom,read"])
        async with tampered(world, node, call, f"signal=KILL:when={n}", "killed"):
            return await ended(node, pid, 8)


@fault("kill-in-start", "strace")
async def kill_in_start(world: World, chance: random.Random) -> bool:
    """P1 again: SIGKILL at the n-th call of a server that is replaying its log."""
    with claim(world, chance, world.servers) as node:
        node.is_wanted = False
        node.kill()
        try:
            world.look_at(node)
            world.start(node)
            pid, n = node.pid, chance.randint(1, 40)
            call = chance.choice(["fdatasync,fsync", WRITES, "pread64", "openat"])
            async with tampered(world, node, call, f"signal=KILL:when={n}", "killed"):
                return await ended(node, pid, 6)
        finally:
            node.is_wanted = True


@fault("slow-disk", "strace")
async def slow_disk(world: World, chance: random.Random) -> bool:
    """D11: every fdatasync of a server takes long."""
    with claim(world, chance, world.servers) as node:
        micros = chance.choice([20_000, 200_000, 1_000_000])
        what = f"delay_enter={micros}"
        async with tampered(world, node, "fdatasync", what, "") as injection:
            await asyncio.sleep(chance.uniform(*SOME_S))
        return injection.bites > 0


@fault("disk-full", "mount")
async def disk_full(world: World, chance: random.Random) -> bool:
    """D3: the small disk of a server runs full, down to the reserve or to the last byte."""
    with claim(world, chance, [node for node in world.servers if node.disk]) as node:
        if node.disk is None:
            raise NoPreyError
        ballast = node.disk / "ballast"
        found = os.statvfs(node.disk)
        left = chance.choice([0, 1 << 20, 3 << 20])
        size = max(0, found.f_bavail * found.f_frsize - left)
        node.conditions.add("full")
        node.excuses.add("full")
        try:
            with ballast.open("wb") as file, contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, size)
            await asyncio.sleep(chance.uniform(*SOME_S))
        finally:
            ballast.unlink(missing_ok=True)
            node.conditions.discard("full")
        return size > 0


@fault("wiped-disk")
async def wiped_disk(world: World, chance: random.Random) -> bool:
    """D9: a server loses all it had; A - 1 a run, as nobody waits until it has its copies again."""
    if world.disks_lost >= world.size.ack_quorum - 1:
        raise NoPreyError
    with claim(world, chance, world.servers) as node:
        world.disks_lost += 1
        node.is_wanted = False
        try:
            node.kill()
            shutil.rmtree(node.data)
            await asyncio.sleep(chance.uniform(0, 2))
        finally:
            node.is_wanted = True
        return True


# ------------------------------------------------------------------ memory, clocks


@fault("memory-group", "cgroup")
async def memory_group(world: World, chance: random.Random) -> bool:
    """P5: a control group lets a server's memory grow hardly any more; the kernel may kill it.

    What it holds already stays charged to the group that it came from.
    """
    with claim(world, chance, world.servers) as node:
        pid = node.pid
        group = tools.CGROUP_MEMORY / f"lunalog-chaos-{world.number}-{node.name}"
        node.excuses.add("memory")
        home = tools.memory_group_of(pid)
        group.mkdir(exist_ok=True)
        try:
            (group / "memory.limit_in_bytes").write_text(str(chance.choice([1, 2, 4]) << 20))
            (group / "cgroup.procs").write_text(str(pid))
            await ended(node, pid, chance.uniform(*SOME_S))
            return int((group / "memory.failcnt").read_text()) > 0
        except OSError as error:  # it died on the way
            raise NoPreyError from error
        finally:
            with contextlib.suppress(OSError):
                (group / "memory.limit_in_bytes").write_text("-1")
            if node.pid == pid:
                with contextlib.suppress(OSError):
                    (home / "cgroup.procs").write_text(str(pid))
            await remove_group(group)


async def remove_group(group: os.PathLike[str]) -> None:
    """Remove a control group; the last process needs a moment to be gone."""
    for _ in range(100):
        try:
            os.rmdir(group)
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return


@fault("memory-limit")
async def memory_limit(world: World, chance: random.Random) -> bool:
    """P5: a server gets no more address space: a MemoryError must end it, not be swallowed."""
    with claim(world, chance, world.servers) as node:
        pid = node.pid
        node.excuses.add("memory")
        try:
            before = resource.prlimit(pid, resource.RLIMIT_AS)
            size = nodes.address_space_bytes(pid) + (64 << 10)
            resource.prlimit(pid, resource.RLIMIT_AS, (size, before[1]))
            gone = await ended(node, pid, chance.uniform(*SOME_S))
        except (ProcessLookupError, FileNotFoundError) as error:
            raise NoPreyError from error
        if not gone:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, before)
        return gone


@fault("clock-jump", "faketime")
async def clock_jump(world: World, chance: random.Random) -> bool:
    """C1: the wall clocks of some processes jump, by seconds or years, forwards or back."""
    shifted = [n for n in world.nodes.values() if n.clock is not None and n.is_running]
    if not shifted:
        raise NoPreyError
    for node in chance.sample(shifted, chance.randint(1, len(shifted))):
        seconds = chance.choice([1, -1]) * chance.choice([2, 3600, 86_400 * 400])
        if node.clock is not None:
            node.clock.write_text(f"{seconds:+d}")
    return True


# ------------------------------------------------------------------ network: nftables


def _lan_prey(world: World) -> list[Node]:
    return [node for node in world.nodes.values() if node.namespace]


async def _dropping(
    world: World, chance: random.Random, chains: tuple[str, ...], percent: int = 100
) -> bool:
    if world.lan is None:
        raise NoPreyError
    with claim(world, chance, _lan_prey(world)) as node:
        before = world.lan.dropped(node.namespace)
        for chain in chains:
            world.lan.drop(node.namespace, chain, percent=percent)
        try:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            return world.lan.dropped(node.namespace) > before
        finally:
            world.lan.heal(node.namespace)


@fault("isolated", "namespaces")
async def isolated(world: World, chance: random.Random) -> bool:
    """N1: a node hears nobody and is heard by nobody."""
    return await _dropping(world, chance, ("in", "out"))


@fault("deaf", "namespaces")
async def deaf(world: World, chance: random.Random) -> bool:
    """N2: a node is heard and hears nobody."""
    return await _dropping(world, chance, ("in",))


@fault("mute", "namespaces")
async def mute(world: World, chance: random.Random) -> bool:
    """N2: a node hears, and nobody hears it."""
    return await _dropping(world, chance, ("out",))


@fault("lossy", "namespaces")
async def lossy(world: World, chance: random.Random) -> bool:
    """N3: a part of all packets of a node is lost."""
    return await _dropping(world, chance, ("in", "out"), chance.choice([5, 20, 40]))


@fault("one-way", "namespaces")
async def one_way(world: World, chance: random.Random) -> bool:
    """N2: a client and some of those it talks to directly hear each other in one direction only."""
    if world.lan is None:
        raise NoPreyError
    direct = [node for node in world.clients if (node.name, "master") not in world.links]
    peers = [world.master, *world.servers]
    with claim(world, chance, direct) as node:
        before = world.lan.dropped(node.namespace)
        chain = chance.choice(["in", "out"])
        for peer in chance.sample(peers, chance.randint(1, len(peers) - 1)):
            world.lan.drop(node.namespace, chain, peer=peer.host)
        try:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            return world.lan.dropped(node.namespace) > before
        finally:
            world.lan.heal(node.namespace)


@fault("no-master", "namespaces")
async def no_master(world: World, chance: random.Random) -> bool:
    """N2: the leader reaches all servers and not the master: only fences can end its epoch."""
    if world.lan is None:
        raise NoPreyError
    with claim(world, chance, leaders(world)) as node:
        link = world.links.get((node.name, "master"))
        before = world.lan.dropped(node.namespace)
        fallen = link.hole() if link else 0
        if link is None:
            for chain in ("in", "out"):
                world.lan.drop(node.namespace, chain, peer=world.master.host)
        try:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            return fallen > 0 or world.lan.dropped(node.namespace) > before
        finally:
            if link:
                link.heal()
            world.lan.heal(node.namespace)


# ------------------------------------------------------------------ network: the proxy


def _links(world: World, chance: random.Random) -> list[Link]:
    """All ways of one node, all ways to one node, or a few of all."""
    links = list(world.links.items())
    if not links:
        raise NoPreyError
    source, target = chance.choice(links)[0]
    kind = chance.randrange(3)
    if kind == 0:
        return [link for (one, _), link in links if one == source]
    if kind == 1:
        return [link for (_, other), link in links if other == target]
    return [link for _, link in chance.sample(links, min(3, len(links)))]


async def _bent(world: World, chance: random.Random, links: list[Link]) -> bool:
    """Wait, heal, and say whether anything went through what was bent."""
    before = sum(sum(link.bytes.values()) for link in links)
    try:
        await asyncio.sleep(chance.uniform(*SOME_S))
    finally:
        for link in links:
            link.heal()
    return sum(sum(link.bytes.values()) for link in links) > before


@fault("delay")
async def delay(world: World, chance: random.Random) -> bool:
    """N3: bytes are long under way, and not equally long."""
    links = _links(world, chance)
    high = chance.choice([0.02, 0.2, 1.5])
    for link in links:
        link.delay_s = (high / 4, high)
    return await _bent(world, chance, links)


@fault("throttle")
async def throttle(world: World, chance: random.Random) -> bool:
    """N6: a slow receiver."""
    links = _links(world, chance)
    for link in links:
        link.rate = chance.choice([2_000.0, 20_000.0])
    return await _bent(world, chance, links)


@fault("stall")
async def stall(world: World, chance: random.Random) -> bool:
    """N2: one direction stands still for longer than a lease, the other goes on."""
    links = _links(world, chance)
    way = chance.choice([UP, DOWN])
    for link in links:
        link.stall(way)
    try:
        await asyncio.sleep(chance.uniform(*PAUSE_S))
    finally:
        for link in links:
            link.heal()
    return any(link.connections for link in links)


@fault("half-open")
async def half_open(world: World, chance: random.Random) -> bool:
    """N5: connections that carry nothing any more, and do not end."""
    links = _links(world, chance)
    fallen = sum(link.hole() for link in links)
    try:
        await asyncio.sleep(chance.uniform(*PAUSE_S))
    finally:
        for link in links:
            link.heal()
    return fallen > 0


@fault("cut")
async def cut(world: World, chance: random.Random) -> bool:
    """N7: connections end in the middle of a frame, by FIN or RST."""
    links = _links(world, chance)
    before = sum(link.cut_count for link in links)
    for link in links:
        link.cuts = chance.randint(1, 5)
    await asyncio.sleep(chance.uniform(*SOME_S))
    for link in links:
        link.cuts = 0
    return sum(link.cut_count for link in links) > before


@fault("replay")
async def replay(world: World, chance: random.Random) -> bool:
    """N8: the bytes of a dead connection arrive again."""
    done = [await link.replay(chance.uniform(0.2, 1.0)) for link in _links(world, chance)]
    return sum(done) > 0


def memory_of(world: World) -> int:
    """The most that any process of the cluster holds."""
    return max((nodes.resident_bytes(n.pid) for n in world.nodes.values() if n.pid), default=0)
