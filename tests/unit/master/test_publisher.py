"""What the leader hears of servers that no segment lists yet."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog.types import Policy
from lunalog.wire.messages import Propose, StreamChanged, Truncate


async def leading(started: Any) -> tuple[Any, Any]:
    client = await started.client()
    head = await client.create(policy=Policy(replicas=1, ack_quorum=1))
    await client.stand(head.stream)
    return client, await client.led(head.stream)


def ports_of(view: Any) -> dict[str, int]:
    return {server.member.server: server.port for server in view.servers}


async def moved(server: Any, port: int) -> None:
    server.die()
    server.boot, server.port = server.boot + 1, port
    await server.go_on()


async def test_l1_a_leader_that_opens_a_segment_hears_where_a_proposed_server_is_now(
    started: Any,
) -> None:
    server = await started.server("s1")
    client, head = await leading(started)
    await client.ask(Propose(head.stream, head.promise))
    await moved(server, 9100)
    await client.pushed(lambda m: isinstance(m, StreamChanged) and ports_of(m.view) == {"s1": 9100})


@pytest.mark.parametrize("opens", ["s1", "s2"])
async def test_a_proposal_is_of_no_more_interest_when_a_segment_was_opened(
    started: Any, opens: str
) -> None:
    server = await started.server("s1")
    client, head = await leading(started)
    await client.ask(Propose(head.stream, head.promise))
    other = await started.server("s2")
    assert list(ports_of(await client.view())) == ["s1"], "nobody has named s2"
    member = server.member if opens == "s1" else other.member
    head = (await client.ask(client.opens(head, (member,)))).head
    assert list(ports_of(await client.view())) == [opens]
    await client.ask(Propose(head.stream, head.promise, (opens,)))
    assert sorted(ports_of(await client.view())) == ["s1", "s2"]
    await client.ask(Truncate(head.stream, head.promise, 0))
    assert sorted(ports_of(await client.view())) == ["s1", "s2"], "nothing was opened by that"
