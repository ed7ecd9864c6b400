"""The focused workloads: each a script over a `Stage`, drawn by seed, that the shipped code survives."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

from tests.mutants.stage import STREAM, Script, Setting, Stage

from lunalog.errors import AvailabilityError
from lunalog.master import records
from lunalog.storage.extents import name_of
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.schedule import run_schedule
from lunalog.types import StreamHead
from lunalog.wire.messages import DropSegment

Workload = Callable[[int], list[str]]
WORKLOADS: dict[str, Workload] = {}
PAIRS = ((3, 2), (3, 2), (4, 3), (5, 3), (3, 3), (2, 2), (4, 2))


def schedule(seed: int) -> list[str]:
    """A whole mixed schedule, as `make sim` runs it."""
    return run_schedule(seed).violations


WORKLOADS["schedule"] = schedule


def workload(draw: Callable[[random.Random], Setting]) -> Callable[[Script], Script]:
    """Register a script under its name, over what `draw` sets up."""

    def register(script: Script) -> Script:
        def run(seed: int) -> list[str]:
            return Stage(seed, draw(random.Random(f"{script.__name__} {seed}"))).run(script)

        WORKLOADS[script.__name__] = run
        return script

    return register


def _takeovers(chance: random.Random) -> Setting:
    replicas, ack_quorum = chance.choice(PAIRS)
    spares = chance.choice((0, 1))
    return Setting(replicas, ack_quorum, servers=replicas + spares)


@workload(_takeovers)
async def takeover(stage: Stage) -> None:
    """Leaders die in the middle of appends, some servers die and come back around each takeover."""
    chance = stage.chance
    for _ in range(3):
        await stage.more_acks(chance.randint(2, 12))
        victim, epoch = stage.leader, stage.epoch
        members = [node for node in stage.member_nodes() if node.is_running]
        if victim is None or not members:
            continue
        down = chance.sample(members, chance.randint(0, len(members) - 1))
        for node in down:  # these lag: what is appended from now on is not there
            stage.cut(node.name, victim.name)
        await stage.sleep(0.001, 0.08)
        stage.kill(victim, power=chance.random() < 0.7)  # what it had sent is on its way, or gone
        _let_lag(stage, members, down)
        await stage.sleep(0.001, 0.3)
        for node in [*down, victim]:
            stage.back(node)
        await stage.led_after(epoch)


def _let_lag(stage: Stage, members: list[SimulatedNode], down: list[SimulatedNode]) -> None:
    """Have who lags heard by all clients again, often before the others, and restart some."""
    chance = stage.chance
    are_late = chance.random() < 0.6
    for node in members:
        for client in stage.client_nodes:
            if are_late and node not in down:
                stage.network.clog(node.name, client.name, chance.uniform(0.01, 0.3))
            elif node in down:
                stage.network.mend(node.name, client.name)
                stage.network.mend(client.name, node.name)
        if node in down and chance.random() < 0.3:
            stage.kill(node, power=chance.random() < 0.5)


def _zombies(chance: random.Random) -> Setting:
    replicas, ack_quorum = chance.choice(PAIRS)
    spares = chance.choice((0, 1))
    age_s = chance.choice((86_400.0, 0.1))
    return Setting(replicas, ack_quorum, servers=replicas + spares, segment_age_s=age_s)


@workload(_zombies)
async def zombie(stage: Stage) -> None:
    """A leader and the master lose each other while both hear the servers, and another one leads."""
    chance = stage.chance
    if stage.setting.segment_age_s < 1.0:
        stage.store.faults.latency_s = (0.0, 0.1)
    for _ in range(2):
        await stage.more_acks(chance.randint(2, 10))
        old, epoch = stage.leader, stage.epoch
        if old is None:
            continue
        for node in stage.server_nodes:
            node.disk().faults.slowdown = chance.choice((1.0, 1.0, 30.0))
        dice = chance.random()
        if dice < 0.3:
            old.pause()
        elif dice < 0.5:  # what it asks for comes late
            stage.network.clog(old.name, "master-1", chance.uniform(0.6, 1.0))
        else:
            stage.cut(old.name, "master-1")
        if chance.random() < 0.3:  # it does not even hear that it is over
            stage.network.clog(chance.choice(stage.server_nodes).name, old.name, 0.5)
        await stage.led_after(epoch)
        await stage.sleep(0.05, 0.3)
        old.resume()
        if dice < 0.3 or dice >= 0.5:
            stage.network.mend()
        await stage.sleep(0.05, 0.5)


@workload(lambda chance: Setting(*chance.choice(((4, 3), (3, 3), (5, 4))), servers=7))
async def split(stage: Stage) -> None:
    """Who takes over reaches S of the old set only, who led before it only the others."""
    await stage.more_acks(5)
    old, epoch = stage.leader, stage.epoch
    if old is None:
        return
    other = next(node for node in stage.client_nodes if node is not old)
    members = stage.member_nodes()
    seal_quorum = stage.setting.replicas - stage.setting.ack_quorum + 1
    fenced, rest = members[:seal_quorum], members[seal_quorum:]
    stage.cut(old.name, "master-1", *(node.name for node in fenced))
    stage.cut(other.name, *(node.name for node in rest))
    await stage.led_after(epoch)
    await stage.sleep(0.2)


@workload(lambda chance: Setting(3, 2, servers=4))
async def unseen(stage: Stage) -> None:
    """A member that the leader never reached is fenced, and then that leader reaches it.

    Nothing but the fence tells that member of the next epoch: the master has lost sight of it, so that
    no segment is opened there, and no certificate comes through.  There is no fourth server to roll to
    before the next leader needs one.
    """
    await stage.more_acks(3)
    first, epoch = stage.leader, stage.epoch
    if first is None:
        return
    old = next(node for node in stage.client_nodes if node is not first)
    spare = next(node for node in stage.server_nodes if node not in stage.member_nodes())
    unseen = stage.chance.choice(stage.member_nodes())
    stage.kill(spare)
    stage.cut(old.name, unseen.name)
    stage.kill(first)
    await stage.led_after(epoch)
    stage.back(first)
    await stage.more_acks(3)
    members, epoch = stage.member_nodes(), stage.epoch
    if unseen not in members or len(members) < 3 or stage.leader is not old:
        return
    fenced, kept = [node for node in members if node is not unseen]
    stage.cut(old.name, "master-1", fenced.name)
    stage.cut(first.name, kept.name)
    stage.network.reset("master-1", unseen.name)
    stage.cut("master-1", unseen.name)
    stage.back(spare)

    def opened(head: StreamHead) -> None:
        if head.open is not None and head.open.id.epoch > epoch:
            stage.cut(first.name, unseen.name)

    stage.on_head = opened
    await stage.led_after(epoch)
    stage.network.mend(old.name, unseen.name)
    stage.network.mend(unseen.name, old.name)
    await stage.sleep(0.8)


@workload(
    lambda chance: Setting(
        *chance.choice(((3, 2), (4, 3), (3, 3))),
        servers=6,
        segment_age_s=chance.choice((0.05, 0.1, 86_400.0)),
    )
)
async def rolls(stage: Stage) -> None:
    """Segments roll by age and because acks stand still, over a slow store; leaders die meanwhile."""
    chance = stage.chance
    for _ in range(3):
        await stage.more_acks(3)
        victim, epoch, members = stage.leader, stage.epoch, stage.member_nodes()
        if victim is None:
            continue
        slow_s = chance.choice((0.0, 0.05, 0.2))
        stage.store.faults.latency_s = (slow_s / 2, slow_s)
        silent = stage.setting.replicas - stage.setting.ack_quorum + 1
        for node in chance.sample(members, min(silent, len(members))):
            pair = (node.name, victim.name) if chance.random() < 0.7 else (victim.name, node.name)
            stage.network.clog(*pair, chance.uniform(0.1, 0.4))
        await stage.sleep(0.05, 0.5)
        if chance.random() < 0.7:
            stage.kill(victim)
            await stage.sleep(0.0, 0.1)
            stage.back(victim)
            await stage.led_after(epoch)
        stage.store.faults.latency_s = (0.0, 0.0)


@workload(lambda chance: Setting(3, 2, servers=3))
async def short(stage: Stage) -> None:
    """One of exactly N servers is gone for a while: a set of A goes on, and rolls once for it."""
    await stage.more_acks(3)
    node = stage.chance.choice(stage.server_nodes)
    stage.kill(node)
    await stage.sleep(1.5)
    stage.back(node)
    await stage.more_acks(3)
    await stage.sleep(0.7)
    stage.require(len(stage.history.rows) <= 3, f"{len(stage.history.rows)} rolls in two seconds")


@workload(lambda chance: Setting(*chance.choice(((3, 2), (5, 3))), servers=8))
async def lost_set(stage: Stage) -> None:
    """So many members die that A are not left: the leader goes on with others, soon."""
    await stage.more_acks(3)
    setting = stage.setting
    for node in stage.member_nodes()[: setting.replicas - setting.ack_quorum + 1]:
        stage.kill(node)
    await stage.more_acks(10, 1.0)


@workload(lambda chance: Setting(3, 2, servers=3, pause_s=0.3, burst_max=1))
async def quiet(stage: Stage) -> None:
    """Few appends: what is acknowledged is readable soon, and stays so when servers restart."""
    await stage.more_acks(2)
    stage.is_held = True
    for node in stage.server_nodes:
        await stage.sleep(0.1)  # what is committed was told and recorded
        end = stage.readable(node)
        stage.cut(node.name, *(client.name for client in stage.client_nodes))
        stage.kill(node)
        stage.back(node)
        await stage.until("start again", lambda node=node: stage.is_registered(node))
        again = stage.readable(node)
        stage.network.mend()
        stage.require(again >= end, f"{node.name} let read up to {end}, and now up to {again}")
    stage.is_held = False
    for _ in range(4):
        await stage.more_acks(1)
        last = max(append.sequence or 0 for append in stage.history.acked)
        await stage.sleep(0.06)
        seen = sum(stage.readable(node) > last for node in stage.server_nodes)
        is_newest = last == max(append.sequence or 0 for append in stage.history.acked)
        stage.require(seen or not is_newest, f"nobody may read {last}, long after its ack")


@workload(lambda chance: Setting(3, 2, servers=3, pause_s=0.003, burst_max=10))
async def resigns(stage: Stage) -> None:
    """Leaders resign in the middle of appends, over a slow store and slow servers.

    The first one's appends no longer reach anybody by then, and it dies as its segment closes.
    """
    chance = stage.chance
    await _resigns_alone(stage)
    for _ in range(3):
        await stage.more_acks(5)
        leader, epoch = stage.leader, stage.epoch
        if leader is None:
            continue
        stage.store.faults.latency_s = (0.05, chance.choice((0.05, 0.3)))
        is_deaf = chance.random() < 0.5
        for node in chance.sample(stage.member_nodes(), 2) if chance.random() < 0.8 else ():
            pair = (node.name, leader.name) if is_deaf else (leader.name, node.name)
            stage.network.clog(*pair, chance.uniform(0.9, 1.4))
        await stage.sleep(0.02)
        stage.resigning.add(leader.name)
        if chance.random() < 0.3:
            await stage.sleep(0.0, 0.3)
            stage.kill(leader)
            stage.back(leader)
        await stage.led_after(epoch)
        stage.store.faults.latency_s = (0.0, 0.0)


async def _resigns_alone(stage: Stage) -> None:
    await stage.more_acks(5)
    leader, epoch = stage.leader, stage.epoch
    if leader is None:
        return
    for node in stage.member_nodes():
        stage.network.cut(leader.name, node.name)

    def closed(head: StreamHead) -> None:
        if head.open is None:
            stage.kill(leader)

    stage.on_head = closed
    await stage.sleep(0.02)
    stage.resigning.add(leader.name)
    await stage.led_after(epoch)
    stage.on_head = lambda head: None
    stage.heal()
    stage.back(leader)


@workload(lambda chance: Setting(3, 2, servers=chance.choice((3, 4)), payload_bytes=600))
async def power(stage: Stage) -> None:
    """Kills, then power cuts soon after; power cuts of all; crashes right at a sync."""
    chance = stage.chance
    for _ in range(3):
        slowdown = chance.choice((1.0, 40.0))
        for node in stage.server_nodes:
            node.disk().faults.slowdown = slowdown
        await stage.more_acks(chance.randint(2, 10))
        leader, epoch = stage.leader, stage.epoch
        is_takeover = leader is not None and chance.random() < 0.4
        if is_takeover and leader is not None:
            stage.kill(leader)
            for node in stage.member_nodes():
                _trap(stage, node, chance.randint(1, 2))
            stage.back(leader)
            await stage.sleep(0.1, 0.6)
        else:
            await _cut_power(stage, after_kill=chance.random() < 0.7)
        await stage.sleep(0.0, 0.2)
        for node in stage.server_nodes:
            node.disk().faults.heal()
            stage.back(node)
        if is_takeover:
            await stage.led_after(epoch)


async def _cut_power(stage: Stage, *, after_kill: bool) -> None:
    """Take the power of all servers, perhaps just after they were killed and have come back."""
    if after_kill:
        for node in stage.server_nodes:
            stage.kill(node)
            stage.back(node)
        await stage.sleep(0.0, 0.03)
    for node in stage.server_nodes:
        stage.kill(node, power=True)


def _trap(stage: Stage, node: SimulatedNode, number: int) -> None:
    """Have a server's power cut right at one of its next writes or syncs, before it can reply."""
    kind = stage.chance.choice(("sync", "write"))
    node.disk().faults.trap(number, lambda: stage.kill(node, power=True), kind)


