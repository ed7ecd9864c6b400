"""Bytes of one message: envelope, control messages, data messages.  No I/O.

    offset  size  field
         0     4  size of the whole message, envelope included
         4     1  kind
         5     1  flags (0)
         6     2  reserved (0)
         8     4  id: the request's for REQUEST, REPLY, ERROR, FRAMES; the slot for APPEND, ACK, MARK

Little endian.  Then the body: MessagePack for control messages, fixed binary for data messages:

    APPEND  u64 committed, then one frame
    ACK     u64 end: all below is durable here
    MARK    u64 committed
    FRAMES  u64 end, u64 committed, u64 chain before the first frame, u8 status, 7 reserved, frames

Source: docs/wire.md.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

import msgspec

from lunalog import limits
from lunalog.errors import CorruptFrameError, LunalogError, UnsupportedVersionError
from lunalog.types import Chain, Sequence
from lunalog.wire.messages import Failure, Hello, Message

MAGIC: Final = b"LUNALOG1"
"""Eight bytes that the dialler sends before its first message."""
VERSION_MIN: Final = 1
VERSION_MAX: Final = 1

ENVELOPE: Final = struct.Struct("<IBBHI")
ENVELOPE_BYTES: Final = ENVELOPE.size
U64: Final = struct.Struct("<Q")
DATA_HEAD: Final = struct.Struct("<IIIQ")
"""Envelope and sequence of APPEND, ACK and MARK; the kind is one number with flags and reserved."""
FRAMES_HEAD: Final = struct.Struct("<QQQB7x")
Buffer = bytes | bytearray | memoryview


class Kind(enum.IntEnum):
    """What a message is; on the wire, for ever."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    REPLY = 4
    ERROR = 5
    PUSH = 6
    APPEND = 16
    ACK = 17
    MARK = 18
    FRAMES = 19


DATA_KINDS: Final = frozenset(map(int, (Kind.APPEND, Kind.ACK, Kind.MARK, Kind.FRAMES)))
KINDS: Final = frozenset(map(int, Kind))
APPEND: Final = int(Kind.APPEND)
"""Those of the hot path, as plain numbers: a member of an enum costs a tenth of a microsecond."""
ACK: Final = int(Kind.ACK)
MARK: Final = int(Kind.MARK)
SEQUENCE_KINDS: Final = frozenset((APPEND, ACK, MARK))
"""Their bodies begin with a sequence."""


class ReadStatus(enum.IntEnum):
    """What a replica can say of the frames from `start` on (R6, I13)."""

    HELD = 0
    """Frames follow."""
    NOTHING_YET = 1
    """Nothing below committed from `start` on, now; says nothing about what exists."""
    ABSENT = 2
    """Recovery reads only: under this promise this replica never held `start` and never will."""
    END_OF_SEGMENT = 3
    """`start` is at or behind the certificate's end: look at the metadata again (R13)."""


class FramesHead(msgspec.Struct, frozen=True, gc=False):
    """Head of a FRAMES message."""

    end: Sequence
    committed: Sequence
    chain: Chain
    status: ReadStatus


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def control(kind: Kind, request: int, message: Message) -> bytes:
    """Encode a control message with its envelope."""
    body = _encoder.encode(message)
    return ENVELOPE.pack(ENVELOPE_BYTES + len(body), kind, 0, 0, request) + body


def decode_control(body: Buffer) -> Message:
    """Decode the body of a control message; raises `CorruptFrameError`."""
    try:
        found: Message = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptFrameError(f"not a message of this protocol: {error}") from error
    return found


def agreed_version(hello: Hello) -> int:
    """Return the highest version that both sides speak; raises `UnsupportedVersionError`."""
    found = min(VERSION_MAX, hello.version_max)
    if found < max(VERSION_MIN, hello.version_min):
        raise UnsupportedVersionError(
            f"this side speaks versions {VERSION_MIN} to {VERSION_MAX}, the other "
            f"{hello.version_min} to {hello.version_max}: upgrade the older one"
        )
    return found


def failure_of(error: LunalogError) -> Failure:
    """Put an error into its wire form."""
    return Failure(error.code, error.message, error.fields)


def error_of(failure: Failure) -> LunalogError:
    """Rebuild the error that a peer sent."""
    return LunalogError.from_wire(failure.code, failure.message, failure.fields)


def append_head(slot: int, committed: Sequence, frame_bytes: int) -> bytes:
    """Everything of an APPEND message that goes before the frame."""
    return DATA_HEAD.pack(DATA_HEAD.size + frame_bytes, APPEND, slot, committed)


def ack(slot: int, end: Sequence) -> bytes:
    """Encode an ACK: everything of this slot's segment below `end` is durable here."""
    return DATA_HEAD.pack(DATA_HEAD.size, ACK, slot, end)


def mark(slot: int, committed: Sequence) -> bytes:
    """Encode a MARK: everything of this slot's segment below `committed` is committed."""
    return DATA_HEAD.pack(DATA_HEAD.size, MARK, slot, committed)


def decode_u64(body: Buffer) -> int:
    """Read the sequence that starts the body of APPEND, ACK and MARK."""
    try:
        found: int = U64.unpack_from(body)[0]
    except struct.error as error:
        raise CorruptFrameError("data message is too short") from error
    if found > limits.SEQUENCE_MAX:  # it goes into records and messages that refuse such a one
        raise CorruptFrameError(f"{found} is no sequence")
    return found


def frames_head(request: int, head: FramesHead, frames_bytes: int) -> bytes:
    """Everything of a FRAMES message that goes before the frames."""
    size = ENVELOPE_BYTES + FRAMES_HEAD.size + frames_bytes
    return ENVELOPE.pack(size, Kind.FRAMES, 0, 0, request) + FRAMES_HEAD.pack(
        head.end, head.committed, head.chain, head.status
    )


def decode_frames(body: memoryview) -> tuple[FramesHead, memoryview]:
    """Cut the body of a FRAMES message into head and frames (not checked: `frames.split` does)."""
    try:
        end, committed, chain, status = FRAMES_HEAD.unpack_from(body)
        head = FramesHead(end, committed, chain, ReadStatus(status))
    except (struct.error, ValueError) as error:
        raise CorruptFrameError(f"not a FRAMES message: {error}") from error
    if end > limits.SEQUENCE_MAX or committed > limits.SEQUENCE_MAX:
        raise CorruptFrameError(f"not a FRAMES message: {end} or {committed} is no sequence")
    return head, body[FRAMES_HEAD.size :]


def parse_envelope(buffer: Buffer, offset: int, *, is_open: bool) -> tuple[int, int, int]:
    """Return (size, kind, id) of the message at `offset`, its bounds checked before anything else.

    `is_open` tells whether the handshake is over; before it only HELLO and WELCOME are short enough.
    """
    size, kind, flags, reserved, number = ENVELOPE.unpack_from(buffer, offset)
    if kind not in KINDS or flags or reserved:
        raise CorruptFrameError(f"not a message of this protocol: kind {kind}")
    if not is_open:
        most = limits.HELLO_BYTES_MAX
    elif kind in DATA_KINDS:
        most = limits.MESSAGE_BYTES_MAX
    else:
        most = limits.CONTROL_BYTES_MAX
    if not ENVELOPE_BYTES <= size <= most:
        raise CorruptFrameError(f"a message of {size} bytes is past the limit of {most}")
    return size, kind, number
