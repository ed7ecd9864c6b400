"""Reading back a journal, right ones and wrong ones; clusters in memory."""

import pytest

from lunalog import SingleWriteJournal
from lunalog.cli.bench.chain import Bodies, BrokenChainError, Chain
from lunalog.cli.bench.recorder import Part
from lunalog.cli.bench.verify import UnreadableError, Verdict, Written, judge, read_back

BODIES = Bodies(3, 64)


async def verdict_of(payloads, *, first=0, acknowledged, sent):
    """Append these and read them back."""
    async with SingleWriteJournal.connect("memory://verify") as journal:
        await journal.create_stream("s")
        async with journal.lead("s") as writer:
            for payload in payloads:
                writer.append_soon(payload)
        found, part = Verdict(), Part("read back")
        await read_back(journal, [Written("s", BODIES, first, acknowledged, sent)], found, part)
        return found


async def test_what_is_all_there_holds():
    found = await verdict_of(Chain(BODIES).take(300), acknowledged=300, sent=300)
    row = found.row()
    assert (row["holds"], row["events"], row["streams"], row["why"]) == (True, 300, 1, None)


async def test_events_below_the_first_one_of_the_bench_are_not_its_business():
    found = await verdict_of([b"foreign", *Chain(BODIES).take(5)], first=1, acknowledged=5, sent=5)
    assert found.row()["holds"] is True


async def test_more_than_was_acknowledged_is_told_and_fine_up_to_what_was_sent():
    found = await verdict_of(Chain(BODIES).take(10), acknowledged=7, sent=10)
    assert (found.row()["holds"], found.unacknowledged) == (True, 3)
    found = await verdict_of(Chain(BODIES).take(10), acknowledged=7, sent=None)
    assert found.row()["holds"] is True


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda events: events[:-1], "acknowledged events are lost"),
        (lambda events: events[:4] + events[5:], "holds number 5, 4 was written there"),
        (lambda events: [*events[:4], events[3], *events[4:]], "the one before it again"),
        (lambda events: [*events, Chain(BODIES, 10).take(1)[0]], "is damaged"),
        (lambda events: [*events[:2], events[2][:-1] + b"\0", *events[3:]], "byte 63"),
        (lambda events: [events[1], events[0], *events[2:]], "event 0 holds number 1"),
    ],
    ids=["short", "hole", "twice", "more", "damaged", "swapped"],
)
async def test_what_is_not_as_it_was_written_does_not_hold(change, why):
    events = change(Chain(BODIES).take(10))
    found = await verdict_of(events, acknowledged=10, sent=20)
    row = found.row()
    assert row["holds"] is False
    assert why in row["why"]
    assert row["events"] < 11


async def test_more_than_was_sent_does_not_hold():
    found = await verdict_of(Chain(BODIES).take(12), acknowledged=10, sent=11)
    assert "12 events are there, 11 were sent" in found.row()["why"]


def test_what_is_short_is_lost_only_where_it_is_known_to_be_all():
    written = Written("s", BODIES, 0, 10, 12)
    with pytest.raises(BrokenChainError, match="lost: 10 were acknowledged, 9 are there"):
        judge(written, 9, is_complete=True)
    with pytest.raises(UnreadableError, match="left it open"):
        judge(written, 9, is_complete=False)
    judge(written, 10, is_complete=False)
    judge(written, 12, is_complete=True)


def test_what_was_not_read_to_its_end_is_neither_right_nor_wrong():
    assert Verdict(events=5).row()["holds"] is None
    assert Verdict(unknown="no master").row() == {
        "holds": None,
        "streams": 0,
        "events": 0,
        "unacknowledged": 0,
        "why": "no master",
    }