@workload(lambda chance: Setting(3, 2, servers=3))
async def errors(stage: Stage) -> None:
    """A sync fails once, and says nothing the next time; then the power goes."""
    for _ in range(2):
        await stage.more_acks(5)
        nodes = stage.chance.sample(stage.member_nodes(), 2)
        for node in nodes:
            node.disk().faults.fail_sync()
        await stage.sleep(0.02, 0.3)
        if stage.chance.random() < 0.5:
            continue
        for node in stage.server_nodes:
            stage.kill(node, power=True)
        for node in stage.server_nodes:
            node.disk().faults.heal()
            stage.back(node)
        await stage.more_acks(1)


def _damages(chance: random.Random) -> Setting:
    replicas, ack_quorum = chance.choice(((3, 2), (3, 2), (5, 3), (4, 3)))
    return Setting(replicas, ack_quorum, servers=replicas, payload_bytes=200)


@workload(_damages)
async def hole(stage: Stage) -> None:
    """The newest frames of one member are damaged, it restarts, and the leader dies."""
    chance = stage.chance
    await stage.more_acks(10)
    leader, members, epoch = stage.leader, stage.member_nodes(), stage.epoch
    if leader is None:
        return
    node, *others = chance.sample(members, len(members))
    lagging = others if chance.random() < 0.5 else others[: stage.setting.ack_quorum - 1]
    for other in lagging:
        stage.cut(leader.name, other.name)
    await stage.sleep(0.05)
    if len(lagging) < len(others):
        await stage.more_acks(1)  # and nobody is told that it is committed
    stage.cut(leader.name, *(member.name for member in members))
    await stage.sleep(0.04)  # what it wrote last is attested by now
    stage.kill(leader, power=True)
    stage.kill(node)
    stage.loses(node)
    flip_newest(stage, node)
    stage.back(node)
    for other in others:  # who is whole, or has nothing, is heard last
        if other not in lagging or len(lagging) == len(others):
            for client in stage.client_nodes:
                stage.network.clog(other.name, client.name, 0.4)
    await stage.led_after(epoch)


