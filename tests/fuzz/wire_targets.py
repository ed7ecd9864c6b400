"""Everything that comes over a connection: frames, messages, handshakes, and the input as a whole."""

from __future__ import annotations

from typing import Any

import msgspec
from crc32c import crc32c
from tests.fuzz.harness import StillLoop, StillRuntime, Target, require
from tests.fuzz.mutate import mutator
from tests.unit.wire.samples import SAMPLES

from lunalog import limits
from lunalog.errors import CorruptFrameError, LunalogError, UnsupportedVersionError
from lunalog.wire import codec, frames
from lunalog.wire.codec import ENVELOPE_BYTES, FramesHead, Kind, ReadStatus
from lunalog.wire.connection import BUFFER_BYTES_MAX, Connection, Handler
from lunalog.wire.messages import Failure, Hello, Message, Welcome
from lunalog.wire.room import Room

STREAM = bytes(range(16))
HELLO = Hello(1, 1, "", "client", "engine-1", b"\x11" * 16, b"\x22" * 16)
WELCOME = Welcome(1, "c0ffee", "server", "s1")
FRAME = bytes(frames.build(STREAM, 7, 3, 1_700_000_000_000_000, [b"one", b"", b"three"]))
BEHIND = bytes(frames.build(STREAM, 10, 4, 1_700_000_000_000_001, [bytes(200), b"x"]))


# ------------------------------------------------------------------------------- frames


def with_checksum(data: bytes, at: int = 0) -> bytes:
    """Make the checksum of the frame at `at` right, as far as it has one."""
    if len(data) < at + frames.HEAD_BYTES:
        return data
    body = int.from_bytes(data[at + 12 : at + 16], "little")
    end = at + frames.HEAD_BYTES + body
    head = data[at : at + frames.HEAD.size]
    crc = crc32c(data[at + frames.HEAD_BYTES : end], crc32c(head))
    return head_of(data, at) + crc.to_bytes(4, "little") + data[at + frames.HEAD_BYTES :]


def head_of(data: bytes, at: int) -> bytes:
    return data[: at + frames.HEAD.size]


def run_frame(data: bytes) -> bool:
    return any([_frame(data), _frame(with_checksum(data))])


def _frame(data: bytes) -> bool:
    try:
        head = frames.parse(data)
        found = frames.events(head, data)
    except CorruptFrameError:
        return False
    payloads = [event.payload for event in found]
    again = frames.build(head.stream, head.first, head.epoch, head.appended_us, payloads)
    require(again == data, "a frame is made of what it says")
    require([event.sequence for event in found] == list(range(head.first, head.end)), "dense")
    require(head.end <= limits.SEQUENCE_MAX, "bounded")
    for event in found[:1]:
        event.appended_at.isoformat()
    skip = head.first + head.count // 2
    require(frames.events(head, data, skip) == found[skip - head.first :], "a part is a part")
    return True


def run_frames(data: bytes) -> bool:
    fixed, at = data, 0
    while at + frames.HEAD_BYTES <= len(fixed):
        fixed = with_checksum(fixed, at)
        at += frames.HEAD_BYTES + int.from_bytes(fixed[at + 12 : at + 16], "little")
    return any([_split(data), _split(fixed)])


def _split(data: bytes) -> bool:
    parts = []
    try:
        for head, frame in frames.split(data):
            require(len(frame) == head.size, "a whole frame")
            parts.append(bytes(frame))
    except CorruptFrameError:
        require(data.startswith(b"".join(parts)), "what came before is what was there")
        return False
    require(b"".join(parts) == data, "nothing is left out")
    return bool(parts)


# ------------------------------------------------------------------------------- messages


