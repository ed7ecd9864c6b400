"""The checkers in windows: what the simulator's find in a whole history, they find in an endless one."""

import msgspec
import pytest

from chaos.events import EventFile
from chaos.monitor import Life, Monitor
from chaos.workload import payload_of, squeezed
from lunalog.testing.history import Delivery
from lunalog.types import (
    Member,
    OpenSegment,
    Peer,
    Policy,
    SealedSegment,
    SegmentId,
    StreamDescription,
    StreamHead,
)

HEAD = StreamHead(name="orders", stream=b"s" * 16, policy=Policy())


class Story:
    """A history told line by line, with a clock of its own."""

    def __init__(self, directory):
        self.monitor = Monitor(EventFile(directory))
        self.at = 100.0
        self.lives = {}
        self.incarnations = {}

    def tell(self, name, kind, *rest):
        self.monitor.line(self.life(name), msgspec.json.encode([kind, *rest]) + b"\n")

    def life(self, name):
        if name not in self.lives:
            self.lives[name] = Life(name)
            self.tell(name, "start", f"{len(self.lives):032x}", self.tick())
        return self.lives[name]

    def tick(self):
        self.at += 0.001
        return self.at

    def lead(self, name, epoch):
        self.tell(name, "lead", epoch, self.tick())
        incarnation = self.life(name).incarnation
        head = msgspec.structs.replace(
            HEAD, version=epoch + 1, epoch=epoch, leader=Peer(name, incarnation), released=False
        )
        self.monitor.described(self.tick(), StreamDescription(head, ()))

    def attempt(self, name, epoch, number):
        self.tell(name, "try", self.tick(), epoch, number, [3])

    def ack(self, name, number, sequence):
        self.tell(name, "ack", self.tick(), [[number, sequence]])

    def event(self, name, epoch, number, sequence=None):
        """What the log has next; returns it."""
        sequence = self.monitor.log.end if sequence is None else sequence
        payload = squeezed(payload_of(name, self.life(name).short, number, 3))
        found = Delivery(sequence, epoch, payload)
        self.monitor.events([found])
        return found

    def append(self, name, epoch, number):
        """An event from its attempt to its place in the log."""
        self.attempt(name, epoch, number)
        self.ack(name, number, self.monitor.log.end)
        return self.event(name, epoch, number)

    def fill(self, name, epoch, first, count):
        return [self.append(name, epoch, number) for number in range(first, first + count)]

    def point(self, name, committed, asked=None):
        self.tell(name, "point", asked or self.tick(), self.tick(), committed)

    def read(self, name, session, events):
        self.tell(name, "open", session, events[0].sequence)
        rows = [[e.sequence, e.epoch, e.payload.decode()] for e in events]
        self.tell(name, "got", session, rows)

    def cut(self, times=1, is_last=False):
        for _ in range(times):
            self.monitor.cut(is_last=is_last)
        return self.monitor.violations


@pytest.fixture
def story(tmp_path):
    found = Story(tmp_path)
    found.lead("a", 1)
    found.events = found.fill("a", 1, 0, 10)
    assert found.cut() == []
    yield found
    found.monitor.log.close()


def test_a_sound_history_of_many_windows_is_sound_and_stays_small(story):
    held = []
    for window in range(1, 60):
        events = story.fill("a", 1, window * 10, 10)
        story.read("b", window, [*story.events[:3], *story.events[3:]] if window % 2 else events)
        story.point("b", story.monitor.log.end)
        assert story.cut() == []
        held.append(story.monitor.held - len(story.monitor._points))
    assert max(held[5:]) <= held[5] + 10
    assert story.monitor.log.end == 600
    for name in ("I1", "I2", "I3", "I4", "I6", "I8", "I10", "I16", "I17"):
        assert story.monitor.checked[name] > 500


def test_an_acknowledged_event_that_the_log_does_not_have_is_found(story):
    story.attempt("a", 1, 10)
    story.ack("a", 10, 10)
    story.attempt("a", 1, 11)
    story.event("a", 1, 11)
    story.ack("a", 11, 10)
    assert any(v.startswith("I2") for v in story.cut())


def test_an_acknowledgement_that_comes_windows_later_is_held_against_the_log(story):
    story.attempt("a", 1, 10)
    story.event("a", 1, 10)
    story.fill("a", 1, 11, 20)
    assert story.cut(5) == []
    story.ack("a", 10, 9)
    assert any(v.startswith("I2") for v in story.cut())


