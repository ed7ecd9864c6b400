"""`lunalog health`: what it prints and how it exits, and how long it asks again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lunalog.cli import exits, health
from lunalog.cli.main import main
from lunalog.errors import MasterUnavailableError
from lunalog.wire.messages import Health

WELL = Health((), (), {"servers": 1, "servers_alive": 1})
ILL = Health(("stream orders is read-only",), ("server s1 is lost",), {})
AWAY = MasterUnavailableError("no master answered")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the master says, one after another; the last one again and again."""
    left: list[Any] = []

    async def once(settings: Any, **_: Any) -> Health:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(health, "_once", once)
    monkeypatch.setattr(health, "POLL_S", 0.001)
    return left


def test_findings_are_listed_by_severity_and_are_no_success(
    answers: list[Any], capsys: Any
) -> None:
    answers.append(ILL)
    assert main(["health"]) == exits.UNHEALTHY
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["SEVERITY", "error", "warning"]
    assert main(["-o", "json", "health"]) == exits.UNHEALTHY
    assert json.loads(capsys.readouterr().out)["healthy"] is False


def test_servers_that_are_leaving_are_not_missed(answers: list[Any], capsys: Any) -> None:
    numbers = {"servers": 3, "servers_alive": 2, "servers_leaving": 1}
    answers.append(Health((), (), numbers))
    assert main(["health"]) == exits.OK
    assert capsys.readouterr().out == (
        "healthy: 2 of 2 servers alive, 1 leaving, 0 of 0 streams led, 0 sealed segments\n"
    )


def test_it_may_ask_until_all_is_well_and_says_each_new_state_once(
    answers: list[Any], capsys: Any
) -> None:
    answers += [AWAY, AWAY, ILL, ILL, WELL]
    assert main(["health", "--exit-when-healthy"]) == exits.OK
    told = capsys.readouterr()
    assert told.out.startswith("healthy: 1 of 1 server alive")
    assert [line.partition(":")[2] for line in told.err.splitlines()] == [
        " no master answered", " stream orders is read-only; server s1 is lost",
    ]  # fmt: skip


@pytest.mark.parametrize(("timeout", "limit_s"), [("0.5", 0.5), ("60", health.QUESTION_S)])
def test_no_question_takes_longer_than_all_of_them_may(
    monkeypatch: pytest.MonkeyPatch, timeout: str, limit_s: float
) -> None:
    limits: list[float] = []

    async def once(settings: Any, **_: Any) -> Health:
        limits.append(settings.timeout)
        return WELL

    monkeypatch.setattr(health, "_once", once)
    assert main(["health", "--wait", "--timeout", timeout]) == exits.OK
    assert limits == [limit_s]


@pytest.mark.parametrize(("answer", "code"), [(ILL, exits.UNHEALTHY), (AWAY, exits.UNAVAILABLE)])
def test_when_the_time_is_over_the_last_answer_counts(
    answers: list[Any], capsys: Any, answer: Any, code: int
) -> None:
    answers.append(answer)
    assert main(["health", "--exit-when-healthy", "--timeout", "0.02"]) == code
    assert "not yet" in capsys.readouterr().err
