"""The proxy does to connections what it says, and nothing else."""

import asyncio
import random
import time

import pytest

from chaos.proxy import DOWN, UP, Link


class Echo:
    """A listener that sends back what it gets, and keeps it by connection."""

    def __init__(self):
        self.got = []
        self.ended = []

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()[:2]

    async def serve(self, reader, writer):
        number = len(self.got)
        self.got.append(b"")
        try:
            while data := await reader.read(1 << 16):
                self.got[number] += data
                writer.write(data)
        except OSError:
            pass
        finally:
            self.ended.append(number)
            writer.close()


@pytest.fixture
async def echo():
    found = Echo()
    await found.start()
    yield found
    found.server.close()


@pytest.fixture
async def link(echo):
    found = Link("a>b", echo.address, random.Random(1))
    await found.start("127.0.0.1")
    yield found
    await found.close()


async def until(holds):
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def ask(connection, data):
    reader, writer = connection
    writer.write(data)
    async with asyncio.timeout(60):
        return await reader.readexactly(len(data))


async def dial(link):
    return await asyncio.open_connection(*link.address)


async def test_a_healthy_link_carries_everything_in_order_both_ways(link):
    data = random.Random(2).randbytes(5_000_000)
    reader, writer = await dial(link)
    writer.write(data)
    async with asyncio.timeout(60):
        assert await reader.readexactly(len(data)) == data
    writer.close()
    await until(lambda: link.connections == 0)


async def test_delayed_bytes_are_late_and_whole(link):
    connection = await dial(link)
    await ask(connection, b"warm")
    link.delay_s = (0.05, 0.1)
    began = time.monotonic()
    assert await ask(connection, b"x" * 1000) == b"x" * 1000
    assert time.monotonic() - began >= 0.1, "twice the least delay"
    connection[1].close()


async def test_a_stalled_direction_loses_nothing_and_the_other_goes_on(link, echo):
    connection = await dial(link)
    link.stall(DOWN)
    connection[1].write(b"one")
    await until(lambda: echo.got == [b"one"])
    assert link.bytes[DOWN] == 0
    link.heal()
    async with asyncio.timeout(60):
        assert await connection[0].readexactly(3) == b"one"
    link.stall(UP)
    connection[1].write(b"two")
    await asyncio.sleep(0.05)
    assert echo.got == [b"one"]
    link.heal()
    async with asyncio.timeout(60):
        assert await connection[0].readexactly(3) == b"two"
    connection[1].close()


async def test_a_hole_swallows_for_ever_and_tells_neither_side(link, echo):
    old = await dial(link)
    await ask(old, b"before")
    assert link.hole() == 1
    old[1].write(b"lost")
    born_in_it = await dial(link)
    born_in_it[1].write(b"lost, too")
    await until(lambda: link.connections == 2 and len(echo.got) == 2)
    await asyncio.sleep(0.1)
    assert echo.got[0] == b"before"
    link.heal()
    fresh = await dial(link)
    assert await ask(fresh, b"after") == b"after"
    old[1].write(b"still lost")
    await asyncio.sleep(0.05)
    assert echo.got == [b"before", b"", b"after"]
    old[1].close()
    await asyncio.sleep(0.05)
    assert 0 not in echo.ended, "half-open: the other side still waits"
    for one in (born_in_it, fresh):
        one[1].close()


async def test_a_cut_ends_both_sides_inside_a_chunk(link, echo):
    for _ in range(20):
        connection = await dial(link)
        await ask(connection, b"whole")
        number = len(echo.got) - 1
        link.cuts = 1
        connection[1].write(b"x" * 1000)
        rest = b""
        try:
            async with asyncio.timeout(60):
                rest = await connection[0].read()
        except ConnectionError:
            pass
        await until(lambda number=number: number in echo.ended)
        assert len(echo.got[number]) < 5 + 1000
        assert len(rest) < 1000
        connection[1].close()
    assert link.cut_count == 20
    assert any(len(got) > 5 for got in echo.got), "some part came through"


async def test_a_dead_connections_beginning_is_sent_again(link, echo):
    assert await link.replay(0.1) == 0, "there is none yet"
    connection = await dial(link)
    await ask(connection, b"hello")
    connection[1].close()
    await until(lambda: link.connections == 0)
    assert await link.replay(0.1) == 5
    await until(lambda: echo.got == [b"hello", b"hello"])


async def test_throttled_bytes_trickle(link):
    connection = await dial(link)
    link.rate = 10_000.0
    began = time.monotonic()
    for _ in range(3):
        await ask(connection, b"x" * 1000)
    assert time.monotonic() - began >= 0.19, "two pauses of a tenth of a second at least"
    connection[1].close()


async def test_who_dials_is_told_when_nobody_listens(link, echo):
    echo.server.close()
    await echo.server.wait_closed()
    reader, writer = await dial(link)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
