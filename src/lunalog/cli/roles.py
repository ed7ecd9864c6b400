"""`lunalog watch` and `lunalog transfer`: who leads."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING

import click

from lunalog.cli.options import Settings, read_only, shared
from lunalog.cli.render import echo
from lunalog.cli.running import ask, connected, note, run
from lunalog.types import Peer, RoleState

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal


@click.command("watch")
@click.argument("stream")
@shared
@click.pass_obj
@read_only
def watch_command(settings: Settings, stream: str) -> None:
    """Print each change of leadership, until Ctrl-C."""

    async def body() -> None:
        async with connected(settings) as journal:
            async for state in journal.observe_state(stream, candidate=False):
                echo(show_state(settings, stream, state))

    run(settings, body())


def show_state(settings: Settings, stream: str, state: RoleState) -> str:
    """Return one line for a change of leadership."""
    now = datetime.datetime.now(datetime.UTC).astimezone()
    leader = state.leader.name if state.leader is not None else None
    if settings.is_json:
        row = {"at": now.isoformat(), "stream": stream, "epoch": state.epoch, "leader": leader}
        return json.dumps(row)
    text = f"led by {leader}" if leader is not None else "no leader"
    return f"{now:%H:%M:%S}.{now.microsecond // 1000:03}  {stream}  epoch {state.epoch}  {text}"


@click.command("transfer", short_help="Hand leadership of a stream over in peace.")
@click.argument("stream")
@click.option("--to", metavar="PEER", help="Who shall lead next.  [default: any other candidate]")
@shared
@click.pass_obj
def transfer_command(settings: Settings, stream: str, to: str | None) -> None:
    """Hand leadership of STREAM over in peace: the leader drains and resigns, the next one begins."""

    async def question(journal: SingleWriteJournal) -> Peer | None:
        settings.after_refusal = (
            f"a candidate waits for its turn, as `lunalog lead {stream} -- CMD` does"
        )
        await journal.transfer(stream, to=to or "", timeout=settings.timeout)
        _, leader = await journal.state(stream)
        return leader

    leader = ask(settings, f"transfer {stream}", question)
    note(f"{stream} is led by {leader}" if leader is not None else f"{stream} has no leader now")
