"""R6's proof obligations, against a model of appends, acks and fences in any order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lunalog.core import chain as chains
from lunalog.core.outbox import CopiedFrame
from lunalog.core.quorum import held_by, seal_quorum
from lunalog.core.recovery import FenceAnswer, Recovery, Stage
from lunalog.errors import PeerError
from lunalog.types import Member, OpenSegment, SegmentId

FIRST, CHAIN = 100, 7


def frames_of(counts: list[int]) -> tuple[list[CopiedFrame], list[int], list[int]]:
    """Frames, and the bounds and chains between them."""
    frames, ends, links = [], [FIRST], [CHAIN]
    for index, count in enumerate(counts):
        frames.append(CopiedFrame(ends[-1], count, index * 31 + 5, b"%d" % index))
        links.append(chains.extend(links[-1], ends[-1], count, index * 31 + 5))
        ends.append(ends[-1] + count)
    return frames, ends, links


def members_of(n: int) -> tuple[Member, ...]:
    return tuple(Member(f"s{i}", 1) for i in range(n))


def open_segment(n: int, a: int) -> OpenSegment:
    return OpenSegment(SegmentId(4, 0), FIRST, CHAIN, members_of(n), a)


class Model:
    """N servers that take frames of one segment until they are fenced."""

    def __init__(self, n: int, a: int, chance: random.Random) -> None:
        self.n, self.a, self.chance = n, a, chance
        self.frames, self.ends, self.links = frames_of([chance.randint(1, 5) for _ in range(8)])
        self.held = [0] * n  # frames
        self.acked = [0] * n  # frames the leader has heard acks of
        self.known = [0] * n  # frames known committed there
        self.committed = 0
        self.bad: dict[int, str] = {}
        self.answers: dict[int, FenceAnswer] = {}
        self.recovery = Recovery(open_segment(n, a), 0)
        self.members = members_of(n)

    def step(self) -> None:
        """The old leader goes on writing, and acks what it hears."""
        who = self.chance.randrange(self.n)
        what = self.chance.random()
        if what < 0.5 and who not in self.answers and self.held[who] < len(self.frames):
            self.held[who] += 1
            self.known[who] = max(self.known[who], self.chance.randint(0, self.committed))
        elif what < 0.9 and who not in self.bad:
            self.acked[who] = self.chance.randint(self.acked[who], self.held[who])
            self.committed = max(self.committed, held_by(self.acked, self.a))

    def spoil(self) -> None:
        """At most A-1 members lose something, or are gone."""
        for who in self.chance.sample(range(self.n), self.chance.randint(0, self.a - 1)):
            self.bad[who] = self.chance.choice(["damaged", "wiped", "gone"])

    def fence(self, who: int) -> None:
        kind = self.bad.get(who)
        if kind == "gone":
            return
        if kind == "wiped":
            self.recovery.refused(self.members[who])
            return
        if who not in self.answers:
            held = self.held[who]
            unknown = ()
            if kind == "damaged":
                first = self.chance.randint(0, held)
                unknown = ((self.ends[first], self.ends[held] + 3),)
            self.answers[who] = FenceAnswer(
                end=self.ends[held],
                chain=self.links[held],
                committed=self.ends[self.known[who]],
                unknown=unknown,
            )
        self.recovery.fenced(self.members[who], self.answers[who])

    def read(self, member: Member, start: int) -> None:
        who = self.members.index(member)
        held = self.ends[self.held[who]]
        is_bad = who in self.bad and not (
            self.bad[who] == "damaged" and not self.answers[who].is_damaged(start)
        )
        if is_bad or start >= held or self.chance.random() < 0.2:
            self.recovery.unread(member, start)
            return
        index = next(i for i, f in enumerate(self.frames) if f.first + f.count > start)
        until = self.chance.randint(index + 1, self.held[who])
        found = self.frames[index:until]
        self.recovery.copied(member, start, self.links[index], found)

    def decide(self) -> None:
        """Read and retry until it is decided, while late appends go on."""
        for _ in range(500):
            for _ in range(self.chance.randint(0, 2)):
                self.step()
            wanted = self.recovery.next_read()
            if wanted is not None:
                self.read(*wanted)
            elif self.recovery.stage is Stage.DECIDED:
                break
            else:
                self.recovery.retry()


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([(3, 2), (5, 3), (4, 2), (4, 3), (5, 4), (3, 3), (2, 2), (1, 1)]), st.randoms()
)
def test_t_is_never_below_an_acked_sequence_and_always_decided(
    quorums: tuple[int, int], chance: random.Random
) -> None:
    """Appends, acks, fences, losses in any order; then everybody answers who still can."""
    n, a = quorums
    model = Model(n, a, chance)
    for _ in range(chance.randint(0, 60)):
        model.step()
    model.spoil()
    for who in chance.sample(range(n), n):
        for _ in range(chance.randint(0, 12)):
            model.step()
            if chance.random() < 0.3 and (wanted := model.recovery.next_read()) is not None:
                model.read(*wanted)
        model.fence(who)
        if chance.random() < 0.3:
            model.fence(chance.randrange(n))
    model.decide()
    decision = model.recovery.decision
    assert decision is not None, "stuck with at most A-1 bad members"
    for _ in range(30):
        model.step()  # late acks of what was written before the fences
    assert decision.tail >= model.ends[model.committed]
    assert decision.end <= decision.tail
    at = model.ends.index(decision.end)
    assert decision.chain == model.links[at]
    assert decision.frames == model.frames[at : model.ends.index(decision.tail)]
    assert len(model.recovery.answers) >= seal_quorum(n, a)


def answer(frames: int, ends: list[int], links: list[int], **fields: object) -> FenceAnswer:
    return FenceAnswer(end=ends[frames], chain=links[frames], **fields)  # type: ignore[arg-type]


def test_fewer_than_s_fences_decide_nothing() -> None:
    _, ends, links = frames_of([1])
    recovery = Recovery(open_segment(3, 2), 0)
    recovery.fenced(Member("s0", 1), answer(0, ends, links))
    recovery.fenced(Member("s0", 1), answer(0, ends, links))
    assert recovery.next_read() is None
    assert recovery.stage is Stage.FENCING
    recovery.fenced(Member("s1", 1), answer(0, ends, links))
    recovery.next_read()
    assert recovery.decision is not None
    assert (recovery.decision.end, recovery.decision.tail) == (FIRST, FIRST)


def test_a_stranger_has_no_vote() -> None:
    _, ends, links = frames_of([1])
    recovery = Recovery(open_segment(3, 2), 0)
    for name in ("s0", "x", "y"):
        recovery.fenced(Member(name, 1), answer(0, ends, links))
    assert recovery.next_read() is None
    assert recovery.decision is None


def test_one_copy_is_kept_and_carried_over() -> None:
    frames, ends, links = frames_of([2, 3])
    recovery = Recovery(open_segment(3, 2), 0)
    recovery.fenced(Member("s0", 1), answer(2, ends, links))
    recovery.fenced(Member("s1", 1), answer(1, ends, links))
    assert recovery.next_read() == (Member("s0", 1), ends[1])
    recovery.copied(Member("s0", 1), ends[1], links[1], frames[1:])
    assert recovery.next_read() is None
    assert recovery.decision is not None
    assert (recovery.decision.end, recovery.decision.tail) == (ends[1], ends[2])
    assert recovery.decision.frames == frames[1:]


def test_damage_is_no_negative_and_waits_for_a_witness() -> None:
    frames, ends, links = frames_of([2, 3])
    recovery = Recovery(open_segment(3, 2), 0)
    recovery.fenced(Member("s0", 1), answer(2, ends, links, unknown=((ends[0], ends[2] + 9),)))
    recovery.fenced(Member("s1", 1), answer(1, ends, links))
    assert recovery.next_read() == (Member("s1", 1), FIRST)
    recovery.copied(Member("s1", 1), FIRST, links[0], frames[:1])
    assert recovery.next_read() is None, "one negative and one damaged range decide nothing"
    recovery.refused(Member("s2", 1))  # lives under another incarnation: no vote, but bytes
    assert recovery.next_read() == (Member("s2", 1), ends[1])
    recovery.copied(Member("s2", 1), ends[1], links[1], frames[1:])
    assert recovery.next_read() == (Member("s2", 1), ends[2])
    recovery.unread(Member("s2", 1), ends[2])
    assert recovery.next_read() is None, "a server without a vote gives no negative"
    assert recovery.decision is None
    recovery.fenced(Member("s2", 1), answer(2, ends, links))
    recovery.next_read()
    assert recovery.decision is not None
    assert recovery.decision.tail == ends[2]


def test_damage_does_not_block_what_s_negatives_decide() -> None:
    _, ends, links = frames_of([2, 3])
    recovery = Recovery(open_segment(3, 2), 0)
    recovery.fenced(Member("s0", 1), answer(2, ends, links, unknown=((ends[0], ends[2]),)))
    recovery.fenced(Member("s1", 1), answer(0, ends, links))
    recovery.fenced(Member("s2", 1), answer(0, ends, links))
    recovery.next_read()
    assert recovery.decision is not None
    assert recovery.decision.tail == FIRST


def test_a_reported_committed_above_the_end_is_evidence_and_never_clamped() -> None:
    _, ends, links = frames_of([2, 3])
    recovery = Recovery(open_segment(3, 2), 0)
    recovery.fenced(Member("s0", 1), answer(1, ends, links, committed=ends[2]))
    recovery.fenced(Member("s1", 1), answer(1, ends, links))
    assert recovery.next_read() is None
    assert recovery.decision is None
    assert recovery.lost_evidence() == ends[2]
    recovery.fenced(Member("s2", 1), answer(2, ends, links))
    assert recovery.lost_evidence() is None
    recovery.next_read()
    assert recovery.decision is not None
    assert recovery.decision.tail == ends[2]


def test_a_trim_inside_a_frame_counts_as_its_first() -> None:
    frames, ends, links = frames_of([2, 4])
    recovery = Recovery(open_segment(3, 2), ends[1] + 1)
    for name in ("s0", "s1"):
        recovery.fenced(Member(name, 1), answer(2, ends, links, committed=ends[1]))
    # both hold everything: nothing above the A-th largest end is in doubt
    recovery.next_read()
    assert recovery.decision is not None
    assert recovery.decision.end == ends[2]
    recovery = Recovery(open_segment(4, 3), ends[1] + 1)
    for name, held in (("s0", 2), ("s1", 2)):
        recovery.fenced(Member(name, 1), answer(held, ends, links))
    assert recovery.next_read() == (Member("s0", 1), ends[1] + 1)
    recovery.copied(Member("s0", 1), ends[1] + 1, links[1], frames[1:])
    recovery.next_read()
    assert recovery.decision is not None
    assert (recovery.decision.end, recovery.decision.chain) == (ends[1], links[1])
    assert recovery.decision.frames == frames[1:]


def test_a_trim_between_frames_that_nobody_ends_at_learns_its_chain_from_the_read() -> None:
    frames, ends, links = frames_of([2, 4])
    recovery = Recovery(open_segment(4, 3), ends[1])
    for name in ("s0", "s1"):
        recovery.fenced(Member(name, 1), answer(2, ends, links))
    assert recovery.next_read() == (Member("s0", 1), ends[1])
    assert recovery.copied(Member("s0", 1), ends[1], links[1], frames[1:])
    assert recovery.next_read() is None
    assert recovery.decision is not None
    assert (recovery.decision.end, recovery.decision.chain) == (ends[1], links[1])
    assert recovery.decision.frames == frames[1:]
    decided = recovery.decision
    assert recovery.next_read() is None, "it is decided once"
    assert recovery.decision is decided


def test_a_member_of_another_life_is_one_witness_and_a_stranger_none() -> None:
    recovery = Recovery(open_segment(3, 2), 0)
    for member in (Member("s2", 1), Member("s2", 1), Member("x", 1)):
        recovery.refused(member)
    assert recovery.witnesses == [Member("s2", 1)]


def test_frames_that_do_not_fit_are_not_believed() -> None:
    frames, ends, links = frames_of([2, 3])
    recovery = Recovery(open_segment(3, 2), 0)
    for name, held in (("s0", 2), ("s1", 1)):
        recovery.fenced(Member(name, 1), answer(held, ends, links))
    recovery.next_read()
    assert not recovery.copied(Member("s0", 1), ends[1], links[1] + 1, frames[1:])
    assert recovery.next_read() is None, "nobody else has it"
    recovery.retry()
    assert recovery.next_read() == (Member("s0", 1), ends[1])
    assert not recovery.copied(Member("s0", 1), ends[1], links[1], [])


def test_two_contents_below_one_end_stop_everything() -> None:
    _, ends, links = frames_of([2])
    recovery = Recovery(open_segment(3, 2), 0)
    recovery.fenced(Member("s0", 1), answer(1, ends, links))
    recovery.fenced(Member("s1", 1), FenceAnswer(end=ends[1], chain=links[1] + 1))
    with pytest.raises(PeerError):
        recovery.next_read()


def test_a_member_that_never_saw_the_segment_says_nothing_of_its_chain() -> None:
    """Its reply has no chain to show; the head's own is the one that counts."""
    members = tuple(Member(f"s{n}", 1) for n in range(3))
    segment = OpenSegment(SegmentId(3, 0), 7, 0xABC, members, 2)
    recovery = Recovery(segment, 0)
    for member in members[:2]:
        recovery.fenced(member, FenceAnswer(end=7, chain=0))
    assert recovery.next_read() is None
    assert recovery.decision is not None
    assert (recovery.decision.end, recovery.decision.chain) == (7, 0xABC)


