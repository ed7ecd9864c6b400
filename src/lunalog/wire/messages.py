"""Every typed control message, as one tagged union; docs/wire.md lists them for other languages.

Requests are answered by the message named in their docstring, or by an ERROR (code, message, fields).
Pushes are one way.
"""

from __future__ import annotations

from typing import Final

from lunalog.wire.base_messages import (
    Done,
    Failure,
    Hello,
    Ping,
    Welcome,
)
from lunalog.wire.beat_messages import (
    CertifyCommand,
    ClientBeat,
    ClientBeatReply,
    Command,
    DropSegment,
    DropStream,
    EndSession,
    Registered,
    RegisterServer,
    ServerBeat,
    ServerBeatReply,
    TrimCommand,
)
from lunalog.wire.master_messages import (
    CreateStream,
    DeleteStream,
    GetHealth,
    GetServers,
    GetStream,
    HeadReply,
    Health,
    ListStreams,
    Proposal,
    Propose,
    Release,
    ResignWanted,
    RollWanted,
    ScaleServers,
    SealSegment,
    ServerList,
    ServerStatus,
    StreamChanged,
    StreamGone,
    StreamList,
    Transfer,
    Truncate,
    UnwatchStream,
    ViewReply,
    WatchStream,
)
from lunalog.wire.replica_messages import (
    AppendRefused,
    AskLeader,
    Certified,
    Certify,
    Check,
    CloseSlot,
    DescribeServer,
    Fence,
    Fenced,
    LeaderAnswer,
    LeaderAsked,
    Opened,
    OpenSlot,
    Read,
    ReadPoint,
    SegmentFact,
    ServerReport,
)

__all__ = [
    "ANSWERS",
    "AppendRefused",
    "AskLeader",
    "Certified",
    "Certify",
    "CertifyCommand",
    "Check",
    "ClientBeat",
    "ClientBeatReply",
    "CloseSlot",
    "Command",
    "CreateStream",
    "DeleteStream",
    "DescribeServer",
    "Done",
    "DropSegment",
    "DropStream",
    "EndSession",
    "Failure",
    "Fence",
    "Fenced",
    "GetHealth",
    "GetServers",
    "GetStream",
    "HeadReply",
    "Health",
    "Hello",
    "LeaderAnswer",
    "LeaderAsked",
    "ListStreams",
    "Message",
    "OpenSlot",
    "Opened",
    "Ping",
    "Proposal",
    "Propose",
    "Read",
    "ReadPoint",
    "RegisterServer",
    "Registered",
    "Release",
    "ResignWanted",
    "RollWanted",
    "ScaleServers",
    "SealSegment",
    "SegmentFact",
    "ServerBeat",
    "ServerBeatReply",
    "ServerList",
    "ServerReport",
    "ServerStatus",
    "StreamChanged",
    "StreamGone",
    "StreamList",
    "Transfer",
    "TrimCommand",
    "Truncate",
    "UnwatchStream",
    "ViewReply",
    "WatchStream",
    "Welcome",
]

Message = (
    Hello | Welcome | Failure | Done | Ping
    | OpenSlot | Opened | CloseSlot | AppendRefused | Fence | Fenced | Check | Read
    | Certify | Certified | AskLeader | LeaderAsked | LeaderAnswer | ReadPoint
    | DescribeServer | ServerReport
    | CreateStream | DeleteStream | ListStreams | StreamList | GetStream | ViewReply
    | WatchStream | UnwatchStream | StreamChanged | StreamGone | Propose | Proposal
    | SealSegment | HeadReply | Truncate | Release | Transfer | ResignWanted | RollWanted
    | GetServers | ServerList | ScaleServers | GetHealth | Health
    | ClientBeat | ClientBeatReply | EndSession | RegisterServer | Registered
    | CertifyCommand | TrimCommand | DropSegment | DropStream | ServerBeat | ServerBeatReply
)  # fmt: skip

ANSWERS: Final[dict[type, type]] = {
    Ping: Done,
    OpenSlot: Opened,
    Fence: Fenced,
    Check: Done,
    Read: tuple,  # FRAMES: its head and its bytes
    Certify: Certified,
    AskLeader: ReadPoint,
    DescribeServer: ServerReport,
    CreateStream: ViewReply,
    DeleteStream: Done,
    ListStreams: StreamList,
    GetStream: ViewReply,
    WatchStream: ViewReply,
    UnwatchStream: Done,
    Propose: Proposal,
    SealSegment: HeadReply,
    Truncate: HeadReply,
    Release: Done,
    Transfer: Done,
    GetServers: ServerList,
    ScaleServers: Done,
    GetHealth: Health,
    ClientBeat: ClientBeatReply,
    EndSession: Done,
    RegisterServer: Registered,
    ServerBeat: ServerBeatReply,
}
"""What each request is answered with, if not by an error."""
