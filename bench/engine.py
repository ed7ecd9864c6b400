"""A peer that leads whenever it may, and appends one event after another: URL STREAM NAME.

Prints one JSON line when it starts to lead, and one per acknowledged event with the machine's
monotonic clock, which all processes of the machine share.
"""

from __future__ import annotations

import json
import sys
import time

from lunalog import NotLeaderError, OutcomeUnknownError, SingleWriteJournal
from product_client import run


async def main() -> None:
    """Lead, append, and start over when leadership is lost."""
    url, stream, name = sys.argv[1:4]
    write = sys.stdout.write
    async with SingleWriteJournal.connect(url, peer=name) as journal:
        print(json.dumps({"ready": name}), flush=True)
        while True:
            try:
                async with journal.lead(stream) as writer:
                    print(json.dumps({"leads": name, "epoch": writer.epoch}), flush=True)
                    while True:
                        sequence = await writer.append(b"event of %d" % writer.tail)
                        write(f"{time.monotonic():.6f} {sequence}\n")
                        sys.stdout.flush()
            except (NotLeaderError, OutcomeUnknownError):
                continue


if __name__ == "__main__":
    run(main())
