"""Workloads that are about one moment: the script makes it, instead of waiting for chance to do so."""

from __future__ import annotations

import random

from tests.faults import crashes
from tests.mutants.scripts import WORKLOADS, workload
from tests.mutants.stage import Setting, Stage

from lunalog.storage.extents import name_of
from lunalog.testing.history import Append
from lunalog.testing.machine import SimulatedNode
from lunalog.types import StreamHead

__all__ = ["WORKLOADS"]

CRASH_STATES = 240
SLOW_ANSWER_S = 0.6
"""How late those answer who are heard last; a takeover is decided long before, if it may be."""


async def last_ack(
    stage: Stage, leader: SimulatedNode, lagging: list[SimulatedNode]
) -> list[SimulatedNode]:
    """Have something acknowledged that `lagging` do not hold, and nobody hear that it was.

    Returns the members that hold it.  Then the leader is cut from all, and lives.
    """
    members = stage.member_nodes()
    stage.is_held = True
    await stage.sleep(0.1)  # all that was sent is settled, told and attested
    stage.cut(leader.name, *(node.name for node in lagging))
    heard: list[Append] = []

    def is_acked(append: Append) -> None:
        stage.cut(leader.name, *(node.name for node in members))
        heard.append(append)

    stage.on_ack = is_acked
    stage.is_held = False
    await stage.until("acknowledge one append more", lambda: heard)
    stage.on_ack = lambda append: None
    return [node for node in members if node not in lagging]


def is_attested(stage: Stage, node: SimulatedNode) -> bool:
    """Whether a later batch says that all a server has written is synced: else its end may be torn."""
    log = stage.servers[node.name].log
    return log._is_attested and log._put_count == log._done_count


def flip_last_frame(stage: Stage, node: SimulatedNode) -> None:
    """Flip a bit in the frame that a server's log has last of the stream; its headers stay whole."""
    index = stage.servers[node.name].log._index
    newest = max(index.all(), key=lambda segment: segment.segment)
    run = newest.runs[-1]
    offset = run.block.offsets[-1] if run.block is not None else run.offset
    node.disk().flip(name_of(run.extent), offset + 100)


def _damages(chance: random.Random) -> Setting:
    replicas, ack_quorum = chance.choice(((3, 2), (3, 2), (5, 3), (4, 3)))
    return Setting(replicas, ack_quorum, servers=replicas)


@workload(_damages)
async def bad_copy(stage: Stage) -> None:
    """What was acknowledged last is on A members, damaged at one of them; the others answer late.

    The master has not heard since how far that one's log reaches.
    """
    await stage.more_acks(5)
    leader, members, epoch = stage.leader, stage.member_nodes(), stage.epoch
    setting = stage.setting
    if leader is None or len(members) < setting.replicas:
        return
    lagging = stage.chance.sample(members, setting.replicas - setting.ack_quorum)
    node = stage.chance.choice([member for member in members if member not in lagging])
    stage.cut(node.name, "master-1")
    holders = await last_ack(stage, leader, lagging)
    await stage.until("attest it", lambda: is_attested(stage, node))
    stage.kill(leader)
    stage.kill(node)
    stage.loses(node)
    flip_last_frame(stage, node)
    for other in holders:
        for client in stage.client_nodes if other is not node else ():
            stage.network.clog(other.name, client.name, SLOW_ANSWER_S)
    stage.network.mend(node.name)
    stage.network.mend("master-1", node.name)
    stage.back(node)
    await stage.led_after(epoch)


@workload(_damages)
async def torn_end(stage: Stage) -> None:
    """One member alone holds the newest frame, and it is damaged; all others say that they lack it."""
    await stage.more_acks(5)
    leader, members, epoch = stage.leader, stage.member_nodes(), stage.epoch
    if leader is None or len(members) < stage.setting.replicas:
        return
    node, *others = stage.chance.sample(members, len(members))
    stage.is_held = True
    await stage.sleep(0.1)
    stage.cut(leader.name, *(other.name for other in others))
    end = newest_end(stage, node)
    stage.is_held = False
    await stage.until("reach one member", lambda: newest_end(stage, node) > end)
    stage.is_held = True
    await stage.until("attest it", lambda: is_attested(stage, node))
    stage.kill(leader)
    stage.kill(node)
    stage.loses(node)
    flip_last_frame(stage, node)
    for other in others:
        for client in stage.client_nodes:
            stage.network.clog(other.name, client.name, SLOW_ANSWER_S)
    stage.back(node)
    await stage.led_after(epoch, 1.8)  # who is stuck tries again after 2 s, with better luck
    stage.is_held = False


