"""Pipes beside the loop."""

import asyncio
import contextlib
import os
import threading

import pytest

from lunalog.cli.pipes import CHUNK_BYTES, CHUNKS_MAX, InputPump, OutputPump


async def test_input_comes_in_order_and_ends():
    read_end, write_end = os.pipe()
    data = os.urandom(3 * CHUNK_BYTES)

    def write():
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(write_end, rest) :]
        os.close(write_end)

    writing = asyncio.get_running_loop().run_in_executor(None, write)
    assert b"".join([chunk async for chunk in InputPump(read_end).chunks()]) == data
    await writing
    os.close(read_end)


async def test_an_unreadable_input_raises():
    with pytest.raises(OSError, match="Bad file"):
        async for _ in InputPump(10_000).chunks():
            pass


async def test_nobody_looks_at_a_descriptor_once_all_is_written(tmp_path):
    """It may be closed then, and its number be that of another file: a look would keep that one open."""
    before = set(threading.enumerate())
    with (tmp_path / "out").open("wb", buffering=0) as file:
        pump = OutputPump(file.fileno())
        threads = set(threading.enumerate()) - before
        await pump.write(b"all")
        await pump.close()
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)
    assert [thread.name for thread in threads if thread.is_alive()] == []
    assert (tmp_path / "out").read_bytes() == b"all"


class Output:
    """A pump into a pipe; the pipe is closed when no thread looks at it any more.

    A thread that came late would else find under its number what somebody else has opened since.
    """

    def __init__(self):
        self.read_end, self.write_end = os.pipe()
        self.gone = asyncio.Event()
        before = set(threading.enumerate())
        self.pump = OutputPump(self.write_end, self.gone.set)
        self.threads = set(threading.enumerate()) - before

    def close_reader(self):
        if self.read_end >= 0:
            os.close(self.read_end)
        self.read_end = -1

    async def close(self):
        self.close_reader()
        with contextlib.suppress(BrokenPipeError):
            await self.pump.close()
        for thread in self.threads:
            await asyncio.to_thread(thread.join)
        os.close(self.write_end)


@pytest.fixture
async def output():
    found = Output()
    yield found
    await found.close()


async def test_output_goes_out_in_order(output):
    parts = [b"x" * 1000, b"", b"y" * 1000]
    for part in parts:
        await output.pump.write(part)
    await output.pump.close()
    assert os.read(output.read_end, 4000) == b"".join(parts)


async def test_a_pipe_that_nobody_reads_raises_broken_pipe(output):
    output.close_reader()

    async def produce():
        for _ in range(100):
            await output.pump.write(b"x")
            await asyncio.sleep(0)
        await output.pump.close()

    with pytest.raises(BrokenPipeError):
        await produce()


async def test_a_slow_reader_slows_the_producer_down(output):
    written = 0

    async def produce():
        nonlocal written
        while True:
            await output.pump.write(b"x" * (1 << 20))
            written += 1

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(produce(), 0.2)
    assert written <= CHUNKS_MAX + 1


async def test_a_reader_that_goes_while_nothing_is_written_is_noticed(output):
    await output.pump.write(b"x")
    output.close_reader()
    await asyncio.wait_for(output.gone.wait(), 60)
    with pytest.raises(BrokenPipeError):
        output.pump.check()
