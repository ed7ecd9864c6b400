"""Is all well: findings for people, computed when somebody asks.

Source: design.md section 4; I11, R25.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from lunalog.core.quorum import seal_quorum
from lunalog.master.commands import Commands
from lunalog.master.metadata import Metadata
from lunalog.master.servers import Servers
from lunalog.master.table import Stream
from lunalog.types import Member
from lunalog.wire.messages import Health

NAMED_MAX = 5
WHOLE, HELD, THIN, STUCK, BROKEN = "whole", "held", "thin", "stuck", "broken"
ERRORS = {
    BROKEN: "too few servers are there to recover the open segment of {}",
    STUCK: "too few servers are there to append to {}",
}
WARNINGS = {
    THIN: "fewer servers than their policy wants hold {}",
    HELD: "too few other servers are there to move {} off a server that is leaving",
}


def examine(
    metadata: Metadata,
    servers: Servers,
    commands: Commands,
    sessions: int,
    wanted: int | None = None,
) -> Health:
    """Look at everything once; `wanted` is how many servers an orchestrator is to keep alive."""
    errors: list[str] = []
    warnings: list[str] = []
    states = {name: servers.status(name).state for name in servers.names()}
    lost = [name for name, state in states.items() if state == "lost"]
    leaving = {name for name, state in states.items() if state == "leaving"}
    found: dict[str, list[str]] = {}
    placeable = sum(servers.is_placeable(name) for name in states)
    for stream in metadata.table:
        state = _state(servers, stream, placeable, leaving)
        found.setdefault(state, []).append(stream.head.name)
        if any(_alive(servers, row.members) == 0 for row in stream.kept_rows()):
            errors.append(f"stream {stream.head.name}: no server of a sealed segment is there")
    for stream_id in metadata.table.lost:
        lost_stream = metadata.table.get(stream_id)
        if lost_stream is not None:
            errors.append(f"stream {lost_stream.head.name} is read-only (R25): {lost_stream.lost}")
    for stream_id, name in commands.unknown_streams.items():
        errors.append(f"server {name} holds stream {stream_id.hex()}, which nobody knows")
    errors += _told(ERRORS, found)
    warnings += [f"server {name} is lost" for name in lost]
    missing = (wanted or 0) - (len(states) - len(leaving))
    if missing > 0:
        are = "is" if missing == 1 else "are"
        warnings.append(f"{missing} of {wanted} wanted servers {are} not there yet")
    warnings += [
        f"server {name}: {server.trouble}"
        for name in servers.names()
        if (server := servers.get(name)) is not None and server.trouble
    ]
    warnings += _told(WARNINGS, found)
    if overdue := commands.count_overdue():
        warnings.append(f"{overdue} commands to servers are not confirmed yet")
    numbers = {
        "streams": len(metadata.table),
        "led": sum(not stream.head.released for stream in metadata.table),
        "segments_sealed": sum(len(stream.rows) for stream in metadata.table),
        "servers": len(states),
        "servers_alive": sum(state == "alive" for state in states.values()),
        "servers_lost": len(lost),
        "servers_leaving": len(leaving),
        "sessions": sessions,
        "commands_pending": commands.count(),
    }
    return Health(tuple(errors), tuple(warnings), numbers)


def _state(servers: Servers, stream: Stream, placeable: int, leaving: Collection[str]) -> str:
    """How the open segment stands, or whether one could be opened."""
    opened = stream.head.open
    if opened is None:
        return WHOLE if placeable >= stream.head.policy.ack_quorum else STUCK
    alive = _alive(servers, opened.members)
    if alive < seal_quorum(len(opened.members), opened.ack_quorum):
        return BROKEN
    if alive < opened.ack_quorum:
        return STUCK
    if alive < stream.head.policy.replicas:
        return THIN
    is_held = any(member.server in leaving for member in opened.members)
    return HELD if is_held and placeable < stream.head.policy.replicas else WHOLE  # see `rolls`


def _alive(servers: Servers, members: Iterable[Member]) -> int:
    found = 0
    for member in members:
        server = servers.get(member.server)
        if server is not None and not server.is_lost:
            found += server.member == member
    return found


def _told(texts: Mapping[str, str], found: Mapping[str, list[str]]) -> list[str]:
    return [text.format(_some(found[state])) for state, text in texts.items() if state in found]


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMED_MAX])
    return shown if len(names) <= NAMED_MAX else f"{shown} and {len(names) - NAMED_MAX} more"
