"""Run a command's coroutine: event loop, signals, time limit, connection, logging."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from lunalog.cli.exits import TerminatedError
from lunalog.cli.options import Settings
from lunalog.errors import DeadlineExceededError

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal

T = TypeVar("T")
LONG_S = 10.0
"""Default time limit of one question to the cluster."""
GRACE = 1.1
"""So many times its time limit a question has at most: the client ends first, it knows better why."""
PATIENCE_S = 0.2
"""After so long a silence people at a terminal want to know what it waits for."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run(settings: Settings, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; Ctrl-C, SIGTERM and a closed terminal cancel it first.

    Raises `TerminatedError` after it was cancelled.
    """
    from lunalog.cli.logs import configure_logging

    configure_logging(settings.verbose)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.get_loop()
            with interruptible():
                return runner.run(_until_signal(work))
    except KeyboardInterrupt:
        raise TerminatedError(signal.SIGINT) from None
    finally:
        work.close()  # a Ctrl-C before its first step would leave a warning


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C cancel the body's loop, where it ends the process before and after (`__main__`)."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield  # ignored, as in the background of a shell; or somebody else's
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # see `past_return`
            signal.signal(signal.SIGINT, signal.SIG_DFL)


async def _until_signal(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    got: list[int] = []

    def stop(signum: int) -> None:
        got.append(signum)
        if task is not None:
            task.cancel()

    for signum in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, stop, signum)
    try:
        return await work
    except asyncio.CancelledError:
        if got:
            raise TerminatedError(got[0]) from None
        raise
    finally:
        for signum in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(signum)


async def past_return() -> None:
    """From here on no signal ends the command: what it did stands, and its exit code must say so.

    Raises `CancelledError` if Ctrl-C came before.
    """
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.remove_signal_handler(signum)
        signal.signal(signum, signal.SIG_IGN)
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def time_limit(settings: Settings, what: str) -> AsyncIterator[None]:
    """Raise `DeadlineExceededError` when the body takes a little longer than `--timeout`."""
    import lunalog.client.journal  # noqa: F401  loading it is none of the cluster's time

    seconds = settings.timeout or LONG_S
    limit = asyncio.timeout(seconds * GRACE)
    try:
        async with limit:
            yield
    except DeadlineExceededError:
        raise
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceededError(
            f"{what}: no answer from {settings.cluster} within {seconds:g} s"
        ) from None


def peer_name(command: str) -> str:
    """Return the name by which a command shows up as leader or candidate."""
    host = "".join(c if c.isalnum() or c in ".-_" else "-" for c in socket.gethostname())
    return f"{command}-{host[:40]}-{os.getpid()}"


@contextlib.asynccontextmanager
async def connected(
    settings: Settings, peer: str | None = None, *, tells_waiting: bool = True
) -> AsyncIterator[SingleWriteJournal]:
    """Connect to the cluster for the time of the body.

    Tells people at a terminal when no master answers for a while, and how long it is tried, unless the
    caller asks again and again.
    """
    from lunalog import SingleWriteJournal

    config = client_config(settings)
    opening = SingleWriteJournal.connect(
        settings.cluster,
        peer=peer_name("cli") if peer is None else peer,
        config=config,
    )
    waiting = None
    if tells_waiting and not settings.is_json and sys.stderr.isatty():
        text = (
            f"no master answers yet at {settings.cluster}; "
            f"this goes on trying for {config.connect_timeout_ms / 1000:g} s"
        )
        waiting = asyncio.get_running_loop().call_later(PATIENCE_S, note, text)
    async with contextlib.AsyncExitStack() as stack:
        try:
            journal = await stack.enter_async_context(opening)
        finally:
            if waiting is not None:
                waiting.cancel()
        yield journal


def client_config(settings: Settings) -> Any:
    """Settings of the client: environment, then `--timeout`."""
    from lunalog.config import ClientConfig, load

    flags: dict[str, Any] = {}
    if settings.timeout is not None:
        milliseconds = max(1, round(settings.timeout * 1000))
        flags = {"operation_timeout_ms": milliseconds, "connect_timeout_ms": milliseconds}
    return load(ClientConfig, environment=os.environ, flags=flags)


def ask(
    settings: Settings, what: str, question: Callable[[SingleWriteJournal], Coroutine[Any, Any, T]]
) -> T:
    """Connect, ask one thing, and return the answer within the time limit."""

    async def body() -> T:
        async with time_limit(settings, what), connected(settings) as journal:
            return await question(journal)

    return run(settings, body())


def note(text: str) -> None:
    """Tell people something on stderr; silence is fine if nobody listens."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


logging.getLogger("lunalog").addHandler(logging.NullHandler())
