"""What a trim inside or behind a segment means to servers that lag or knew more (R21, R22, R25)."""

from __future__ import annotations

import asyncio
from typing import Any

from lunalog.types import SegmentId
from lunalog.wire.messages import CertifyCommand, GetHealth, TrimCommand, Truncate


async def test_who_is_to_complete_a_truncated_segment_is_told_of_the_trim_too(started: Any) -> None:
    """R21, R22: below the trim its peers have nothing left that it could pull."""
    client = await started.client()
    servers = [started.quiet_server(f"s{n}") for n in (1, 2, 3)]
    members = tuple([await s.register() and s.member for s in servers])
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    head = (await client.ask(client.opens(head, members, n=1, end=4, chain=44))).head
    (certify,) = (await servers[0].beat()).commands
    head = (await client.ask(Truncate(head.stream, head.promise, 2))).head
    assert (await servers[0].beat()).commands == (certify,)
    trim, again = (await servers[0].beat()).commands
    assert (again, trim.before, trim.version) == (certify, 2, head.version)
    assert (await servers[0].beat(confirmed=(trim.id,))).commands == (certify,)
    assert (await servers[0].beat()).commands == (certify,)
    # a wiped server knows of no trim
    servers[0].incarnation = 0
    assert await servers[0].register() == 2
    kinds = {type(c) for _ in range(2) for c in (await servers[0].beat()).commands}
    assert kinds == {CertifyCommand, TrimCommand}


async def test_a_segment_whose_row_was_trimmed_away_proves_nothing(started: Any) -> None:
    """R13, R25: a takeover ended it below what this member knew, and the trim lies between."""
    client = await started.client()
    servers = [started.quiet_server(f"s{n}") for n in (1, 2, 3)]
    members = tuple([await s.register() and s.member for s in servers])
    head = await client.create()
    await client.stand(head.stream)
    head = await client.led(head.stream)
    head = (await client.ask(client.opens(head, members))).head
    head = (await client.ask(client.opens(head, members, n=1, end=4, chain=44))).head
    await client.ask(Truncate(head.stream, head.promise, 5))
    for server in servers:
        (command,) = (await server.beat()).commands
        await server.beat(confirmed=(command.id,))
    await asyncio.sleep(0.01)
    assert started.master.metadata.table.get(head.stream).rows == ()
    servers[0].facts = (
        servers[0].fact(head.stream, SegmentId(1, 0), end=7, committed=6, promise_epoch=1),
    )
    await servers[0].register()
    await asyncio.sleep(0.01)
    assert (await client.ask(GetHealth())).errors == ()