def flip_newest(stage: Stage, node: SimulatedNode) -> None:
    """Flip bits in the bytes of the newest frames of a server's log, wherever its index has them."""
    server = stage.servers[node.name]
    index = server.log._index
    runs = [run for segment in index.all() for run in segment.runs[-1:]]
    for run in runs[-1:]:
        block = run.block
        offsets = list(block.offsets) if block is not None else [run.offset]
        for offset in offsets[-stage.chance.randint(1, 3) :]:
            at = offset + stage.chance.choice((100, 130, 165, 170, 180))
            node.disk().flip(name_of(run.extent), at)


@workload(_damages)
async def damage(stage: Stage) -> None:
    """Bits of A-1 disks flip, mostly in what was written last; servers restart, leaders die."""
    chance = stage.chance
    await stage.more_acks(10)
    harmed = chance.sample(stage.member_nodes(), stage.setting.ack_quorum - 1)
    for _ in range(2):
        leader, epoch = stage.leader, stage.epoch
        if leader is not None:
            stage.kill(leader)
            stage.back(leader)
        await stage.sleep(0.0, 0.2)
        for node in harmed:
            stage.kill(node)
            stage.loses(node)
            dice = chance.random()
            if dice < 0.4:
                flip_newest(stage, node)
            elif dice < 0.7:
                flip_tail(stage, node)
            else:
                node.disk().flip_some(chance.choice((1, 10)))
            stage.back(node)
        if leader is not None:
            await stage.led_after(epoch)
        await stage.more_acks(5)