def test_the_chain_behind_a_damaged_frame_is_not_compared() -> None:
    members = tuple(Member(f"s{n}", 1) for n in range(3))
    recovery = Recovery(OpenSegment(SegmentId(3, 0), 0, 0, members, 2), 0)
    recovery.fenced(members[0], FenceAnswer(end=4, chain=0xABC, committed=4))
    recovery.fenced(members[1], FenceAnswer(end=4, chain=0, committed=4, unknown=((2, 4),)))
    recovery.next_read()
    assert recovery.decision is None or recovery.decision.chain == 0xABC


def walking() -> tuple[Recovery, list[CopiedFrame], list[int]]:
    """A recovery that asks for the second of three frames of two events each."""
    frames, ends, links = frames_of([2, 2, 2])
    recovery = Recovery(open_segment(3, 2), 0)
    for member, held in zip(members_of(2), (1, 3), strict=False):
        recovery.fenced(member, FenceAnswer(end=ends[held], chain=links[held]))
    assert recovery.next_read() == (members_of(3)[1], ends[1])
    return recovery, frames, links


def test_copies_that_come_late_or_leave_a_hole_end_nothing() -> None:
    recovery, frames, links = walking()
    member = members_of(3)[1]
    assert not recovery.copied(member, FIRST, links[0], frames[:1]), "that is past"
    assert not recovery.copied(member, FIRST + 2, links[0], frames[:1]), "nothing new in it"
    recovery.retry()
    assert recovery.next_read() == (member, FIRST + 2)
    recovery.unread(member, FIRST)
    assert recovery.next_read() == (member, FIRST + 2), "that read was another one"
    again = [frames[1], frames[1], frames[2]]
    assert recovery.copied(member, FIRST + 2, links[1], again)
    assert recovery.next_read() == (member, FIRST + 4), "what does not join is left"


def test_one_fence_late_at_where_the_walk_stands_is_compared() -> None:
    recovery, _, links = walking()
    with pytest.raises(PeerError, match="two contents"):
        recovery.fenced(members_of(3)[2], FenceAnswer(end=FIRST + 2, chain=links[1] + 1))
    recovery, frames, links = walking()
    recovery.copied(members_of(3)[1], FIRST + 2, links[1], frames[1:2])
    assert recovery.fenced(members_of(3)[2], FenceAnswer(end=FIRST + 4, chain=links[2]))
