"""The leader's machine against a small world: servers, a master, losses, duplicates, any order.

Several leaders in turn work on one stream.  Each one's effects are executed in random order; answers
are delayed, repeated or lost.  What one leader has committed must be in every later one's log.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lunalog.core import chain as chains
from lunalog.core import effects as fx
from lunalog.core.leader_state import Phase
from lunalog.core.leadership import LeaderMachine
from lunalog.core.outbox import CopiedFrame
from lunalog.core.recovery import FenceAnswer
from lunalog.core.rolling import LeaderSettings
from lunalog.errors import (
    ConflictError,
    FencedError,
    GapError,
    LunalogError,
    MasterUnavailableError,
    NotEnoughServersError,
    NotLeaderError,
    NotOpenError,
    ReplicaConflictError,
    SealedError,
    ServerUnavailableError,
    UnknownDataError,
    WrongIncarnationError,
)
from lunalog.types import (
    Member,
    Peer,
    Policy,
    Promise,
    SegmentId,
    StreamHead,
)

STREAM = b"s" * 16


class Held:
    """One segment at one server."""

    def __init__(self, first: int, chain: int) -> None:
        self.first, self.chain = first, chain
        self.frames: list[CopiedFrame] = []
        self.chains = [chain]
        self.committed = 0
        self.certificate: Any = None

    @property
    def end(self) -> int:
        return self.frames[-1].first + self.frames[-1].count if self.frames else self.first


class Server:
    def __init__(self, name: str) -> None:
        self.name, self.incarnation = name, 1
        self.is_up = True
        self.promise = Promise()
        self.segments: dict[SegmentId, Held] = {}

    @property
    def member(self) -> Member:
        return Member(self.name, self.incarnation)

    def wipe(self) -> None:
        self.incarnation += 1
        self.promise, self.segments = Promise(), {}

    def guard(self, promise: Promise) -> None:
        if not self.is_up:
            raise ServerUnavailableError("down")
        if promise < self.promise:
            raise FencedError("fenced", epoch=self.promise.epoch, incarnation=self.promise.leader)

    def fence(self, segment: SegmentId, first: int, promise: Promise, incarnation: int) -> Any:
        self.guard(promise)
        if incarnation != self.incarnation:
            raise WrongIncarnationError("another life", incarnation=self.incarnation)
        self.promise = promise
        held = self.segments.get(segment)
        if held is None:
            return FenceAnswer(end=first, chain=0), None
        return (
            FenceAnswer(end=held.end, chain=held.chains[-1], committed=held.committed),
            held.certificate,
        )

    def read(self, segment: SegmentId, start: int, promise: Promise) -> Any:
        self.guard(promise)
        held = self.segments.get(segment)
        if held is None:
            raise UnknownDataError("never seen")
        for index, frame in enumerate(held.frames):
            if frame.first + frame.count > start:
                return held.chains[index], held.frames[index : index + 2]
        return 0, []

    def open(self, segment: Any, member: Member, promise: Promise) -> Any:
        self.guard(promise)
        if member.incarnation != self.incarnation:
            raise WrongIncarnationError("another life", incarnation=self.incarnation)
        self.promise = promise
        held = self.segments.setdefault(segment.id, Held(segment.first, segment.chain))
        if held.certificate is not None:
            raise SealedError("sealed")
        return held.end, held.chains[-1]

    def append(self, segment: Any, promise: Promise, member: Member, mark: int, frame: Any) -> int:
        self.guard(promise)
        if member.incarnation != self.incarnation:
            raise WrongIncarnationError("another life", incarnation=self.incarnation)
        held = self.segments.get(segment.id)
        if held is None:
            raise NotOpenError("never opened")
        if held.certificate is not None:
            raise SealedError("sealed")
        held.committed = max(held.committed, mark)
        if frame.first < held.end:
            if frame not in held.frames:
                raise ReplicaConflictError("other bytes")
            return held.end
        if frame.first > held.end:
            raise GapError("gap", end=held.end)
        held.frames.append(frame)
        held.chains.append(chains.extend(held.chains[-1], frame.first, frame.count, frame.crc))
        return held.end


class Leader:
    """Executes one machine's effects in random order."""

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.peer = Peer(name, number.to_bytes(16, "big"))
        self.todo: list[Any] = []
        self.retry: list[Any] = []
        self.acked = 0
        self.events: list[Any] = []
        self.is_frozen = False
        self.is_hasty = True
        """Ticks come at any time, not only when they are due."""
        head = world.grant(self.peer)
        self.m = LeaderMachine(head, self.peer, LeaderSettings(leader_stall_ms=60_000))
        self.frames: dict[int, CopiedFrame] = {}
        self.links: dict[tuple[SegmentId, str], list[CopiedFrame]] = {}
        """Frames on their way on one connection: in order."""
        self.reads: dict[int, int] = {}
        self.do(self.m.start(world.now))

    def do(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, fx.FenceSet):
                self.todo += [("fence", effect.segment, m) for m in effect.segment.members]
            elif isinstance(effect, fx.OpenSet):
                self.todo += [("open", effect.segment, r) for r in effect.segment.replicas]
            elif isinstance(effect, fx.Certify):
                self.todo += [("certify", effect, m) for m in effect.certificate.row.members]
            elif isinstance(effect, fx.CheckSet):
                self.todo += [("check", effect, m) for m in effect.segment.members]
            elif isinstance(effect, fx.SendFrom):
                self.send_from(effect)
            elif isinstance(effect, fx.Led | fx.Ended | fx.Alarm | fx.AnswerRead):
                self.note(effect)
            elif not isinstance(effect, fx.StopFencing | fx.DropSet):
                self.todo.append((type(effect).__name__, effect, None))
        self.note_acks()

    def note(self, effect: Any) -> None:
        self.events.append(effect)
        if isinstance(effect, fx.Led):
            self.frames.update((f.first, f) for f in self.world.log_frames(self.m) if f.first >= 0)
        elif isinstance(effect, fx.AnswerRead) and effect.error is None:
            assert effect.committed >= self.reads[effect.token], "I8: a stale read point"

    def note_acks(self) -> None:
        if self.m.phase is Phase.TAKEOVER:
            return
        committed = self.m.committed
        while self.acked < committed:
            frame = self.frames.get(self.acked)
            if frame is None:
                self.acked += 1
                continue
            self.world.acked(frame)
            self.acked = frame.first + frame.count

    def send_from(self, effect: fx.SendFrom) -> None:
        m = self.m
        key = (effect.segment.id, effect.replica.member.server)
        end = m.next.first if m.next and effect.segment is m.current else m.tail
        found = [
            f for f in self.outbox_frames() if effect.start <= f.first and f.first + f.count <= end
        ]
        self.links[key] = found

    def outbox_frames(self) -> list[CopiedFrame]:
        outbox = self.m.outbox
        found, at = [], outbox.start
        for sent in outbox.between(at, outbox.tail, 1 << 30):
            found.append(msgspec.json.decode(sent.frame, type=CopiedFrame))
            assert found[-1].first == at
            at = sent.end
        return found

    def append(self, chance: random.Random) -> None:
        m = self.m
        if not m.is_accepting:
            return
        count = chance.randint(1, 3)
        copy = CopiedFrame(m.tail, count, chance.getrandbits(32), b"")
        raw = msgspec.json.encode(copy)
        copy = msgspec.structs.replace(copy, frame=raw)
        self.frames[copy.first] = copy
        m.appended(copy.first, count, copy.crc, raw)
        target = m.target
        assert target is not None
        for replica in target.replicas:
            key = (target.id, replica.member.server)
            if replica.is_open and key in self.links:
                self.links[key].append(msgspec.structs.replace(copy, frame=b""))

    def deliver(self, key: tuple[SegmentId, str]) -> None:
        """The next frame of one connection arrives, and its ack comes back."""
        world, m = self.world, self.m
        segment = next((s for s in (m.current, m.next) if s is not None and s.id == key[0]), None)
        frames = self.links[key]
        if segment is None:
            del self.links[key]
            return
        if not frames:
            return
        replica = next(r for r in segment.replicas if r.member.server == key[1])
        if not replica.is_open:
            del self.links[key]
            return
        frame = frames.pop(0)
        try:
            bare = msgspec.structs.replace(frame, frame=b"")
            end = world.servers[key[1]].append(
                segment.segment, m.promise, replica.member, m.mark(segment), bare
            )
        except LunalogError as error:
            del self.links[key]
            self.do(m.refused(segment, replica, error, world.now))
            if replica.failure is None:
                self.retry.append(("open", segment, replica))
            return
        if world.chance.random() < world.loss:
            self.cut(key, segment, replica)
            return
        if segment.accepted(replica, end, m.tail):
            self.do(m.moved(segment, world.now))
        m.trim()

    def cut(self, key: Any, segment: Any, replica: Any) -> None:
        self.links.pop(key, None)
        self.do(self.m.away(segment, replica, self.world.now))
        self.retry.append(("open", segment, replica))

    def step(self) -> None:
        chance = self.world.chance
        if self.is_frozen:
            return
        keys = sorted((key for key, frames in self.links.items() if frames), key=str)
        is_due = self.m.next_tick is not None and (
            self.is_hasty or self.world.now >= self.m.next_tick
        )
        if is_due and chance.random() < 0.05:
            self.tick()
        elif keys and chance.random() < 0.5:
            self.deliver(chance.choice(keys))
        elif self.todo:
            self.execute(*self.todo.pop(chance.randrange(len(self.todo))))
        elif is_due:
            self.tick()

    def tick(self) -> None:
        self.todo += self.retry
        self.retry = []
        self.do(self.m.tick(self.world.now))

    def execute(self, what: str, effect: Any, target: Any) -> None:
        world, now = self.world, self.world.now
        is_lost = world.chance.random() < world.loss
        if world.chance.random() < 0.1 and what in ("fence", "Seal", "certify"):
            self.todo.append((what, effect, target))  # it is sent, or arrives, twice
        try:
            getattr(self, "do_" + what.lower())(effect, target, is_lost)
        except LunalogError as error:
            self.failed(what, effect, target, error, now)

    def failed(self, what: str, effect: Any, target: Any, error: Any, now: float) -> None:
        m = self.m
        is_silent = {"fence": ServerUnavailableError, "Seal": MasterUnavailableError}.get(what, ())
        if isinstance(error, is_silent):
            self.retry.append((what, effect, target))
        if what == "fence":
            self.do(m.unfenced(target, error, now))
        elif what == "open":
            self.do(m.refused(effect, target, error, now))
            if target.failure is None and effect in (m.current, m.next):
                self.retry.append((what, effect, target))
        elif what == "ReadFrom":
            self.do(m.unread(effect.member, effect.start, error, now))
        elif what == "ProposeSet":
            self.do(m.not_proposed(error, now))
        elif what == "Seal" and not isinstance(error, MasterUnavailableError):
            self.do(m.seal_refused(effect, error, now))
        elif what == "RereadHead":
            self.do(m.head_unread(error, now))
        elif what == "check":
            self.do(m.check_failed(effect.round, effect.segment.id, target, error, now))

    def lost(self, is_lost: bool, error: LunalogError) -> None:
        if is_lost:
            raise error

    def do_fence(self, segment: Any, member: Member, is_lost: bool) -> None:
        server = self.world.servers[member.server]
        answer, certificate = server.fence(
            segment.id, segment.first, self.m.promise, member.incarnation
        )
        if answer.chain == 0 and answer.end == segment.first:
            answer = FenceAnswer(end=segment.first, chain=segment.chain)
        self.lost(is_lost, ServerUnavailableError("no answer"))
        has = certificate is not None
        self.do(self.m.fenced(member, answer, has_certificate=has, now=self.world.now))

    def do_readfrom(self, effect: Any, _: Any, is_lost: bool) -> None:
        self.lost(is_lost, ServerUnavailableError("no answer"))
        server = self.world.servers[effect.member.server]
        before, found = server.read(effect.segment.id, effect.start, self.m.promise)
        whole = [
            msgspec.structs.replace(
                f, frame=msgspec.json.encode(msgspec.structs.replace(f, frame=b""))
            )
            for f in found
        ]
        self.do(self.m.copied(effect.member, effect.start, before, whole, self.world.now))

    def do_open(self, segment: Any, replica: Any, is_lost: bool) -> None:
        if segment not in (self.m.current, self.m.next) or replica.failure is not None:
            return
        server = self.world.servers[replica.member.server]
        end, chain = server.open(segment.segment, replica.member, self.m.promise)
        self.lost(is_lost, ServerUnavailableError("no answer"))
        self.do(self.m.opened(segment, replica, end, chain, self.world.now))

    def do_proposeset(self, effect: Any, _: Any, is_lost: bool) -> None:
        self.lost(is_lost, MasterUnavailableError("no answer"))
        found = self.world.propose(self.m.promise, effect.exclude)
        self.do(self.m.proposed(found, self.world.now))

    def do_seal(self, effect: Any, _: Any, is_lost: bool) -> None:
        if self.world.chance.random() < self.world.loss:
            raise MasterUnavailableError("never arrived")
        head = self.world.seal(self.m.promise, effect)
        self.lost(is_lost, MasterUnavailableError("no answer"))
        if self.m.seal is effect:
            self.do(self.m.head_seen(head, self.world.now))

    def do_certify(self, effect: Any, member: Member, is_lost: bool) -> None:
        server = self.world.servers[member.server]
        row = effect.certificate.row
        held = server.segments.get(row.id)
        if server.is_up and server.member == member and held is not None and not is_lost:
            server.promise = max(server.promise, effect.certificate.promise)
            held.certificate = row
            while held.end > row.end:
                held.frames.pop()
                held.chains.pop()

    def do_rereadhead(self, effect: Any, _: Any, is_lost: bool) -> None:
        self.lost(is_lost, MasterUnavailableError("no answer"))
        self.do(self.m.head_read(self.world.head, self.world.now))

    def do_check(self, effect: Any, member: Member, is_lost: bool) -> None:
        server = self.world.servers[member.server]
        server.guard(self.m.promise)
        if server.member != member:
            raise WrongIncarnationError("another life")
        held = server.segments.get(effect.segment.id)
        if held is None:
            raise NotOpenError("never opened")
        if held.certificate is not None:
            raise SealedError("sealed")
        self.lost(is_lost, ServerUnavailableError("no answer"))
        now = self.world.now
        self.do(self.m.checked(effect.round, member, is_unfenced=True, now=now))

    def do_giveback(self, effect: Any, _: Any, is_lost: bool) -> None:
        self.do(self.m.kept(self.world.now))

    def ask(self, token: int) -> None:
        self.reads[token] = self.world.committed
        self.do(self.m.asked(token, self.world.now))


