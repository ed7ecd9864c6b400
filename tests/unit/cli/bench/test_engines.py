"""What the leaders of a failover tell, and what is refused."""

import asyncio

import pytest

from lunalog.cli import exits
from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.engine import ACK, FAILED, LEADS
from lunalog.cli.bench.engines import Engine, Engines
from lunalog.cli.bench.failing import Failing
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import Plan
from lunalog.cli.options import Settings
from lunalog.errors import UsageError
from lunalog.runtime import SystemRuntime, Tasks


@pytest.fixture
def pair():
    """Two candidates that a test speaks for."""
    ground = Ground(Settings("memory://x", given={"cluster"}), servers=3, directory=None)
    engines = Engines(ground, "s", Bodies(1, 32), Tasks(SystemRuntime()))
    engines.engines += [Engine("a"), Engine("b")]
    a, b = (engines._teller(engine) for engine in engines.engines)
    return engines, a, b


async def test_who_acknowledged_last_leads(pair):
    engines, a, b = pair
    a(LEADS, 1.0, 1)
    a(ACK, 1.1, 0)
    assert engines.leader is engines.engines[0]
    assert engines.other is engines.engines[1]
    b(LEADS, 2.0, 2)
    b(ACK, 2.1, 1)
    assert engines.leader is engines.engines[1]
    assert engines.acknowledged == 2


async def test_a_line_of_a_dead_leader_that_comes_late_does_not_lead(pair):
    engines, a, b = pair
    b(LEADS, 2.0, 2)
    b(ACK, 2.1, 7)
    a(ACK, 1.9, 6)
    assert engines.leader is engines.engines[1]
    assert (engines.acknowledged, engines.wrong) == (8, None)


async def test_a_sequence_that_is_acknowledged_again_ends_it(pair):
    engines, a, b = pair
    a(LEADS, 1.0, 1)
    a(ACK, 1.1, 0)
    a(ACK, 1.2, 1)
    b(LEADS, 2.0, 2)
    b(ACK, 2.1, 1)
    with pytest.raises(exits.CommandError, match="acknowledged to b behind 2"):
        await engines.until(lambda: False)


async def test_a_candidate_that_fails_ends_it(pair):
    engines, a, _ = pair
    waiting = asyncio.ensure_future(engines.until(lambda: False))
    await asyncio.sleep(0)
    a(FAILED, 1.0, 0)
    with pytest.raises(exits.CommandError, match="a failed"):
        await waiting


async def test_nobody_leads_before_the_first_ack(pair):
    with pytest.raises(exits.CommandError, match="nobody leads"):
        _ = pair[0].leader


async def run(url, ways, dev):
    ground = Ground(Settings(url, given={"cluster"}), servers=3, directory=None)
    await Failing(ways, dev).run(ground, Plan(rounds=1), Bodies(1, 1024))


@pytest.mark.parametrize("way", ["kill", "freeze", "kill-server"])
async def test_what_lives_in_this_process_is_not_killed(way, tmp_path):
    with pytest.raises(UsageError, match="only --how transfer"):
        await run("memory://x", ("transfer", way), tmp_path)


async def test_servers_of_others_are_not_killed(tmp_path):
    with pytest.raises(UsageError, match="its servers are not killed; nothing was done"):
        await run("lunalog://127.0.0.1:1", ("kill-server",), tmp_path)
