"""Errors to messages and exit codes."""

import errno
import json
import socket

import pytest

from lunalog.cli import exits
from lunalog.errors import (
    ConflictError,
    DeadlineExceededError,
    DiskFullError,
    LunalogError,
    MasterUnavailableError,
    NotLeaderError,
    OutcomeUnknownError,
    StorageError,
    StreamNotFoundError,
    UsageError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LunalogError("x"), 1),
        (StorageError("x"), 1),
        (UsageError("x"), 2),
        (StreamNotFoundError("x"), 3),
        (NotLeaderError("x"), 4),
        (ConflictError("x"), 4),
        (MasterUnavailableError("x"), 5),
        (DeadlineExceededError("x"), 5),
        (OutcomeUnknownError("x"), 6),
        (exits.CommandError("x", 10), 10),
    ],
)
def test_exit_codes_are_stable(error, code, capsys):
    assert exits.report(error, verbose=0, as_json=False) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: x")
    assert "Traceback" not in err


def test_a_message_says_what_next_and_what_is_known_of_the_effect():
    assert "lunalog ls" in exits.describe(StreamNotFoundError("no stream 'a'"))
    assert "may have taken effect" in exits.describe(DeadlineExceededError("delete a: no answer"))
    told = exits.describe(MasterUnavailableError("no master; nothing was changed"))
    assert "may have" not in told


def test_an_error_of_what_had_no_effect_says_so_unless_more_had_begun():
    error = StreamNotFoundError("no stream 'a'")
    assert exits.describe(error).startswith("no stream 'a'; nothing was changed; `lunalog ls`")
    for known in ({"is_read_only": True}, {"has_begun": True}):
        assert exits.describe(error, **known).startswith("no stream 'a'; `lunalog ls`")
    assert exits.describe(StorageError("the disk is gone")) == "the disk is gone"


@pytest.mark.parametrize(
    ("message", "next_is_told"),
    [
        ("no master answers", False),
        ("no master answers; nothing was changed: check the address", False),
        ("no master answers; nothing was changed; wait for it", True),
        ("'x' is no address: use lunalog://HOST:PORT", True),
    ],
)
def test_what_to_do_next_is_told_once(message, next_is_told):
    told = exits.describe(MasterUnavailableError(message))
    assert told.count("lunalog dev up") == (not next_is_told)


def test_a_command_that_changes_nothing_never_says_that_it_may_have(capsys):
    error = DeadlineExceededError("ls: no answer")
    assert "may have" not in exits.describe(error, is_read_only=True)
    exits.report(error, verbose=0, as_json=True, is_read_only=True)
    assert json.loads(capsys.readouterr().err)["maybe_applied"] is False


def test_json_errors_and_tracebacks(capsys):
    exits.report(NotLeaderError("x is led by y"), verbose=0, as_json=True)
    row = json.loads(capsys.readouterr().err)
    assert (row["error"], row["exit_code"], row["maybe_applied"]) == ("not_leader", 4, False)
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("oops")
    assert exits.report(caught.value, verbose=2, as_json=False) == 1
    assert "Traceback" in capsys.readouterr().err
    assert exits.report(caught.value, verbose=0, as_json=True) == 1
    assert json.loads(capsys.readouterr().err)["error"] == "bug"


def test_errors_of_the_operating_system_are_typed():
    def mapped(number):
        return exits.from_os_error(OSError(number, "why"), "start")

    assert isinstance(mapped(errno.EADDRINUSE), UsageError)
    assert "in use" in str(mapped(errno.EADDRINUSE))
    assert isinstance(mapped(errno.EACCES), UsageError)
    assert isinstance(mapped(errno.ENOSPC), DiskFullError)
    assert isinstance(mapped(errno.EIO), StorageError)
    nobody = exits.from_os_error(socket.gaierror(-2, "Name or service not known"), "cannot listen")
    told = (
        "cannot listen: there is no host of that name; nothing was started; choose another --host"
    )
    assert (str(nobody), nobody.exit_code) == (told, 1)
    named = exits.from_os_error(OSError(errno.ENOTDIR, "Not a directory", "/etc/hosts/x"), "start")
    assert str(named) == "start: /etc/hosts/x: Not a directory"
