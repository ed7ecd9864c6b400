"""Ask the replicas of a former epoch: fences until they answer, recovery reads once.

Source: R5, R6, N3, N5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from lunalog.client.servers import ServerLinks
from lunalog.config import ClientConfig
from lunalog.core import effects
from lunalog.core.effects import Effect
from lunalog.core.leadership import LeaderMachine
from lunalog.core.outbox import CopiedFrame
from lunalog.core.recovery import FenceAnswer
from lunalog.errors import (
    CorruptFrameError,
    FencedError,
    GoneError,
    LunalogError,
    WrongIncarnationError,
)
from lunalog.runtime import Runtime, Tasks
from lunalog.types import Member, OpenSegment, Promise
from lunalog.wire import frames
from lunalog.wire.codec import ReadStatus
from lunalog.wire.messages import Fence, Fenced, Read

FENCE_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 0.05


class TakeoverParts(Protocol):
    """The leadership, as seen from here."""

    machine: LeaderMachine

    @property
    def promise(self) -> Promise:
        """What is asked for."""
        ...

    def feed(self, step: Callable[..., list[Effect]], *args: Any, **fields: Any) -> None:
        """Give the machine one input."""
        ...


class OldSet:
    """The replica set of the segment that must be recovered."""

    def __init__(
        self,
        runtime: Runtime,
        config: ClientConfig,
        links: ServerLinks,
        tasks: Tasks,
        leadership: TakeoverParts,
    ) -> None:
        self._runtime = runtime
        self._config = config
        self._links = links
        self._tasks = tasks
        self._leadership = leadership
        self._fencing: list[asyncio.Task[Any]] = []

    def fence(self, effect: effects.FenceSet) -> None:
        """Ask every member, all at once."""
        for member in effect.segment.members:
            name = f"fence-{effect.segment.id}-{member.server}"
            self._fencing.append(self._tasks.start(self._fence(effect.segment, member), name))

    def stop(self, effect: effects.StopFencing) -> None:
        """Enough have answered."""
        fencing, self._fencing = self._fencing, []
        for task in fencing:
            task.cancel()

    async def _fence(self, segment: OpenSegment, member: Member) -> None:
        machine = self._leadership.machine
        message = Fence(
            machine.head.stream,
            segment.id,
            segment.first,
            self._leadership.promise,
            member.incarnation,
        )
        while True:
            try:
                connection = await self._links.connection_to(member.server)
                answer: Fenced = await connection.request(message, timeout=FENCE_TIMEOUT_S)
            except LunalogError as error:
                self._leadership.feed(machine.unfenced, member, error, self._runtime.now())
                if isinstance(error, WrongIncarnationError | FencedError | GoneError):
                    return
                await asyncio.sleep(max(RETRY_S, self._links.pause_s(member.server)))
            else:
                found = FenceAnswer(
                    end=answer.end,
                    chain=answer.chain,
                    committed=answer.committed,
                    unknown=answer.unknown,
                )
                self._leadership.feed(
                    machine.fenced,
                    member,
                    found,
                    has_certificate=answer.certificate is not None,
                    now=self._runtime.now(),
                )
                return

    def read(self, effect: effects.ReadFrom) -> None:
        """Read once; the machine decides whom to ask next."""
        name = f"recover-{effect.segment.id}-{effect.member.server}"
        _ = self._tasks.start(self._read(effect), name)

    async def _read(self, effect: effects.ReadFrom) -> None:
        machine = self._leadership.machine
        member, start = effect.member, effect.start
        message = Read(
            machine.head.stream,
            effect.segment.id,
            start,
            self._config.read_ahead_bytes,
            0,
            self._leadership.promise,
        )
        try:
            connection = await self._links.connection_to(member.server)
            head, body = await connection.request(message, timeout=effect.timeout_ms / 1000)
            found = _copies(machine.head.stream, body) if head.status is ReadStatus.HELD else []
        except LunalogError as error:
            self._leadership.feed(machine.unread, member, start, error, self._runtime.now())
            return
        self._leadership.feed(machine.copied, member, start, head.chain, found, self._runtime.now())


def _copies(stream: bytes, body: bytes) -> list[CopiedFrame]:
    """Cut a run of frames, each checked (R26)."""
    found = []
    for head, frame in frames.split(body):
        if head.stream != stream:
            raise CorruptFrameError(f"a frame of another stream at {head.first}")
        found.append(CopiedFrame(head.first, head.count, head.crc, bytes(frame)))
    return found
