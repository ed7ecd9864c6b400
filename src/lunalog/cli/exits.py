"""Exit codes, and how an error becomes one: the only place that knows.

Codes of errors are in `errors.py` (`exit_code`); docs/cli.md lists them all.
"""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Iterable
from typing import Final

import click

from lunalog.errors import (
    AvailabilityError,
    DirectoryLockedError,
    DiskFullError,
    LunalogError,
    MasterUnavailableError,
    MetadataLostError,
    NotEnoughServersError,
    NotLeaderError,
    OutcomeUnknownError,
    ServerUnavailableError,
    StorageError,
    StreamError,
    StreamExistsError,
    StreamNotFoundError,
    TruncatedError,
    UnsupportedVersionError,
    UsageError,
    WrongClusterError,
)

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNAVAILABLE: Final = 5
OUTCOME_UNKNOWN: Final = 6
UNHEALTHY: Final = 10
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

TABLE: Final = """\
0 ok; 1 error; 2 usage; 3 not found; 4 not leader or conflict; 5 unavailable; 6 outcome unknown;
10 unhealthy; 11 told to leave; 70 a safety rule; 128+N ended by signal N (130: Ctrl-C)."""

NEXT: Final[dict[type[LunalogError], str]] = {
    StreamNotFoundError: "`lunalog ls` lists the streams, `lunalog create` makes one",
    StreamExistsError: "choose another name, or `--exist-ok`",
    TruncatedError: "read from its start: `lunalog info` shows it",
    NotLeaderError: "wait for it with `--wait`, or ask it to hand over: `lunalog transfer`",
    MasterUnavailableError: (
        "`lunalog dev up --detach` starts a cluster on this machine, "
        "`--cluster` and LUNALOG_URL name another one"
    ),
    NotEnoughServersError: (
        "`lunalog health` shows what is wrong with them, `lunalog servers scale` adds some"
    ),
    ServerUnavailableError: "`lunalog servers` shows who lives; try again",
    OutcomeUnknownError: "read the tail of the stream before you append it again",
    DirectoryLockedError: "end that process or choose another directory",
    DiskFullError: "free space, or `lunalog truncate` what is not needed",
    WrongClusterError: "check the address and the data directory",
    UnsupportedVersionError: "install the same release on both sides",
    MetadataLostError: "see docs/operations.md before anything is written",
}
"""What to do next, by the most specific class."""
EFFECTS: Final = ("may ", "unknown", "nothing was", "not sent")
"""By these a message tells what is known of the effect."""
CERTAIN: Final = (UsageError, StreamError, NotLeaderError, AvailabilityError)
"""Where such an error is not `maybe_applied`, its operation had no effect."""


class CommandError(LunalogError):
    """A command failed for a reason of its own, with an exit code of its own."""

    code = "command"

    def __init__(self, message: str, exit_code: int = ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class TerminatedError(BaseException):
    """A signal asked this process to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def from_os_error(error: OSError, what: str) -> LunalogError:
    """Map an error of the operating system, for `what` was tried."""
    import socket

    from lunalog.wording import plainly

    reason = plainly(error)
    if isinstance(error.filename, str):
        reason = f"{error.filename}: {reason}"
    if isinstance(error, socket.gaierror):
        return StorageError(f"{what}: {reason}; nothing was started; choose another --host")
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"{what}: the address is in use; nothing was started; choose another --port, "
            "or end the process that listens there"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM):
        return UsageError(f"{what}: {reason}; nothing was started; choose another address or path")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{what}: {reason}; free space there, and try again")
    return StorageError(f"{what}: {reason}")


def describe(
    error: LunalogError,
    *,
    is_read_only: bool = False,
    has_begun: bool = False,
    after_refusal: str = "",
) -> str:
    """Return what failed; what is known of the effect; what to do next.

    Once a command `has_begun`, an error says nothing of what came before it.  `after_refusal` is what
    to do behind a `UsageError`.
    """
    message = str(error).rstrip(". ") or error.code
    parts = [message]
    if not _tells_effect(message) and not is_read_only:
        if error.maybe_applied:
            parts.append("it may have taken effect all the same")
        elif isinstance(error, CERTAIN) and not has_begun:
            parts.append("nothing was changed")
    first, *rest = message.split("; ")
    if all(map(_tells_effect, rest)) and ": use " not in first:  # it has said what to do
        after = {UsageError: after_refusal} if after_refusal else {}
        known = NEXT | after
        parts += [known[kind] for kind in type(error).__mro__ if kind in known][:1]
    return "; ".join(parts)


def _tells_effect(text: str) -> bool:
    return any(word in text for word in EFFECTS)


def report_usage(error: click.ClickException, *, as_json: bool) -> int:
    """Print what is wrong with a command line, and return its exit code."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
        return error.exit_code
    message = _usage(error)
    parts = [message[:1].lower() + message[1:], "nothing was done"]
    context = getattr(error, "ctx", None)
    if context is not None:
        parts.append(f"see `{context.command_path} --help`")
    _show("usage", "; ".join(parts), error.exit_code, as_json=as_json)
    return error.exit_code


def _usage(error: click.ClickException) -> str:
    """Return what click says, as one clause."""
    if not isinstance(error, click.NoSuchOption):
        return error.format_message().rstrip(".")
    if error.option_name.removeprefix("-").isdigit():
        return "a negative number means nothing here"
    return f"no such option {error.option_name!r}{did_you_mean(error.possibilities)}"


def did_you_mean(names: Iterable[str] | None) -> str:
    """Return a question that stands in parentheses; nothing where there is no name."""
    meant = " or ".join(map(repr, names or ()))
    return f" (did you mean {meant}?)" if meant else ""


def report(
    error: BaseException,
    *,
    verbose: int,
    as_json: bool,
    is_read_only: bool = False,
    has_begun: bool = False,
    after_refusal: str = "",
) -> int:
    """Print an error on stderr, as `describe` puts it, and return its exit code."""
    if verbose >= 2:
        traceback.print_exception(error, file=sys.stderr)
    if not isinstance(error, LunalogError):
        text = (
            f"{type(error).__name__}: {error}; this is a bug in lunalog, what it did is not known; "
            "run it again with -vv for the traceback"
        )
        _show("bug", text, ERROR, maybe_applied=not is_read_only, as_json=as_json)
        return ERROR
    message = describe(
        error, is_read_only=is_read_only, has_begun=has_begun, after_refusal=after_refusal
    )
    _show(
        error.code,
        message,
        error.exit_code,
        maybe_applied=error.maybe_applied and not is_read_only,
        as_json=as_json,
    )
    return error.exit_code


def _show(
    code: str, message: str, exit_code: int, *, maybe_applied: bool = False, as_json: bool
) -> None:
    if as_json:
        row = {
            "error": code,
            "message": message,
            "maybe_applied": maybe_applied,
            "exit_code": exit_code,
        }
        click.echo(json.dumps(row), err=True)
    else:
        click.echo(f"error: {message}", err=True)
