"""What a hostile or broken peer says on one connection: well-formed messages, and almost such.

All of it follows from a seed.  Streams of others are named only where nobody may change them: in reads,
and under epochs, incarnations and leaders that the rules refuse (there is no authorization yet, so a
higher epoch would be obeyed).  Streams of its own it treats as it likes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from tests.fuzz.mutate import change

from lunalog import limits
from lunalog.types import (
    Certificate,
    Member,
    OpenSegment,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    ServerAddress,
    StreamHead,
)
from lunalog.wire import codec, frames
from lunalog.wire import messages as m
from lunalog.wire.codec import ENVELOPE, ENVELOPE_BYTES, Kind

Message = m.Message
EDGES = (0, 1, 7, 255, (1 << 31), (1 << 32) - 1, (1 << 63) - 1)
HOSTS = ("127.0.0.1", "", "\0", "x" * 64 + ".", "no-such-host.invalid", "[::1", "10.255.255.1")
PORTS = (0, 1, -1, 65536, 1 << 40)


@dataclass(frozen=True)
class Victim:
    """Somebody else's stream, which must stay as it is."""

    name: str
    stream: bytes
    segment: SegmentId
    epoch: int


class Talker:
    """One connection's worth of talk.

    Args:
        seed: All follows from it.
        role: What it talks to, "server" or "master".
        incarnation: That the server lives under.
        victims: Streams of others.
        servers: Names of servers that the master knows.
    """

    def __init__(
        self,
        seed: int,
        role: str,
        incarnation: int = 1,
        victims: tuple[Victim, ...] = (),
        servers: tuple[str, ...] = (),
    ) -> None:
        self.chance = random.Random(f"talk {role} {seed}")
        self.role = role
        self.incarnation = incarnation
        self.victims = victims
        self.own = [random.Random(f"own {seed % 7} {n}").randbytes(16) for n in range(3)]
        self.linc = random.Random(f"linc {seed % 5}").randbytes(16)
        self.name = f"mallory-{seed % 5}"
        self.nonce = b""
        """Of the other side's Welcome, if somebody tells it."""
        self.ends: dict[int, int] = {}
        """Of each slot, where the next frame would join."""
        self.streams: dict[int, bytes] = {}
        self.requests = 0
        self.rudeness = self.chance.choice((0.0, 0.0, 0.02, 0.3))
        """How often it says what ends a connection."""
        self.is_server = self.role == "master" and self.chance.random() < 0.3
        self.members = tuple(Member(name, 1) for name in servers[:3])
        self.leads = bool(servers) and not self.is_server and self.chance.random() < 0.5
        """Has a stream of its own made, is granted it, and goes on from there."""
        self.led = StreamHead(
            f"{self.name}/led-{seed}", self.chance.randbytes(16), Policy(), 1, 1, 1
        )
        self.segments = 0

    # ------------------------------------------------------------ whole connections

    def steps(self) -> Iterator[bytes]:
        """What to send, in pieces; between two of them time may pass."""
        draw = self.chance.random()
        if draw < 0.15:
            yield from self._before_the_handshake()
            return
        yield codec.MAGIC + self._hello()
        if self.leads:
            yield self._request(m.ClientBeat(0, (), self.nonce))
            yield self._request(m.CreateStream(self.led.name, self.led.stream, self.led.policy))
            yield self._request(m.WatchStream(self.led.stream, True))
        for _ in range(self.chance.randrange(1, 40)):
            data = self._one()
            if self.chance.random() < 0.1 and len(data) > 1:
                at = self.chance.randrange(1, len(data))
                yield data[:at]
                data = data[at:]
            yield data
        if self.chance.random() < 0.3:
            data = self._one()
            yield data[: self.chance.randrange(len(data))]

    def _hello(self) -> bytes:
        role = "server" if self.is_server else self.chance.choice(("client", "client", "admin"))
        purpose = self.chance.choice(("main", "main", "beat", "?"))
        if self.leads:
            role, purpose = "client", "beat"
        hello = m.Hello(1, 1, "", role, self.name, self.linc, b"n" * 16, purpose)
        return codec.control(Kind.HELLO, 0, hello)

    def _before_the_handshake(self) -> Iterator[bytes]:
        chance = self.chance
        magic = chance.choice((codec.MAGIC, b"GET / HT", b"\x16\x03\x01\x02\0\x01\0\x01", b"LUN"))
        yield magic
        hello = self._hello()
        draw = chance.randrange(6)
        if draw == 0:
            yield self._damaged(hello)
        elif draw == 1:
            yield hello[: chance.randrange(len(hello))]
        elif draw == 2:
            yield self._request(self._any())
        elif draw == 3:
            yield ENVELOPE.pack(chance.choice((0xFFFFFFFF, 0, 1 << 20)), Kind.HELLO, 0, 0, 0)
        elif draw == 4:
            plain = msgspec.msgpack.decode(hello[ENVELOPE_BYTES:])
            yield self._enveloped(Kind.HELLO, 0, self._packed(change(plain, chance)))
        else:
            yield chance.randbytes(chance.randrange(1, 3000))

    # ------------------------------------------------------------ one message

    def _one(self) -> bytes:
        if self.chance.random() < self.rudeness:
            return self._rude()
        if self.chance.random() < 0.4 and self.role == "server":
            return self._data()
        if self.chance.random() < 0.6 and self.leads:
            return self._request(self._as_leader())
        return self._request(self._any())

    def _rude(self) -> bytes:
        draw = self.chance.random()
        if draw < 0.4:
            return self._mutated(self._own_message())
        if draw < 0.5:
            stranger = self._to_master() if self.role == "server" else self._to_server()
            return self._request(stranger)
        if draw < 0.6:
            return self._damaged(self._request(self._own_message()))
        if draw < 0.7:
            return self._damaged(self._data())
        if draw < 0.8:
            return self._unasked()
        return self._nonsense()

    def _request(self, message: Message) -> bytes:
        self.requests += 1
        return codec.control(Kind.REQUEST, self.requests, message)

    def _any(self) -> Message:
        if self.victims and self.chance.random() < 0.4:
            return self._about(self.chance.choice(self.victims))
        return self._own_message()

    def _mutated(self, message: Message) -> bytes:
        plain = msgspec.msgpack.decode(codec.control(Kind.PUSH, 0, message)[ENVELOPE_BYTES:])
        kind = Kind.PUSH if self.chance.random() < 0.2 else Kind.REQUEST
        self.requests += 1
        return self._enveloped(kind, self.requests, self._packed(change(plain, self.chance)))

    def _packed(self, plain: object) -> bytes:
        try:
            return msgspec.msgpack.encode(plain)[: limits.CONTROL_BYTES_MAX - 64]
        except (TypeError, RecursionError, OverflowError):
            return b"\xc1"

    def _enveloped(self, kind: int, number: int, body: bytes) -> bytes:
        return ENVELOPE.pack(ENVELOPE_BYTES + len(body), kind, 0, 0, number) + body

    def _damaged(self, data: bytes) -> bytes:
        at = self.chance.randrange(len(data))
        flipped = bytes([data[at] ^ (1 << self.chance.randrange(8))])
        return data[:at] + flipped + data[at + 1 :]

    def _unasked(self) -> bytes:
        """Answers to nothing, a second handshake, errors of no request."""
        chance = self.chance
        answer = chance.choice((m.Done(), m.Opened(1, 2), m.Failure("gap", "?", {"end": -5})))
        kind = chance.choice((Kind.REPLY, Kind.ERROR, Kind.HELLO, Kind.WELCOME))
        if kind == Kind.HELLO:
            return self._hello()
        if chance.random() < 0.3:
            head = codec.FramesHead(1, 1, 1, codec.ReadStatus.HELD)
            return codec.frames_head(chance.randrange(9), head, 3) + b"abc"
        return codec.control(kind, chance.choice((0, 1, 77)), answer)

    def _nonsense(self) -> bytes:
        chance = self.chance
        draw = chance.randrange(4)
        if draw == 0:
            size = chance.choice((0, 11, 12, 13, limits.CONTROL_BYTES_MAX + 1, 0xFFFFFFFF))
            return ENVELOPE.pack(size, chance.choice((*codec.KINDS, 0, 7, 255)), 0, 0, 1)
        if draw == 1:
            deep = b"\x94\x03\xa1x\xa1m\x81\xa1a" + b"\x91" * chance.choice((100, 50_000))
            return self._enveloped(Kind.REQUEST, 1, deep)
        if draw == 2:
            liar = chance.choice((b"\xdd", b"\xdf", b"\xdb", b"\xc6")) + b"\xff" * 4
            return self._enveloped(Kind.REQUEST, 1, b"\x9a" + liar)
        return chance.randbytes(chance.randrange(1, 200))

    # ------------------------------------------------------------ what a server is told

    def _data(self) -> bytes:
        chance = self.chance
        slot = chance.choice((0, 1, 2, 3, 0xFFFFFFFF))
        end = self.ends.get(slot, 0)
        draw = chance.randrange(10)
        is_rude = chance.random() < self.rudeness
        if draw == 0 and is_rude:
            return codec.ack(slot, chance.choice(EDGES))
        if draw == 1:
            return codec.mark(slot, (1 << 64) - 1 if is_rude else chance.choice(EDGES))
        first = chance.choice((end, end, end, end, 0, end + 5, (1 << 63) - 3))
        payloads = [chance.randbytes(chance.choice((0, 5, 5, 900)))] * chance.choice((1, 1, 3))
        stream = self.streams.get(slot, self.own[0])
        frame = frames.build(stream, min(first, (1 << 63) - 2), 1, 5, payloads)
        if is_rude:
            frame = chance.choice((self._damaged(frame), frame[: chance.randrange(len(frame))]))
        elif first == end:
            self.ends[slot] = end + len(payloads)
        committed = chance.choice((0, 0, end, *EDGES))
        return codec.append_head(slot, committed, len(frame)) + frame

    def _own_message(self) -> Message:
        return self._to_server() if self.role == "server" else self._to_master()

    def _segment(self) -> SegmentId:
        return SegmentId(
            self.chance.choice((1, 1, 2, 9, (1 << 63) - 1)), self.chance.choice(EDGES[:3])
        )

    def _promise(self) -> Promise:
        return Promise(self.chance.choice((0, 1, 1, 2, 9, (1 << 63) - 1)), self.linc)

    def _row(self) -> SealedSegment:
        first, end = self.chance.choice(EDGES), self.chance.choice(EDGES)
        members = (Member("s1", 1), Member("\0", 1 << 40))
        return SealedSegment(
            self._segment(), first, end, 7, members, 2, "?", "?", 1, self.chance.choice(EDGES)
        )

    def _sources(self) -> tuple[ServerAddress, ...]:
        chance = self.chance
        return tuple(
            ServerAddress(Member("s1", 1), chance.choice(HOSTS), chance.choice(PORTS))
            for _ in range(chance.randrange(3))
        )

    def _to_server(self) -> Message:
        chance = self.chance
        stream, segment = chance.choice(self.own), self._segment()
        inc = self.incarnation if chance.random() < 0.9 else chance.choice(EDGES)
        draw = chance.randrange(12)
        if draw < 4:
            slot = chance.choice((0, 1, 2, 3, -1, 1 << 32))
            first = chance.choice((0, 0, 0, *EDGES))
            self.ends[slot], self.streams[slot] = first, stream
            segment = SegmentId(1, chance.choice((0, 1, 2)))
            return m.OpenSlot(slot, stream, segment, self.linc, inc, first, 0, 1)
        if draw == 4:
            return m.Fence(stream, segment, chance.choice(EDGES), self._promise(), inc)
        if draw == 5:
            return m.Check(stream, segment, self._promise(), inc)
        if draw < 8:
            promise = self._promise() if chance.random() < 0.5 else None
            size = chance.choice((-1, 0, 1, 1 << 20, 1 << 62))
            wait = chance.choice((-5, 0, 50, 1 << 62))
            return m.Read(stream, segment, chance.choice(EDGES), size, wait, promise)
        if draw < 10:
            certificate = Certificate(stream, self._row(), self._promise())
            return m.Certify(certificate, self._sources())
        if draw == 10:
            return m.AskLeader(stream, segment)
        return chance.choice((m.DescribeServer(), m.Ping()))

    # ------------------------------------------------------------ what a master is told

    def _to_master(self) -> Message:
        """Anything about streams of its own, and what no client should say."""
        chance = self.chance
        stream, promise, row = chance.choice(self.own), self._promise(), self._row()
        name = chance.choice((f"{self.name}/a", f"{self.name}/b", "", "\0", "x" * 256))
        opened = OpenSegment(self._segment(), row.first, 7, row.members, 2)
        policy = Policy(*chance.choice(((3, 2), (1, 1), (0, 0), (-1, 1 << 40), (2, 2))))
        if self.is_server and chance.random() < 0.5:
            return self._as_server(stream, row)
        return chance.choice(
            (
                m.CreateStream(name, stream, policy, chance.random() < 0.5),
                m.CreateStream(f"{self.name}/a", stream, Policy(3, 2)),
                m.DeleteStream(name, stream),
                m.GetStream(name),
                m.ListStreams(name, name),
                m.WatchStream(stream, chance.random() < 0.5),
                m.UnwatchStream(stream),
                m.Propose(stream, promise, (name,) * chance.choice((0, 3, 500))),
                m.SealSegment(stream, promise, row.id, row, opened, row.end, 7),
                m.SealSegment(stream, promise, None, None, opened, row.first, 7, True, "?"),
                m.Truncate(stream, promise, chance.choice(EDGES)),
                m.Release(stream, promise),
                m.Transfer(stream, name, chance.choice((-1, 0, 100, 1 << 62))),
                m.GetServers(),
                m.GetHealth(),
                m.ScaleServers(chance.choice((-1, 1 << 62))),
                m.Ping(),
                *(() if self.is_server else (
                    m.ClientBeat(
                        chance.choice(EDGES), ((stream, 5),) * chance.choice((0, 1, 90)), self.nonce
                    ),
                    m.EndSession(),
                )),
            )
        )  # fmt: skip

    def _as_leader(self) -> Message:
        """Seal, open, truncate and release in turn, and now and then what does not fit."""
        chance, head, promise = self.chance, self.led, Promise(self.led.epoch, self.linc)
        draw = chance.randrange(12)
        if draw == 0:
            return m.Truncate(head.stream, promise, chance.choice((0, head.next, *EDGES)))
        if draw == 1:
            return m.Propose(head.stream, promise)
        if draw == 2:
            return m.Transfer(head.stream, chance.choice(("", self.name, "?")), 50)
        if draw == 3:
            return m.ClientBeat(0, ((head.stream, head.next),), self.nonce)
        if draw == 4 and chance.random() < 0.3:
            return m.DeleteStream(head.name, head.stream)
        grown = chance.choice((0, 1, 5))
        old, end = head.open, head.next + (grown if head.open else 0)
        chain = head.chain + end - head.next
        row = None
        if old is not None and end > old.first:
            row = SealedSegment(old.id, old.first, end, chain, old.members, 2, "", "?", 0)
        opened, releases = None, draw == 5
        if not releases:
            segment = SegmentId(head.epoch, self.segments)
            opened = OpenSegment(segment, end, chain, self.members, 2)
            self.segments += 1
        fields = (head.stream, promise, old and old.id, row, opened, end, chain, releases, "?")
        if chance.random() < 0.2:
            odd = list(fields)
            odd[chance.choice((3, 4, 5, 6))] = chance.choice((None, None, 0, end + 1))
            odd = [0 if n in (5, 6) and value is None else value for n, value in enumerate(odd)]
            odd = [None if n in (3, 4) and isinstance(v, int) else v for n, v in enumerate(odd)]
            return m.SealSegment(*odd)
        epoch = head.epoch + releases  # it stands again, and is granted the next one
        self.led = msgspec.structs.replace(head, next=end, chain=chain, open=opened, epoch=epoch)
        return m.SealSegment(*fields)

    def _as_server(self, stream: bytes, row: SealedSegment) -> Message:
        chance = self.chance
        fact = m.SegmentFact(
            stream, row.id, 1, row.first, row.end, 3,
            chance.choice(("open", "sealed", "complete", "dropped", "?")), 4,
        )  # fmt: skip
        facts = (fact,) * chance.choice((0, 1, 50))
        if chance.random() < 0.5:
            positions = chance.choice(EDGES), chance.choice(EDGES)
            return m.ServerBeat(1, 1, positions[0], -1, -1, 0, facts, (1, -1, 1 << 62), "?")
        return m.RegisterServer(
            f"{self.name}.srv", chance.choice(EDGES), chance.choice(EDGES), 5,
            chance.random() < 0.5, chance.choice(HOSTS), chance.choice(PORTS),
            ("host=a",) * chance.choice((0, 1, 40)), facts, chance.choice((0, -1, 1 << 40)),
            self.nonce,
        )  # fmt: skip

    # ------------------------------------------------------------ what concerns others

    def _about(self, victim: Victim) -> Message:
        """About a stream of somebody else's: looks, and what the rules must refuse."""
        chance = self.chance
        low = Promise(chance.randrange(victim.epoch), self.linc)
        twin = Promise(victim.epoch, self.linc)
        wrong = self.incarnation + 1 + chance.randrange(5)
        if self.role == "server":
            size = chance.choice((1, 1 << 20, 1 << 62))
            return chance.choice(
                (
                    m.OpenSlot(4, victim.stream, SegmentId(low.epoch, 0), self.linc,
                               self.incarnation, 0, 0, 1),
                    m.OpenSlot(4, victim.stream, victim.segment, self.linc, self.incarnation, 0, 0,
                               1),
                    m.Fence(victim.stream, victim.segment, 0, low, self.incarnation),
                    m.Fence(victim.stream, victim.segment, 0, twin, self.incarnation),
                    m.Fence(victim.stream, victim.segment, 0, Promise(1 << 62, self.linc), wrong),
                    m.Check(victim.stream, victim.segment, twin, self.incarnation),
                    m.Read(victim.stream, victim.segment, chance.randrange(50), size),
                    m.Read(victim.stream, victim.segment, chance.randrange(50), size, 100),
                    m.Read(victim.stream, victim.segment, 1, size, 0, low),
                    m.AskLeader(victim.stream, victim.segment),
                )
            )  # fmt: skip
        opened = OpenSegment(self._segment(), 0, 7, (Member("s1", 1),), 1)
        return chance.choice(
            (
                m.CreateStream(victim.name, self.own[0], Policy(3, 2)),
                m.DeleteStream(victim.name, self.own[0]),
                m.GetStream(victim.name),
                m.WatchStream(victim.stream),
                m.UnwatchStream(victim.stream),
                m.Propose(victim.stream, low),
                m.Truncate(victim.stream, twin, 10),
                m.Truncate(victim.stream, low, 10),
                m.Release(victim.stream, twin),
                m.SealSegment(victim.stream, twin, victim.segment, None, opened, 0, 7),
            )
        )
