"""Execute one leader's decisions: dial, fence, read, open, send, ask the master, tell the callers.

`core.leadership` decides; nothing here does.  Whatever happens is fed to the machine, and the effects
it returns are executed in order.  Every wait is bounded or ends with the epoch, and when that ends
every append that is not committed gets its one final outcome.

Source: design.md section 5; R4 to R11, R14, R15, R21, R28, R31; L2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from lunalog.client.batching import AppendQueue
from lunalog.client.feeding import Feeding
from lunalog.client.leader_calls import LeaderCalls, MasterCalls
from lunalog.client.marks import Marks
from lunalog.client.servers import ServerLinks
from lunalog.client.slots import MemberSlot, SegmentSlots
from lunalog.client.takeover import OldSet
from lunalog.client.ticking import Ticks
from lunalog.client.watch import StreamWatch
from lunalog.config import ClientConfig
from lunalog.core import effects
from lunalog.core.effects import Effect
from lunalog.core.leadership import LeaderMachine
from lunalog.core.rolling import LeaderSettings
from lunalog.errors import FencedError, LunalogError, NotLeaderError
from lunalog.runtime import Runtime, Tasks
from lunalog.types import Epoch, Frame, Member, Promise, SegmentId, Sequence, ServerAddress
from lunalog.wire import codec, frames
from lunalog.wire.connection import Connection
from lunalog.wire.messages import (
    Check,
    LeaderAnswer,
    LeaderAsked,
    Opened,
    OpenSlot,
    ResignWanted,
    RollWanted,
    Truncate,
)

CHECK_TIMEOUT_S: Final = 1.0
CERTIFY_TIMEOUT_S: Final = 5.0
logger = logging.getLogger("lunalog.client")


class LeaseHolder(Protocol):
    """What the leader needs of the session."""

    lease_deadline: float


class Leadership:
    """One epoch of one stream that this client leads, from its grant to its end."""

    hindrance: LunalogError | None = None
    """Why the master names no servers to it at present."""
    is_unwanted = False
    """True once the master has asked this client to hand over."""

    def __init__(
        self,
        runtime: Runtime,
        config: ClientConfig,
        links: ServerLinks,
        master: MasterCalls,
        watch: StreamWatch,
        session: LeaseHolder,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done once this epoch may acknowledge (R9); cancelled if it ends before."""
        self.ended: asyncio.Future[LunalogError] = loop.create_future()
        """Done once the epoch is over here; its result is why."""
        self.queue: AppendQueue | None = None
        self.machine = LeaderMachine(
            watch.head,
            master.peer,
            LeaderSettings(
                config.roll_ack_timeout_ms,
                config.planned_roll_gap_ms,
                config.leader_stall_ms,
                config.in_flight_bytes_max,
            ),
            runtime.wall_us,
        )
        self._runtime = runtime
        self._loop = loop
        self._config = config
        self._links = links
        self._master = master
        self._watch = watch
        self._session = session
        self._name = watch.name
        self._stream = watch.stream
        self._tasks = Tasks(runtime)
        self._old_set = OldSet(runtime, config, links, self._tasks, self)
        self._calls = LeaderCalls(runtime, config, links, master, watch, self._tasks, self)
        self._feeding = Feeding(self.machine, self._handed, self._overtaken, runtime.fail)
        self._slots: dict[SegmentId, SegmentSlots] = {}
        self._target: SegmentSlots | None = None
        self._writers: list[Any] = []
        self._todo: list[Effect] = []
        self._is_doing = False
        self._ticks = Ticks(runtime, self.machine, self.feed, links.pulse)
        self._marks = Marks(self.machine, config.commit_mark_ms / 1000, self._tell_committed)
        self._answers: dict[int, Callable[[Sequence, LunalogError | None], None]] = {}
        self._next_token = 0
        self._learnt: tuple[ServerAddress, ...] = ()
        self._unsubscribe: Callable[[], object] = lambda: None
        self._do: dict[type, Callable[[Any], None]] = {
            effects.FenceSet: self._old_set.fence,
            effects.StopFencing: self._old_set.stop,
            effects.ReadFrom: self._old_set.read,
            effects.ProposeSet: lambda e: self._start(self._calls.propose(e), "propose"),
            effects.OpenSet: self._open_set,
            effects.SendFrom: self._send_from,
            effects.DropSet: self._drop_set,
            effects.Seal: lambda e: self._start(self._calls.seal(e), "seal"),
            effects.Certify: self._calls.certify,
            effects.RereadHead: lambda e: self._start(self._calls.reread(), "reread"),
            effects.CheckSet: self._check_all,
            effects.AnswerRead: self._answer,
            effects.Led: self._led,
            effects.GiveBack: lambda e: self._start(self._calls.give_back(), "give-back"),
            effects.Ended: self._over,
            effects.Alarm: self._alarm,
        }

    def __repr__(self) -> str:
        return f"<Leadership {self.machine!r}, {self.queue!r}>"

    @property
    def epoch(self) -> Epoch:
        """The epoch that was granted."""
        return self.machine.epoch

    @property
    def promise(self) -> Promise:
        """What servers promise to this leader."""
        return self.machine.promise

    @property
    def lease_remaining(self) -> float:
        """Seconds for which the master names nobody else, by our own clock (R15)."""
        if self.ended.done():
            return 0.0
        return max(0.0, self._session.lease_deadline - self._runtime.now())

    # ------------------------------------------------------------------ what the journal calls

    def start(self) -> None:
        """Begin the takeover."""
        self._learn()
        self._links.leaders[self._stream] = self
        self._watch.leader = self
        self._unsubscribe = self._watch.subscribe(self._view_changed)
        self.feed(self.machine.start, self._runtime.now())

    def register_writer(self, writer: Any) -> None:
        """Bind a writer to this epoch, as soon as it may append."""
        if self.queue is not None:
            writer.bind(self)
        else:
            self._writers.append(writer)

    async def resign(self) -> None:
        """Commit what is in flight, close the segment, release (R31); returns when that is known.

        Cancelling stops the waiting only.
        """
        self._resign_now()
        await asyncio.shield(self.ended)

    def abandon(self, error: LunalogError) -> None:
        """Stop at once: this journal ends."""
        self.feed(self.machine.abandon, error)

    async def read_point(self) -> Sequence:
        """Everything acknowledged before this call lies below the result (R14).

        Raises `NotLeaderError` when this epoch is over, `AvailabilityError` when A cannot be reached.
        """
        found: asyncio.Future[Sequence] = self._loop.create_future()

        def answer(committed: Sequence, error: LunalogError | None) -> None:
            if not found.done():
                if error is None:
                    found.set_result(committed)
                else:
                    found.set_exception(error)

        self._ask(answer)
        return await found

    async def truncate(self, before: Sequence, timeout: float | None) -> None:
        """Raise the head's `truncated_before` under this epoch (R22)."""
        try:
            reply = await self._master.request(
                Truncate(self._stream, self.promise, before), timeout
            )
        except FencedError as error:
            self.feed(self.machine.lost, error)
            raise NotLeaderError(error.message, leader=error.leader) from error
        self._watch.note_head(reply.head)

    # ------------------------------------------------------------------ pushes

    def on_resign_wanted(self, message: ResignWanted) -> None:
        """The master wants somebody else to lead."""
        if message.epoch == self.epoch:
            self.is_unwanted = True
            self._resign_now()

    def on_roll_wanted(self, message: RollWanted) -> None:
        """The master wants a new segment."""
        current = self.machine.current
        if current is not None and current.id == message.segment:
            self.machine.want_roll(message.reason or "wanted")
            self.feed(self.machine.poke, self._runtime.now())

    def on_leader_asked(self, connection: Connection, message: LeaderAsked) -> None:
        """A follower asks for a read point through a replica (R14)."""

        def answer(committed: Sequence, error: LunalogError | None) -> None:
            failure = codec.failure_of(error) if error is not None else None
            connection.push(LeaderAnswer(message.token, committed, failure))

        self._ask(answer)

    def _view_changed(self) -> None:
        self._learn()
        if (gone := self._watch.gone) is not None:
            self.feed(self.machine.lost, gone)
        else:
            self.feed(self.machine.head_seen, self._watch.head, self._runtime.now())

    def _learn(self) -> None:
        """Pass on what is new of where servers are; of the rest the links may have heard since."""
        servers, known = self._watch.view.servers, set(self._learnt)
        self._links.learn(server for server in servers if server not in known)
        self._learnt = servers

    def _resign_now(self) -> None:
        if self.queue is not None:
            self.queue.flush()
        self.feed(self.machine.resign, self._runtime.now())
        if self.queue is not None and self.queue.error is None:
            leaving = f"this client is resigning from {self._name!r}; nothing was sent"
            self.queue.stop(NotLeaderError(leaving))

    def _ask(self, answer: Callable[[Sequence, LunalogError | None], None]) -> None:
        self._next_token += 1
        self._answers[self._next_token] = answer
        self.feed(self.machine.asked, self._next_token, self._runtime.now())

    # ------------------------------------------------------------------ the machine's turn

    def feed(self, step: Callable[..., list[Effect]], *args: Any, **fields: Any) -> None:
        """Give the machine one input, and execute what it decides.

        A broken rule, or a bug of ours, ends the journal (R27).
        """
        try:
            self._todo += step(*args, **fields)
            if self._is_doing:
                return  # an input that came of an effect: its effects queue behind
            self._is_doing = True
            try:
                while self._todo:
                    todo, self._todo = self._todo, []
                    for effect in todo:
                        self._do[type(effect)](effect)
            finally:
                self._is_doing = False
            self._look()
        except Exception as error:  # noqa: BLE001  it must not pass for a lost connection
            self._runtime.fail(error)

    def _look(self) -> None:
        """Pass on what the machine's state says after an input."""
        machine, queue = self.machine, self.queue
        target = machine.target
        self._target = self._slots.get(target.id) if target is not None else None
        if queue is not None and machine.committed > queue.committed and not self.ended.done():
            queue.commit(machine.committed)
            self._marks.committed()
        if not self._ticks.is_watched:
            self._ticks.later()

    def _start(self, work: Any, what: str) -> None:
        _ = self._tasks.start(work, f"{what}-{self._name}-{self.epoch}")

    # ------------------------------------------------------------------ frames out, acks in

    def emit(self, first: Sequence, count: int, frame: Frame, is_alone: bool) -> bool:
        """Send a new frame to every open replica of the target; true if any socket got it.

        One that is alone leaves at once, unless other streams of this client may have some, too.  A
        broken rule, or a bug of ours, ends the journal: the loop would only log it (R27).
        """
        crc = frames.CRC.unpack_from(frame, frames.HEAD.size)[0]
        machine, slots = self.machine, self._target
        try:
            machine.appended(first, count, crc, frame)
            is_sent = slots is not None and slots.send(
                frame,
                machine.mark(slots.segment),
                at_once=is_alone and len(self._links.leaders) == 1,
            )
            now = self._runtime.now()
            self._marks.appended(now)
            if now >= machine.timing_at:
                machine.time_last(now)
            if not self._ticks.is_watched:
                self._ticks.watch()
        except Exception as error:
            self._runtime.fail(error)
            raise
        return is_sent

    def slot_acked(self, slot: MemberSlot, end: Sequence) -> None:
        """A replica holds everything below `end`: the hot way back."""
        machine, segment = self.machine, slot.segment
        has_moved, pace = segment.accepted(slot.replica, end, machine.outbox.tail), segment.pace
        if pace is not None and pace.end <= end:
            segment.timed(pace, slot.replica, self._runtime.now())
        if has_moved:
            now = self._runtime.now()
            self._marks.moved(now)
            self.feed(machine.moved, segment, now)
        machine.trim()

    def _tell_committed(self) -> None:
        """Tell the replicas what became committed since an append told them (R12)."""
        machine, current = self.machine, self.machine.current
        if current is None or self.ended.done():
            return
        slots = self._slots.get(current.id)
        if slots is None or slots.told >= machine.committed:
            return
        slots.told = machine.committed
        mark = codec.mark(slots.number, machine.committed)
        for connection in slots.connections:
            connection.send(mark)

    def slot_paused(self, slot: MemberSlot) -> None:
        """The connection to a replica has more to send than it likes."""
        self._feeding.paused(slot)

    def slot_drained(self, slot: MemberSlot) -> None:
        """The connection to a replica takes more again."""
        self._feeding.drained(slot)

    def _overtaken(self, slot: MemberSlot) -> None:
        self.feed(self.machine.overtaken, slot.segment, slot.replica, self._runtime.now())

    def slot_opened(self, slot: MemberSlot, opened: Opened) -> None:
        """A replica has the segment open, durably."""
        now = self._runtime.now()
        self.feed(self.machine.opened, slot.segment, slot.replica, opened.end, opened.chain, now)

    def slot_lost(self, slot: MemberSlot) -> None:
        """The connection to a replica is gone."""
        self.feed(self.machine.away, slot.segment, slot.replica, self._runtime.now())

    def slot_refused(self, slot: MemberSlot, error: LunalogError) -> None:
        """A replica will not take this segment, at least not now."""
        now = self._runtime.now()
        self.feed(self.machine.refused, slot.segment, slot.replica, error, now)

    def _open_set(self, effect: effects.OpenSet) -> None:
        segment = effect.segment
        message = OpenSlot(
            self._links.new_slot(),
            self._stream,
            segment.id,
            self.promise.leader,
            0,
            segment.first,
            segment.chain,
            self.machine.head.generation,
        )
        slots = SegmentSlots(self._links, self._tasks, self, segment, message)
        self._slots[segment.id] = slots
        self._note_servers()
        slots.start()

    def _send_from(self, effect: effects.SendFrom) -> None:
        slots = self._slots.get(effect.segment.id)
        if slots is not None:
            self._feeding.begin(slots.slot_of(effect.replica), effect.start)

    def _handed(self, end: Sequence) -> None:
        if self.queue is not None:
            self.queue.handed = max(self.queue.handed, end)

    def _drop_set(self, effect: effects.DropSet) -> None:
        slots = self._slots.pop(effect.segment.id, None)
        if slots is not None:
            slots.drop()
            self._note_servers()

    def _note_servers(self) -> None:
        members = (member for slots in self._slots.values() for member in slots.members)
        self._ticks.servers = frozenset(member.replica.member.server for member in members)

    # ------------------------------------------------------------------ read points: R14

    def _check_all(self, effect: effects.CheckSet) -> None:
        for member in effect.segment.members:
            self._start(self._check(effect, member), f"check-{effect.round}-{member.server}")

    async def _check(self, effect: effects.CheckSet, member: Member) -> None:
        message = Check(self._stream, effect.segment.id, self.promise, member.incarnation)
        try:
            connection = await self._links.connection_to(member.server)
            await connection.request(message, timeout=CHECK_TIMEOUT_S)
        except LunalogError as error:
            now = self._runtime.now()
            asked = effect.segment.id
            self.feed(self.machine.check_failed, effect.round, asked, member, error, now)
        else:
            now = self._runtime.now()
            self.feed(self.machine.checked, effect.round, member, is_unfenced=True, now=now)

    def _answer(self, effect: effects.AnswerRead) -> None:
        answer = self._answers.pop(effect.token, None)
        if answer is not None:
            answer(effect.committed, effect.error)

    # ------------------------------------------------------------------ begin and end

    def _led(self, effect: effects.Led) -> None:
        """R9 holds: appends may begin."""
        self.queue = AppendQueue(
            self._stream,
            self.epoch,
            effect.tail,
            self._config,
            self.emit,
            self._runtime.wall_us,
        )
        logger.info(
            "epoch_led", extra={"stream": self._name, "epoch": self.epoch, "tail": effect.tail}
        )
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.bind(self)
        if self.machine.is_resigning:
            self.queue.stop(NotLeaderError(f"this client is resigning from {self._name!r}"))
        elif not self.ready.done():
            self.ready.set_result(None)
        self._marks.later()

    def _over(self, effect: effects.Ended) -> None:
        """The epoch is over: everything that waits gets its outcome, then nothing more happens."""
        if self.queue is not None:
            if self.machine.committed > self.queue.committed:
                self.queue.commit(self.machine.committed)
            self.queue.end(effect.error)
        self._ticks.end()
        self._marks.end()
        if self._links.leaders.get(self._stream) is self:
            del self._links.leaders[self._stream]
        if self._watch.leader is self:
            self._watch.leader = None
        self._unsubscribe()
        if effect.is_release_due:
            self._start(self._calls.release(), "release")
        logger.info(
            "epoch_ended",
            extra={"stream": self._name, "epoch": self.epoch, "why": str(effect.error)},
        )
        if not self.ready.done():
            self.ready.cancel()
        if not self.ended.done():
            self.ended.set_result(effect.error)

    def _alarm(self, effect: effects.Alarm) -> None:
        logger.error(effect.event, extra=dict(effect.fields))
