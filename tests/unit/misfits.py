"""Frames that only a broken or hostile leader can write."""

from __future__ import annotations

from crc32c import crc32c

from lunalog.wire import frames


def misfit(frame: bytes) -> bytes:
    """The same frame with lengths that do not add up to its body, and a checksum that is right."""
    head = frame[: frames.HEAD.size]
    body = bytearray(frame[frames.HEAD_BYTES :])
    body[0] ^= 1
    return head + frames.CRC.pack(crc32c(bytes(body), crc32c(head))) + bytes(body)
