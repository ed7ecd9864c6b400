"""What a leadership passes on of the master's news."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from lunalog.client.leader import Leadership
from lunalog.client.servers import ServerLinks
from lunalog.client.watch import StreamWatch
from lunalog.config import ClientConfig
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import ClosedError, InvariantError, MasterUnavailableError
from lunalog.types import Member, Peer, Policy, ServerAddress, StreamHead, StreamView
from lunalog.wire import frames

ME = Peer("engine", b"i" * 16)
HEAD = StreamHead("orders", b"s" * 16, Policy(), epoch=3, leader=ME, released=False)


class SilentMaster:
    """Answers nothing."""

    peer = ME

    async def request(self, message: Any, timeout: float | None = None) -> Any:
        raise MasterUnavailableError("away")


def at(host: str) -> ServerAddress:
    return ServerAddress(Member("s1", 1), host, 1)


def made() -> tuple[Leadership, MemoryRuntime, ServerLinks, StreamWatch]:
    runtime, config = MemoryRuntime(), ClientConfig()
    links = ServerLinks(runtime, "c1", ME.name, ME.incarnation, config)
    watch = StreamWatch(StreamView(HEAD, (), (at("old"),)))
    session: Any = SimpleNamespace(lease_deadline=0.0)
    leadership = Leadership(runtime, config, links, SilentMaster(), watch, session)
    return leadership, runtime, links, watch


async def test_r27_a_frame_of_who_does_not_lead_ends_the_journal() -> None:
    """It is made in a callback, whose errors the loop would only log."""
    leadership, runtime, _, _ = made()
    with pytest.raises(InvariantError, match="R9"):
        leadership.emit(0, 1, frames.build(HEAD.stream, 0, 3, 1, [b"x"]), is_alone=False)
    assert isinstance(runtime.error, InvariantError)


async def test_a_head_that_moves_takes_no_address_back() -> None:
    """A proposal says where servers are, too, and no view that was told before undoes that."""
    leadership, _, links, watch = made()
    leadership.start()
    assert links.address_of("s1") == at("old")
    links.learn([at("proposed")])
    watch.note_head(msgspec.structs.replace(HEAD, version=HEAD.version + 1))
    assert links.address_of("s1") == at("proposed")
    watch.merge(StreamView(HEAD, (), (at("new"),)))
    assert links.address_of("s1") == at("new")
    leadership.abandon(ClosedError("the test is over"))
    await leadership.ended