class World:
    """Servers, and a master that never lies."""

    def __init__(self, n: int, a: int, servers: int, chance: random.Random) -> None:
        self.chance = chance
        self.policy = Policy(n, a)
        self.servers = {f"s{i}": Server(f"s{i}") for i in range(servers)}
        self.head = StreamHead("orders", STREAM, self.policy)
        self.rows: list[Any] = []
        self.log: dict[int, CopiedFrame] = {}
        self.committed = 0
        self.now = 1.0
        self.loss = 0.15
        self.leaders: list[Leader] = []

    def grant(self, peer: Peer) -> StreamHead:
        head = self.head
        self.head = msgspec.structs.replace(
            head, epoch=head.epoch + 1, leader=peer, released=False, version=head.version + 1
        )
        return self.head

    def lead(self) -> Leader:
        number = len(self.leaders) + 1
        leader = Leader(self, f"p{number}", number)
        self.leaders.append(leader)
        return leader

    def propose(self, promise: Promise, exclude: tuple[str, ...]) -> tuple[Member, ...]:
        self.check(promise)
        found = [s.member for s in self.servers.values() if s.is_up and s.name not in exclude]
        if len(found) < self.policy.ack_quorum:
            raise NotEnoughServersError("too few")
        self.chance.shuffle(found)
        return tuple(found[: self.policy.replicas])

    def check(self, promise: Promise) -> None:
        if promise != self.head.promise:
            raise FencedError("over", epoch=self.head.epoch, incarnation=self.head.promise.leader)

    def seal(self, promise: Promise, seal: fx.Seal) -> StreamHead:
        head = self.head
        self.check(promise)
        opened = head.open.id if head.open else None
        shown = seal.open.id if seal.open else None
        if (opened == shown and (seal.open or head.released)) and opened != seal.old:
            return head
        if head.released:
            raise NotLeaderError("released")
        if opened != seal.old:
            raise ConflictError("a late repeat")
        if head.open is not None:
            self.check_seal(seal, promise)
        else:
            assert (seal.next, seal.chain) == (head.next, head.chain)
        if seal.row is not None:
            self.rows.append(seal.row)
        self.head = msgspec.structs.replace(
            head,
            open=seal.open,
            next=seal.next,
            chain=seal.chain,
            released=seal.release,
            version=head.version + 1,
        )
        return self.head

    def check_seal(self, seal: fx.Seal, promise: Promise) -> None:
        """I2, R8: whatever was acknowledged lies below the end, or on A of the new set."""
        if seal.open is None:
            assert seal.next >= self.committed, "R31: closed below what was acknowledged"
            return
        copies = 0
        for member in seal.open.members:
            server = self.servers[member.server]
            held = server.segments.get(seal.open.id)
            lives = server.member == member
            copies += lives and held is not None and held.end >= self.committed
        if seal.next < self.committed and not self.was_harmed:
            assert copies >= seal.open.ack_quorum, "R7: acked events are not on A of the new set"

    was_harmed = False

    def acked(self, frame: CopiedFrame) -> None:
        bare = msgspec.structs.replace(frame, frame=b"")
        known = self.log.get(frame.first)
        assert known is None or known == bare, f"I1: two contents at {frame.first}"
        self.log[frame.first] = bare
        self.committed = max(self.committed, frame.first + frame.count)

    def check_log(self) -> None:
        """I1, I2, I5: the sealed segments hold what was acknowledged, dense and in order."""
        at, chain = 0, 0
        for row in self.rows:
            assert (row.first, at) == (at, row.first), "I5: rows are dense"
            held = self.copy_of(row)
            assert held is not None or self.was_harmed, f"nobody has {row}"
            for frame in held.frames if held is not None else ():
                if frame.first < row.end:
                    known = self.log.get(frame.first)
                    assert known is None or known == frame, f"I1: two contents at {frame.first}"
                    chain = chains.extend(chain, frame.first, frame.count, frame.crc)
            chain = row.chain if held is None else chain
            assert chain == row.chain, "I15: the chain goes on from segment to segment"
            at = row.end

    def copy_of(self, row: Any) -> Held | None:
        for member in row.members:
            server = self.servers[member.server]
            held = server.segments.get(row.id)
            if server.member == member and held is not None and held.end >= row.end:
                return held
        return None

    def log_frames(self, m: LeaderMachine) -> list[CopiedFrame]:
        """What a new leader has carried over."""
        sent = m.outbox.between(m.outbox.start, m.outbox.tail, 1 << 30)
        return [msgspec.json.decode(s.frame, type=CopiedFrame) for s in sent]

    def pass_time(self) -> None:
        self.now += self.chance.choice([0.01, 0.05, 0.1, 0.5])


