"""Leading for the time of a command: who is told what before it begins."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from lunalog.cli import exits
from lunalog.cli.leading import leading
from lunalog.cli.options import Settings
from lunalog.cli.running import LONG_S
from lunalog.errors import DeadlineExceededError, NotLeaderError


class Journal:
    """Somebody else leads, and hands over to whoever waits."""

    peer = SimpleNamespace(name="me")

    def __init__(self, leader, *, never=False):
        self.leader = leader
        self.never = never
        self.timeout = None

    async def state(self, stream):
        return "follower", self.leader

    @asynccontextmanager
    async def lead(self, stream, *, timeout):
        self.timeout = timeout
        if self.never:
            raise DeadlineExceededError(f"leadership did not come within {timeout:g} s")
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


@pytest.mark.parametrize(
    ("wait", "timeout", "limit_s"),
    [(True, None, None), (True, 3.0, 3.0), (False, None, LONG_S), (False, 3.0, 3.0)],
)
async def test_a_wait_for_leadership_ends_with_the_timeout_that_is_given(wait, timeout, limit_s):
    journal = Journal(None)
    async with leading(Settings(timeout=timeout), journal, "orders", wait=wait):
        assert journal.timeout == limit_s


async def test_a_wait_that_was_in_vain_is_out_of_time_and_nothing_has_begun(monkeypatch, capsys):
    """5, unlike who does not wait for the other (4)."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    settings = Settings(timeout=3.0)
    with pytest.raises(DeadlineExceededError) as late:
        async with leading(settings, Journal(OTHER, never=True), "orders", wait=True):
            pass
    told = "leadership did not come within 3 s; without --timeout this waits for ever"
    assert (str(late.value), late.value.exit_code) == (told, exits.UNAVAILABLE)
    assert not late.value.maybe_applied
    assert not settings.has_begun
    assert capsys.readouterr().err == (
        "orders is led by other; this waits for its turn, for 3 s at most\n"
    )


async def test_who_does_not_wait_and_comes_too_late_is_told_who_was_faster():
    journal = Journal(None, never=True)
    with pytest.raises(DeadlineExceededError, match=r"did not come within 10 s$"):
        async with leading(Settings(), journal, "orders", wait=False):
            pass
    states = iter([None, OTHER])
    journal.state = lambda stream: asyncio.sleep(0, ("follower", next(states)))
    with pytest.raises(NotLeaderError, match="led by other"):
        async with leading(Settings(), journal, "orders", wait=False):
            pass


async def test_a_deadline_within_the_body_is_told_as_it_is():
    with pytest.raises(DeadlineExceededError, match=r"^resigning took longer$"):
        async with leading(Settings(timeout=3.0), Journal(None), "orders", wait=True):
            raise DeadlineExceededError("resigning took longer")
