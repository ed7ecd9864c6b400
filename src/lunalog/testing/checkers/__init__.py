"""One small function an invariant: a `History` in, a `Finding` out (docs/protocol.md, invariants).

Each is pure and takes n log n steps at most, so that it serves a simulated schedule and the history
of a long run over real processes alike.  I19 belongs to the archive, and is not here yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lunalog.testing.checkers.copies import (
    content_identity,
    integrity,
    lacking,
    local_durability,
    replication,
    sealed_is_immutable,
)
from lunalog.testing.checkers.events import (
    at_most_once,
    density,
    no_acked_loss,
    prefix_agreement,
    session_order,
)
from lunalog.testing.checkers.leadership import (
    fencing_holds,
    metadata_is_monotone,
    one_leader_per_epoch,
)
from lunalog.testing.checkers.liveness import (
    gray_is_bounded,
    nothing_waits_unbounded,
    recovery_is_live,
)
from lunalog.testing.checkers.reads import committed_is_monotone, linearizable_reads
from lunalog.testing.checkers.truth import (
    denials_are_true,
    removals_are_allowed,
    suffix_cuts_are_certified,
)
from lunalog.testing.history import Finding, History

Checker = Callable[[History], Finding]

CHECKERS: Final[dict[str, Checker]] = {
    "I1": prefix_agreement,
    "I2": no_acked_loss,
    "I3": at_most_once,
    "I4": one_leader_per_epoch,
    "I5": metadata_is_monotone,
    "I6": fencing_holds,
    "I7": content_identity,
    "I8": linearizable_reads,
    "I9": local_durability,
    "I10": committed_is_monotone,
    "I11": replication,
    "I12": integrity,
    "I13": denials_are_true,
    "I14": removals_are_allowed,
    "I15": sealed_is_immutable,
    "I16": density,
    "I17": session_order,
    "I18": suffix_cuts_are_certified,
    "L1": recovery_is_live,
    "L2": nothing_waits_unbounded,
    "L3": gray_is_bounded,
}
FOCUSED: Final = frozenset({"L3"})
"""Need a schedule of their own: drawn ones give them nothing to look at."""

__all__ = [
    "CHECKERS",
    "FOCUSED",
    "Checker",
    "at_most_once",
    "committed_is_monotone",
    "content_identity",
    "denials_are_true",
    "density",
    "fencing_holds",
    "gray_is_bounded",
    "integrity",
    "lacking",
    "linearizable_reads",
    "local_durability",
    "metadata_is_monotone",
    "no_acked_loss",
    "nothing_waits_unbounded",
    "one_leader_per_epoch",
    "prefix_agreement",
    "recovery_is_live",
    "removals_are_allowed",
    "replication",
    "sealed_is_immutable",
    "session_order",
    "suffix_cuts_are_certified",
]