def flip_tail(stage: Stage, node: SimulatedNode) -> None:
    """Flip bits in the last batches of a server's log."""
    server = stage.servers[node.name]
    extent, end = server.log._wal.extent, server.log._wal.offset
    for _ in range(3 if extent is not None else 0):
        at = max(0, end - stage.chance.randint(1, 4096))
        node.disk().flip(name_of(extent.number), at)


@workload(lambda chance: Setting(3, 2, servers=3))
async def wipes(stage: Stage) -> None:
    """The disk of one member is emptied under its server's name, then a leader is gone."""
    chance = stage.chance
    await stage.more_acks(10)
    leader, epoch, members = stage.leader, stage.epoch, stage.member_nodes()
    if leader is None:
        return
    lagging = chance.choice(members)
    wiped = chance.choice([node for node in members if node is not lagging])
    stage.cut(leader.name, lagging.name)
    await stage.sleep(0.03, 0.08)
    stage.kill(leader, power=True)
    stage.kill(wiped)
    stage.loses(wiped)
    wiped.disk().wipe()
    stage.network.mend()
    last = next(node for node in members if node not in (lagging, wiped))
    stage.kill(last)
    stage.back(wiped)
    await stage.sleep(0.0, 0.3)
    stage.back(leader)
    await stage.sleep(0.8)
    stage.back(last)
    await stage.led_after(epoch)


