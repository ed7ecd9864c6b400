"""The chain: a 64-bit running hash over the frames of a stream, continued from segment to segment.

Two replicas with equal (end, chain) hold the same bytes up to `end`, because each frame enters with
its checksum.  Source: R26, I7, I15.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

from lunalog.types import Chain, Sequence

_LINK = struct.Struct("<QQII")
_HASH = struct.Struct("<Q")


def extend(chain: Chain, first: Sequence, count: int, crc: int) -> Chain:
    """Return the chain behind a frame of `count` events at `first` whose checksum is `crc`."""
    digest = blake2b(_LINK.pack(chain, first, count, crc), digest_size=8).digest()
    found: int = _HASH.unpack(digest)[0]
    return found
