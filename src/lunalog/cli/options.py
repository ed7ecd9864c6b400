"""Options that every command takes, before or behind its name, and the settings made of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL = "lunalog://127.0.0.1:7600"
OUTPUTS = ("table", "json", "jsonl")


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
            type=click.FloatRange(min=0, min_open=True),
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


def read_only(command: F) -> F:
    """Mark a command that changes nothing, so that no error of it says that it may have."""

    @functools.wraps(command)
    def marked(settings: Settings, /, *arguments: Any, **options: Any) -> Any:
        settings.is_read_only = True
        return command(settings, *arguments, **options)

    return cast(F, marked)
