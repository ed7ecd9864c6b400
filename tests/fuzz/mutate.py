"""Almost well-formed MessagePack: one message taken apart, changed somewhere, and put together again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

NUMBERS = (
    0, 1, -1, 2, 7, 16, 127, 128, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
    1 << 32, (1 << 63) - 2, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63),
)  # fmt: skip
TEXTS = ("", "s1", "a/b", "x" * 64, "y" * 300, "\0", "é\u2028\n", "nobody.invalid", "..", "%s")
FLOATS = (0.0, -1.0, 1e308, float("inf"), float("nan"))


def scalar(chance: random.Random) -> Any:
    """Something of no structure, mostly at the edge of something."""
    draw = chance.randrange(10)
    if draw < 5:
        return chance.choice(NUMBERS)
    if draw < 7:
        return chance.choice(TEXTS)
    if draw < 8:
        return chance.randbytes(chance.choice((0, 1, 15, 16, 17, 64)))
    return chance.choice((None, True, False, *FLOATS))


def nested(chance: random.Random) -> Any:
    """Lists in lists, deeper than anything here is."""
    value: Any = scalar(chance)
    for _ in range(chance.choice((1, 3, 60, 900))):
        value = [value]
    return value


def close_to(value: Any, chance: random.Random) -> Any:
    """Something of the same kind as `value`."""
    if isinstance(value, bool) or value is None:
        return chance.choice((True, False, None))
    if isinstance(value, int):
        near = value + chance.choice((-1, 1, 2, 1000))
        return chance.choice((*NUMBERS, min(max(near, -(1 << 63)), (1 << 64) - 1)))
    if isinstance(value, str):
        return chance.choice((*TEXTS, value + "x", value[:-1]))
    if isinstance(value, bytes):
        at = chance.randrange(len(value) + 1)
        return chance.choice((value[:at], value + b"\0", chance.randbytes(len(value)), bytes(16)))
    return scalar(chance)


def _change_list(value: list[Any], chance: random.Random) -> None:
    draw, at = chance.randrange(8), chance.randrange(len(value)) if value else 0
    if not value or draw == 0:
        value.insert(at, scalar(chance))
    elif draw == 1:
        del value[at:]
    elif draw == 2:
        del value[at]
    elif draw == 3:
        value.append(value[at])
    elif draw == 4:
        value[at] = nested(chance)
    elif isinstance(value[at], list) and draw < 7:
        _change_list(value[at], chance)
    elif isinstance(value[at], list) and chance.random() < 0.5:
        value[at] = value[at] * chance.choice((2, 20, 300))
    else:
        value[at] = (close_to if draw < 7 else lambda _, c: scalar(c))(value[at], chance)


def change(value: Any, chance: random.Random) -> Any:
    """Return a plain message with one to three things changed, its tag mostly kept."""
    if not isinstance(value, list):
        return scalar(chance)
    tag, rest = value[:1], value[1:]
    for _ in range(chance.choice((1, 1, 2, 3))):
        _change_list(rest, chance)
    return [*(tag if chance.random() < 0.95 else [scalar(chance)]), *rest]


def mutator(samples: Callable[[], list[bytes]], prefix: int = 0) -> Callable[..., bytes]:
    """Change MessagePack behind `prefix` plain bytes; what is none becomes a sample first."""
    known = samples()

    def mutate(data: bytes, chance: random.Random) -> bytes:
        if chance.random() < 0.3:
            data = chance.choice(known)
        try:
            value = msgspec.msgpack.decode(data[prefix:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            data = chance.choice(known)
            value = msgspec.msgpack.decode(data[prefix:])
        try:
            return data[:prefix] + msgspec.msgpack.encode(change(value, chance))
        except (TypeError, RecursionError, OverflowError):
            return chance.choice(known)

    return mutate
