"""Limits that are part of the protocol: the same on every node, never configured.

A setting may only lower what one client produces; servers, readers and repair take up to these
(trap 47).  Units last in each name.
"""

KIB = 1024
MIB = 1024 * KIB

PAYLOAD_BYTES_MAX = 8 * MIB
"""One event."""
FRAME_BYTES_MAX = 16 * MIB
"""One frame: header, lengths and payloads of one batch, so also one `append_many`."""
FRAME_EVENTS_MAX = 1 << 20
"""Events in one frame."""
MESSAGE_BYTES_MAX = FRAME_BYTES_MAX + 64 * KIB
"""One message on the wire that carries frames."""
CONTROL_BYTES_MAX = 4 * MIB
"""One typed control message."""
HELLO_BYTES_MAX = 4 * KIB
"""Anything that comes before the handshake is over."""
SEND_QUEUE_BYTES_MAX = 96 * MIB
"""Bytes waiting for one slow peer before its connection is closed (N6)."""

STREAM_NAME_BYTES_MAX = 255
NAME_BYTES_MAX = 64
"""Peer and server names."""
REPLICAS_MAX = 16
STREAMS_PER_LIST_MAX = 1000
"""Rows in one reply to a listing; the next request goes on behind the last."""

SEQUENCE_MAX = (1 << 63) - 1
PORT_MAX = 65535

if (
    PAYLOAD_BYTES_MAX + 4 * KIB > FRAME_BYTES_MAX
):  # pragma: no cover  constants, checked at every import
    raise RuntimeError("a frame must hold one event of any allowed size")
