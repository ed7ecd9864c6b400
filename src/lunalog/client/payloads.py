"""What can be an event: bytes, up to the limits of an event and of a frame.

Source: H1; design.md section 10.
"""

from __future__ import annotations

from typing import Final

from lunalog import limits
from lunalog.errors import PayloadTooLargeError, UsageError
from lunalog.wire import frames

EVENT_OVERHEAD_BYTES: Final = 4
"""An event's place in the column of lengths."""


def as_payload(payload: object) -> bytes:
    """Return the payload as bytes of its own; raises `UsageError` for what is not bytes-like."""
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    try:
        return bytes(memoryview(payload))  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(
            f"an event is bytes, not {type(payload).__name__}; nothing was sent: encode it first"
        ) from None


def check_size(size: int) -> None:
    """Raise `PayloadTooLargeError` for an event past the protocol's limit."""
    if size > limits.PAYLOAD_BYTES_MAX:
        raise PayloadTooLargeError(
            f"an event of {size} bytes is past the limit of {limits.PAYLOAD_BYTES_MAX}; "
            "nothing was sent: store large values elsewhere and append a reference"
        )


def size_of(sizes: list[int]) -> int:
    """Return the bytes that payloads of these sizes take in a frame."""
    return sum(sizes) + EVENT_OVERHEAD_BYTES * len(sizes)


def check_run(sizes: list[int]) -> int:
    """Return the bytes that they take in one frame; raises `PayloadTooLargeError` if it would not do."""
    size = size_of(sizes)
    if size > limits.PAYLOAD_BYTES_MAX:  # or none of them is
        check_size(max(sizes))
    if size > limits.FRAME_BYTES_MAX - frames.HEAD_BYTES or len(sizes) > limits.FRAME_EVENTS_MAX:
        raise PayloadTooLargeError(
            f"{len(sizes)} events of {size} bytes do not fit into one frame of at most "
            f"{limits.FRAME_BYTES_MAX} bytes and {limits.FRAME_EVENTS_MAX} events; "
            "nothing was sent: append them in parts"
        )
    return size
