"""The system's side of the seam: threads, mailboxes, TCP, and tasks that never fail in silence."""

import asyncio
import inspect
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from lunalog.runtime import (
    SystemRuntime,
    Tasks,
    TcpNetwork,
    ThreadMailbox,
    drive,
    end_on_bugs,
    to_the_end,
)


class Failing(SystemRuntime):
    """A runtime that remembers instead of ending the process."""

    def __init__(self):
        super().__init__()
        self.failed = []

    def fail(self, error):
        self.failed.append(error)


async def test_clocks_and_chance():
    runtime = SystemRuntime()
    first = runtime.now()
    assert runtime.now() >= first
    assert runtime.wall_us() > 1_600_000_000_000_000
    assert len(runtime.random_bytes(16)) == 16
    assert runtime.random_bytes(16) != runtime.random_bytes(16)
    assert SystemRuntime().random.random() != runtime.random.random()


class Careless(asyncio.Protocol):
    """A protocol with a bug."""

    def data_received(self, data):
        raise ZeroDivisionError("when something arrives")


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_p5_a_bug_in_a_callback_ends_the_node_whose_loop_it_is(loop_factory, caplog):
    runtime = Failing()

    def careless():
        raise ZeroDivisionError("at once")

    async def main():
        loop = asyncio.get_running_loop()
        end_on_bugs(loop, runtime)
        loop.call_soon(careless)
        loop.call_later(0.001, careless)
        listener = await loop.create_server(Careless, "127.0.0.1", 0)
        address = listener.sockets[0].getsockname()
        sender, _ = await loop.create_connection(asyncio.Protocol, *address)
        sender.write(b"x")
        async with asyncio.timeout(60):
            while len(runtime.failed) < 3:
                await asyncio.sleep(0.001)
        sender.close()
        listener.close()
        no_files_left = {"message": "accept() failed", "exception": OSError(24, "too many")}
        loop.call_exception_handler(no_files_left)
        loop.call_exception_handler({"message": "Unclosed connection"})

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert [type(error) for error in runtime.failed] == [ZeroDivisionError] * 3
    assert [record.message.partition("\n")[0] for record in caplog.records] == [
        "accept() failed",
        "Unclosed connection",
    ]


def test_driving_what_never_suspends():
    async def work():
        return 7

    async def suspends():
        await asyncio.sleep(0)

    assert drive(work()) == 7
    with pytest.raises(RuntimeError, match="suspended where it must not"):
        drive(suspends())


async def test_a_worker_takes_from_its_mailbox_until_it_is_closed():
    runtime, taken = Failing(), []
    mailbox = runtime.mailbox()

    async def main():
        while items := await mailbox.take_all():
            taken.extend(items)
        assert await mailbox.take_all() == []

    worker = runtime.start_worker("test", main)
    for n in range(100):
        mailbox.put(n)
    mailbox.close()
    mailbox.put("dropped")
    await worker.join()
    assert taken == list(range(100))
    assert runtime.failed == []


def test_all_that_waits_is_taken_at_once():
    mailbox = ThreadMailbox()
    mailbox.put(None)
    mailbox.put(1)
    assert drive(mailbox.take_all()) == [None, 1]


async def test_a_loop_of_its_own_runs_beside_this_one():
    runtime, seen = Failing(), []

    async def main():
        await asyncio.sleep(0)
        seen.append(threading.current_thread().name)

    await runtime.start_loop("beat", main).join()
    assert seen == ["lunalog-beat"]


async def test_a_worker_that_fails_fails_the_node():
    runtime = Failing()

    async def main():
        raise ValueError("bug")

    await runtime.start_worker("test", main).join()
    assert [str(error) for error in runtime.failed] == ["bug"]


async def test_offloaded_work_that_is_cancelled_in_the_queue_never_begins():
    begun, release = [], threading.Event()

    async def work():
        begun.append(True)

    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        pool.submit(release.wait)
        waiting = work()
        task = asyncio.create_task(SystemRuntime().offload(waiting))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        release.set()
    assert task.cancelled()
    assert begun == []
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_CLOSED


async def test_offload_returns_from_another_thread():
    async def work():
        return threading.current_thread()

    assert await SystemRuntime().offload(work()) is not threading.current_thread()