QUORUMS = [(3, 2, 3), (3, 2, 5), (5, 3, 5), (4, 3, 4), (4, 2, 5), (3, 3, 4), (2, 2, 3), (1, 1, 1)]


def harm(world: World, budget: set[str]) -> None:
    """Stop a server, wipe one (within A-1), or start it again."""
    chance = world.chance
    server = world.servers[chance.choice(sorted(world.servers))]
    what = chance.random()
    if what < 0.3:
        server.is_up = False
    elif what < 0.4 and len(budget | {server.name}) < world.policy.ack_quorum:
        budget.add(server.name)
        server.wipe()
        world.was_harmed = True
    else:
        server.is_up = True
    if not server.is_up:
        for leader in world.leaders:
            for segment in (leader.m.current, leader.m.next):
                for replica in segment.replicas if segment else ():
                    if replica.member.server == server.name and replica.is_open:
                        leader.cut((segment.id, server.name), segment, replica)


def storm(world: World) -> None:
    chance, budget = world.chance, set()
    tokens = itertools.count(1)
    deeds: list[tuple[float, Callable[[Leader], object]]] = [
        (0.10, lambda leader: leader.append(chance)),
        (0.12, lambda _: world.pass_time()),
        (0.14, lambda _: harm(world, budget)),
        (0.145, lambda _: world.lead()),
        (0.15, lambda leader: setattr(leader, "is_frozen", not leader.is_frozen)),
        (0.155, lambda leader: leader.do(leader.m.resign(world.now))),
        (0.17, lambda leader: leader.m.want_roll("size")),
        (0.18, lambda leader: leader.do(leader.m.head_seen(world.head, world.now))),
        (0.19, lambda leader: leader.ask(next(tokens))),
        (1.0, lambda leader: leader.step()),
    ]
    world.lead()
    for _ in range(chance.randint(50, 400)):
        what = chance.random()
        leader = chance.choice(world.leaders[-2:])
        next(deed for below, deed in deeds if what < below)(leader)


