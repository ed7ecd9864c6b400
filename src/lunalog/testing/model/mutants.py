"""Models with one rule broken: each must be found out, or its model sees nothing.

A mutant replaces the one method that states the rule.
"""

from __future__ import annotations

from lunalog.testing.model import close, durable, grant, reader, recover, roll, wipe


class OneFenceTooFew(recover.Recover):
    """R6: S - 1 answers decide."""

    def fences_needed(self, members: int) -> int:
        """One less."""
        return super().fences_needed(members) - 1


class FenceWithoutPromise(recover.Recover):
    """R5: an answer that promises nothing."""

    def promised(self, promise: int, recoverer: int) -> int:
        """Forget it."""
        del recoverer
        return promise


class CommitBeforeCarryOver(recover.Recover):
    """R7: the transaction is sent before C0..T is durable on the new set."""

    def may_commit(self, state: recover.State, j: int) -> bool:
        """Compare the head only."""
        return self.head_is(state, j, state.plans[j][0])


class CommitWithoutComparing(recover.Recover):
    """R8: a blind put instead of a compare-and-swap."""

    def head_is(self, state: recover.State, j: int, old: int) -> bool:
        """Whatever it is."""
        del state, j, old
        return True

    def is_overtaken(self, state: recover.State, j: int) -> bool:
        """Nobody ever is."""
        del state, j
        return False


class SmallestEnd(recover.Recover):
    """R6: T is the smallest end."""

    def tails(
        self, base: int, answers: list[recover.Server], others: list[recover.Server], old: int
    ) -> range:
        """Keep what all answers hold."""
        del others
        least = max(base, min(server.ends[old] for server in answers))
        return range(least, least + 1)


class BaseAtLargestEnd(recover.Recover):
    """R7: the row ends at T instead of C0."""

    def base(self, first: int, answers: list[recover.Server], old: int) -> int:
        """Take what one server holds for what A hold."""
        return max(first, *(server.ends[old] for server in answers))


class MarkOfTheServer(recover.Recover):
    """R12: one commit mark a server, for all its segments."""

    def mark_of(self, server: recover.Server, j: int, committed: int) -> recover.Server:
        """Raise it everywhere."""
        del j
        raised = (
            mark if end == recover.NOT_OPEN else max(mark, committed)
            for mark, end in zip(server.marks, server.ends, strict=True)
        )
        return server._replace(marks=tuple(raised))


class AcksBeforeTheTransaction(roll.Roll):
    """R11: acks of the new set count before the roll is known."""

    def counted(self, state: roll.State) -> int:
        """Count whichever is further."""
        ahead = state.leader.ahead
        return max(super().counted(state), self.held(state.servers, ahead) if ahead else 0)


class AcksOfAnOldSet(roll.Roll):
    """R4: acks of a set that was left go on counting."""

    def counted(self, state: roll.State) -> int:
        """Count a server's furthest end, in whichever segment."""
        ends = sorted((max(s.ends) for s in state.servers), reverse=True)
        return super().counted(state) if state.leader.ahead else ends[self.a - 1]


class AcksBeyondTheBoundary(roll.Roll):
    """R11: acks of the old set count beyond the boundary."""

    def counted(self, state: roll.State) -> int:
        """Forget the boundary."""
        return self.held(state.servers, state.leader.current)


class UnchangedMeansFailed(roll.Roll):
    """R28: the head has not changed, so the transaction must have failed."""

    def may_take_back(self, state: roll.State) -> bool:
        """Take the roll back."""
        return state.open == state.leader.current


class RollAheadOfItsBoundary(roll.Roll):
    """R11: the transaction is sent while events below the boundary lack acks."""

    def may_send(self, state: roll.State, old: int, boundary: int, ahead: int) -> bool:
        """Ask at once."""
        del old, boundary
        working = sum(s.ends[ahead] != roll.NOT_OPEN for s in state.servers)
        return working >= self.a


class GrantInAnotherRecord(roll.Roll):
    """R1: the epoch is not in the record that guards the open segment."""

    def compares(self, state: roll.State, old: int) -> bool:
        """Compare the open segment only."""
        return state.open == old

    def takes_over(self, state: roll.State) -> bool:
        """Compare the epoch only."""
        return state.epoch == 2


class ToldBeforeTheTransaction(grant.Grant):
    """R1: the peer is told while the transaction is under way."""

    def tells_early(self) -> bool:
        """Be quick."""
        return True


class BlindPut(grant.Grant):
    """R1: the grant is written without comparing."""

    def can_land(self, record: grant.Record, txn: tuple[int, ...]) -> bool:
        """Whatever is there."""
        del record, txn
        return True


class MineIfTheEpochFits(grant.Grant):
    """R28: after silence, an epoch that fits is taken for one's own."""

    def is_mine(self, record: grant.Record, master: grant.Master) -> bool:
        """Look at the epoch only."""
        return record.epoch == master.seen.epoch + 1


class NameForAnIncarnation(grant.Grant):
    """R2: a restarted peer goes on under its old epoch."""

    def incarnation(self, peer: int, life: int) -> int:
        """A peer is its name."""
        del life
        return 1 + peer


class WipedUnderItsOldName(wipe.Consequence):
    """R19: an empty disk keeps its incarnation."""

    def wiped(self, server: wipe.Server) -> wipe.Server:
        """Vote on."""
        return super().wiped(server)._replace(lives=1)


