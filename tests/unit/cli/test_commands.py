"""The commands in this process, on a journal in one directory: what they print, how they exit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lunalog.cli.main import main

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Run a command line on the directory; returns exit code, stdout and stderr."""
    url = f"file://{tmp_path}/journal"
    kept = os.dup(0)

    def go(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        reading, writing = os.pipe()
        os.write(writing, stdin)
        os.close(writing)
        os.dup2(reading, 0)
        os.close(reading)
        with open(0, closefd=False) as standard_input:
            monkeypatch.setattr(sys, "stdin", standard_input)
            code = main(["--cluster", url, *arguments])
        told = capfd.readouterr()
        return code, told.out, told.err

    yield go
    os.dup2(kept, 0)
    os.close(kept)


def said(found: tuple[int, str, str]) -> Any:
    """What a command printed as JSON."""
    code, out, err = found
    assert code == 0, err
    return json.loads(out)


def test_a_stream_is_made_described_listed_and_deleted(run: Run) -> None:
    assert run("create", "orders") == (0, "", "created orders\n")
    assert run("create", "orders")[0] == 4
    there = "orders is there, copies 1 of 1\n"
    assert run("create", "orders", "--exist-ok") == (0, "", there)
    assert run("create", "orders/eu")[0] == 0
    code, out, _ = run("info", "orders")
    assert code == 0
    assert "name               orders\n" in out
    assert said(run("-o", "json", "info", "orders"))["name"] == "orders"
    assert [row["name"] for row in said(run("-o", "json", "ls"))] == ["orders", "orders/eu"]
    assert run("ls", "orders/")[1].splitlines()[-1].startswith("orders/eu")
    assert run("info", "nothing")[0] == 3
    would = "this would delete orders/eu, with no leader, 0 segments with events from 0 on; "
    would += "nothing was changed; add --yes to do it"
    assert run("delete", "orders/eu") == (2, "", would + "\n")
    code, out, err = run("-o", "json", "delete", "orders/eu")
    told = {"error": "usage", "message": would, "maybe_applied": False, "exit_code": 2}
    assert (code, out, json.loads(err)) == (2, "", told)
    code, out, err = run("delete", "orders/eu", "--yes")
    assert code == 0, err
    assert run("ls")[1].count("orders") == 1


def test_what_is_refused_says_what_to_do_next(run: Run) -> None:
    run("create", "orders")
    code, _, err = run("create", "orders")
    assert (code, err.split("; ")[1:]) == (
        4,
        ["nothing was changed", "choose another name, or `--exist-ok`\n"],
    )
    code, _, err = run("truncate", "orders", "9")
    assert (code, err.split("; ")[1:]) == (
        2,
        ["nothing was changed", "`lunalog info orders` shows where it starts and ends\n"],
    )
    code, _, err = run("transfer", "orders")
    assert (code, err.split("; ")[1:]) == (
        2,
        [
            "nothing was changed",
            "a candidate waits for its turn, as `lunalog lead orders -- CMD` does\n",
        ],
    )
    for name in ("", "a b"):
        code, _, err = run("append", "orders", "--peer", name)
        assert (code, f"{name!r} is not a peer" in err) == (2, True)
        assert err.endswith("; nothing was changed\n")


def test_events_go_in_and_come_out(run: Run) -> None:
    run("create", "orders")
    assert run("append", "orders", stdin=b"one\ntwo\n") == (0, "", "appended 0..1, tail 2\n")
    assert run("append", "orders", stdin=b"three")[2] == "appended 2..2, tail 3\n"
    assert run("read", "orders")[1] == "one\ntwo\nthree\n"
    assert run("read", "orders", "--from", "1")[1] == "two\nthree\n"
    lines = run("-o", "jsonl", "read", "orders")[1].splitlines()
    assert [json.loads(line)["payload"] for line in lines] == ["one", "two", "three"]
    kept = "truncated orders: no event below {} is kept\n"
    assert run("truncate", "orders", "1") == (0, "", kept.format(1))
    assert run("truncate", "orders", "0") == (0, "", kept.format(0)), "nor is any, as before"
    assert run("read", "orders", "--from", "1")[1] == "two\nthree\n"
    code, _, err = run("read", "orders", "--from", "0")
    assert code == 3, err
    told = "note: orders has no event {} yet: it ends at 3; --follow waits for more\n"
    assert run("read", "orders", "--from", "3") == (0, "", told.format(3))
    assert run("read", "orders", "--from", "7", "--to", "9") == (0, "", told.format(7))
    assert run("read", "orders", "--from", "7", "--linearizable") == (0, "", told.format(7))
    assert run("read", "orders", "--from", "2", "-n", "5") == (0, "three\n", "")
    assert run("read", "orders", "--from", "-9", "-n", "1") == (0, "two\n", "")
    assert run("read", "orders", "--from", "9", "--to", "9") == (0, "", ""), "nothing was wanted"
    turns = said(run("-o", "json", "history", "orders"))
    assert [(turn["first"], turn["end"]) for turn in turns][-1][1] in (3, None)


def test_a_cluster_says_how_it_is(run: Run) -> None:
    code, out, err = run("health")
    assert (code, err) == (0, "")
    assert out.startswith("healthy: 1 of 1 server alive")
    assert said(run("-o", "json", "health"))["errors"] == []
    code, out, _ = run("servers")
    assert code == 0
    assert "alive" in out
    assert said(run("-o", "json", "servers"))
    assert run("servers", "scale", "3")[0] == 2


def test_a_command_runs_while_its_stream_is_led(run: Run) -> None:
    run("create", "orders")
    code, _, err = run("lead", "orders", "--", "sh", "-c", "exit $LUNALOG_EPOCH")
    assert code == 1, err
    assert "leading orders in epoch 1" in err
    assert "nobody else stands" in run("transfer", "orders")[2]


def test_what_cannot_be_meant_is_refused(run: Run) -> None:
    assert run("create", "not a name")[0] == 2
    assert run("read", "orders", "--from", "x")[0] == 2
    assert run("nonsense")[0] == 2
    assert run("append", "nothing", stdin=b"x\n")[0] == 3
