"""Ports for processes that are started later, and started again: nobody else is given them meanwhile.

A port that the kernel names as free is anybody's until it is taken, and again while its process is
down.  These lie below those that the kernel gives out, in blocks of which every test process holds
one; the kernel lets go of it when the process ends.
"""

from __future__ import annotations

import functools
import itertools
import random
import socket
from collections.abc import Iterator
from pathlib import Path

FIRST = 12_000
BLOCK = 200


@functools.cache
def _held() -> tuple[socket.socket, range]:
    """A block of ports for this process, and what holds it."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(given.read_text().split()[0]) if given.exists() else 32_768
    starts = list(range(FIRST, max(lowest, FIRST + 20 * BLOCK) - BLOCK, BLOCK))
    for start in random.sample(starts, len(starts)):
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0lunalog-test-ports-{start}")
        except OSError:
            holder.close()
        else:
            return holder, range(start, start + BLOCK)
    raise RuntimeError("other tests hold all the ports")


@functools.cache
def _turn() -> Iterator[int]:
    return itertools.cycle(_held()[1])


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nobody listens, another one each time."""
    for _ in range(BLOCK):
        port = next(_turn())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port of {_held()[1]} is free on {host}")