@workload(lambda chance: Setting(3, 2, servers=3))
async def images(stage: Stage) -> None:
    """An older image of one member's disk comes back, of the same boot, then a leader is gone."""
    chance = stage.chance
    await stage.more_acks(5)
    members = stage.member_nodes()
    old = chance.choice(members)
    image = old.disk().snapshot()
    await stage.more_acks(10)
    await stage.sleep(0.3)  # the master has heard how far its log is
    leader, epoch = stage.leader, stage.epoch
    if leader is None:
        return
    others = [node for node in members if node is not old]
    stage.cut(leader.name, others[0].name)
    await stage.sleep(0.03, 0.08)
    stage.kill(leader, power=True)
    stage.kill(old)
    stage.kill(others[1])
    stage.loses(old)
    old.disk().restore(image)
    stage.network.mend()
    stage.back(old)
    stage.back(leader)
    await stage.sleep(0.8)
    stage.back(others[1])
    await stage.led_after(epoch)


@workload(
    lambda chance: Setting(
        3, 2, servers=4, truncates=0.3, payload_bytes=chance.choice((20, 2000)), burst_max=10
    )
)
async def trims(stage: Stage) -> None:
    """Leaders truncate all the time; leaders and servers die."""
    chance = stage.chance
    for _ in range(3):
        await stage.more_acks(20)
        leader, epoch = stage.leader, stage.epoch
        node = chance.choice(stage.server_nodes)
        stage.kill(node, power=chance.random() < 0.3)
        if leader is None:
            continue
        if chance.random() < 0.5:
            await stage.sleep(0.0, 0.2)
        stage.kill(leader)
        stage.back(leader)
        stage.back(node)
        await stage.led_after(epoch)
    await stage.sleep(0.3)  # servers have been told


@workload(lambda chance: Setting(*chance.choice(((4, 3), (3, 3), (5, 4))), servers=5, clients=1))
async def trims_at_once(stage: Stage) -> None:
    """A leader truncates all that it has just committed, and dies before it has said what that is."""
    for _ in range(3):
        await stage.more_acks(5)
        leader, epoch = stage.leader, stage.epoch
        if leader is None:
            continue
        trimmed = stage.history.heads[-1].head.truncated_before

        def is_due(head: StreamHead, leader: Any = leader, trimmed: int = trimmed) -> None:
            if head.truncated_before > trimmed and leader.is_running:
                stage.kill(leader)

        stage.on_head = is_due
        stage.truncates_at_once = True
        await stage.until("truncate", lambda leader=leader: not leader.is_running)
        stage.truncates_at_once = False
        stage.on_head = lambda head: None
        for node in stage.server_nodes:
            stage.kill(node)
            stage.back(node)
        await stage.sleep(0.3)  # servers have been told
        stage.back(leader)
        await stage.led_after(epoch)