def run_message(data: bytes) -> bool:
    try:
        message = codec.decode_control(data)
    except CorruptFrameError:
        return False
    again = body_of(message)
    back = codec.decode_control(again)
    require(type(back) is type(message), "a message stays what it is")
    require(body_of(back) == again, "what decodes is encoded to the same bytes, ever after")
    if isinstance(message, Failure):
        error = codec.error_of(message)
        require(isinstance(error, LunalogError), "an error of the tree")
        body_of(codec.failure_of(error))
    if isinstance(message, Hello):
        try:
            codec.agreed_version(message)
        except UnsupportedVersionError:
            return False
    return True


def body_of(message: Message) -> bytes:
    return codec.control(Kind.PUSH, 0, message)[ENVELOPE_BYTES:]


def run_frames_message(data: bytes) -> bool:
    try:
        head, rest = codec.decode_frames(memoryview(data))
    except CorruptFrameError:
        return False
    head_bytes = codec.frames_head(0, head, 0)[ENVELOPE_BYTES:]
    require(len(head_bytes) + len(rest) == len(data), "head and frames are all")
    require(codec.decode_frames(memoryview(head_bytes))[0] == head, "the head is what it was")
    require(max(head.end, head.committed) <= limits.SEQUENCE_MAX, "sequences are bounded")
    return True


def run_number(data: bytes) -> bool:
    try:
        found = codec.decode_u64(data)
    except CorruptFrameError:
        return False
    require(found <= limits.SEQUENCE_MAX, "a sequence is bounded")
    require(codec.ack(0, found)[ENVELOPE_BYTES:] == data[:8], "the bytes it was")
    return True


# ------------------------------------------------------------------------------- connections


class Transport:
    """Takes everything and gives it to nobody."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.is_over = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def writelines(self, buffers: list[bytes]) -> None:
        self.sent += b"".join(buffers)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int = 0, low: int = 0) -> None:
        pass

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def is_closing(self) -> bool:
        return self.is_over

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.is_over = True

    abort = close


class Taking(Handler):
    """Counts whatever comes; refuses nothing but what no frame is."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        self.taken.append(codec.control(Kind.REQUEST, request, message))
        connection.fail(request, CorruptFrameError("no"))

    def on_push(self, connection: Connection, message: Message) -> None:
        self.taken.append(codec.control(Kind.PUSH, 0, message))

    def on_append(
        self, connection: Connection, slot: int, committed: int, frame: memoryview
    ) -> None:
        self.taken.append(codec.append_head(slot, committed, len(frame)) + bytes(frame))

    def on_ack(self, connection: Connection, slot: int, end: int) -> None:
        self.taken.append(codec.ack(slot, end))

    def on_mark(self, connection: Connection, slot: int, committed: int) -> None:
        self.taken.append(codec.mark(slot, committed))


def _connection(loop: StillLoop, taking: Taking, *, dials: bool) -> Connection:
    runtime: Any = StillRuntime()
    if dials:
        connection = Connection(runtime, taking, greet=lambda: HELLO)
        connection.opened = loop.create_future()
    else:
        connection = Connection(
            runtime, taking, welcome=lambda hello: (WELCOME, taking), room=Room()
        )
    connection.connection_made(Transport())  # type: ignore[arg-type]
    return connection


def _feed(connection: Connection, data: bytes, step: int) -> None:
    """Give bytes as a transport would, `step` at a time."""
    at = 0
    while at < len(data) and connection.closed_by is None:
        room = connection.get_buffer(-1)
        require(len(room) > 0, "there is always room for more")
        size = min(len(room), step, len(data) - at)
        room[:size] = data[at : at + size]
        connection.buffer_updated(size)
        at += size


def _talk(data: bytes, opening: bytes, step: int, *, dials: bool) -> list[bytes]:
    loop, taking = StillLoop(), Taking()

    def work() -> None:
        connection = _connection(loop, taking, dials=dials)
        _feed(connection, opening, 1 << 20)
        _feed(connection, data, step)
        loop.turn()
        most = max(BUFFER_BYTES_MAX, limits.MESSAGE_BYTES_MAX)
        require(len(connection._buffer) <= most, "the buffer is bounded")
        if not connection.is_open and connection.closed_by is None:
            require(len(connection._buffer) <= BUFFER_BYTES_MAX, "more so before the handshake")
        if connection.closed_by is not None:
            require(isinstance(connection.closed_by, LunalogError), "it is told why")
        connection.connection_lost(None)
        if connection.opened is not None and not connection.opened.cancelled():
            connection.opened.exception()

    loop.run(work)
    return taking.taken


