"""Embedded runtimes: loops and workers as tasks, and a failure that ends journals, not the process."""

import asyncio
import logging
import threading

from lunalog.client.ending import JournalRuntime
from lunalog.embedded.runtime import EmbeddedRuntime, LoopMailbox, MemoryRuntime


async def test_a_loop_of_its_own_is_a_task_here():
    runtime = EmbeddedRuntime()
    seen = []

    async def main():
        seen.append(threading.current_thread())

    await runtime.start_loop("beat", main).join()
    assert seen == [threading.current_thread()]
    await runtime.stop()


async def test_a_worker_takes_all_that_waits():
    runtime = MemoryRuntime()
    mailbox, taken = runtime.mailbox(), []

    async def main():
        while items := await mailbox.take_all():
            taken.append(items)

    worker = runtime.start_worker("wal", main)
    mailbox.put(1)
    mailbox.put(2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    mailbox.put(3)
    mailbox.close()
    mailbox.put(4)
    await worker.join()
    assert taken == [[1, 2], [3]]


async def test_a_closed_mailbox_is_drained_then_empty():
    mailbox = LoopMailbox()
    mailbox.put("x")
    mailbox.close()
    assert await mailbox.take_all() == ["x"]
    assert await mailbox.take_all() == []


async def test_offloaded_work_is_done_here():
    async def work():
        return threading.current_thread()

    assert await MemoryRuntime().offload(work()) is threading.current_thread()
    assert await EmbeddedRuntime().offload(work()) is not threading.current_thread()


async def test_a_failure_is_told_on_the_loop_from_any_thread(caplog):
    runtime = JournalRuntime()
    heard = []
    leave = runtime.on_fail(lambda error: heard.append((error, threading.current_thread())))
    first, second = ValueError("first"), ValueError("second")
    with caplog.at_level(logging.CRITICAL):
        thread = threading.Thread(target=runtime.fail, args=(first,))
        thread.start()
        thread.join()
        runtime.fail(second)
    await asyncio.sleep(0)
    assert heard == [(first, threading.current_thread())]
    assert runtime.error is first
    assert [record.message for record in caplog.records] == ["journal_failed"]
    leave()


async def test_a_task_that_fails_fails_the_runtime(caplog):
    runtime = EmbeddedRuntime()

    async def main():
        raise RuntimeError("bug")

    await runtime.start_loop("x", main).join()
    await asyncio.sleep(0)
    assert isinstance(runtime.error, RuntimeError)
