"""`lunalog create|ls|info|history|delete|truncate`: streams as things."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from lunalog.cli import exits
from lunalog.cli.leading import leading
from lunalog.cli.options import Number, Settings, read_only, shared
from lunalog.cli.render import count, echo, moment, natural, show_one, show_rows, size
from lunalog.cli.running import ask, connected, note, peer_name, run, time_limit
from lunalog.errors import AvailabilityError, UsageError

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal
    from lunalog.types import StreamDescription, StreamHead

COPIES = Number(int, above=0)
COMMITTED_S = 1.0
"""How long `info` waits for a leader to tell the end of its stream."""


@click.command("create")
@click.argument("stream")
@click.option(
    "--replicas", type=COPIES, metavar="N", help="Servers that hold a copy.  [default: 3]"
)
@click.option("--ack-quorum", type=COPIES, metavar="A", help="Copies before an ack.  [default: 2]")
@click.option("--exist-ok", is_flag=True, help="It is fine if the stream is there already.")
@shared
@click.pass_obj
def create_command(
    settings: Settings,
    stream: str,
    replicas: int | None,
    ack_quorum: int | None,
    exist_ok: bool,
) -> None:
    """Make a stream."""
    policy = {"replicas": replicas, "ack_quorum": ack_quorum}
    chosen: Any = {key: value for key, value in policy.items() if value is not None}

    async def question(journal: SingleWriteJournal) -> StreamHead:
        return await journal.create_stream(stream, exist_ok=exist_ok, **chosen)

    head = ask(settings, f"create {stream}", question)
    if exist_ok:  # the master does not tell whether it made one, and an older one keeps its copies
        note(f"{stream} is there, copies {_copies(head)}")
    else:
        note(f"created {stream}")


@click.command("ls")
@click.argument("prefix", default="")
@shared
@click.pass_obj
@read_only
def ls_command(settings: Settings, prefix: str) -> None:
    """List streams, all or those whose name begins with PREFIX."""

    async def question(journal: SingleWriteJournal) -> list[dict[str, Any]]:
        return [_summary(head) async for head in journal.list_streams(prefix)]

    rows = ask(settings, "ls", question)
    show_rows(settings, rows, ("name", "leader", "epoch", "start", "copies"))


def _summary(head: Any) -> dict[str, Any]:
    leads = head.leader is not None and not head.released
    return {
        "name": head.name,
        "leader": head.leader.name if leads else None,
        "epoch": head.epoch,
        "start": head.truncated_before,
        "copies": _copies(head),
    }


def _copies(head: StreamHead) -> str:
    return f"{head.policy.ack_quorum} of {head.policy.replicas}"


@click.command("info", short_help="Print a stream's leader, end, segments and servers.")
@click.argument("stream")
@shared
@click.pass_obj
@read_only
def info_command(settings: Settings, stream: str) -> None:
    """Print what is known of a stream: its leader, its end, its segments and their servers."""

    async def question(journal: SingleWriteJournal) -> tuple[StreamDescription, int | None]:
        described, committed = await journal.describe(stream), None
        with contextlib.suppress(AvailabilityError):  # a dead leader, or too few servers
            committed = await journal.committed(stream, timeout=COMMITTED_S)
        return described, committed

    described, committed = ask(settings, f"info {stream}", question)
    row, segments = describe_row(described, committed), segment_rows(described)
    if settings.is_json:
        show_one(settings, {**row, "segments": segments})
        return
    show_one(settings, {**row, "segment_bytes_max": size(row["segment_bytes_max"])})
    if segments:
        for segment in segments:
            segment["servers"].sort(key=natural)
        echo()
        show_rows(settings, segments, ("segment", "first", "end", "leader", "sealed", "servers"))


def describe_row(described: StreamDescription, committed: int | None) -> dict[str, Any]:
    """Return the fields of a stream."""
    head = described.head
    return {
        **_summary(head),
        "committed": committed,
        "sealed": head.next if head.open is None else head.open.first,
        "is_open": head.open is not None,
        "id": head.stream.hex(),
        "created": moment(head.created_us),
        "segment_bytes_max": head.policy.segment_bytes_max,
    }


def segment_rows(described: StreamDescription) -> list[dict[str, Any]]:
    """Return one row a segment, the open one last."""
    rows: list[dict[str, Any]] = [
        {
            "segment": str(row.id),
            "first": row.first,
            "end": row.end,
            "leader": row.leader,
            "sealed": row.reason,
            "servers": [member.server for member in row.members],
        }
        for row in described.rows
    ]
    opened = described.head.open
    if opened is not None:
        leader = described.head.leader
        rows.append(
            {
                "segment": str(opened.id),
                "first": opened.first,
                "end": None,
                "leader": leader.name if leader is not None else None,
                "sealed": None,
                "servers": [member.server for member in opened.members],
            }
        )
    return rows


@click.command("history")
@click.argument("stream")
@shared
@click.pass_obj
@read_only
def history_command(settings: Settings, stream: str) -> None:
    """Print who led which sequences."""

    async def question(journal: SingleWriteJournal) -> list[dict[str, Any]]:
        return [
            {"epoch": t.epoch, "leader": t.leader, "first": t.first, "end": t.end}
            for t in await journal.history(stream)
        ]

    show_rows(
        settings,
        ask(settings, f"history {stream}", question),
        ("epoch", "leader", "first", "end"),
    )


@click.command("delete", short_help="Delete a stream with all its events.")
@click.argument("stream")
@click.option("--yes", is_flag=True, help="Do it; without this only what would be lost is told.")
@shared
@click.pass_obj
def delete_command(settings: Settings, stream: str, yes: bool) -> int:
    """Delete a stream with all its events; its leader and readers end with an error."""
    if not yes:
        settings.is_read_only = True
        described = ask(settings, f"info {stream}", lambda journal: journal.describe(stream))
        row = _summary(described.head)
        leader = f"led by {row['leader']}" if row["leader"] else "with no leader"
        segments = count(len(segment_rows(described)), "segment")
        text = (
            f"this would delete {stream}, {leader}, {segments} with events from {row['start']} on; "
            "nothing was changed; add --yes to do it"
        )
        if settings.is_json:
            raise UsageError(text)
        note(text)
        return exits.USAGE
    ask(settings, f"delete {stream}", lambda journal: journal.delete_stream(stream))
    note(f"deleted {stream}")
    return exits.OK


@click.command("truncate")
@click.argument("stream")
@click.argument("before", type=Number(int, 0))
@click.option(
    "--wait",
    is_flag=True,
    help="Wait until nobody else leads the stream, for ever or as long as --timeout says.",
)
@shared
@click.pass_obj
def truncate_command(settings: Settings, stream: str, before: int, wait: bool) -> None:
    """Drop all events below the sequence BEFORE.

    Leads the stream while it runs; exit code 4 names the leader if another leads.
    """

    async def body() -> None:
        async with (
            connected(settings, peer_name("truncate")) as journal,
            leading(settings, journal, stream, wait=wait) as writer,
            time_limit(settings, f"truncate {stream}"),
        ):
            settings.after_refusal = f"`lunalog info {stream}` shows where it starts and ends"
            await writer.truncate(before=before)

    run(settings, body())
    note(f"truncated {stream}: no event below {before} is kept")
