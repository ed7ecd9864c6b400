"""A drawn life of a log: segments of two streams come, grow, end and go."""

from __future__ import annotations

import asyncio
import random

from tests.unit.storage.conftest import OTHER, STREAM, Owner

from lunalog.core.held import SegmentReplica
from lunalog.types import SegmentId


class Workload:
    """One life's work; what it leaves is in the owner's memory."""

    def __init__(self, owner: Owner, seed: int, steps: int) -> None:
        self.owner = owner
        self.chance = random.Random(seed)
        self.steps = steps

    async def run(self) -> None:
        for _ in range(self.steps):
            self.step()
            draw = self.chance.random()
            if draw < 0.25:
                await self.owner.log.flush()
            elif draw < 0.35:
                await asyncio.sleep(self.chance.choice([0.001, 0.03, 1.2]))
        await self.owner.log.flush()

    def step(self) -> None:
        owner, chance = self.owner, self.chance
        stream = chance.choice([STREAM, STREAM, OTHER])
        state = owner.replica.streams.get(stream)
        if state is not None and state.is_deleted:
            return
        held = self._open(stream)
        draw = chance.random()
        if held is None or draw < 0.12:
            self._begin(stream)
        elif draw < 0.75:
            for _ in range(chance.choice([1, 1, 3])):
                place = held.end * 7 % 5  # what a leader sends again is what it sent before
                owner.append(held, stream, count=1 + place % 2, size=(0, 30, 700, 90, 400)[place])
        elif draw < 0.80:
            owner.mark(held, max(held.first, held.end - 1), stream)
        elif draw < 0.85:
            owner.promise(stream, owner.replica.streams[stream].promise.epoch + 1)
        elif draw < 0.93:
            self._trim(stream)
        elif draw < 0.97:
            self._drop(stream)
        elif draw > 0.99 and stream == OTHER:
            owner.delete(OTHER)

    def _open(self, stream: bytes) -> SegmentReplica | None:
        """The newest segment, unless it is sealed or fenced."""
        state = self.owner.replica.streams.get(stream)
        if state is None or not state.segments:
            return None
        held = state.segments[max(state.segments)]
        if held.certificate is not None or held.id.epoch < state.promise.epoch:
            return None
        return held

    def _begin(self, stream: bytes) -> None:
        """Seal what there is, and open the next segment."""
        owner = self.owner
        state = owner.replica.streams.get(stream)
        first, chain, epoch, n = 0, 0, 1, 0
        if state is not None:
            epoch = max(1, state.promise.epoch)
            known = [key[1] for key in owner.memory.put_ends if key[0] == stream]
            known = [segment for segment in known if segment.epoch == epoch]
            n = max((segment.n for segment in known), default=-1) + 1
            first = max(
                [state.trimmed_before]
                + [end for key, end in owner.memory.put_ends.items() if key[0] == stream]
            )
            if state.segments:
                held = state.segments[max(state.segments)]
                chain = held.chain
                if held.certificate is None and held.end > held.first:
                    owner.certify(held, stream=stream)
        owner.open_segment(stream, SegmentId(epoch, n), first, chain)

    def _trim(self, stream: bytes) -> None:
        state = self.owner.replica.streams[stream]
        ends = sorted(h.certificate.row.end for h in state.segments.values() if h.certificate)
        if ends:
            self.owner.trim(self.chance.choice(ends[: 1 + len(ends) // 2]), stream)

    def _drop(self, stream: bytes) -> None:
        state = self.owner.replica.streams[stream]
        sealed = sorted(s for s, held in state.segments.items() if held.certificate)
        if sealed:
            self.owner.drop(self.chance.choice(sealed), stream, version=2)
