"""What the events of a bench hold: a chain, so that reading them back proves all of it.

    offset  size
    0       8     number of the event, from 0 (little endian)
    8       8     link: hash of the link before, this number, and the BLAKE2b of this body
    16      ...   body, random bytes of the run's seed

Whoever has the seed can tell every byte of every event.  The bodies are a small pool that is hashed
once, so that an event costs its writer no hash over its bytes; the reader compares all of them.
"""

from __future__ import annotations

import hashlib
import random
import struct
from typing import Final

from lunalog import limits
from lunalog.errors import UsageError

HEAD: Final = struct.Struct("<QQ")
SIZE_MIN: Final = HEAD.size
BODIES: Final = 61
POOL_BYTES_MAX: Final = 32 * limits.MIB
MASK: Final = (1 << 64) - 1
FACTOR: Final = 0x9E37_79B9_7F4A_7C15


class Bodies:
    """The bodies of one run, and their digests; shared by all its streams."""

    def __init__(self, seed: int, size: int) -> None:
        if not SIZE_MIN <= size <= limits.PAYLOAD_BYTES_MAX:
            raise UsageError(
                f"an event of a bench has {SIZE_MIN} (its number and its hash) to "
                f"{limits.PAYLOAD_BYTES_MAX} bytes, not {size}; nothing was started"
            )
        self.seed, self.size = seed, size
        count = max(2, min(BODIES, POOL_BYTES_MAX // size))
        chance = random.Random(seed)
        bodies = [chance.randbytes(size - HEAD.size) for _ in range(count)]
        self.pool = [(body, digest(body)) for body in bodies]


def digest(body: bytes) -> int:
    """Return 64 bits of the BLAKE2b of a body."""
    return int.from_bytes(hashlib.blake2b(body, digest_size=8).digest(), "little")


class Chain:
    """Makes the events of one stream, one after another."""

    def __init__(self, bodies: Bodies, number: int = 0, link: int = 0) -> None:
        self._pool = bodies.pool
        self.number = number
        """Of the next event."""
        self.link = link
        """Of the event before it."""

    @classmethod
    def behind(cls, bodies: Bodies, payload: bytes | None) -> Chain:
        """Go on behind the last event of a stream, if it has one."""
        if payload is None:
            return cls(bodies)
        number, link = HEAD.unpack_from(payload)
        return cls(bodies, number + 1, link)

    def take(self, count: int) -> list[bytes]:
        """Return the next `count` events."""
        number, link, pool, pack = self.number, self.link, self._pool, HEAD.pack
        size, made = len(pool), []
        for n in range(number, number + count):
            body, hashed = pool[n % size]
            link = ((link ^ hashed ^ n) * FACTOR) & MASK
            link ^= link >> 29
            made.append(pack(n, link) + body)
        self.number, self.link = number + count, link
        return made


class BrokenChainError(Exception):
    """What was read is not what was written."""


class Check:
    """Compares what is read with what was written: order, completeness, content."""

    def __init__(self, bodies: Bodies, first: int = 0) -> None:
        self._bodies = bodies
        self._chain = Chain(bodies)
        self._first = first

    @property
    def count(self) -> int:
        """Events that were right so far."""
        return self._chain.number

    def take(self, sequences: list[int], payloads: list[bytes]) -> None:
        """Check the next events; raises `BrokenChainError` for the first that is wrong."""
        before = Chain(self._bodies, self._chain.number, self._chain.link)
        first = self._first + before.number
        expected = self._chain.take(len(payloads))
        if payloads == expected and sequences == list(range(first, first + len(payloads))):
            return
        self._chain = before
        for n, (sequence, payload, right) in enumerate(
            zip(sequences, payloads, expected, strict=True)
        ):
            if sequence != first + n or payload != right:
                self._chain.take(n)
                raise BrokenChainError(explain(first + n, sequence, payload, right))


def explain(expected: int, sequence: int, payload: bytes, right: bytes) -> str:
    """Say how an event differs from the one that was written there."""
    if sequence != expected:
        return f"event {expected} is missing: {sequence} came instead"
    if len(payload) != len(right):
        return f"event {sequence} has {len(payload)} bytes, {len(right)} were written"
    number, wanted = HEAD.unpack_from(payload)[0], HEAD.unpack_from(right)[0]
    if number == wanted:
        at = next(i for i, (a, b) in enumerate(zip(payload, right, strict=True)) if a != b)
        return f"event {sequence} is damaged: byte {at} is not what was written"
    if number == wanted - 1:
        return f"event {sequence} holds the one before it again (number {number})"
    return f"event {sequence} holds number {number}, {wanted} was written there"
