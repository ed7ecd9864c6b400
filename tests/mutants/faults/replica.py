"""Faults of what a server decides: appends, marks, certificates, trims and drops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.mutants.registry import fault

from lunalog.core.effects import SendFrom
from lunalog.core.held import SegmentReplica, StreamReplica
from lunalog.core.replica import Replica
from lunalog.errors import FencedError


@fault("R3", "a lower epoch may append", "zombie", "lunalog.core.replica:Replica._check")
def lower_epochs_accepted(real: Any, state: StreamReplica, promise: Any) -> None:
    try:
        real(state, promise)
    except FencedError:
        return


@fault(
    "R3, trap 8",
    "two leaders of one epoch are not told apart",
    "twins",
    "lunalog.core.replica:Replica._check",
)
def twin_leaders(real: Any, state: StreamReplica, promise: Any) -> None:
    if state.is_deleted or promise.epoch != state.promise.epoch:
        real(state, promise)


@fault(
    "R3, trap 33",
    "a member that comes back is sent what is new only, and accepts it behind the gap",
    "takeover",
    "lunalog.core.replica:Replica.append",
    "lunalog.core.leader_state:LeaderState.opened",
)
def gaps_accepted(real: Any, self: Any, *rest: Any) -> Any:
    if real.__name__ == "append":
        _, held, first, *_ = rest
        held.end = max(held.end, first)
        return real(self, *rest)
    found = real(self, *rest)
    return [replace(e, start=self.tail) if isinstance(e, SendFrom) else e for e in found]


@fault(
    "R12",
    "a committed mark is kept for the stream, not for the segment",
    "stale",
    "lunalog.core.replica:Replica.mark",
)
def mark_kept_per_stream(real: Any, self: Replica, held: SegmentReplica, committed: int) -> bool:
    for state in self.streams.values():
        if held in state.segments.values():
            for other in state.segments.values():
                real(self, other, committed)
    return True


@fault(
    "R12",
    "readers get all that is durable",
    "stale",
    "lunalog.core.held:SegmentReplica.readable",
)
def durable_is_readable(real: Any, self: SegmentReplica) -> int:
    return int(self.durable) if self.certificate is None else int(real(self))


@fault(
    "R21, trap 21",
    "a certificate cuts at what is known to be committed",
    "takeover",
    "lunalog.core.replica:Replica.certify",
)
def cut_at_the_mark(real: Any, self: Replica, certificate: Any) -> Any:
    held, is_new = real(self, certificate)
    if held.first < held.committed < held.end:
        held.end = held.committed
        held.durable = min(held.durable, held.end)
    return held, is_new


@fault(
    "R21",
    "a certificate leaves what lies behind the end",
    "takeover",
    "lunalog.core.replica:Replica.certify",
)
def suffix_not_cut(real: Any, self: Replica, certificate: Any) -> Any:
    held = self.find(certificate.stream, certificate.row.id)
    if held is None or held.end <= certificate.row.end:
        return real(self, certificate)
    held.certificate = certificate
    return held, True


@fault(
    "R21",
    "a replica is complete once it knows the end",
    "takeover",
    "lunalog.core.held:SegmentReplica.is_complete",
)
def complete_without_the_bytes(real: Any, self: SegmentReplica) -> bool:
    return self.certificate is not None


@fault(
    "R22",
    "a trim takes a little more than was truncated",
    "trims",
    "lunalog.core.replica:Replica.trim",
)
def trims_too_much(real: Any, self: Replica, stream: bytes, before: int, version: int) -> bool:
    return bool(real(self, stream, before + 50, version))


@fault(
    "R22, trap 9",
    "a deleted stream leaves no trace, so that appends bring it back",
    "deleted",
    "lunalog.core.replica:Replica.delete",
)
def deleted_without_trace(real: Any, self: Replica, stream: bytes, promise: Any) -> bool:
    return True


@fault(
    "R30",
    "a drop counts, however old it is",
    "stale_drop",
    "lunalog.core.replica:Replica.drop",
)
def stale_drop(
    real: Any, self: Replica, stream: bytes, segment: Any, promise: Any, version: int
) -> bool:
    return bool(real(self, stream, segment, promise, version + 1_000))