async def test_tasks_fail_loudly_and_end_together():
    runtime = Failing()
    tasks = Tasks(runtime)

    async def bug():
        raise ValueError("bug")

    async def forever():
        await asyncio.sleep(60)

    task = tasks.start(forever(), "b")
    other = tasks.start(forever(), "a")
    failing = tasks.start(bug(), "c")
    await asyncio.wait([failing])
    await asyncio.sleep(0)
    assert [str(error) for error in runtime.failed] == ["bug"]
    await tasks.cancel()
    assert task.cancelled()
    assert other.cancelled()


async def test_who_is_cancelled_while_it_ends_its_tasks_learns_it():
    """A Ctrl-C that comes in the middle of an end must not be lost (the runner sends it once)."""
    tasks, news = Tasks(Failing()), asyncio.Event()

    async def slow_to_end():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await news.wait()
            raise

    slow = tasks.start(slow_to_end(), "slow")
    await asyncio.sleep(0)
    ending = asyncio.ensure_future(tasks.cancel())
    for _ in range(3):
        await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert not slow.done()  # it was told once, and ends in its own time
    news.set()
    await asyncio.wait([slow])
    assert slow.cancelled()


async def test_what_goes_to_the_end_is_not_cancelled_with_its_caller():
    """It ends first; then the caller learns that it was cancelled, however often that was."""
    news, ended = asyncio.Event(), []

    async def work():
        await news.wait()
        ended.append(True)
        return 7

    waiting = asyncio.ensure_future(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    news.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == [True]
    assert await to_the_end(work()) == 7


async def test_the_error_of_what_goes_to_the_end_is_told_rather_than_a_cancellation():
    async def work():
        await asyncio.sleep(0)
        raise ValueError("bug")

    waiting = asyncio.ensure_future(to_the_end(work()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(ValueError, match="bug"):
        await waiting


async def test_an_owner_may_cancel_from_one_of_its_own_tasks():
    tasks, ended = Tasks(Failing()), []

    async def ending():
        await tasks.cancel()
        ended.append(True)

    await tasks.start(ending(), "x")
    assert ended == [True]


async def test_tcp_carries_bytes_both_ways():
    network = SystemRuntime().network
    got = asyncio.get_running_loop().create_future()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    class Client(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"ping")
            self.transport = transport

        def data_received(self, data):
            got.set_result(data)
            self.transport.close()

    listener = await network.listen(Echo, ("127.0.0.1", 0))
    await network.connect(Client, listener.address)
    assert await got == b"ping"
    await listener.close()
    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        await network.connect(Client, listener.address)


@pytest.mark.parametrize(
    "address",
    [
        ("127.0.0.1", 1 << 16),
        ("127.0.0.1", -1),
        ("127.0.0.1", 1 << 63),
        ("x" * 64 + ".invalid", 7600),
        ("\0", 7600),
    ],
)
async def test_what_a_peer_told_and_is_no_address_cannot_be_reached_and_ends_nobody(address):
    """H1: a server dials what a certificate names as its sources."""
    with pytest.raises(OSError, match=r"no address|not known|failure"):
        await SystemRuntime().network.connect(asyncio.Protocol, address)


@pytest.mark.parametrize("loop_of", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_n5_the_kernel_looks_for_the_peer_on_both_sides_of_a_connection(loop_of):
    """Also of one on which nothing is ever sent again, whose machine has vanished."""
    options = (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    )
    transports = []

    class Side(asyncio.Protocol):
        def connection_made(self, transport):
            transports.append(transport)

    async def connect():
        network = TcpNetwork()
        listener = await network.listen(Side, ("127.0.0.1", 0))
        await network.connect(Side, listener.address)
        while len(transports) < 2:
            await asyncio.sleep(0)
        sockets = [transport.get_extra_info("socket") for transport in transports]
        found = [[sock.getsockopt(*option) for option in options] for sock in sockets]
        for transport in transports:
            transport.close()
        await listener.close()
        return found

    with asyncio.Runner(loop_factory=loop_of) as runner:
        dialled, accepted = runner.run(connect())
    for keeps, idle_s, probe_s, timeout_ms, no_delay in (dialled, accepted):
        assert (keeps, no_delay) == (1, 1)
        assert (idle_s, probe_s) == (TcpNetwork.IDLE_S, TcpNetwork.PROBE_S)
        assert timeout_ms == TcpNetwork.USER_TIMEOUT_MS
