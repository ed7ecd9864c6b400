"""One of each message, with every field set, for the golden bytes and the tests of the codec."""

from lunalog.types import (
    Certificate,
    Member,
    OpenSegment,
    Peer,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    ServerAddress,
    StreamHead,
    StreamView,
)
from lunalog.wire import messages as m

STREAM = bytes(range(16))
LEADER = b"\x11" * 16
NONCE = b"\x22" * 16
SEGMENT = SegmentId(4, 1)
PROMISE = Promise(4, LEADER)
CHAIN = 0xFEDCBA9876543210
MEMBERS = (Member("s1", 1), Member("s2", 3))
POLICY = Policy(3, 2, 1 << 30, 86400.0)
OPEN = OpenSegment(SEGMENT, 7, CHAIN, MEMBERS, 2, 1_700_000_000_000_000)
ROW = SealedSegment(
    SegmentId(3, 0), 0, 7, CHAIN, MEMBERS, 2, "engine-1", "takeover", 1_700_000_000_000_001, 2
)
HEAD = StreamHead(
    "orders", STREAM, POLICY, 1, 9, 4, Peer("engine-2", LEADER), False, 2, 7, CHAIN, OPEN, False,
    1_690_000_000_000_000,
)  # fmt: skip
ADDRESS = ServerAddress(MEMBERS[0], "10.0.0.1", 4001, True)
VIEW = StreamView(HEAD, (ROW,), (ADDRESS,))
CERTIFICATE = Certificate(STREAM, ROW, PROMISE)
FACT = m.SegmentFact(STREAM, SEGMENT, 1, 7, 12, 10, "open", 4)
FAILURE = m.Failure("gap", "the frame at 9 does not join 7", {"end": 7})
STATUS = m.ServerStatus(ADDRESS, ("host=a",), "alive", 1 << 40, 1 << 41, 1000, 2, 30, 7, 4242)

ALL: tuple[m.Message, ...] = (
    m.Hello(1, 1, "c0ffee", "client", "engine-1", LEADER, NONCE, "beat", ("x",)),
    m.Welcome(1, "c0ffee", "server", "s1", ("x",), b"\x33" * 24),
    FAILURE,
    m.Done(),
    m.Ping(),
    m.OpenSlot(2, STREAM, SEGMENT, LEADER, 3, 7, CHAIN, 1),
    m.Opened(12, CHAIN),
    m.CloseSlot(2),
    m.AppendRefused(2, FAILURE),
    m.Fence(STREAM, SEGMENT, 7, PROMISE, 3),
    m.Fenced(12, CHAIN, 10, ((8, 9),), CERTIFICATE),
    m.Check(STREAM, SEGMENT, PROMISE, 3),
    m.Read(STREAM, SEGMENT, 8, 1 << 20, 1000, PROMISE),
    m.Certify(CERTIFICATE, (ADDRESS,)),
    m.Certified(True),
    m.AskLeader(STREAM, SEGMENT),
    m.LeaderAsked(5, STREAM, SEGMENT),
    m.LeaderAnswer(5, 10, FAILURE),
    m.ReadPoint(10),
    m.DescribeServer(),
    m.ServerReport("s1", 3, 7, (FACT,), {"connections": 2}),
    m.CreateStream("orders", STREAM, POLICY, True),
    m.DeleteStream("orders", STREAM),
    m.ListStreams("or", "orders"),
    m.StreamList((HEAD,)),
    m.GetStream("orders"),
    m.ViewReply(VIEW, True),
    m.WatchStream(STREAM, True),
    m.UnwatchStream(STREAM),
    m.StreamChanged(VIEW),
    m.StreamGone(STREAM),
    m.Propose(STREAM, PROMISE, ("s3",)),
    m.Proposal((ADDRESS,)),
    m.SealSegment(STREAM, PROMISE, ROW.id, ROW, OPEN, 7, CHAIN, True, "size"),
    m.HeadReply(HEAD),
    m.Truncate(STREAM, PROMISE, 5),
    m.Release(STREAM, PROMISE),
    m.Transfer(STREAM, "engine-2", 10_000),
    m.ResignWanted(STREAM, 4),
    m.RollWanted(STREAM, SEGMENT, "server s2 is lost"),
    m.GetServers(),
    m.ServerList((STATUS,), 3),
    m.ScaleServers(5),
    m.GetHealth(),
    m.Health(("bad",), ("odd",), {"streams": 1}),
    m.ClientBeat(12, ((STREAM, 10),), b"\x33" * 24),
    m.ClientBeatReply(2000, 500),
    m.EndSession(),
    m.RegisterServer(
        "s1", 3, 7, 99, False, "10.0.0.1", 4001, ("host=a",), (FACT,), 4242, b"\x33" * 24
    ),
    m.Registered("c0ffee", 3, 500),
    m.CertifyCommand(1, CERTIFICATE, (ADDRESS,)),
    m.TrimCommand(2, STREAM, 5, 9),
    m.DropSegment(3, STREAM, SEGMENT, PROMISE, 2),
    m.DropStream(4, STREAM, PROMISE),
    m.ServerBeat(3, 7, 99, 1 << 40, 1 << 41, 1000, (FACT,), (1, 2), "disk_full"),
    m.ServerBeatReply((m.TrimCommand(2, STREAM, 5, 9), m.DropStream(4, STREAM, PROMISE)), True),
)
SAMPLES = {type(message).__name__: message for message in ALL}
"""By name of the message; more may be added, none may change."""
