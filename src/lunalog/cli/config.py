"""`lunalog config show`: settings, and where each comes from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from lunalog.cli.groups import Group
from lunalog.cli.options import Settings, read_only, refuse_cluster, without_cluster
from lunalog.cli.render import show_rows


@click.group("config", cls=Group)
@without_cluster
def config_command() -> None:
    """Show settings."""


@config_command.command("show", short_help="Print settings, and where each comes from.")
@click.argument(
    "role", type=click.Choice(("client", "server", "master")), required=False, metavar="[ROLE]"
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file (TOML).",
)
@without_cluster
@click.pass_obj
@read_only
def config_show_command(settings: Settings, role: str | None, file: Path | None) -> None:
    """Print the settings in effect here, and where each comes from: default, file or environment.

    ROLE is client, server or master.  [default: all]
    """
    refuse_cluster(settings, "settings are those in effect here, and --config names a file of them")
    rows = [row for each in _roles() if role in (None, each) for row in settings_rows(each, file)]
    show_rows(settings, rows, ("role", "setting", "value", "source"))


def _roles() -> dict[str, Any]:
    from lunalog.config import ClientConfig, MasterConfig, ServerConfig

    return {"client": ClientConfig, "server": ServerConfig, "master": MasterConfig}


def settings_rows(role: str, file: Path | None) -> list[dict[str, Any]]:
    """Return one row a setting; raises `UsageError` for what is not allowed."""
    from lunalog.config import load

    kind = _roles()[role]
    default, from_file = kind(), load(kind, file=file)
    in_effect = load(kind, file=file, environment=os.environ)
    rows = []
    for field in dataclasses.fields(kind):
        value = getattr(in_effect, field.name)
        if f"LUNALOG_{role.upper()}_{field.name.upper()}" in os.environ:
            source = "environment"
        elif getattr(from_file, field.name) != getattr(default, field.name):
            source = f"file {file}"
        else:
            source = "default"
        rows.append({"role": role, "setting": field.name, "value": value, "source": source})
    return rows
