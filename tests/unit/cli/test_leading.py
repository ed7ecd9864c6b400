"""Leading for the time of a command: who is told what before it begins."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from lunalog.cli.leading import leading
from lunalog.cli.options import Settings
from lunalog.errors import NotLeaderError


class Journal:
    """Somebody else leads, and hands over to whoever waits."""

    peer = SimpleNamespace(name="me")

    def __init__(self, leader):
        self.leader = leader

    async def state(self, stream):
        return "follower", self.leader

    @asynccontextmanager
    async def lead(self, stream, *, timeout):
        assert timeout is None
        yield "writer"


OTHER = SimpleNamespace(name="other")


@pytest.mark.parametrize(
    ("leader", "is_terminal", "told"),
    [
        (OTHER, True, "orders is led by other; this waits for its turn\n"),
        (OTHER, False, ""),
        (None, True, ""),
    ],
)
async def test_who_waits_at_a_terminal_is_told_for_whom(
    leader, is_terminal, told, monkeypatch, capsys
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    settings = Settings()
    async with leading(settings, Journal(leader), "orders", wait=True) as writer:
        assert (writer, settings.has_begun) == ("writer", True)
    assert capsys.readouterr().err == told


async def test_who_does_not_wait_is_refused_before_anything_has_begun():
    settings = Settings()
    with pytest.raises(NotLeaderError, match="orders is led by other; nothing was done; wait"):
        async with leading(settings, Journal(OTHER), "orders", wait=False):
            pass
    assert not settings.has_begun
