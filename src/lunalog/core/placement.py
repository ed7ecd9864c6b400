"""Which servers get the next segment.

At most A-1 of a set in one fault domain, else the domain's loss may lose data; at most N-A where it
can be, else its loss stops writes until a roll.

Source: design.md section 4; R11, I11.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from lunalog.types import Member

if TYPE_CHECKING:
    import random

DOMAINS: Final = ("rack", "host", "disk")
"""Labels that name fault domains, the widest first."""
LOAD_STEPS: Final = 8
"""Free space counts in eighths, so that chance still spreads among servers about equally full."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One live server that takes new segments."""

    member: Member
    labels: tuple[str, ...] = ()
    open_segments: int = 0
    append_bytes_per_s: int = 0
    free_bytes: int = 0
    total_bytes: int = 0

    @property
    def name(self) -> str:
        """The server's name."""
        return self.member.server

    def domain(self, label: str) -> str | None:
        """Return the fault domain of that kind that this server is in."""
        prefix = label + "="
        for found in self.labels:
            if found.startswith(prefix):
                return found
        return None


class Placement(msgspec.Struct, frozen=True):
    """A chosen set, best first, and what it survives."""

    sites: tuple[Site, ...]
    loses_no_data: bool
    """No fault domain holds more than A-1: losing one whole loses no acknowledged event."""
    keeps_writing: bool
    """No fault domain holds more than N-A: losing one whole stops no append."""


def pick(
    sites: Collection[Site],
    replicas: int,
    ack_quorum: int,
    *,
    exclude: Collection[str] = (),
    chance: random.Random,
) -> Placement:
    """Choose up to `replicas` servers: spread first, then the least loaded, then by chance.

    Args:
        sites: Servers that are alive and take new segments.
        replicas: How many are wished for; fewer are returned when there are fewer.
        ack_quorum: A of the segment.
        exclude: Names that must not be chosen.
        chance: Decides among equals.
    """
    left = sorted((s for s in sites if s.name not in exclude), key=lambda s: s.name)
    chance.shuffle(left)
    order = {site.name: n for n, site in enumerate(left)}
    chosen: list[Site] = []
    crowds: Counter[str] = Counter()
    width = min(replicas, len(left))
    strict, loose = max(1, min(ack_quorum - 1, width - ack_quorum)), max(1, ack_quorum - 1)
    while len(chosen) < width:
        best = min(
            left, key=lambda s: (*_crowding(s, crowds, strict, loose), _load(s), order[s.name])
        )
        left.remove(best)
        chosen.append(best)
        crowds.update(_domains(best))
    return Placement(tuple(chosen), *survives(chosen, ack_quorum))


def survives(sites: Sequence[Site], ack_quorum: int) -> tuple[bool, bool]:
    """Say whether losing any one fault domain loses no data, and whether it stops no append.

    A server without a label of a kind is a domain of its own there.
    """
    crowds: Counter[str] = Counter()
    for site in sites:
        crowds.update(_domains(site))
    largest = max(crowds.values(), default=1)
    return largest <= ack_quorum - 1, largest <= len(sites) - ack_quorum


def _domains(site: Site) -> list[str]:
    return [found for label in DOMAINS if (found := site.domain(label)) is not None]


def _crowding(
    site: Site, crowds: Counter[str], strict: int, loose: int
) -> tuple[int, int, tuple[int, ...]]:
    """How many domains would get more than A-1, more than both bounds, and how full each is."""
    after = [crowds[d] + 1 if d is not None else 1 for d in map(site.domain, DOMAINS)]
    return (
        sum(count > loose for count in after),
        sum(count > strict for count in after),
        tuple(after),
    )


def _load(site: Site) -> tuple[int, int, int]:
    used = 0
    if site.total_bytes > 0:
        used = LOAD_STEPS - LOAD_STEPS * max(0, site.free_bytes) // site.total_bytes
    return site.open_segments, used, site.append_bytes_per_s >> 20
