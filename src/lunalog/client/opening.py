"""Opening a journal: what `connect` returns, and what its arguments may be."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from lunalog.client.ending import JournalRuntime
from lunalog.client.reader import ReadOptions
from lunalog.client.url import AUTHORITY_VARIABLE, ClusterUrl
from lunalog.config import ClientConfig
from lunalog.errors import BadAddressError, UsageError
from lunalog.runtime import Runtime, TcpNetwork
from lunalog.types import Policy, Sequence, check_node_name
from lunalog.wire.certificates import client_contexts
from lunalog.wire.tls import TlsNetwork


class Closable(Protocol):
    """What is opened."""

    async def aclose(self) -> None:
        """End it."""
        ...


J = TypeVar("J", bound=Closable)


class Connecting(Generic[J]):
    """What `connect` returns: `await` it for a journal, or use it as `async with`."""

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, J]]) -> None:
        self._opening = opening
        self._journal: J | None = None

    def __await__(self) -> Generator[Any, None, J]:
        return self._opening().__await__()

    async def __aenter__(self) -> J:
        self._journal = await self._opening()
        return self._journal

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._journal is not None:
            await self._journal.aclose()


def peer_name(peer: str | None) -> str:
    """Check a peer's name, or make one from host and process."""
    if peer is not None:
        return check_node_name(peer)
    host = "".join(c if c.isalnum() and c.isascii() else "-" for c in socket.gethostname())
    return f"{host[:40] or 'host'}-{os.getpid()}"


async def runtime_to(where: ClusterUrl, given: Runtime | None) -> Runtime:
    """Return `given`, or this machine with the network that a URL asks for.

    The authority is the URL's, else that of `LUNALOG_CA`, else the system's; its file is read off the
    loop.  Raises `BadCertificateError` when it cannot be used.
    """
    if not where.is_secure:
        return given or JournalRuntime()
    if given is not None:
        raise BadAddressError(
            "lunalogs:// is for this machine's network; a runtime= brings its own"
        )
    authority = where.authority or os.environ.get(AUTHORITY_VARIABLE, "")
    loop = asyncio.get_running_loop()
    contexts = await loop.run_in_executor(None, client_contexts, authority)
    return JournalRuntime(TlsNetwork(TcpNetwork(), contexts))


def checked_options(start: Sequence | None, *, follow: bool, linearizable: bool) -> ReadOptions:
    """Check what a reader is asked for."""
    if start is not None and (type(start) is not int):
        raise UsageError(
            f"start is a sequence, a negative count from the end, or None, not {start!r}"
        )
    if follow and linearizable:
        raise UsageError("a read that follows has no end: choose follow or linearizable")
    return ReadOptions(start, follow, linearizable)


def checked(config: ClientConfig | None) -> ClientConfig:
    """Check settings, or take the defaults."""
    found = config if config is not None else ClientConfig()
    found.validate()
    return found


def choose_policy(default: Policy, replicas: int | None, ack_quorum: int | None) -> Policy:
    """Fill in what was left out: A is more than half of N; raises `UsageError` if not legal."""
    if replicas is None and ack_quorum is None:
        return default
    n = replicas if replicas is not None else max(default.replicas, ack_quorum or 1)
    a = ack_quorum if ack_quorum is not None else n // 2 + 1
    if type(n) is not int or type(a) is not int:
        raise UsageError("replicas and ack_quorum are whole numbers")
    policy = Policy(n, a, default.segment_bytes_max, default.segment_age_s)
    policy.validate()
    return policy