@workload(
    lambda chance: Setting(
        3, 2, servers=4, truncates=0.5, extent_bytes=32 * 1024, payload_bytes=2000, burst_max=4
    )
)
async def reclaims(stage: Stage) -> None:
    """Small extents are closed and given back; servers restart again and again, leaders die."""
    for _ in range(4):
        leader, epoch = stage.leader, stage.epoch
        if leader is not None:
            stage.kill(leader)
            stage.back(leader)
            await stage.led_after(epoch)
        await stage.more_acks(20)
        for node in stage.server_nodes:
            stage.kill(node, power=stage.chance.random() < 0.3)
            stage.back(node)
            await stage.until("start again", lambda node=node: stage.is_registered(node))
        await stage.sleep(0.0, 1.2)


def _calm(chance: random.Random) -> Setting:
    age_s = chance.choice((0.1, 86_400.0))
    return Setting(3, 2, servers=4, segment_age_s=age_s, truncates=0.1, keeps_its_epoch=True)


@workload(_calm)
async def calm(stage: Stage) -> None:
    """Nothing is wrong: whoever leads goes on to."""
    await stage.sleep(1.0)


@workload(_calm)
async def outage(stage: Stage) -> None:
    """The master is gone for longer than a lease, and starts again: no epoch ends by that."""
    master = stage.master_nodes[0]
    stage.kill(master)
    await stage.sleep(0.2, 1.0)
    stage.back(master)
    await stage.sleep(0.8)


@workload(_calm)
async def contended(stage: Stage) -> None:
    """The store answers late, or not at all, and something else writes heads: nobody gives up."""
    stage.store.faults.lost_reply = 0.2
    stage.store.faults.never = 0.1
    for _ in range(8):
        await stage.sleep(0.05, 0.15)
        stage.touch_head()
    stage.store.faults.lost_reply = stage.store.faults.never = 0.0


@workload(lambda chance: Setting(3, 2, servers=6))
async def orphans(stage: Stage) -> None:
    """The store is slow, so that a segment is written ahead long before the head names it."""
    for _ in range(3):
        await stage.more_acks(5)
        leader, epoch = stage.leader, stage.epoch
        if leader is None:
            continue
        stage.store.faults.latency_s = (0.2, 0.4)
        stage.kill(leader)
        stage.back(leader)
        await stage.led_after(epoch)
        stage.store.faults.latency_s = (0.0, 0.0)
        await stage.sleep(0.2)


@workload(lambda chance: Setting(3, 2, servers=3, loop_stall_ms=300))
async def wedged(stage: Stage) -> None:
    """The main loop of a leader stands still while its beats could go on: somebody else must lead."""
    await stage.more_acks(3)
    leader, epoch = stage.leader, stage.epoch
    if leader is None:
        return
    leader.wedge()
    await stage.led_after(epoch, 3.0)
    await stage.more_acks(2)


@workload(lambda chance: Setting(3, 2, servers=3))
async def restored(stage: Stage) -> None:
    """An old copy of the metadata comes back, behind what servers have promised."""
    await stage.more_acks(5)
    image = dict(stage.store._records)
    for _ in range(stage.chance.randint(1, 2)):
        leader, epoch = stage.leader, stage.epoch
        if leader is not None:
            stage.kill(leader)
            stage.back(leader)
        await stage.led_after(epoch)
        await stage.more_acks(5)
    await _restore(stage, image)
    stage.require_no_fork()
    is_noticed = any(key.startswith(records.LOST) for key in stage.store._records)
    stage.require(is_noticed, "servers have promised more than the metadata knows: nobody cares")


async def _restore(stage: Stage, image: dict[str, Any]) -> None:
    """Put an old copy in the store's place, restart the master on it, and let all go on."""
    stage.converges = False
    master = stage.master_nodes[0]
    stage.kill(master)
    stage.store._records = dict(image)
    stage.back(master)
    await stage.sleep(2.0)


@workload(lambda chance: Setting(3, 2, servers=9))
async def twins(stage: Stage) -> None:
    """An old copy of the metadata grants an epoch once more, while its leader lives on.

    Each opens its segment on servers that the other never asks; both fence the same old set.
    """
    await stage.more_acks(5)
    leader, epoch = stage.leader, stage.epoch
    if leader is None:
        return
    stage.is_held = True
    await stage.sleep(0.1)
    image, old_set = dict(stage.store._records), stage.member_nodes()

    def is_led(head: StreamHead) -> None:
        if head.leader and head.open is not None and head.open.id.epoch > epoch:
            for name in ("master-1", head.leader.name):  # the old set has no certificate yet
                stage.cut(name, *(node.name for node in old_set))

    stage.on_head = is_led
    stage.kill(leader)
    await stage.led_after(epoch)
    stage.on_head = lambda head: None
    first, members = stage.leader, [*old_set, *stage.member_nodes()]
    if first is None or len(set(members)) < 6:
        return
    stage.cut("master-1", first.name, *(node.name for node in members))
    await _restore(stage, image)
    stage.is_held = False
    stage.back(leader)
    await stage.sleep(1.0)
    stage.require_no_fork()


