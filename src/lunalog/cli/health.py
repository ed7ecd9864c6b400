"""`lunalog health`: is all well, for people and scripts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from lunalog.cli import exits
from lunalog.cli.options import Settings, read_only, shared
from lunalog.cli.render import count, echo, show_one, show_table
from lunalog.cli.running import connected, note, run, time_limit
from lunalog.errors import AvailabilityError, LunalogError

if TYPE_CHECKING:
    from lunalog.wire.messages import Health

POLL_S = 0.5
QUESTION_S = 2.0
"""How long one of several questions may take."""


@click.command("health", short_help="Tell what is wrong; exit 0 if nothing is.")
@click.option(
    "--wait",
    "--exit-when-healthy",
    "wait",
    is_flag=True,
    help="Ask until all is well, but not longer than --timeout.",
)
@shared
@click.pass_obj
@read_only
def health_command(settings: Settings, wait: bool) -> int:
    """Print what is wrong; exit 0 if all is well, 10 if not, 5 if no master answers."""
    found = run(settings, _wait(settings) if wait else _once(settings))
    rows = [("error", text) for text in found.errors]
    rows += [("warning", text) for text in found.warnings]
    if settings.is_json:
        show_one(settings, health_row(found))
    elif rows:
        show_table(("severity", "finding"), rows)
    else:
        echo("healthy: " + summary(found.numbers))
    return exits.UNHEALTHY if rows else exits.OK


def summary(numbers: dict[str, int]) -> str:
    """Return the numbers of a cluster that is well, for people."""
    n = (
        dict.fromkeys(("servers", "servers_alive", "streams", "led", "segments_sealed"), 0)
        | numbers
    )
    leaving = numbers.get("servers_leaving", 0)  # none of those that are meant to be there
    also = f", {leaving} leaving" if leaving else ""
    return (
        f"{n['servers_alive']} of {count(n['servers'] - leaving, 'server')} alive{also}, "
        f"{n['led']} of {count(n['streams'], 'stream')} led, "
        f"{count(n['segments_sealed'], 'sealed segment')}"
    )


def health_row(found: Health) -> dict[str, Any]:
    """Return the fields of a health report."""
    return {
        "healthy": not (found.errors or found.warnings),
        "errors": list(found.errors),
        "warnings": list(found.warnings),
        "numbers": found.numbers,
    }


async def _once(settings: Settings, *, tells_waiting: bool = True) -> Health:
    opening = connected(settings, tells_waiting=tells_waiting)
    async with time_limit(settings, "health"), opening as journal:
        return await journal.health()


async def _wait(settings: Settings) -> Health:
    """Ask until all is well; returns or raises what was found last when the time is over."""
    loop = asyncio.get_running_loop()
    limit_s = settings.timeout or float("inf")
    deadline = loop.time() + limit_s
    brief = Settings(settings.cluster, settings.output, min(QUESTION_S, limit_s), settings.verbose)
    said = ""
    while True:
        found: Health | LunalogError
        try:
            found = await _once(brief, tells_waiting=False)
            if not (found.errors or found.warnings):
                return found
            state = "; ".join((*found.errors, *found.warnings))
        except AvailabilityError as error:
            found, state = error, str(error)
        if state != said:
            note(f"not yet: {state}")
            said = state
        if loop.time() + POLL_S > deadline:
            if isinstance(found, LunalogError):
                raise found
            return found
        await asyncio.sleep(POLL_S)
