"""`memory://` and `file:///` as a program uses them, on the real loop and the real disk."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest
from command import environment

from lunalog import (
    DirectoryLockedError,
    NotEnoughServersError,
    NotLeaderError,
    Role,
    SingleWriteJournal,
    StorageError,
    StreamNotFoundError,
    TruncatedError,
)
from processes import PATIENCE_S

APPENDER = """
import asyncio, sys
from lunalog import SingleWriteJournal

async def main():
    async with SingleWriteJournal.connect(sys.argv[1], peer="child") as journal:
        await journal.create_stream("s", exist_ok=True)
        async with journal.lead("s") as writer:
            while True:
                pending = [writer.append_soon(b"%d" % (writer.tail)) for _ in range(20)]
                for future in pending:
                    print(await future, flush=True)

asyncio.run(main())
"""


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return (
        f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/journal"
    )


async def payloads(journal, stream, **options):
    return [event.payload async for event in journal.read(stream, **options)]


async def test_append_in_every_way_and_read(url):
    async with SingleWriteJournal.connect(url, peer="a") as journal:
        assert url in repr(journal)
        await journal.create_stream("s")
        async with journal.lead("s", timeout=PATIENCE_S) as writer:
            assert await writer.append(b"one") == 0
            assert await writer.append_many([b"", b"three"]) == range(1, 3)
            pending = [writer.append_soon(b"%d" % i) for i in range(2000)]
            await writer.flush()
            assert [future.result() for future in pending] == list(range(3, 2003))
            assert await writer.append(b"x" * 1_000_000, expected=2003) == 2003
            assert await payloads(journal, "s", start=-1, linearizable=True) == [b"x" * 1_000_000]
            await writer.truncate(before=2)
        expected = [b"three", *(b"%d" % i for i in range(2000)), b"x" * 1_000_000]
        assert await payloads(journal, "s", start=None, linearizable=True) == expected
        with pytest.raises(TruncatedError):
            await payloads(journal, "s", start=1)
        assert [(t.leader, t.first, t.end) for t in await journal.history("s")] == [("a", 0, 2004)]
        assert (await journal.health()).errors == ()


async def test_two_journals_of_one_name_are_one_cluster(url):
    """They elect one leader, follow each other, and hand over."""
    async with (
        SingleWriteJournal.connect(url, peer="a") as a,
        SingleWriteJournal.connect(url, peer="b") as b,
    ):
        await a.create_stream("s")
        followed = []

        async def follow():
            async for event in b.read("s", follow=True):
                followed.append(event.payload)  # noqa: PERF401  as they come

        following = asyncio.create_task(follow())
        async with a.lead("s", timeout=PATIENCE_S) as writer:
            await writer.append(b"from a")
            assert (await b.state("s"))[0] is Role.FOLLOWER
            waiting = asyncio.create_task(b.open_stream_writer("s"))
            other = await waiting
            with pytest.raises(NotLeaderError):
                await other.append(b"not by b")
        async with b.lead("s", timeout=PATIENCE_S) as writer:
            assert writer.tail == 1
            await writer.append(b"from b")
        async with asyncio.timeout(PATIENCE_S):
            while len(followed) < 2:
                await asyncio.sleep(0.01)
        following.cancel()
        assert followed == [b"from a", b"from b"]
        assert await a.committed("s") == 2


async def test_a_directory_keeps_what_was_acknowledged(tmp_path):
    url = f"file://{tmp_path}/a%20b"
    for turn in range(3):
        async with SingleWriteJournal.connect(url, peer=f"p{turn}") as journal:
            await journal.create_stream("s", exist_ok=True)
            assert await payloads(journal, "s") == [b"%d" % n for n in range(turn)]
            async with journal.lead("s", timeout=PATIENCE_S) as writer:
                assert await writer.append(b"%d" % turn) == turn
    assert (tmp_path / "a b").is_dir()


async def test_memory_is_gone_with_its_last_journal():
    async with SingleWriteJournal.connect("memory://gone") as journal:
        await journal.create_stream("s")
    async with SingleWriteJournal.connect("memory://gone") as journal:
        with pytest.raises(StreamNotFoundError):
            await journal.describe("s")


def test_a_loop_that_ended_under_a_journal_leaves_a_directory_that_opens_again(tmp_path):
    """Nobody closed the journal: the next program finds all that was acknowledged."""
    url = f"file://{tmp_path}/journal"
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDER, url], env=environment(), stdout=subprocess.PIPE
    )
    acknowledged = [int(child.stdout.readline()) for _ in range(500)]
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split(b"\n")[:-1]
    child.stdout.close()
    child.wait(PATIENCE_S)
    acknowledged += [int(line) for line in rest]

    async def read():
        async with SingleWriteJournal.connect(url) as journal:
            async with journal.lead("s", timeout=PATIENCE_S) as writer:
                await writer.append(b"last")
            return await payloads(journal, "s")

    found = asyncio.run(read())
    assert acknowledged == list(range(len(acknowledged)))
    assert len(found) > len(acknowledged)
    assert found[-1] == b"last"


def test_ctrl_c_closes_the_journal(tmp_path):
    url = f"file://{tmp_path}/journal"
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDER, url],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert err.rstrip().endswith(b"KeyboardInterrupt"), err
    assert b"never retrieved" not in err

    async def head():
        async with SingleWriteJournal.connect(url) as journal:
            return (await journal.describe("s")).head

    assert asyncio.run(head()).open is None, "its leader resigned on the way out"


async def test_what_cannot_be_is_told(tmp_path):
    url = f"file://{tmp_path}/journal"
    async with SingleWriteJournal.connect(url) as journal:
        with pytest.raises(NotEnoughServersError, match="nothing was created") as few:
            await journal.create_stream("s", replicas=3, ack_quorum=2)
        assert (few.value.have, few.value.need) == (1, 2)
        code = (
            "import asyncio, json\nfrom lunalog import LunalogError, SingleWriteJournal\n"
            "async def main():\n"
            "    try:\n"
            f"        await SingleWriteJournal.connect({url!r})\n"
            "    except LunalogError as error:\n"
            "        print(json.dumps([error.code, str(error)]))\n"
            "asyncio.run(main())"
        )
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, env=environment(), stdout=subprocess.PIPE
        )
        out, _ = await child.communicate()
        kind, message = json.loads(out)
        assert kind == DirectoryLockedError.code
        assert "in use by another process" in message
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="nothing was changed"):
        await SingleWriteJournal.connect(f"file://{tmp_path}/file")
    assert sorted(os.listdir(tmp_path)) == ["file", "journal"]
