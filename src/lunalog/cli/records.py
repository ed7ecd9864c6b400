"""Bytes of a pipe to events and back, without any I/O.

Forms: a line each, a NUL-terminated string each, or a 32-bit little-endian length before each; and for
output only JSON lines and a printf-like template.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable
from typing import Protocol

from lunalog import limits
from lunalog.errors import PayloadTooLargeError, UsageError
from lunalog.types import Event

LENGTH = struct.Struct("<I")


class Splitter(Protocol):
    """Cuts a byte stream into events, chunk by chunk."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that `chunk` completed.

        Raises `PayloadTooLargeError` where an event is refused, after all before it were returned.
        """
        ...

    def finish(self) -> list[bytes]:
        """Return what the end of the input completes; raises `UsageError` for half an event."""
        ...


class DelimitedSplitter:
    """Events that end with one byte; the last one need not."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._parts: list[bytes] = []
        self._held = 0
        self._count = 0
        self._refusal: PayloadTooLargeError | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Split a chunk; what comes behind its last delimiter waits."""
        self._check()
        events = chunk.split(self._delimiter)
        rest = events.pop()
        if events:
            if self._held:
                events[0] = b"".join((*self._parts, events[0]))
                self._parts.clear()
                self._held = 0
            if max(map(len, events)) > limits.PAYLOAD_BYTES_MAX:
                return self._before_large(events)
            self._count += len(events)
        if rest:
            self._parts.append(rest)
            self._held += len(rest)
            if self._held > limits.PAYLOAD_BYTES_MAX:
                return self._refuse(events, self._count, self._held)
        return events

    def _before_large(self, events: list[bytes]) -> list[bytes]:
        large = (i for i, event in enumerate(events) if len(event) > limits.PAYLOAD_BYTES_MAX)
        at = next(large)
        return self._refuse(events[:at], self._count + at, len(events[at]))

    def _refuse(self, before: list[bytes], index: int, length: int) -> list[bytes]:
        """Refuse an event now, or by the next call when others come before it."""
        self._refusal = too_large(index, length)
        if not before:
            raise self._refusal
        return before

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def finish(self) -> list[bytes]:
        """Return the rest as an event if there is one."""
        self._check()
        if not self._held:
            return []
        last = b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        return [last]


class LengthSplitter:
    """Events with their length before them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._count = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Cut off all events that are complete."""
        self._buffer += chunk
        events: list[bytes] = []
        at = 0
        with memoryview(self._buffer) as view:
            while len(view) - at >= LENGTH.size:
                (length,) = LENGTH.unpack_from(view, at)
                if length > limits.PAYLOAD_BYTES_MAX:
                    if events:
                        break  # those first; the next call refuses it
                    raise too_large(self._count, length)
                end = at + LENGTH.size + length
                if end > len(view):
                    break
                events.append(bytes(view[at + LENGTH.size : end]))
                at = end
        del self._buffer[:at]
        self._count += len(events)
        return events

    def finish(self) -> list[bytes]:
        """Return nothing; raises `UsageError` if an event is cut off."""
        self.feed(b"")
        if self._buffer:
            raise UsageError(
                f"the input ends in the middle of event {self._count} (counted from 0); "
                "that event was not sent; check who writes the input"
            )
        return []


def too_large(index: int, length: int) -> PayloadTooLargeError:
    """Return the error for an event of the input that no stream takes."""
    return PayloadTooLargeError(
        f"event {index} of the input (counted from 0) has {length} bytes or more, "
        f"the limit is {limits.PAYLOAD_BYTES_MAX}; it was not sent; split it, or store it elsewhere"
    )


# ----------------------------------------------------------------------------------- output

Format = Callable[[Event], bytes]


def as_lines(event: Event) -> bytes:
    """Payload and a newline."""
    return event.payload + b"\n"


def as_null(event: Event) -> bytes:
    """Payload and a NUL."""
    return event.payload + b"\0"


def as_length_prefixed(event: Event) -> bytes:
    """32-bit little-endian length and the payload."""
    return LENGTH.pack(len(event.payload)) + event.payload


def as_json(event: Event) -> bytes:
    """One JSON object; the payload as text where it is UTF-8, else as base64."""
    row: dict[str, object] = {
        "sequence": event.sequence,
        "epoch": event.epoch,
        "appended_at": event.appended_at.isoformat(),
    }
    try:
        row["payload"] = event.payload.decode()
    except UnicodeDecodeError:
        row["payload_base64"] = base64.b64encode(event.payload).decode()
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


FORMATS: dict[str, Format] = {
    "lines": as_lines,
    "null": as_null,
    "length-prefixed": as_length_prefixed,
    "json": as_json,
}
FIELDS: dict[str, Format] = {
    "s": lambda event: b"%d" % event.sequence,
    "e": lambda event: b"%d" % event.epoch,
    "p": lambda event: event.payload,
    "l": lambda event: b"%d" % len(event.payload),
    "t": lambda event: event.appended_at.isoformat().encode(),
}
ESCAPES = {"n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def template(pattern: str) -> Format:
    r"""Compile `-f`: %s sequence, %e epoch, %p payload, %l its length, %t time, %%; \n \t \0 \\.

    A newline follows each event unless the pattern ends in one of the escapes \n or \0.
    """
    parts: list[bytes | Format] = []
    for literal, kind, name in re.findall(r"([^%\\]+)|([%\\])(.?)", pattern, re.DOTALL):
        if literal:
            parts.append(literal.encode())
        elif kind == "%" and name in FIELDS:
            parts.append(FIELDS[name])
        elif kind == "%" and name == "%":
            parts.append(b"%")
        elif kind == "\\" and name in ESCAPES:
            parts.append(ESCAPES[name])
        else:
            raise UsageError(
                f"{kind}{name} means nothing in a format; "
                r"use %s %e %p %l %t %% and \n \t \0 \\; nothing was read"
            )
    if not pattern.endswith(("\\n", "\\0")):
        parts.append(b"\n")

    def render(event: Event) -> bytes:
        return b"".join([p if isinstance(p, bytes) else p(event) for p in parts])

    return render
