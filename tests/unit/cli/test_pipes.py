"""Pipes beside the loop."""

import asyncio
import os

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


async def test_output_goes_out_in_order():
    read_end, write_end = os.pipe()
    output = OutputPump(write_end)
    parts = [b"x" * 1000, b"", b"y" * 1000]
    for part in parts:
        await output.write(part)
    await output.close()
    assert os.read(read_end, 4000) == b"".join(parts)
    os.close(read_end)
    os.close(write_end)


async def test_a_pipe_that_nobody_reads_raises_broken_pipe():
    read_end, write_end = os.pipe()
    os.close(read_end)
    output = OutputPump(write_end)

    async def produce():
        for _ in range(100):
            await output.write(b"x")
            await asyncio.sleep(0)
        await output.close()

    with pytest.raises(BrokenPipeError):
        await produce()
    os.close(write_end)


async def test_a_slow_reader_slows_the_producer_down():
    read_end, write_end = os.pipe()
    output = OutputPump(write_end)
    written = 0

    async def produce():
        nonlocal written
        while True:
            await output.write(b"x" * (1 << 20))
            written += 1

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(produce(), 0.2)
    assert written <= CHUNKS_MAX + 1
    os.close(read_end)
    os.close(write_end)


async def test_a_reader_that_goes_while_nothing_is_written_is_noticed():
    read_end, write_end = os.pipe()
    gone = asyncio.Event()
    output = OutputPump(write_end, gone.set)
    await output.write(b"x")
    os.close(read_end)
    await asyncio.wait_for(gone.wait(), 60)
    with pytest.raises(BrokenPipeError):
        output.check()
    os.close(write_end)
