"""What people read of the system's errors and addresses.

Each event loop puts numbers, brackets and addresses of its own into what it raises.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lunalog.runtime import Address

WORDS: Final = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.ECONNRESET: "the other side broke it off",
    errno.ETIMEDOUT: "the other side does not answer",
}
NAME_WORDS: Final = {
    socket.EAI_NONAME: "there is no host of that name",
    socket.EAI_AGAIN: "no name server answers",
}
"""Of what `getaddrinfo` says, whose numbers mean something else."""


def plainly(error: BaseException) -> str:
    """Say in words what the system, or a loop, tells with numbers and addresses in brackets."""
    import ssl  # takes its time, and a command that fails early has none

    if isinstance(error, ssl.SSLError):  # an `OSError` with numbers of its own
        return str(error)
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror):
        return NAME_WORDS.get(number or 0, error.strerror or str(error))
    if number is not None and number > 0:
        return WORDS.get(number) or os.strerror(number)
    several = {int(found) for found in re.findall(r"\[Errno (\d+)\]", str(error))}
    return ", ".join(WORDS.get(each) or os.strerror(each) for each in sorted(several)) or str(error)


def shown(address: Address) -> str:
    """Return an address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