@workload(lambda chance: Setting(3, 2, servers=3))
async def stale_drop(stage: Stage) -> None:
    """A drop command that an earlier master made long ago arrives at last (M2)."""
    await stage.more_acks(5)
    leader, epoch = stage.leader, stage.epoch
    if leader is None:
        return
    old = stage.history.heads[-1].head
    stage.kill(leader)
    stage.back(leader)
    await stage.led_after(epoch)

    def is_certified() -> bool:
        """Whom the row lists knows it, and so that no older word counts any more (R30)."""
        rows = stage.history.rows
        members = rows[0].row.members if rows else ()
        servers = [stage.servers[member.server].replica for member in members]
        held = [server.find(stage.history.stream, rows[0].row.id) for server in servers]
        return bool(held) and all(copy is not None and copy.is_complete for copy in held)

    await stage.until("certify it", is_certified)
    row = stage.history.rows[0].row
    for node in stage.server_nodes:
        command = DropSegment(1, stage.history.stream, row.id, old.promise, row.version - 1)
        commands = stage.servers[node.name].registration._commands
        node.loop.call_soon_threadsafe(commands.carry_out, command)
    await stage.sleep(0.2)


@workload(lambda chance: Setting(3, 2, servers=3))
async def deleted(stage: Stage) -> None:
    """A stream is deleted while its leader does not hear of it: nothing more is acknowledged."""
    await stage.more_acks(5)
    leader = stage.leader
    if leader is None:
        return
    stage.converges = False
    stage.cut(leader.name, "master-1")
    await stage.journal.delete_stream(STREAM)
    await stage.sleep(0.6)  # everybody has had a beat since, and its commands
    late = stage.simulation.now
    await stage.sleep(0.5)
    acked = [a for a in stage.history.acked if a.invoked > late]
    stage.require(not acked, f"{len(acked)} appends to a deleted stream are acknowledged")


@workload(lambda chance: Setting(3, 2, servers=3, clients=3, pause_s=0.05))
async def stale(stage: Stage) -> None:
    """A reader with old metadata asks a replica that holds what no quorum ever did."""
    await stage.more_acks(5)
    leader, members, epoch = stage.leader, stage.member_nodes(), stage.epoch
    if leader is None:
        return
    lone, *others = stage.chance.sample(members, 3)
    reader, other = [node for node in stage.client_nodes if node is not leader]
    stage.cut(reader.name, "master-1", *(node.name for node in others))
    stage.cut(leader.name, *(node.name for node in others))
    await stage.sleep(0.15)  # frames that the lone one holds, and nobody else
    stage.kill(leader)
    stage.cut(lone.name, "master-1", other.name)
    await stage.led_after(epoch)
    epoch = stage.epoch
    stage.kill(other)  # its successor ends another segment, and says nothing of that one
    stage.network.mend(lone.name, other.name)
    stage.network.mend(other.name, lone.name)
    stage.back(other)
    await stage.led_after(epoch)
    await stage.sleep(2.0)


@workload(lambda chance: Setting(3, 2, servers=3, segment_age_s=0.1))
async def short_reads(stage: Stage) -> None:
    """A read of what is sealed is whole, or says that it is not."""
    await stage.sleep(0.5)
    known = stage.history.rows[-1].row.end
    await stage.sleep(0.1)
    for down in (stage.server_nodes, stage.server_nodes[:1]):
        for node in down:
            stage.kill(node)
        with contextlib.suppress(AvailabilityError, TimeoutError):
            async with asyncio.timeout(0.5):
                got = [event async for event in stage.journal.read(STREAM, start=0, follow=False)]
                end = got[-1].sequence + 1 if got else 0
                stage.require(end >= known, f"a read ended at {end}, and {known} was sealed")
        for node in down:
            stage.back(node)
