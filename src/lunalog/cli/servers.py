"""`lunalog servers ls|scale`: the journal servers."""

from __future__ import annotations

from typing import Any

import click

from lunalog.cli.groups import Group
from lunalog.cli.options import Number, Settings, read_only, shared
from lunalog.cli.render import count as count_of
from lunalog.cli.render import natural, show_rows, size
from lunalog.cli.running import ask, note
from lunalog.wire.messages import ServerStatus
from lunalog.wording import shown


@click.group("servers", cls=Group, invoke_without_command=True)
@shared
@click.pass_context
def servers_command(context: click.Context) -> None:
    """List journal servers, or say how many there shall be."""
    if context.invoked_subcommand is None:
        context.invoke(servers_ls_command)


@servers_command.command("ls")
@shared
@click.pass_obj
@read_only
def servers_ls_command(settings: Settings) -> None:
    """List the servers that the master knows."""
    listed = ask(settings, "servers ls", lambda journal: journal.servers())
    columns = ("name", "state", "address", "open", "sealed", "free", "append_rate", "labels")
    rows = [server_row(server) for server in listed.servers]
    rows.sort(key=lambda row: natural(row["name"]))
    if not settings.is_json:
        for row in rows:
            row["free"] = size(row["free"])
            row["append_rate"] = size(row["append_rate"]) + "/s"
    show_rows(settings, rows, columns)
    if listed.wanted is not None:
        alive = sum(1 for server in listed.servers if server.state == "alive")
        note(f"{alive} alive of {listed.wanted} wanted")


def server_row(server: ServerStatus) -> dict[str, Any]:
    """Return the fields of a server."""
    return {
        "name": server.address.member.server,
        "state": server.state,
        "address": shown(server.address.address),
        "incarnation": server.address.member.incarnation,
        "boot": server.boot,
        "pid": server.pid or None,
        "open": server.open_segments,
        "sealed": server.sealed_segments,
        "free": server.free_bytes,
        "append_rate": server.append_bytes_per_s,
        "labels": list(server.labels),
    }


@servers_command.command("scale")
@click.argument("count", type=Number(int, 0))
@shared
@click.pass_obj
def servers_scale_command(settings: Settings, count: int) -> None:
    """Keep COUNT servers alive from now on.

    The master starts more, or moves open segments away before it ends some; one whose copies are
    still needed stays.
    """
    ask(settings, "servers scale", lambda journal: journal.scale(count))
    are = "is" if count == 1 else "are"
    note(f"{count_of(count, 'server')} {are} wanted; `lunalog servers` shows how it goes on")
