"""Where a bench takes place, and what it leaves there."""

import shutil

import pytest

from lunalog.cli.bench.ground import Ground, space_of_a_server
from lunalog.cli.bench.plan import Plan
from lunalog.cli.options import Settings
from lunalog.errors import DiskFullError, LunalogError, StorageError


def on(url="", directory=None):
    given = {"cluster"} if url else set()
    settings = Settings(url or "lunalog://127.0.0.1:1", given=given)
    return Ground(settings, servers=3, directory=directory)


def test_a_url_that_was_given_is_taken_and_its_kind_known():
    assert on("memory://x").is_embedded
    assert on("file:///x").is_embedded
    assert not on("lunalog://h:1").is_embedded
    assert not on().is_embedded


async def test_streams_are_its_own_and_deleted():
    ground = on("memory://ground")
    await ground.open()
    name = await ground.create("write", Plan())
    assert name.startswith("bench/")
    assert ground.streams == [name]
    assert await ground.delete() == []
    assert [head.name async for head in ground.control.list_streams()] == []
    await ground.close()


async def test_streams_of_others_are_left_alone():
    ground = on("memory://ground")
    await ground.open()
    await ground.control.create_stream("orders")
    await ground.create("write", Plan())
    await ground.delete()
    assert [head.name async for head in ground.control.list_streams()] == ["orders"]
    await ground.close()


async def test_a_stream_that_is_gone_already_is_deleted(monkeypatch):
    ground = on("memory://ground")
    await ground.open()
    name = await ground.create("write", Plan())
    await ground.control.delete_stream(name)
    assert await ground.delete() == []

    async def refuse(name, timeout):
        raise LunalogError("no")

    await ground.create("other", Plan())
    monkeypatch.setattr(ground.control, "delete_stream", refuse)
    assert len(await ground.delete()) == 1
    await ground.close()


async def test_a_full_disk_is_told_before_anything_is_started(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * space_of_a_server() - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    ground = on(directory=tmp_path)
    with pytest.raises(DiskFullError, match="nothing was started; choose another --dir"):
        await ground.open()
    await ground.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    ground = on(directory=tmp_path / "file" / "below")
    with pytest.raises(StorageError, match="cannot make a directory"):
        await ground.open()
    await ground.close()
