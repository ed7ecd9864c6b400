"""What a writer takes, what it refuses before anything is sent, and what it says when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lunalog import (
    ClientConfig,
    ClosedError,
    ConflictError,
    InvariantError,
    NotLeaderError,
    OverloadedError,
    PayloadTooLargeError,
    SingleWriteJournal,
    StreamNotFoundError,
    UsageError,
    limits,
)
from lunalog.client.batching import _resolve
from lunalog.errors import FencedError

NAMES = iter(f"memory://writer-{n}" for n in range(1000))


@pytest.fixture
async def journal() -> AsyncIterator[Any]:
    config = ClientConfig(in_flight_bytes_max=limits.MESSAGE_BYTES_MAX)
    async with SingleWriteJournal.connect(next(NAMES), peer="engine", config=config) as made:
        await made.create_stream("orders")
        yield made


async def test_an_event_is_anything_that_has_bytes_and_nothing_else(journal: Any) -> None:
    async with journal.lead("orders") as writer:
        for payload in (b"a", bytearray(b"b"), memoryview(b"c")):
            await writer.append(payload)
        await writer.append_soon(bytearray(b"d"))
        assert await writer.append_many([b"e", b"f"]) == range(4, 6)
        assert await writer.append_many([]) == range(6, 6)
        for wrong in ("text", 7, None, ["list"]):
            with pytest.raises(UsageError, match="an event is bytes"):
                await writer.append(wrong)
            with pytest.raises(UsageError, match="an event is bytes"):
                writer.append_soon(wrong)
    found = [event.payload async for event in journal.read("orders", start=0)]
    assert found == [b"a", b"b", b"c", b"d", b"e", b"f"]


async def test_a_batch_takes_what_has_bytes_and_is_nothing_when_one_has_none(journal: Any) -> None:
    numbers = memoryview(bytes(8)).cast("I")  # of two items and eight bytes
    async with journal.lead("orders") as writer:
        assert await writer.append_many([b"a", bytearray(b"b"), numbers]) == range(3)
        assert await writer.append_many(iter([b"c"])) == range(3, 4)
        for wrong in ("text", 7, None, ["list"]):
            with pytest.raises(UsageError, match="an event is bytes"):
                await writer.append_many([b"fine", wrong])
        assert writer.tail == 4
    found = [event.payload async for event in journal.read("orders", start=0)]
    assert found == [b"a", b"b", bytes(8), b"c"]


async def test_a_batch_that_waits_is_what_it_was_when_it_was_given(journal: Any) -> None:
    async with journal.lead("orders") as writer:
        full = writer.append_soon(bytes(limits.PAYLOAD_BYTES_MAX))
        more = writer.append_soon(bytes(limits.PAYLOAD_BYTES_MAX))
        events: list[Any] = [bytearray(b"before")]
        waits = asyncio.create_task(writer.append_many(events))
        await asyncio.sleep(0)
        assert not more.done()
        events[0][:] = b"behind"
        events.append(b"another")
        assert await waits == range(2, 3)
        await asyncio.gather(full, more)
    found = [event.payload async for event in journal.read("orders", start=2)]
    assert found == [b"before"]


async def test_what_does_not_fit_is_refused_before_it_is_sent(journal: Any) -> None:
    async with journal.lead("orders") as writer:
        large = bytes(limits.PAYLOAD_BYTES_MAX + 1)
        with pytest.raises(PayloadTooLargeError, match="past the limit"):
            await writer.append(large)
        with pytest.raises(PayloadTooLargeError, match="past the limit"):
            writer.append_soon(large)
        with pytest.raises(PayloadTooLargeError, match="past the limit"):
            await writer.append_many([b"small", large])
        half = bytes(limits.FRAME_BYTES_MAX // 2)
        with pytest.raises(PayloadTooLargeError, match="in parts"):
            await writer.append_many([half, half, half])
        assert writer.tail == 0


async def test_an_event_past_the_limit_is_refused_however_large_batches_may_be() -> None:
    config = ClientConfig(batch_bytes_max=limits.FRAME_BYTES_MAX - 4 * limits.KIB)
    large = bytes(limits.PAYLOAD_BYTES_MAX + 1)
    async with SingleWriteJournal.connect(next(NAMES), peer="engine", config=config) as made:
        await made.create_stream("orders")
        async with made.lead("orders") as writer:
            with pytest.raises(PayloadTooLargeError, match="past the limit"):
                await writer.append(large)
            with pytest.raises(PayloadTooLargeError, match="past the limit"):
                writer.append_soon(large)
            assert await writer.append(large[1:]) == 0


async def test_more_than_may_be_in_flight_is_refused_or_waits(journal: Any) -> None:
    payload = bytes(limits.PAYLOAD_BYTES_MAX)
    async with journal.lead("orders") as writer:

        def fill() -> None:
            for _ in range(100):
                writer.append_soon(payload)

        with pytest.raises(OverloadedError, match=r"await writer\.drain"):
            fill()
        sent = writer.tail
        await writer.drain()
        assert await writer.append(b"next") == sent


async def test_a_condition_on_the_tail_is_checked_before_anything_is_sent(journal: Any) -> None:
    async with journal.lead("orders") as writer:
        with pytest.raises(ConflictError) as refused:
            await writer.append(b"x", expected=5)
        assert (refused.value.expected, refused.value.found) == (5, 0)
        with pytest.raises(ConflictError):
            await writer.append_many([b"x"], expected=5)
        assert await writer.append_many([b"x", b"y"], expected=0) == range(2)
        assert await writer.append_soon(b"z", expected=2) == 2


@pytest.mark.parametrize("before", [-1, "1", 1.0, None, True])
async def test_only_a_sequence_can_be_truncated_before(journal: Any, before: Any) -> None:
    async with journal.lead("orders") as writer:
        await writer.append_many([b"a", b"b"])
        with pytest.raises(UsageError, match="must be a sequence"):
            await writer.truncate(before)


async def test_only_what_is_committed_is_truncated(journal: Any) -> None:
    async with journal.lead("orders") as writer:
        await writer.append_many([b"a", b"b"])
        with pytest.raises(UsageError, match="only events below 2"):
            await writer.truncate(3)
        await writer.truncate(1)
    assert [event.payload async for event in journal.read("orders", start=1)] == [b"b"]


async def test_a_truncation_that_is_fenced_ends_the_epoch(
    journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fenced(*_: Any, **__: Any) -> None:
        raise FencedError("another leads", leader="other", epoch=9)

    async def lead() -> None:
        async with journal.lead("orders") as writer:
            await writer.append(b"a")
            with monkeypatch.context() as patch:
                patch.setattr(journal._link, "request", fenced)
                with pytest.raises(NotLeaderError) as refused:
                    await writer.truncate(1)
            assert refused.value.leader == "other"
            await writer.append(b"b")

    with pytest.raises(NotLeaderError):
        await lead()


async def test_a_writer_that_is_not_bound_says_who_leads(journal: Any) -> None:
    async with await journal.open_stream_writer("orders") as writer:
        assert "unbound" in repr(writer)
        assert not writer.is_leading
        assert writer.lease_remaining == 0.0
        for wrong in (lambda: writer.tail, lambda: writer.committed, lambda: writer.epoch):
            with pytest.raises(NotLeaderError, match="nobody is known to lead"):
                wrong()
        with pytest.raises(NotLeaderError):
            await writer.append(b"x")


async def test_a_writer_is_bound_to_one_epoch(journal: Any) -> None:
    early = await journal.open_stream_writer("orders")
    async with journal.lead("orders") as writer:
        assert (early.epoch, early.tail, early.committed) == (writer.epoch, 0, 0)
        assert early.is_leading
        assert early.lease_remaining > 0
        assert "bound" in repr(early)
    with pytest.raises(NotLeaderError, match="epoch 1 is over"):
        await early.append(b"x")
    assert early.lease_remaining == 0.0
    async with journal.lead("orders") as writer:
        assert writer.epoch == 2
        with pytest.raises(NotLeaderError, match="engine leads epoch 2"):
            early.append_soon(b"x")


async def test_who_resigns_leads_no_more_and_its_scope_says_so(journal: Any) -> None:
    async def lead() -> None:
        async with journal.lead("orders") as writer:
            pending = writer.append_soon(b"sent")
            await writer.resign()
            raise AssertionError(f"{pending} ended, and so did the scope")

    with pytest.raises(NotLeaderError, match="epoch 1 of 'orders' is over"):
        await lead()
    assert await journal.committed("orders") == 1


async def test_a_closed_writer_says_so_and_what_it_sent_goes_on(journal: Any) -> None:
    async with journal.lead("orders") as leading:
        writer = await journal.open_stream_writer("orders")
        pending = writer.append_soon(b"sent")
        await writer.aclose()
        await writer.aclose()
        assert "closed" in repr(writer)
        with pytest.raises(ClosedError):
            await writer.append(b"x")
        with pytest.raises(ClosedError):
            writer.append_soon(b"x")
        assert await pending == 0
        await leading.append(b"more")


async def test_a_writer_of_a_deleted_stream_says_so(journal: Any) -> None:
    writer = await journal.open_stream_writer("orders")
    await journal.delete_stream("orders")
    with pytest.raises(StreamNotFoundError, match="was deleted"):
        await writer.append(b"x")


async def test_who_stopped_waiting_for_an_append_holds_up_nobody(journal: Any) -> None:
    async with journal.lead("orders") as writer:
        pending = [writer.append_soon(b"%d" % n) for n in range(5)]
        pending[0].cancel()
        pending[3].cancel()
        assert [await pending[n] for n in (1, 2, 4)] == [1, 2, 4]
        assert await writer.append(b"x") == 5
    _resolve([], 0)


async def test_r27_a_bug_in_what_a_leader_decides_ends_its_journal() -> None:
    journal = await SingleWriteJournal.connect("memory://bug", peer="engine")
    await journal.create_stream("orders")

    def bug() -> list[Any]:
        raise ZeroDivisionError("a bug")

    async def lead() -> None:
        async with journal.lead("orders"):
            local = journal._streams.named("orders")
            assert local is not None
            leading: Any = local.leading
            leading.feed(bug)
            await journal.committed("orders")

    with pytest.raises(NotLeaderError, match="because of a bug"):
        await lead()
    with pytest.raises(InvariantError, match="because of a bug"):
        await journal.describe("orders")
    await journal.aclose()
