"""The child of `lead`: its code, its end, its group."""

import asyncio
import os
import sys

import pytest

from lunalog.cli.exits import CommandError
from lunalog.cli.lead import refuse_if_not_there, run_child
from lunalog.cli.main import main
from lunalog.orchestrator.process import start_time


async def test_the_exit_code_is_that_of_the_command():
    assert await run_child(("sh", "-c", "exit 7"), dict(os.environ), 1) == 7
    assert await run_child(("sh", "-c", "kill -9 $$"), dict(os.environ), 1) == 137


async def test_the_environment_is_passed(tmp_path):
    environment = {**os.environ, "LUNALOG_EPOCH": "5"}
    command = ("sh", "-c", f"echo $LUNALOG_EPOCH > {tmp_path}/epoch")
    assert await run_child(command, environment, 1) == 0
    assert (tmp_path / "epoch").read_text() == "5\n"


async def test_a_command_that_is_not_there():
    with pytest.raises(CommandError, match="nothing was run") as caught:
        await run_child(("no-such-program-here",), dict(os.environ), 1)
    assert caught.value.exit_code == 127


def test_a_command_that_cannot_be_run_waits_for_no_turn(tmp_path, capsys):
    """No master is asked: the turn might come in hours."""
    (tmp_path / "data").write_text("")
    nobody = ("--cluster", "lunalog://127.0.0.1:1", "lead", "orders", "--")
    assert main([*nobody, "no-such-program-here"]) == 127
    assert main([*nobody, str(tmp_path / "nothing")]) == 127
    assert main([*nobody, str(tmp_path / "data"), "--option"]) == 126
    assert capsys.readouterr().err.splitlines() == [
        "error: cannot run no-such-program-here: No such file or directory; nothing was run",
        f"error: cannot run {tmp_path}/nothing: No such file or directory; nothing was run",
        f"error: cannot run {tmp_path}/data: Permission denied; nothing was run",
    ]
    refuse_if_not_there("sh")
    refuse_if_not_there(sys.executable)


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_losing_the_epoch_ends_the_whole_group(tmp_path, is_stubborn):
    """Also one that ignores SIGTERM, and what the command has left in the background."""
    trap = "trap '' TERM; " if is_stubborn else ""
    code = f"{trap}sleep 600 & echo $! > {tmp_path}/pid; while :; do sleep 0.05; done"
    task = asyncio.ensure_future(run_child(("sh", "-c", code), dict(os.environ), 0.2))
    async with asyncio.timeout(60):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pid = int((tmp_path / "pid").read_text())
    async with asyncio.timeout(60):
        while start_time(pid) is not None:
            await asyncio.sleep(0.01)
    assert sys.platform == "linux"
