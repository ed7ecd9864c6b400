"""Options that every command takes, before or behind its name, and the settings made of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import click

from lunalog import limits
from lunalog.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL = "lunalog://127.0.0.1:7600"
OUTPUTS = ("table", "json", "jsonl")
LARGEST = 2**63 - 1
"""No number of a command line goes further: it must fit into a message."""


class Number(click.ParamType):  # type: ignore[type-arg]
    """A number within bounds; what is none of them is told in words.

    Ranges of click call a wrong one "not a valid integer range", and stand in each line of the help.
    """

    name = "number"

    def __init__(
        self,
        kind: type[int] | type[float],
        least: float = -LARGEST,
        most: float = LARGEST,
        *,
        above: float | None = None,
    ) -> None:
        self._kind = kind
        self._least = least
        self._most = most
        self._above = -math.inf if above is None else above

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, an `int` where one is wanted."""
        try:
            found = self._kind(value)
        except (ValueError, OverflowError):
            found = math.nan
        if not (self._least <= found <= self._most and found > self._above):
            is_large = self._most == LARGEST and LARGEST < found < math.inf
            wanted = "too large" if is_large else f"no {self._words()}"
            self.fail(f"{str(value)!r} is {wanted}", param, ctx)
        return found

    def _words(self) -> str:
        noun = "whole number" if self._kind is int else "number"
        if self._above > -math.inf:
            return f"{noun} above {self._above:g}"
        if self._most < LARGEST:
            return f"{noun} from {self._least} to {self._most}"
        return noun if self._least == -LARGEST else f"{noun} of {self._least} or more"


POSITIVE = Number(float, above=0)
PORT = Number(int, 0, limits.PORT_MAX)


@dataclass(slots=True)
class Settings:
    """What the shared options say."""

    cluster: str = DEFAULT_URL
    output: str = "table"
    timeout: float | None = None
    verbose: int = 0
    given: set[str] = field(default_factory=set)
    """Options that the command line or the environment names."""
    typed: set[str] = field(default_factory=set)
    """Those of them that the command line names."""
    is_read_only: bool = False
    """True once a command runs that changes nothing, whatever becomes of its questions."""
    after_refusal: str = ""
    """What to do when the command is refused, where the error does not say it."""
    has_begun: bool = False
    """True once the command has done more than its last question.

    That nothing came of that one says nothing of the rest.
    """

    @property
    def is_json(self) -> bool:
        """True when people are not the readers."""
        return self.output != "table"


def settings_of(ctx: click.Context) -> Settings:
    """Return the one settings object of this command line."""
    root = ctx.find_root()
    if not isinstance(root.obj, Settings):
        root.obj = Settings()
    return root.obj


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    name = parameter.name or ""
    source = ctx.get_parameter_source(name)
    if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
        settings = settings_of(ctx)
        setattr(settings, name, value)
        settings.given.add(name)
        if source.name == "COMMANDLINE":
            settings.typed.add(name)


def shared(
    command: F, *, environment: bool = False, default_cluster: str | None = DEFAULT_URL
) -> F:
    """Give a command the options that all have; they write to the settings, not its arguments.

    Only the outermost group reads the environment, or a variable would win over a flag before it.
    Without a default cluster a command says nothing of `--cluster`: it talks to none, or to its own.
    """
    keep: dict[str, Any] = {"expose_value": False, "callback": _keep}
    options: tuple[Any, ...] = (
        click.option(
            "--cluster",
            metavar="URL",
            envvar="LUNALOG_URL" if environment else None,
            help=f"Cluster to talk to.  [LUNALOG_URL; default: {default_cluster}]",
            hidden=default_cluster is None,
            **keep,
        ),
        click.option(
            "-o",
            "--output",
            type=click.Choice(OUTPUTS),
            help="Form of what goes to stdout.  [default: table]",
            **keep,
        ),
        click.option(
            "--timeout",
            type=POSITIVE,
            metavar="SECONDS",
            help="Give up one question to the cluster after this long.  [default: 10]",
            **keep,
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            help="More on stderr; -vv: debug, and tracebacks.",
            **keep,
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


without_cluster = functools.partial(shared, default_cluster=None)
"""The options of a command that asks no cluster, and calls `refuse_cluster`."""


def refuse_cluster(settings: Settings, instead: str) -> None:
    """Raise `UsageError` for a `--cluster` that was typed: nobody would heed it.

    LUNALOG_URL is of other commands, and no offence.
    """
    if "cluster" in settings.typed:
        raise UsageError(
            f"--cluster is for commands that ask a cluster; nothing was done; {instead}"
        )


def read_only(command: F) -> F:
    """Mark a command that changes nothing, so that no error of it says that it may have."""

    @functools.wraps(command)
    def marked(settings: Settings, /, *arguments: Any, **options: Any) -> Any:
        settings.is_read_only = True
        return command(settings, *arguments, **options)

    return cast(F, marked)
