"""A follower that is behind: URL STREAM PARTS-FILE.  Reads everything back and checks each event."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lunalog import SingleWriteJournal
from product_client import row, run


async def main() -> None:
    """Read each part through `async for`, time it, and compare every payload."""
    url, stream, file = sys.argv[1:4]
    parts = json.loads(Path(file).read_text())
    rates: dict[int, list[float]] = {}
    async with SingleWriteJournal.connect(url, peer="bench-reader") as journal:
        for first, end, text in parts:
            event, expected = bytes.fromhex(text), first
            started = time.perf_counter()
            async for found in journal.read(stream, start=first):
                if found.sequence != expected or found.payload != event:
                    raise SystemExit(f"wrong event at {expected}: {found.sequence}")
                expected += 1
                if expected == end:
                    break
            if expected != end:
                raise SystemExit(f"the stream ends at {expected}, {end} was acknowledged")
            if end - first > 100_000:
                rates.setdefault(len(event), []).append(
                    (end - first) / (time.perf_counter() - started)
                )
    for size, found in rates.items():
        row(test=f"read {size}B", events_s=round(max(found)))


if __name__ == "__main__":
    run(main())
