"""A leader that cannot reach A for long lets somebody else try, however patient it has become."""

from __future__ import annotations

from tests.unit.core.leaders import (
    SET,
    SETTINGS,
    D,
    ack,
    append,
    kinds,
    leading,
    only,
    open_all,
    sealed,
)

from lunalog.core import effects as fx
from lunalog.core.leadership import LeaderMachine
from lunalog.core.rolling import STALL_TICKS
from lunalog.types import Member


def _impatient_no_more() -> tuple[LeaderMachine, float]:
    """A leader that has left silent members until its patience is at its end, and lacks acks now."""
    m, now = leading(), 10.0
    append(m)
    others = (D, Member("e", 1), Member("f", 1))
    for servers in (others, SET, others, SET):
        while "ProposeSet" not in kinds(m.tick(now)):
            now += SETTINGS.tick_s
        only(fx.OpenSet, m.proposed(servers, now))
        only(fx.Seal, open_all(m, now))
        sealed(m, now)
    return m, now


def test_n2_patience_with_silence_does_not_delay_giving_back() -> None:
    m, start = _impatient_no_more()
    now = start
    while not any(isinstance(effect, fx.GiveBack) for effect in m.tick(now)):
        now += SETTINGS.tick_s
    assert now - start <= SETTINGS.leader_stall_ms / 1000 + STALL_TICKS * SETTINGS.tick_s


def test_n2_who_gets_on_however_slowly_does_not_give_back() -> None:
    m, now = _impatient_no_more()
    for turn in range(400):
        now += SETTINGS.tick_s
        append(m)
        if turn % 20 == 0:
            ack(m, SET[turn // 20 % 2], now=now)  # two of three, in turns: never within four ticks
        assert "GiveBack" not in kinds(m.tick(now))
