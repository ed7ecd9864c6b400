"""What each thing may cost: a count today, and the bound that fails a change which makes it dearer.

The table in docs/performance.md is this one.  Counts of calls differ a little between versions of
Python (later ones inline comprehensions); the bounds leave about a tenth.
"""

from __future__ import annotations

from typing import NamedTuple


class Guard(NamedTuple):
    """One cost."""

    what: str
    today: float
    most: float
    least: float | None = None
    """Below it the count is not believed; half of today's where there is none."""


GUARDS: dict[str, Guard] = {
    "lone-read": Guard("reads of the socket by a server, a lone append", 1, 1.1),
    "lone-disk-write": Guard("writes to its log, a lone append", 1, 1.1),
    "lone-sync": Guard("syncs, a lone append", 1, 1.1),
    "lone-answer": Guard("writes to the socket, a lone append", 1, 1.1),
    "lone-wake": Guard("wake-ups of another thread, a lone append", 0, 0.1),
    "batch-disk-write": Guard("writes to the log, a batch of 1,000 events", 1, 1.1),
    "batch-sync": Guard("syncs, a batch of 1,000 events", 1, 1.1),
    "batch-answer": Guard("writes to the socket, a batch of 1,000 events", 1, 1.1),
    "flood-sync": Guard("syncs a MiB of a flood, if a sync takes 50 ms", 0.26, 1.5),
    "flood-answer": Guard("acknowledgements a MiB of that flood", 0.26, 1.5),
    "flood-wake": Guard("wake-ups a MiB of that flood", 0.26, 1.5),
    "streams-disk-write": Guard("writes to the log, 1,000 streams appended to at once", 3, 10),
    "streams-sync": Guard("syncs, 1,000 streams appended to at once", 2, 8),
    "streams-answer": Guard("writes to the socket, 1,000 streams appended to at once", 2, 8),
    "catch-up-read": Guard("requests a MiB, a reader that is behind", 0.59, 1),
    "catch-up-answer": Guard("writes to the socket a MiB, a reader that is behind", 0.59, 4),
    "catch-up-disk-read": Guard("reads of the disk a MiB, a reader that is behind", 1.6, 2),
    "turn-syncs": Guard("syncs, a turn that brings 1,000 streams an event each", 1, 1),
    "leaders-syncs": Guard("syncs, a turn that brings an append of each of two leaders", 1, 1),
    "turn-answers": Guard("writes to the socket, such a turn", 1, 1),
    "server-append": Guard("calls at a server, a frame", 113, 124),
    "server-turns": Guard("turns of the loop until a server answers its one leader", 0, 0),
    "server-frame": Guard("calls at a server, a further frame in the same turn", 52, 57),
    "server-events": Guard("instructions at a server, 1,000 events instead of 1", 0, 20, -20),
    "server-reads": Guard("reads of the socket a MiB, if there is always more", 0.52, 1),
    "server-read": Guard("calls at a server, a read of 8 frames in memory", 79, 87),
    "server-read-events": Guard("instructions, if these have 1,000 events each", 0, 20, -20),
    "server-disk-read": Guard("calls at a server, a read of 8 frames on disk", 356, 392),
    "server-disk-read-events": Guard("instructions, if these have 1,000 events each", 0, 20, -20),
    "client-append": Guard("calls at a client of three servers, a lone append", 139, 150),
    "client-batch": Guard("calls at a client of three servers, a batch", 157, 168),
    "client-batch-events": Guard("instructions, a batch of 1,000 events, not 1", 0, 20, -20),
    "client-run": Guard("calls at a client, a further batch in the same turn", 34, 36),
    "client-run-events": Guard("instructions, if it has 1,000 events, not 1", 0, 20, -20),
    "client-run-writes": Guard("writes to each server, 20 batches in one turn", 2, 2),
    "client-future": Guard("calls at a client, an event through a future", 6, 6.6),
    "client-future-steps": Guard("instructions at a client, an event through a future", 68, 75),
    "client-writes": Guard("writes to each server, an append or a batch", 1, 1),
    "client-paced-writes": Guard("the same if the client pauses: with the mark", 2, 2),
    "reader-event": Guard("calls at a reader, an event one by one", 3, 3.3),
    "reader-batched-event": Guard("calls at a reader, an event in batches", 1, 1.1),
    "copies-client": Guard("copies of a payload of 1 MiB that a client holds at once", 1, 1.1),
    "copies-server": Guard("copies of it that a server holds at once", 1, 1.1),
    "copies-read": Guard("copies of it that a read from memory makes", 0, 0.1),
    "copies-disk-read": Guard("copies of it that a read from the disk holds at once", 3, 3.2),
    "copies-reader": Guard("copies that a server in memory and a reader hold at once", 5, 5.3),
    "flight-blocks": Guard("blocks of memory, an event in flight through a future", 1, 1.1),
    "flight-bytes": Guard("bytes, an event in flight through a future", 162, 178),
    "left-client": Guard("bytes left at a client, an acknowledged append", 4, 24, -24),
    "left-server": Guard(
        "bytes left at a server, a truncated frame in the extent that is written", 17, 24
    ),
    "idle-server": Guard("bytes at a server, an idle stream", 3100, 3400),
    "idle-master": Guard("bytes at the master, an idle stream", 2180, 2400),
}


def hold(name: str, found: float) -> None:
    """Fail if a cost is past its bound, or so low that the count must be blind, or its bound stale."""
    guard = GUARDS[name]
    least = guard.today / 2 if guard.least is None else guard.least
    assert found <= guard.most, f"{name}: {guard.what}: {found:g}, at most {guard.most:g}"
    assert found >= least, f"{name}: {guard.what}: only {found:g}: lower its bound"


def caught(name: str, found: float) -> bool:
    """Whether the guard fails for this cost, as it must for a slowdown that was put in on purpose."""
    return found > GUARDS[name].most
