"""Numbers that nobody could read back are refused where they come in (H1)."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog import limits
from lunalog.errors import UsageError
from lunalog.wire.messages import GetServers


@pytest.mark.parametrize("field", ["incarnation", "boot", "position"])
async def test_a_server_at_the_end_of_its_numbers_is_refused_and_others_see_the_rest(
    started: Any, field: str
) -> None:
    """The next incarnation would be past the bound: no list with such a server could be read."""
    await started.server("s1")
    strange = started.quiet_server("strange")
    await strange.connect()
    setattr(strange, field, limits.SEQUENCE_MAX)
    with pytest.raises(UsageError, match="senseless numbers"):
        await strange.register_here()
    client = await started.client()
    found = await client.main.request(GetServers(), timeout=2)
    assert [status.address.member.server for status in found.servers] == ["s1"]