class OldImageUnderItsName(wipe.Consequence):
    """R19: an old image keeps its incarnation."""

    def set_back(self, server: wipe.Server, end: int, fenced: int) -> wipe.Server:
        """Vote on."""
        return super().set_back(server, end, fenced)._replace(lives=1)


class DamageIsAbsence(wipe.Consequence):
    """R18: what cannot be read was never there."""

    def lacks(self, server: wipe.Server, s: int) -> bool:
        """Count it as a negative."""
        return super().lacks(server, s) or bool(server.told and server.unknown >> s & 1)


class DamagedTailIsTorn(wipe.Consequence):
    """R17, R18: a damaged end is cut as if it had never been synced."""

    def tail_damaged(self, server: wipe.Server) -> wipe.Server:
        """Vote on."""
        return super().tail_damaged(server)._replace(lives=1)


class LargestEnd(wipe.Wipe):
    """R6: T is the largest end, also where nobody can read what is below."""

    def may_end(self, servers: tuple[wipe.Server, ...], s: int) -> bool:
        """Wait until all is read that somebody said to hold."""
        return super().may_end(servers, s) and all(server.told <= s + 1 for server in servers)


class AckBeforeSync(durable.Durable):
    """R16: an ack rests on what is written."""

    def may_say(self, server: durable.Server, record: int) -> int:
        """Speak of the whole log."""
        return len(server.log) if record == durable.EVENT else super().may_say(server, record)


class FenceBeforeSync(durable.Consequence):
    """R5, R16: a fence is answered when its promise is written."""

    def may_say(self, server: durable.Server, record: int) -> int:
        """Speak of the whole log."""
        return len(server.log) if record == durable.PROMISE else super().may_say(server, record)


class BootWithoutSync(durable.Consequence):
    """R16: what the page cache holds is taken for durable at boot."""

    def booted(self, server: durable.Server) -> durable.Server:
        """Believe it."""
        return server._replace(runs=1, synced=len(server.log))


class BootWithoutRewriting(durable.Consequence):
    """R16: boot syncs, but pages that a failed sync left clean are passed over."""

    def booted(self, server: durable.Server) -> durable.Server:
        """Sync what is dirty."""
        return durable.synced(server)._replace(runs=1)


class SyncTriedAgain(durable.Consequence):
    """R16, D2: a failed sync is repeated."""

    def sync_failed(self, server: durable.Server) -> durable.Server:
        """Go on."""
        return super().sync_failed(server)._replace(runs=1)


class OneMarkForAllSegments(reader.Reader):
    """R12: a replica of the old segment takes the new one's mark for its own."""

    def marked(self, server: reader.Server, committed: int) -> reader.Server:
        """Raise both."""
        return server._replace(new_mark=committed, old_mark=max(server.old_mark, committed))


class MarkLostAtRestart(reader.Reader):
    """R12: the mark lives in memory only."""

    def restarted(self, server: reader.Server) -> reader.Server:
        """Forget it."""
        return server._replace(old_mark=0)


class ServesWhatItHolds(reader.Reader):
    """R12: a replica shows all that it holds."""

    def readable(self, server: reader.Server) -> int:
        """Look at the end only."""
        return server.old


class SilenceEndsASegment(reader.Reader):
    """R13: where a server has no more, and says that the segment is sealed, the segment ends."""

    def ends(self, state: reader.State, server: reader.Server) -> int:
        """Believe a server that is fenced."""
        end = super().ends(state, server)
        return server.old if end < 0 and state.base >= 0 and server.fenced else end


class SealQuorumOfChecks(reader.Reader):
    """R14: S confirmations where A are needed."""

    def checks_needed(self) -> int:
        """Count S."""
        return self.n - self.a + 1


class CheckBeforeTheRead(reader.Reader):
    """R14: a confirmation from before the read counts."""

    def may_check(self, state: reader.State, server: reader.Server) -> bool:
        """At any time."""
        del state
        return not server.fenced


class AcksWhileClosing(close.Close):
    """R31: the leader that resigns acknowledges on while its transaction is under way."""

    def may_ack(self, state: close.State) -> bool:
        """Always."""
        del state
        return True


class CloseAtTheTail(close.Close):
    """R31: who resigns closes at its tail instead of C."""

    def end(self, state: close.State) -> int:
        """Take what was sent for what is held."""
        return state.sent


class CustodianForgetsTheTail(close.Close):
    """R31: the custodian closes at C0 and carries nothing over."""

    def kept(self, base: int, tail: int) -> int:
        """Keep what is on A members already."""
        del tail
        return base


class CustodianTooEarly(close.Close):
    """R31: the custodian's transaction is sent before its carry-over is durable."""

    def is_carried(self, state: close.State) -> bool:
        """Do not look."""
        del state
        return True


class BlindClose(close.Close):
    """R8, R31: a close that was in flight lands on whatever head it finds."""

    def compares(self, state: close.State) -> bool:
        """Compare nothing."""
        del state
        return True


class TrimBeyondTheCommit(close.Close):
    """R22: a trim at the tail."""

    def trims_to(self, state: close.State) -> int:
        """Take the tail."""
        return state.sent


class BytesBeforeTheRecord(close.Close):
    """R22: bytes go before the head says so."""

    def may_delete(self, state: close.State) -> int:
        """Go by what was asked for."""
        return max(state.trim, state.asked_trim)


class BaseBelowTheTrim(close.Close):
    """R7: the walk begins where nobody has the bytes any more."""

    def base(self, state: close.State, known: list[int]) -> int:
        """Leave the trim out."""
        del state
        return max(known)
