"""What a fuzz target is, and the few stand-ins that targets run in.

A target takes any bytes.  It returns whether they were taken, and lets no error out but a bug: what it
expects to be raised, it catches itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lunalog.embedded.disk import Content, MemoryDisk
from lunalog.runtime import drive


class BrokenError(AssertionError):
    """A property does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenError(what)


@dataclass(frozen=True)
class Target:
    """One decoder or reader.

    Attributes:
        run: Takes any bytes; true when they were decoded, false when they were refused.
        seeds: Valid inputs to begin with, by name.
        modules: What it is to execute; the coverage of a run is counted in these.
        bytes_each: Memory that a byte of the input may cost, above `bytes_base`.
        refused: An input that must not be taken.
        mutate: Makes an almost well-formed input of another one, where single bytes lead nowhere.
    """

    name: str
    run: Callable[[bytes], bool]
    seeds: Callable[[], dict[str, bytes]]
    modules: tuple[str, ...]
    bytes_each: int = 64
    bytes_base: int = 256 << 10
    mutate: Callable[[bytes, random.Random], bytes] | None = None
    refused: bytes = b"\xc1" * 7


class Timer:
    """A timer that never fires."""

    def cancel(self) -> None:
        pass


class StillLoop:
    """An event loop on which nothing happens but `call_soon`, when it is told to."""

    def __init__(self) -> None:
        self._soon: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def call_soon(self, call: Callable[..., Any], *arguments: Any) -> Timer:
        self._soon.append((call, arguments))
        return Timer()

    def call_later(self, delay: float, call: Callable[..., Any], *arguments: Any) -> Timer:
        return Timer()

    def time(self) -> float:
        return 0.0

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A future that nobody looked at."""

    def turn(self) -> None:
        soon, self._soon = self._soon, []
        for call, arguments in soon:
            call(*arguments)

    def run(self, work: Callable[[], Any]) -> Any:
        """Call `work` as if this loop ran it."""
        asyncio._set_running_loop(self)  # type: ignore[arg-type]
        try:
            return work()
        finally:
            asyncio._set_running_loop(None)


class Failed(Exception):  # noqa: N818
    """The node was told to end: what a peer sent did that."""


class StillRuntime:
    """Chance that repeats, disk work done at once, and no way to fail."""

    is_blocking = True

    def __init__(self) -> None:
        self.random = random.Random(1)

    def now(self) -> float:
        return 0.0

    def wall_us(self) -> int:
        return 0

    def random_bytes(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def fail(self, error: BaseException) -> None:
        raise Failed(f"{type(error).__name__}: {error}") from error


def disk_of(files: dict[str, bytes]) -> MemoryDisk:
    """A directory that holds these files."""
    disk = MemoryDisk("fuzz")
    for name, data in files.items():
        content = Content()
        content.written += data
        disk._files[name] = content
    return disk


def files_of(disk: MemoryDisk) -> dict[str, bytes]:
    """All that a directory holds."""

    async def read(name: str) -> bytes:
        file = await disk.open(name)
        return await file.read(0, await file.size())

    return {name: drive(read(name)) for name in drive(disk.names())}


def pack(parts: dict[str, bytes]) -> bytes:
    """Several files as one input."""
    packed = b""
    for name, data in parts.items():
        packed += bytes([len(name)]) + name.encode() + len(data).to_bytes(3, "little") + data
    return packed


def unpack(data: bytes, names: Callable[[str], bool]) -> dict[str, bytes]:
    """Read any bytes as several files; what has no sensible name is left out."""
    parts: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        name = data[at + 1 : at + 1 + data[at]].decode("ascii", "replace")
        at += 1 + data[at]
        size = int.from_bytes(data[at : at + 3], "little")
        at += 3
        if names(name):
            parts[name] = data[at : at + size]
        at += size
    return parts