def test_a_late_acknowledgement_of_what_never_came_is_found(story):
    story.attempt("a", 1, 10)
    story.fill("a", 1, 11, 20)
    assert story.cut(5) == []
    story.ack("a", 10, 12)
    assert any(v.startswith("I2") for v in story.cut())


def test_a_late_acknowledgement_that_is_right_is_right(story):
    story.attempt("a", 1, 10)
    story.event("a", 1, 10)
    story.fill("a", 1, 11, 20)
    assert story.cut(5) == []
    story.ack("a", 10, 10)
    assert story.cut() == []
    assert story.monitor.counts["late acks"] == 1


def test_an_event_that_comes_twice_is_found_across_windows(story):
    story.fill("a", 1, 10, 10)
    story.cut(5)
    story.event("a", 1, 3)
    assert any(v.startswith("I3") for v in story.cut(is_last=True))


def test_an_event_that_nobody_appended_is_found(story):
    story.event("a", 1, 77)
    assert story.cut() == [], "its attempt may be under way to us"
    assert any(v.startswith("I3") for v in story.cut(is_last=True))


def test_a_refused_event_that_comes_all_the_same_is_found(story):
    story.attempt("a", 1, 10)
    story.tell("a", "refused", story.tick(), [10])
    story.fill("a", 1, 11, 5)
    assert story.cut(3) == []
    story.event("a", 1, 10)
    assert any(v.startswith("I3") for v in story.cut())


def test_an_unknown_event_may_come_or_not(story):
    story.attempt("a", 1, 10)
    story.attempt("a", 1, 11)
    story.tell("a", "unknown", story.tick(), [10, 11])
    story.event("a", 1, 10)
    story.lead("b", 2)
    story.fill("b", 2, 0, 20)
    assert story.cut(5) == []


def test_what_a_dead_client_had_tried_may_come_and_is_not_kept_for_ever(story):
    for number in range(10, 40):
        story.attempt("a", 1, number)
    story.event("a", 1, 10)
    story.monitor.over(story.lives["a"])
    story.lead("b", 2)
    story.fill("b", 2, 0, 20)
    assert story.cut(4) == []
    story.fill("b", 2, 20, 20)
    assert story.cut(4) == []
    assert len(story.monitor._attempts) <= 40


def test_an_epoch_of_two_leaders_is_found(story):
    story.tell("b", "lead", 1, story.tick())
    assert any(v.startswith("I4") for v in story.cut())


def test_an_ack_in_somebody_elses_epoch_is_found(story):
    story.lead("b", 2)
    story.append("a", 2, 10)
    assert any(v.startswith("I4") for v in story.cut())


def test_epochs_that_go_back_in_the_log_are_found_across_windows(story):
    story.lead("b", 2)
    story.fill("b", 2, 0, 3)
    story.cut()
    story.append("a", 1, 10)
    assert any(v.startswith("I6") for v in story.cut())


def test_a_head_that_goes_back_is_found(story):
    story.lead("b", 5)
    story.lead("a", 4)
    assert any(v.startswith("I5") for v in story.cut())


def test_appends_that_change_places_are_found(story):
    story.attempt("a", 1, 10)
    story.attempt("a", 1, 11)
    story.event("a", 1, 11)
    story.event("a", 1, 10)
    story.ack("a", 10, 11)
    story.ack("a", 11, 10)
    assert any(v.startswith("I17") for v in story.cut())


def test_an_append_that_lies_before_what_was_acked_long_before_it_is_found(story):
    story.attempt("b", 1, 0)
    story.event("b", 1, 0)
    story.fill("a", 1, 10, 20)
    story.cut(4)
    story.lives["b"].attempts[0].append.invoked = story.tick()
    story.ack("b", 0, story.monitor.log.end - 21)
    assert any(v.startswith("I17") for v in story.cut())


MEMBERS = (Member("s1", 1), Member("s2", 1))


def sampled(story, rows, next_, opened=None):
    head = msgspec.structs.replace(HEAD, version=story.monitor.counts["heads"] + 5, epoch=1)
    head = msgspec.structs.replace(head, next=next_, open=opened)
    story.monitor.described(story.tick(), StreamDescription(head, tuple(rows)))


