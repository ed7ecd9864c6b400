"""Decoders with a planted bug: a fuzzer that does not find them is blind."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from tests.fuzz.harness import Target
from tests.fuzz.targets import TARGETS

from lunalog.errors import CorruptFrameError
from lunalog.storage import format as layout
from lunalog.wire import codec, frames
from lunalog.wire.codec import FRAMES_HEAD, FramesHead, ReadStatus


def _unchecked_status(body: memoryview) -> tuple[FramesHead, memoryview]:
    """`codec.decode_frames` that trusts a byte: another status than four is a bare ValueError."""
    try:
        end, committed, chain, status = FRAMES_HEAD.unpack_from(body)
    except struct.error as error:
        raise CorruptFrameError("not a FRAMES message") from error
    return FramesHead(end, committed, chain, ReadStatus(status)), body[FRAMES_HEAD.size :]


def _unchecked_lengths(head: frames.FrameHead, frame: bytes) -> list[int]:
    """`frames._bounds` that believes the lengths column."""
    view = memoryview(frame)[frames.HEAD_BYTES :]
    return [int.from_bytes(view[4 * i : 4 * i + 4], "little") for i in range(head.count)]


def _unchecked_boot(buffer: bytes, at: int, extent: int, offset: int) -> object:
    """`parse_batch_head` whose author thought that nobody starts a server that often."""
    head = _parse_batch_head(buffer, at, extent, offset)
    if head is not None and head.boot > 1 << 40:
        raise OverflowError("too many starts")
    return head


def broken(module: object, name: str, planted: Callable[..., object], target: Target) -> Target:
    """`target` while a function of the product is replaced."""

    def run(data: bytes) -> bool:
        right = getattr(module, name)
        setattr(module, name, planted)
        try:
            return target.run(data)
        finally:
            setattr(module, name, right)

    return replace(target, name=f"broken_{target.name}", run=run)


_parse_batch_head = layout.parse_batch_head

CANARIES: dict[str, Target] = {
    found.name: found
    for found in (
        broken(codec, "decode_frames", _unchecked_status, TARGETS["frames_message"]),
        broken(frames, "_bounds", _unchecked_lengths, TARGETS["frame"]),
        broken(layout, "parse_batch_head", _unchecked_boot, TARGETS["batch"]),
    )
}
