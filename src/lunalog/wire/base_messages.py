"""Handshake, errors, and the answers that any request may have.

Array-like structs: a field is only ever added at the end, with a default.  Tags are for ever.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """First message of who dialled -> Welcome."""

    version_min: int
    version_max: int
    cluster: str
    """Empty while the dialler knows none."""
    role: str
    """client, server, master or admin."""
    name: str
    incarnation: bytes
    """A client's `linc`; empty for others."""
    nonce: bytes
    """Fresh random bytes a connection, so that late bytes of a dead one are told apart (N8)."""
    purpose: str = "main"
    """`beat` for a client's heartbeat connection."""
    features: tuple[str, ...] = ()


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Answer to Hello: what the two sides speak."""

    version: int
    cluster: str
    role: str
    name: str
    features: tuple[str, ...] = ()
    nonce: bytes = b""
    """A master's: of this connection, and of no other there ever was (N8)."""


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Body of an ERROR message, and of refusals inside pushes."""

    code: str
    message: str
    fields: dict[str, Any]


class Done(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The request took effect; there is nothing to tell."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Is anybody there -> Done."""
