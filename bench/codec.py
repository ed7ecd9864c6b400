"""What do frames cost beside the bytes in them: to make, to check, to take apart?

Beside each the bare work: joining the payloads and one CRC-32C over them.  No socket, no disk.  One line
of JSON a shape of frame, in microseconds a frame, the median of rounds of each kind in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

from crc32c import crc32c

from lunalog.wire import frames

SHAPES = ((100, 1000), (1024, 200), (1024, 1), (65536, 4))
"""Bytes of an event, and events of a frame."""
ROUNDS = 25
ROUND_S = 0.01


def works(size: int, count: int) -> dict[str, Callable[[], object]]:
    """What is timed for one shape."""
    payloads = [os.urandom(size) for _ in range(count)]
    frame = bytes(frames.build(bytes(16), 0, 1, 0, payloads))
    head = frames.parse(frame)
    return {
        "bare": lambda: crc32c(b"".join(payloads)),
        "make": lambda: frames.build(bytes(16), 0, 1, 0, payloads),
        "check": lambda: frames.parse(frame),
        "take apart": lambda: frames.payloads(head, frame),
    }


def took(work: Callable[[], object]) -> float:
    """Microseconds one `work` takes, in a round of `ROUND_S`."""
    done, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < ROUND_S:
        for _ in range(10):
            work()
        done += 10
    return (now - began) / done * 1e6


def main() -> int:
    """Time all shapes, print."""
    for size, count in SHAPES:
        kinds = works(size, count)
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, work in kinds.items():
                found[name].append(took(work))
        medians = {f"{name} us": round(statistics.median(v), 2) for name, v in found.items()}
        print(json.dumps({"frame": f"{count} of {size}B", **medians}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
