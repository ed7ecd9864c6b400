"""Faults of the master: grants, leases, transactions, what servers are admitted as and told."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.mutants.registry import fault

from lunalog.core import streams
from lunalog.core.streams import Change
from lunalog.errors import ConflictError, LunalogError
from lunalog.master.commands import GARBAGE, Commands, Key
from lunalog.master.elections import Elections
from lunalog.master.metadata import Metadata


@fault("R1", "an epoch is granted twice", "takeover", "lunalog.core.streams:grant")
def epoch_reused(real: Any, head: Any, peer: Any) -> Change:
    change = real(head, peer)
    epoch = max(1, head.epoch)
    return Change(msgspec.structs.replace(change.head, epoch=epoch), change.row)


@fault(
    "R1",
    "an epoch is granted while the last lease is good",
    "calm",
    "lunalog.master.elections:Elections.is_vacant",
)
def lease_not_awaited(real: Any, self: Elections, stream: Any) -> bool:
    real(self, stream)
    return True


@fault(
    "R1, trap 31",
    "transactions are written without comparing",
    "frozen",
    "lunalog.master.metadata:Metadata.commit",
)
async def blind_put(real: Any, self: Metadata, compares: Any, puts: Any, deletes: Any = ()) -> Any:
    while True:
        try:
            return await self._store.transact({}, puts, deletes)
        except LunalogError:
            continue


@fault(
    "R2",
    "a late renewal does not keep the epoch",
    "outage",
    "lunalog.core.lease:Leases.is_void",
)
def late_renewal_is_void(real: Any, self: Any, incarnation: bytes, now: float) -> bool:
    session = self.get(incarnation)
    return bool(real(self, incarnation, now)) or session is None or not session.is_beating


@fault(
    "R15, trap 26",
    "a master that starts waits for no lease",
    "outage",
    "lunalog.core.lease:Leases.__init__",
)
def no_wait_after_start(real: Any, self: Any, now: float, lease_s: float, grace_s: float) -> None:
    real(self, now, lease_s, grace_s)
    self.trusted_from = now


@fault(
    "R15",
    "a lease never lapses",
    "zombie",
    "lunalog.core.lease:Leases.is_valid",
)
def lease_never_lapses(real: Any, self: Any, session: Any, now: float) -> bool:
    return bool(session.is_beating)


@fault(
    "R8",
    "the open segment is sealed, and its row forgotten",
    "takeover",
    "lunalog.core.streams:_sealed",
)
def row_forgotten(real: Any, *rest: Any) -> None:
    real(*rest)


@fault(
    "R8",
    "a segment is sealed wherever the leader says, whatever is open",
    "overtaken",
    "lunalog.core.streams:seal",
)
def seal_of_any_segment(real: Any, head: Any, rows: Any, request: Any, **fields: Any) -> Any:
    if head.open is None or request.old is None or head.open.id == request.old:
        return real(head, rows, request, **fields)
    asked = msgspec.structs.replace(request, old=head.open.id, row=None, promise=head.promise)
    return streams._next(head, next=asked.next, chain=asked.chain, open=asked.open)


@fault(
    "R28",
    "a refusal on the version alone ends the leader",
    "contended",
    "lunalog.master.metadata:Metadata.change",
)
async def version_refused(real: Any, self: Metadata, stream: Any, *rest: Any) -> bool:
    if not await real(self, stream, *rest):
        raise ConflictError("the head has moved")
    return True


@fault(
    "R28, trap 41",
    "a transaction without an answer counts as not applied",
    "contended",
    "lunalog.master.metadata:Metadata.commit",
)
async def unknown_is_refused(
    real: Any, self: Metadata, compares: Any, puts: Any, deletes: Any = ()
) -> Any:
    everything = {"active": self._active_version, **compares}
    try:
        return await self._store.transact(everything, puts, deletes)
    except LunalogError:
        return None


@fault(
    "R10",
    "a copy that nobody lists yet is dropped at once",
    "orphans",
    "lunalog.master.commands:Commands._condemn",
)
def no_quarantine(real: Any, self: Commands, duties: Any) -> None:
    for stream, segment in list(duties.suspects):
        del duties.suspects[stream, segment]
        duties.todo[Key(GARBAGE, stream, segment)] = None


@fault(
    "R19, trap 23",
    "a wiped server comes back as the one it was",
    "wipes",
    "lunalog.master.servers:Servers._admit",
)
def wiped_is_the_same(real: Any, self: Any, request: Any) -> Any:
    found = real(self, request)
    known = self._metadata.servers.get(request.name)
    if known is None:
        return found
    return msgspec.structs.replace(found, incarnation=known.incarnation)


@fault(
    "R19, R18",
    "the master does not compare positions, nor believe a server that may have lost something",
    "images",
    "lunalog.master.servers:Servers._admit",
)
def position_not_compared(real: Any, self: Any, request: Any) -> Any:
    known = self._metadata.servers.get(request.name)
    if known is None or request.incarnation != known.incarnation:
        return real(self, request)
    return msgspec.structs.replace(real(self, request), incarnation=known.incarnation)


@fault(
    "R21",
    "nobody tells a replica where its segment ends",
    "takeover",
    "lunalog.client.leader_calls:LeaderCalls.certify",
    "lunalog.master.commands:Commands._certify",
)
def no_certificates(real: Any, *rest: Any) -> None:
    return


@fault(
    "R25",
    "servers' proof that the metadata went back is not looked at",
    "restored",
    "lunalog.core.streams:proof_of_loss",
)
def proof_not_looked_at(real: Any, *rest: Any, **fields: Any) -> str:
    real(*rest, **fields)
    return ""