def heal(world: World) -> Leader:
    for server in world.servers.values():
        server.is_up = True
    world.loss = 0.0
    for leader in world.leaders:
        leader.is_frozen = False
    last = world.lead()
    for _ in range(4000):
        for leader in world.leaders[-3:]:
            leader.step()
        world.now += 0.02
        if last.m.phase is not Phase.TAKEOVER:
            break
    return last


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(QUORUMS), st.integers(0, 1 << 32))
def test_what_was_acknowledged_stays_whoever_leads(sizes: tuple[int, int, int], seed: int) -> None:
    """A storm of losses, crashes and duels, then calm: the last leader has everything that was acked."""
    n, a, servers = sizes
    world = World(n, a, servers, random.Random(seed))
    storm(world)
    last = heal(world)
    assert last.m.phase is Phase.LEADING, f"stuck: {last.m!r} {last.events}"
    assert last.m.committed >= world.committed
    assert not [e for e in last.events if isinstance(e, fx.Alarm)]
    before = last.m.tail
    last.append(world.chance)
    for _ in range(500):
        last.step()
        world.now += 0.02
    assert last.m.committed > before, "it leads, and appends do not get through"
    world.check_log()


@pytest.mark.parametrize("sizes", QUORUMS)
def test_one_leader_alone_commits_rolls_and_closes(sizes: tuple[int, int, int]) -> None:
    n, a, servers = sizes
    world = World(n, a, servers, random.Random(7))
    world.loss = 0.0
    leader = world.lead()
    leader.is_hasty = False
    for turn in range(400):
        for _ in range(16):
            leader.step()
        if turn % 5 == 0:
            leader.append(world.chance)
        if turn % 100 == 50:
            leader.m.want_roll("size")
            leader.do(leader.m.poke(world.now))
        world.now += 0.1
    leader.do(leader.m.resign(world.now))
    for _ in range(100):
        leader.step()
        world.now += 0.1
    assert world.head.released
    assert world.head.open is None
    assert world.head.next == leader.m.committed == world.committed
    assert len(world.rows) >= 2, "it rolled"
    for row, after in zip(world.rows, world.rows[1:], strict=False):
        assert row.end == after.first


def test_a_late_no_from_a_segment_that_was_rolled_away_proves_nothing() -> None:
    """The answer to a check comes after the roll: that the old segment is sealed is as it should be."""
    world = World(3, 2, 4, random.Random(3))
    world.loss = 0.0
    leader = world.lead()
    for _ in range(200):
        leader.step()
        world.now += 0.02
    assert leader.m.phase is Phase.LEADING
    old = leader.m.current.id
    leader.m.want_roll("size")
    for _ in range(600):
        leader.step()
        leader.append(world.chance)
        world.now += 0.02
    assert leader.m.current.id != old, "it has rolled"
    leader.do(leader.m.check_failed(1, old, Member("s1", 1), SealedError("sealed here"), world.now))
    for _ in range(100):
        leader.step()
        world.now += 0.02
    assert leader.m.phase is Phase.LEADING
