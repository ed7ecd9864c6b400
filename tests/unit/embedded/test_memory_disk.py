"""A disk in memory keeps what was written, reads zeros elsewhere, and knows its names."""

import pytest

from lunalog.embedded.disk import MemoryDisk


async def test_what_is_written_is_read_and_the_rest_is_zeros():
    disk = MemoryDisk("m")
    file = await disk.open("a", create=True)
    await file.allocate(100)
    await file.write(10, [b"abc", memoryview(b"de"), bytearray(b"f")])
    await file.sync()
    await file.uncache(0, 100)
    assert await file.size() == 100
    assert await file.read(8, 12) == b"\0\0abcdef\0\0\0\0"
    assert await file.read(95, 50) == bytes(5)
    assert await file.read(200, 5) == b""
    await file.write(11, [b"X"])
    await file.close()
    assert await (await disk.open("a")).read(10, 3) == b"aXc"


async def test_names():
    disk = MemoryDisk("m")
    for name in ("b", "a"):
        await disk.open(name, create=True)
    assert await disk.names() == ["a", "b"]
    await disk.rename("a", "b")
    await disk.remove("b")
    await disk.remove("b")
    await disk.sync_directory()
    assert await disk.names() == []
    assert await disk.free_bytes() > 0
    with pytest.raises(FileNotFoundError):
        await disk.open("a")
    with pytest.raises(FileNotFoundError):
        await disk.rename("a", "b")


async def test_create_empties_what_was_there():
    disk = MemoryDisk("m")
    await (await disk.open("a", create=True)).write(0, [b"old"])
    await disk.open("a", create=True)
    assert await (await disk.open("a")).size() == 0


async def test_one_owner_at_a_time():
    disk = MemoryDisk("m")
    await disk.lock()
    with pytest.raises(BlockingIOError):
        await disk.lock()
    await disk.unlock()
    await disk.lock()
