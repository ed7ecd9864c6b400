"""The final log as it grows, on disk: what any reader got can be compared with it, at any time."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from lunalog.testing.history import Delivery

ENTRY: Final = struct.Struct("<QQI")
"""Where an event's payload lies, its epoch, and its length."""


class EventFile:
    """Events by sequence, dense from `start`; a file of entries beside a file of payloads."""

    def __init__(self, directory: Path, start: int = 0) -> None:
        self.start = start
        self.end = start
        self._entries = os.open(directory / "log.entries", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._bytes = os.open(directory / "log.bytes", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._at = 0

    def close(self) -> None:
        """Close both files."""
        os.close(self._entries)
        os.close(self._bytes)

    def append(self, events: list[Delivery]) -> None:
        """Add events; each is the next one."""
        entries, payloads = [], []
        for event in events:
            if event.sequence != self.end:
                raise ValueError(f"{event.sequence} is not {self.end}")
            entries.append(ENTRY.pack(self._at, event.epoch, len(event.payload)))
            payloads.append(event.payload)
            self._at += len(event.payload)
            self.end += 1
        os.write(self._entries, b"".join(entries))
        os.write(self._bytes, b"".join(payloads))

    def read(self, first: int, end: int) -> list[Delivery]:
        """Events in [first, end), as far as there are any."""
        first, end = max(first, self.start), min(end, self.end)
        if first >= end:
            return []
        size = ENTRY.size
        raw = os.pread(self._entries, (end - first) * size, (first - self.start) * size)
        entries = list(ENTRY.iter_unpack(raw))
        at = entries[0][0]
        payloads = os.pread(self._bytes, entries[-1][0] + entries[-1][2] - at, at)
        return [
            Delivery(first + n, epoch, payloads[place - at : place - at + length])
            for n, (place, epoch, length) in enumerate(entries)
        ]