OPENING = codec.MAGIC + codec.control(Kind.HELLO, 0, HELLO)
ANSWER = codec.control(Kind.WELCOME, 0, WELCOME)


def run_connection(data: bytes) -> bool:
    whole = _talk(data, OPENING, 1 << 20, dials=False)
    cut = _talk(data, OPENING, 1 + len(data) // 7, dials=False)
    require(whole == cut, "how the bytes were cut changes nothing")
    _talk(data, ANSWER, 1 << 20, dials=True)
    return bool(whole)


def run_handshake(data: bytes) -> bool:
    fixed = codec.MAGIC + data[8:]
    found = False
    for opening in (data, fixed):
        whole = _talk(opening, b"", 1 << 20, dials=False)
        found |= bool(whole)
        require(whole == _talk(opening, b"", 1 + len(data) // 5, dials=False), "cut as it may be")
    _talk(data, b"", 1 << 20, dials=True)
    return found


# ------------------------------------------------------------------------------- the list


def _bodies() -> dict[str, bytes]:
    return {name: body_of(message) for name, message in SAMPLES.items()}


def _requests() -> dict[str, bytes]:
    found = {
        "append": codec.append_head(2, 7, len(FRAME)) + FRAME,
        "ack": codec.ack(2, 10) + codec.mark(3, 10),
        "frames": codec.frames_head(6, FramesHead(10, 9, 3, ReadStatus.HELD), len(FRAME)) + FRAME,
        "error": codec.control(Kind.ERROR, 0, SAMPLES["Failure"]),
        "push": codec.control(Kind.PUSH, 0, SAMPLES["CloseSlot"]),
    }
    for name in ("Ping", "OpenSlot", "Certify", "ServerBeat"):
        found[name] = codec.control(Kind.REQUEST, 1, SAMPLES[name])
    return found


CODEC = ("lunalog.wire.codec", "lunalog.wire.frames")
ONE_BUFFER = limits.MESSAGE_BYTES_MAX + 4 * limits.MIB
"""A connection allocates for one message what its size says, before all of it has come."""
CONNECTION = ("lunalog.wire.connection", "lunalog.wire.codec")

TARGETS = (
    Target(
        "frame",
        run_frame,
        lambda: {"three": FRAME, "two": BEHIND},
        ("lunalog.wire.frames",),
        bytes_each=400,
    ),
    Target("frames", run_frames, lambda: {"run": FRAME + BEHIND}, ("lunalog.wire.frames",)),
    Target(
        "message",
        run_message,
        _bodies,
        (*CODEC[:1], "lunalog.errors"),
        bytes_each=1500,
        mutate=mutator(lambda: list(_bodies().values())),
    ),
    Target(
        "frames_message",
        run_frames_message,
        lambda: {"held": _requests()["frames"][ENVELOPE_BYTES:]},
        CODEC[:1],
    ),
    Target("number", run_number, lambda: {"seven": (7).to_bytes(8, "little")}, CODEC[:1]),
    Target("connection", run_connection, _requests, CONNECTION, 1500, ONE_BUFFER),
    Target(
        "handshake",
        run_handshake,
        lambda: {"client": OPENING + _requests()["Ping"], "welcome": ANSWER},
        CONNECTION,
        bytes_each=1500,
        bytes_base=ONE_BUFFER,
    ),
)

if msgspec.msgpack.decode(body_of(SAMPLES["Ping"])) != [5]:
    raise RuntimeError("the samples are not what the decoder reads")