def row(n, first, end, chain=7):
    return SealedSegment(SegmentId(1, n), first, end, chain, MEMBERS, 2, "a", "rolled", 0, 1)


def test_rows_that_join_are_sound_and_those_that_do_not_are_found(story):
    sampled(story, [row(0, 0, 10), row(1, 10, 20)], 20)
    assert story.cut() == []
    sampled(story, [row(0, 0, 10), row(1, 11, 20)], 20)
    assert any(v.startswith("I5") for v in story.cut())


def test_a_row_that_is_sealed_twice_is_found(story):
    sampled(story, [row(0, 0, 10)], 10)
    sampled(story, [row(0, 0, 10, chain=8)], 10)
    assert any(v.startswith("I5") for v in story.cut())


def test_a_row_that_begins_elsewhere_than_its_segment_was_opened_is_found(story):
    sampled(story, [row(0, 0, 10)], 10, OpenSegment(SegmentId(1, 1), 10, 7, MEMBERS, 2))
    sampled(story, [row(0, 0, 10), row(2, 10, 20)], 20)
    assert story.cut() == []
    story.monitor._rows.clear()
    sampled(story, [row(0, 0, 9), row(1, 9, 20)], 20)
    assert any("was opened at 10" in v for v in story.cut())


def test_a_stale_read_point_is_found_long_after_the_ack(story):
    story.fill("a", 1, 10, 30)
    story.cut(4)
    story.point("b", 20)
    assert any(v.startswith("I8") for v in story.cut())


def test_read_points_that_go_back_are_found(story):
    story.attempt("a", 1, 10)
    story.event("a", 1, 10)
    story.point("b", 11)
    story.cut(3)
    story.point("b", 10)
    assert any(v.startswith("I10") for v in story.cut())


def test_a_read_point_from_the_future_is_found(story):
    asked = story.tick()
    story.tell("b", "point", asked, story.tick(), 11)
    story.append("a", 1, 10)
    assert any(v.startswith("I8") for v in story.cut())


@pytest.mark.parametrize("windows", [0, 6], ids=["in-the-window", "long-ago"])
def test_a_reader_that_got_something_else_is_found_at_any_age(story, windows):
    story.fill("a", 1, 10, 20)
    story.cut(windows)
    wrong = [Delivery(e.sequence, e.epoch, e.payload) for e in story.events]
    wrong[4].payload = wrong[5].payload
    story.read("b", 1, wrong)
    assert any(v.startswith("I1") for v in story.cut())


def test_a_reader_that_skips_or_repeats_is_found(story):
    story.read("b", 1, [story.events[0], story.events[1], story.events[3]])
    assert any(v.startswith("I16") for v in story.cut())
    story.monitor.violations.clear()
    story.read("c", 1, [story.events[0], story.events[1]])
    story.tell("c", "got", 1, [[1, 1, story.events[1].payload.decode()]])
    assert any(v.startswith("I16") for v in story.cut())


def test_a_log_that_skips_is_found(story):
    story.event("a", 1, 10, sequence=12)
    assert any(v.startswith("I16") for v in story.monitor.violations)


def test_reading_back_something_else_is_found(story):
    assert story.cut(3) == []
    story.monitor.read_back(story.events)
    assert story.monitor.violations == []
    story.events[3].payload = b"other"
    story.monitor.read_back(story.events)
    assert any(v.startswith("I1") for v in story.monitor.violations)


def test_what_breaks_in_a_client_is_a_violation(story):
    story.tell("b", "broken", "InvariantError: R3")
    assert story.monitor.violations == ["b broke: InvariantError: R3"]


def test_half_a_line_of_one_that_was_killed_is_left_aside(story):
    story.monitor.line(story.life("a"), b'["try", 1.0, 1, 10, [1')
    assert story.cut() == []


def test_the_file_gives_back_what_it_was_given(tmp_path):
    log = EventFile(tmp_path)
    events = [Delivery(n, n // 3, b"x" * (n % 7)) for n in range(100)]
    log.append(events[:40])
    log.append(events[40:])
    assert log.read(0, 100) == events
    assert log.read(17, 23) == events[17:23]
    assert log.read(90, 200) == events[90:]
    assert log.read(100, 200) == []
    with pytest.raises(ValueError, match="is not 100"):
        log.append([Delivery(101, 1, b"")])
    log.close()
