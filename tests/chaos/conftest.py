"""A small cluster for a test to be unkind to, and the word for what this machine cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest

from chaos import nodes, tools
from chaos.world import Size, World
from lunalog import SingleWriteJournal
from required import cannot_run


@pytest.fixture
def need():
    """`need("strace")`: what the test cannot do without."""

    def check(*names):
        reasons = [f"{name}: {why}" for name in names if (why := tools.why_not(name))]
        if reasons:
            cannot_run("; ".join(reasons))

    return check


class Small:
    """A master and a few servers on loopback; the test's own loop is the client."""

    def __init__(self, home):
        self.home = home
        self.nodes = {}
        self.undo = []

    def __getitem__(self, name):
        return self.nodes[name]

    def add_master(self):
        self.nodes["master"] = nodes.master(self.home, "127.0.0.1")
        self.nodes["master"].start()

    def add_server(self, name, **more):
        settings = {"LUNALOG_SERVER_RESERVE_BYTES": str(1 << 20), **more}
        node = nodes.server(name, self.home, "127.0.0.1", self["master"].address, **settings)
        self.nodes[name] = node
        return node

    async def up(self, servers):
        self.add_master()
        for n in range(1, servers + 1):
            self.add_server(f"s{n}").start()

    @property
    def url(self):
        return f"lunalog://127.0.0.1:{self['master'].port}"

    def connect(self, name="test"):
        return SingleWriteJournal.connect(self.url, peer=name, timeout=100)

    async def alive(self, journal, count):
        async def is_so():
            found = await journal.servers(timeout=100)
            return sum(row.state == "alive" for row in found.servers) >= count

        await eventually(is_so)

    def down(self):
        for node in self.nodes.values():
            node.kill()
        for step in reversed(self.undo):
            step()


async def eventually(holds, seconds=150):
    """Wait until it holds: a coroutine function or a plain one."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.05)


@pytest.fixture
def small(tmp_path):
    found = Small(tmp_path)
    yield found
    found.down()


@pytest.fixture
async def make_world(tmp_path):
    """`await make_world(...)`: clients, proxies, checkers and all; no fault comes by itself."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*, has_lan=False, seed=1, **size):
            home = Path(tempfile.mkdtemp(dir=tmp_path))
            world = World(home, seed, Size(**{"servers": 3, "clients": 2, **size}), has_lan=has_lan)
            stack.push_async_callback(world.down)
            await world.up()
            return world

        yield make


@pytest.fixture
def wait():
    return eventually
