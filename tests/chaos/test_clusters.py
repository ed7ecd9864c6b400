"""One fault a test, on a whole cluster whose history is checked: takeovers, dead ends, bad networks."""

import json
import signal
from datetime import UTC, datetime, timedelta

import pytest

from chaos.soak import Soak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def led(world, wait, past=0, but=None):
    """Wait until a client, another than `but`, leads past an epoch and appends; returns its node."""
    monitor = world.monitor
    wrong = ("", but.name if but else "")

    def is_so():
        return monitor.epoch > past and monitor.leader not in wrong

    await wait(is_so)
    before = monitor.counts["acked"]
    await wait(lambda: monitor.counts["acked"] > before + 20)
    return world.nodes[monitor.leader] if is_so() else await led(world, wait, past, but)


async def ends_well(world):
    """Everything converges, is read back, and no checker objects."""
    if not world.monitor.violations:
        await Soak(world, []).converge()
    assert world.monitor.violations == []
    assert world.monitor.counts["read back"] > 0
    checked = world.monitor.checked
    assert all(
        checked[name] > 0 for name in ("I1", "I2", "I3", "I4", "I5", "I6", "I8", "I16", "I17")
    )


async def test_p3_a_frozen_leader_is_replaced_and_refused_when_it_wakes(make_world, wait):
    world = await make_world()
    zombie = await led(world, wait)
    epoch = world.monitor.epoch
    zombie.signal(signal.SIGSTOP)
    await led(world, wait, past=epoch, but=zombie)
    zombie.signal(signal.SIGCONT)
    await wait(lambda: world.monitor.left[zombie.name] >= epoch)
    await ends_well(world)


async def test_p2_another_takes_over_from_a_leader_that_was_killed(make_world, wait):
    world = await make_world()
    dead = await led(world, wait)
    epoch = world.monitor.epoch
    dead.is_wanted = False
    dead.kill()
    await led(world, wait, past=epoch, but=dead)
    await ends_well(world)


async def test_p4_m1_everything_comes_back_from_a_kill_of_all_at_once(make_world, wait):
    world = await make_world()
    await led(world, wait)
    for node in [world.master, *world.servers]:
        node.excuses.add("killed")
        node.signal(signal.SIGKILL)
    await wait(lambda: world.restarts >= 4)
    await led(world, wait)
    await ends_well(world)


async def test_n5_nothing_waits_for_ever_on_connections_that_have_died_in_silence(make_world, wait):
    """Half-open: no byte passes any more and no end is told; new connections fare better."""
    world = await make_world(clients=3)
    leader = await led(world, wait)
    if (leader.name, "master") not in world.links:  # it dials directly: have another one lead
        leader.kill()
        leader = await led(world, wait, past=world.monitor.epoch)
    epoch = world.monitor.epoch
    mine = [link for (source, _), link in world.links.items() if source == leader.name]
    assert sum(link.hole() for link in mine) >= 3
    await led(world, wait, past=epoch)
    for link in mine:
        link.heal()
    await ends_well(world)


async def test_n7_connections_cut_inside_a_frame_lose_nothing(make_world, wait):
    world = await make_world(clients=3)
    await led(world, wait)
    links = list(world.links.values())
    for _ in range(3):
        cuts = sum(link.cut_count for link in links)
        for link in links:
            link.cuts = 2
        await wait(lambda cuts=cuts: sum(link.cut_count for link in links) > cuts + 4)
    for link in links:
        link.heal()
    await ends_well(world)


async def test_n8_bytes_of_dead_connections_do_no_harm(make_world, wait):
    """A client dies and comes back; then what its dead connections carried arrives again."""
    world = await make_world(clients=3)
    await led(world, wait)
    node = next(node for node in world.clients if (node.name, "master") in world.links)
    before = world.monitor.counts["started"]
    node.kill()
    await wait(lambda: world.monitor.counts["started"] > before)
    await led(world, wait)
    mine = [link for (source, _), link in world.links.items() if source == node.name]
    servers = [link for (source, _), link in world.links.items() if source[0] == "s"]
    replayed = [await link.replay(0.3) for link in [*mine, *servers]]
    assert sum(size > 0 for size in replayed) >= 4, "its master's, and each server's"
    await led(world, wait)
    await ends_well(world)


@pytest.mark.parametrize("chain", ["in", "out"])
async def test_n2_a_leader_that_hears_or_is_heard_in_one_direction_only_is_replaced(
    make_world, wait, need, chain
):
    need("namespaces")
    world = await make_world(has_lan=True)
    leader = await led(world, wait)
    epoch = world.monitor.epoch
    world.lan.drop(leader.namespace, chain)
    await led(world, wait, past=epoch, but=leader)
    assert world.lan.dropped(leader.namespace) > 0
    world.lan.heal(leader.namespace)
    await ends_well(world)


async def test_c1_the_wall_clock_decides_nothing(make_world, wait, need):
    """Years forth and back on every process that has a shiftable clock; the leader stays."""
    need("faketime")
    world = await make_world(seed=2)
    shifted = [node for node in world.nodes.values() if node.clock is not None]
    assert {node.kind for node in shifted} >= {"server"}
    await led(world, wait)
    for seconds in ("+63072000", "-63072000", "+7"):
        for node in shifted:
            node.clock.write_text(seconds)
        before = world.monitor.counts["acked"]
        await wait(lambda before=before: world.monitor.counts["acked"] > before + 100)
    for node in shifted:
        node.clock.write_text("+63072000")
    server = next(node for node in shifted if node.kind == "server")

    server.kill()
    known = len(server.text())

    def is_ahead():
        """A line of its new life is of a year from now: the shift was real."""
        lines = server.text()[known:].splitlines(keepends=True)
        told = [json.loads(line)["ts"] for line in lines if line[:1] == "{" and line[-1:] == "\n"]
        in_a_year = datetime.now(UTC) + timedelta(days=365)
        return any(datetime.fromisoformat(when) > in_a_year for when in told)

    await wait(is_ahead)
    await ends_well(world)


async def test_n5_connections_of_a_machine_that_has_vanished_are_given_up(make_world, wait, need):
    """No FIN, no RST, and nothing to send to it: only who probes finds out."""
    need("namespaces")
    world = await make_world(has_lan=True, clients=1)
    client = await led(world, wait)
    assert (client.name, "master") not in world.links, "it dials directly"
    nodes = [world.master, *world.servers]

    def connections():
        return sum(world.lan.connections(node.namespace, client.host) for node in nodes)

    assert connections() >= 4
    client.is_wanted = False
    world.lan.drop(client.namespace, "out")
    world.lan.drop(client.namespace, "in")
    client.kill()
    await wait(lambda: connections() == 0)
    world.lan.heal(client.namespace)
    await ends_well(world)