def newest_end(stage: Stage, node: SimulatedNode) -> int:
    """How far a server's log has the newest segment that it holds."""
    state = stage.servers[node.name].replica.streams[stage.history.stream]
    return max(state.segments.values(), key=lambda held: held.id).durable


def crash_states(seed: int) -> list[str]:
    """Kills and power cuts at the calls of a short life of a server's disk, and in its starts.

    Extents are so small there, and collapse so late, that a start carries over what is not attested.
    """
    story = crashes.parse_story("used: burst append")
    collapse_bytes = min(crashes.COLLAPSE_BYTES)
    result = crashes.explore(crashes.Task(story, collapse_bytes, CRASH_STATES, seed))
    return [] if result.failure is None else [result.failure]


WORKLOADS["crash states"] = crash_states


@workload(lambda chance: Setting(3, 2, servers=chance.choice((3, 4)), pause_s=0.003, burst_max=2))
async def queued(stage: Stage) -> None:
    """Fences reach disks that stand still, behind frames that will be acknowledged all the same."""
    await stage.more_acks(3)
    leader, members, epoch = stage.leader, stage.member_nodes(), stage.epoch
    if leader is None:
        return
    other = next(node for node in stage.client_nodes if node is not leader)

    def is_granted(head: StreamHead) -> None:
        if head.epoch > epoch:
            stage.on_head = lambda head: None
            stage.network.clog("master-1", other.name, 0.03)
            for node in members:
                node.disk().faults.stall(0.15)

    stage.on_head = is_granted
    stage.cut(leader.name, "master-1")
    await stage.led_after(epoch)
    await stage.sleep(0.1)


@workload(lambda chance: Setting(3, 2, servers=chance.choice((3, 5)), clients=3))
async def overtaken(stage: Stage) -> None:
    """A takeover's transaction reaches the master late, when the next epoch has sealed and acked."""
    await stage.more_acks(5)
    leader, epoch = stage.leader, stage.epoch
    if leader is None:
        return

    for node in stage.server_nodes:
        node.disk().faults.slowdown = 30.0
    stage.kill(leader)
    await stage.until("write ahead", lambda: is_opened(stage, epoch + 1))
    late = stage.leader
    if late is None or stage.epoch != epoch + 1:
        return
    stage.network.clog(late.name, "master-1", 1.2)
    for node in stage.server_nodes:
        node.disk().faults.heal()
    await stage.led_after(epoch + 1)
    await stage.more_acks(5)
    await stage.sleep(1.2)


def is_opened(stage: Stage, epoch: int) -> bool:
    """Whether a segment of an epoch was opened at some server."""
    known = [server.replica.streams.get(stage.history.stream) for server in stage.servers.values()]
    return any(held.epoch >= epoch for state in known if state for held in state.segments)


@workload(lambda chance: Setting(3, 2, servers=3, masters=2, segment_age_s=0.1))
async def frozen(stage: Stage) -> None:
    """A master stands still in the middle of a transaction, and goes on when the next one has led."""
    first, store = stage.master_nodes[0], stage.store
    await stage.more_acks(3)
    store.faults.latency_s = (0.05, 0.1)
    count = store.transactions
    await stage.until("roll", lambda: store.transactions > count)
    first.pause()
    store.faults.latency_s = (0.0, 0.0)
    stage.start_master(2)
    stage.network.host(first.name).listeners.clear()  # who dials it is refused, and goes on
    for node in [*stage.server_nodes, *stage.client_nodes]:
        stage.network.reset(first.name, node.name)
    rows = len(stage.history.rows)
    await stage.until("roll under the next master", lambda: len(stage.history.rows) > rows + 1)
    first.resume()
    await stage.sleep(0.3)
