"""What is asked of the master and answered by it alone: streams as things, servers, health.

Source: design.md sections 4 and 8; R22.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType

from lunalog.client.master import MasterLink
from lunalog.errors import LunalogError
from lunalog.types import (
    LeaderTurn,
    Policy,
    StreamDescription,
    StreamHead,
    StreamView,
    check_stream_name,
)
from lunalog.wire.messages import (
    CreateStream,
    DeleteStream,
    GetHealth,
    GetServers,
    GetStream,
    Health,
    ListStreams,
    ScaleServers,
    ServerList,
    StreamList,
    Transfer,
    ViewReply,
)


class Admin:
    """Requests to the master, each answered once or repeated until it is."""

    def __init__(self, link: MasterLink, check: Callable[[], None]) -> None:
        self._link = link
        self._check = check

    async def create(
        self, name: str, policy: Policy, *, exist_ok: bool, timeout: float | None
    ) -> StreamHead:
        """Create a stream under an id of ours, so that a repeat finds its own."""
        stream = self._link.runtime.random_bytes(16)
        message = CreateStream(name, stream, policy, exist_ok)
        reply: ViewReply = await self._link.request(message, timeout)
        return reply.view.head

    async def get(self, name: str, timeout: float | None) -> ViewReply:
        """Look a stream up."""
        reply: ViewReply = await self._link.request(GetStream(name), timeout)
        return reply

    async def delete(self, name: str, timeout: float | None) -> None:
        """Delete the stream that has this name now, not one that gets it later."""
        found = await self.get(name, timeout)
        await self._link.request(DeleteStream(name, found.view.head.stream), timeout)

    async def describe(self, name: str, timeout: float | None) -> StreamDescription:
        """Return head and rows."""
        view = (await self.get(name, timeout)).view
        return StreamDescription(view.head, view.rows)

    async def history(self, name: str, timeout: float | None) -> list[LeaderTurn]:
        """Return who led what."""
        return turns((await self.get(name, timeout)).view)

    async def transfer(self, name: str, to: str, timeout: float | None) -> None:
        """Ask for a hand-over and wait for it."""
        limit = self._link.config.operation_timeout_ms / 1000 if timeout is None else timeout
        found = await self.get(name, limit)
        message = Transfer(found.view.head.stream, to, max(1, int(limit * 1000)))
        await self._link.request(message, limit)

    async def servers(self, timeout: float | None) -> ServerList:
        """Return all servers."""
        reply: ServerList = await self._link.request(GetServers(), timeout)
        return reply

    async def scale(self, wanted: int, timeout: float | None) -> None:
        """Set the wanted number."""
        await self._link.request(ScaleServers(wanted), timeout)

    async def health(self, timeout: float | None) -> Health:
        """Return findings."""
        reply: Health = await self._link.request(GetHealth(), timeout)
        return reply

    def heads(self, prefix: str) -> StreamHeads:
        """List streams, a page at a time."""
        if prefix:
            check_stream_name(prefix)
        return StreamHeads(self._link, prefix, self._check)


class StreamHeads:
    """`async for head in journal.list_streams(prefix)`; a page at a time, in order of name.

    Streams that come or go meanwhile may or may not be seen; all others are, once.
    """

    def __init__(self, link: MasterLink, prefix: str, check: Callable[[], None]) -> None:
        self._link = link
        self._prefix = prefix
        self._check = check
        self._page: deque[StreamHead] = deque()
        self._after = ""
        self._has_ended = False

    def __aiter__(self) -> StreamHeads:
        return self

    async def __anext__(self) -> StreamHead:
        while not self._page and not self._has_ended:
            self._check()
            reply: StreamList = await self._link.request(ListStreams(self._prefix, self._after))
            self._page.extend(reply.heads)
            if reply.heads:
                self._after = reply.heads[-1].name
            else:
                self._has_ended = True
        if not self._page:
            raise StopAsyncIteration
        return self._page.popleft()

    async def __aenter__(self) -> StreamHeads:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: LunalogError | BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ask for no more pages.  Idempotent."""
        self._page.clear()
        self._has_ended = True


def turns(view: StreamView) -> list[LeaderTurn]:
    """Join the segments of each epoch into one turn."""
    found: list[LeaderTurn] = []
    for row in view.rows:
        last = found[-1] if found else None
        if last is not None and last.epoch == row.id.epoch:
            found[-1] = LeaderTurn(last.epoch, last.leader, last.first, row.end)
        else:
            found.append(LeaderTurn(row.id.epoch, row.leader, row.first, row.end))
    opened = view.head.open
    if opened is not None:
        if found and found[-1].epoch == opened.id.epoch:
            last = found[-1]
            found[-1] = LeaderTurn(last.epoch, last.leader, last.first, None)
        else:
            name = view.head.leader.name if view.head.leader else "?"
            found.append(LeaderTurn(opened.id.epoch, name, opened.first, None))
    return found
