"""What replicas said that the head does not explain: look at the head again before judging (R6, R25)."""

from __future__ import annotations

from lunalog.core.effects import Effect, RereadHead
from lunalog.errors import FencedError, GoneError, LunalogError, SealedError
from lunalog.types import Promise, SegmentId, StreamHead


class Doubts:
    """Promises above ours, and certificates for a segment that the head calls open."""

    def __init__(self) -> None:
        self._suspicions: list[Promise | SegmentId] = []
        self._asked: list[Promise | SegmentId] = []
        """Those that came before the head was asked for: its answer judges no later ones."""
        self._is_rereading = False

    @property
    def is_open(self) -> bool:
        """True while something waits for a re-read."""
        return self._is_rereading or bool(self._suspicions or self._asked)

    def told(self, segment: SegmentId, error: LunalogError) -> list[Effect]:
        """Look at the head again if a replica's `error` says that the world has moved on."""
        if isinstance(error, FencedError):
            return self.suspect(Promise(error.epoch, error.incarnation))
        if isinstance(error, SealedError):
            return self.suspect(segment)
        return self.reread() if isinstance(error, GoneError) else []

    def suspect(self, what: Promise | SegmentId) -> list[Effect]:
        """A replica holds `what`: a promise, or a certificate for a segment."""
        if what not in (*self._suspicions, *self._asked):
            self._suspicions.append(what)
        return self.reread()

    def reread(self) -> list[Effect]:
        """Ask for the head, unless that is under way."""
        if self._is_rereading:
            return []
        self._is_rereading = True
        self._asked += self._suspicions
        self._suspicions = []
        return [RereadHead()]

    def unread(self) -> None:
        """The head did not come: the next tick asks again."""
        self._is_rereading = False

    def again(self) -> list[Effect]:
        """Ask again if an answer is still owed."""
        return self.reread() if self._suspicions or self._asked else []

    def judge(self, head: StreamHead) -> str:
        """Return the proof, given the re-read head, that the metadata went back; or nothing (R25)."""
        self._is_rereading = False
        suspicions, self._asked = self._asked, []
        for found in suspicions:
            if isinstance(found, SegmentId):
                if head.open is not None and head.open.id == found:
                    return f"segment {found} is open, and a replica has its certificate"
            elif found.epoch > head.epoch or (found.epoch == head.epoch and found != head.promise):
                return (
                    f"the head is at epoch {head.epoch}, and a replica has promised {found.epoch}"
                )
        return ""
