"""The result for people: as a table, and as a page that needs nothing else."""

import html.parser
import io
import re

import pytest

from lunalog.cli.bench import table
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.plots import Axis, steps
from lunalog.cli.bench.recorder import Part
from lunalog.cli.bench.report import render
from lunalog.cli.bench.result import Ended, Result
from lunalog.cli.bench.verify import Verdict


class Balanced(html.parser.HTMLParser):
    """Notes tags, and that each is closed."""

    VOID = ("meta",)

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.text, self.links = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def part(name="append", *, rate=True):
    found = Part(name, size=100, seconds=2, is_sampled=not rate)
    found.is_closed_loop = rate
    found.start(0.0)
    for n in range(200):
        found.note(n / 100, 1, 0.001 * (1 + n % 7))
    found.stop(2.0)
    return found


def result(*parts, **fields):
    found = Result("write", Plan(size=100), "lunalog://h:1", False, list(parts or [part()]))
    found.verdict = Verdict(streams=1, events=200, is_over=True)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def test_a_page_stands_alone():
    page = render(result().row())
    found = Balanced(page)
    assert found.open == []
    assert found.links == []
    assert "script" not in found.seen
    assert not re.search(r"https?://|url\(|@import", page)
    assert found.seen.count("svg") == 3
    assert "verified: 200 events read back" in page


def test_what_a_plot_shows_are_the_figures():
    page = render(result().row())
    assert "<title>append: 1.00 ms at 0%</title>" in page
    assert "<title>append: 7.00 ms at 90%</title>" in page
    rates = re.findall(r"<title>append: ([\d,]+) at ([\d.]+)</title>", page)
    assert len(rates) == 20
    assert {rate for rate, _ in rates} <= {"90", "100", "110"}
    lines = re.findall(r'<polyline class="line c0" points="([^"]+)"', page)
    places = [tuple(map(float, p.split(","))) for line in lines for p in line.split()]
    assert all(0 <= x <= 720 and 0 <= y <= 300 for x, y in places)


def test_a_page_escapes_what_it_is_told():
    evil = "<script>alert(1)</script>"
    page = render(result(part(evil), why=evil, ended=Ended.FAILED, notes=[evil], url=evil).row())
    assert "script" not in Balanced(page).seen
    assert page.count("&lt;script&gt;") >= 4


def test_a_page_of_a_run_that_measured_nothing_is_a_page():
    page = render(result(Part("append", size=100), ended=Ended.STALLED, why="nothing came").row())
    found = Balanced(page)
    assert found.open == []
    assert "svg" not in found.seen
    assert "ended early (stalled): nothing came" in page


def test_single_measurements_are_shown_one_by_one():
    kill = Part("kill", is_sampled=True)
    kill.start(0.0)
    for n in range(3):
        kill.note(n + 1.0, 1, 0.25)
        kill.extra.setdefault("samples_ms", []).append(250.0)
    page = render(result(kill).row())
    assert page.count("<title>kill: 250 ms at ") == 3
    assert "Latency by percentile" not in page


def test_what_does_not_hold_is_red():
    page = render(result(verdict=Verdict(events=3, broken="event 3 is missing")).row())
    assert '<p class="bad">BROKEN: event 3 is missing; 3 events before it are right</p>' in page


# ----------------------------------------------------------------------------------- table


def test_the_table_has_a_row_a_part_and_one_for_what_is_corrected(capsys):
    table.show(result())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "write: events of 100 B, closed loop, 10,485 in flight, on lunalog://h:1"
    assert lines[2].split()[:4] == ["append", "200", "100", "9.8"]
    assert lines[3].split()[0] == "corrected"
    assert lines[-1] == ("verified: 200 events read back, all there, in order, every byte right")


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (Plan(window=1), "events of 1.0 KiB, one at a time"),
        (Plan(rate=20_000), "events of 1.0 KiB, open loop, 20,000 events/s due"),
        (Plan(batch=50), "events of 1.0 KiB, 50 in one append, closed loop, 16 appends in flight"),
        (Plan(streams=12), "events of 1.0 KiB to 12 streams, closed loop, 85 in flight to each"),
        (
            Plan(streams=2, window=4),
            "events of 1.0 KiB to 2 streams, closed loop, 4 in flight to each",
        ),
        (Plan(streams=2, rate=4), "events of 1.0 KiB to 2 streams, open loop, 4 events/s due"),
    ],
)
def test_the_title_says_what_is_sent_and_how(plan, told):
    assert table.title(result(plan=plan).row()) == f"write: {told}, on lunalog://h:1"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("width", "spared"),
    [
        (100, set()),
        (90, {"bytes/s"}),
        (80, {"bytes/s", "p99.9"}),
        (70, {"bytes/s", "p99.9", "p90"}),
    ],
)
def test_a_narrow_terminal_goes_without_columns_and_breaks_no_word(width, spared, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("NO_COLOR", raising=False)
    found = part("append to follower")
    found.settle(12_345_678)
    table.show(result(found, notes=["a long note " * 12]))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    (headers,) = (line for line in lines if line.startswith("PART"))
    shown = [h.upper() for h in table.HEADERS if h not in spared]
    assert re.split(r"  +", headers) == shown
    (row,) = (line for line in lines if "append to follower" in line)
    assert row.split()[3] == "12,345,678"
    assert row.strip().endswith("7.00 ms")


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (Verdict(1, 5, 2, True), "right, 2 of them never acknowledged"),
        (Verdict(1, 5), "not verified: 5 events read back and right; it was cut short"),
        (Verdict(1, 5, unknown="no master"), "read back and right; no master"),
        (Verdict(1, 1, broken="event 1 is damaged"), "BROKEN: event 1 is damaged; 1 event before"),
    ],
)
def test_a_verdict_is_one_sentence(verdict, told):
    assert told in table.verdict_sentence(verdict.row())


def test_what_ended_early_or_is_left_behind_is_said(capsys):
    late = part()
    late.note_unanswered(3.0, 12)
    late.extra["unsent"] = 10
    table.show(
        result(
            late,
            ended=Ended.INTERRUPTED,
            why="by SIGINT",
            notes=["server s1 was started again meanwhile"],
            streams_left=["bench/1/write"],
        )
    )
    out = capsys.readouterr().out
    assert "ended early (interrupted): by SIGINT" in out
    assert "12 events had no answer at its end, of them 10 that were due and never left" in out
    assert "server s1 was started again meanwhile" in out
    assert "`lunalog delete bench/1/write --yes`" in out


@pytest.mark.parametrize(
    ("us", "told"),
    [
        (0, "0 us"),
        (999, "999 us"),
        (1000, "1.00 ms"),
        (12_345, "12.3 ms"),
        (123_456, "123 ms"),
        (1_234_567, "1.23 s"),
        (12_345_678, "12.3 s"),
        (1_234_567_890, "1,235 s"),
    ],
)
def test_durations(us, told):
    assert table.duration(us) == told


@pytest.mark.parametrize(
    ("us", "told"), [(1, "1 us"), (1e4, "10 ms"), (1e6, "1 s"), (2e8, "200 s")]
)
def test_ticks(us, told):
    assert table.tick(us) == told


# ----------------------------------------------------------------------------------- axes


@pytest.mark.parametrize("high", [1e-9, 0.3, 1, 7, 99, 1000, 123_456, 1e9])
def test_a_linear_axis_has_few_round_steps_up_to_the_largest(high):
    ticks = steps(0.0, high)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] == 0
    assert ticks[-1] >= high * 0.999
    assert ticks[-2] < high


def test_a_logarithmic_axis_holds_what_it_shows():
    axis = Axis.decades([300.0, 25_000.0], str)
    assert axis.ticks == (100, 1000, 10_000, 100_000)
    assert axis.place(100) == 0
    assert axis.place(100_000) == 1
    assert 0 < axis.place(300) < axis.place(25_000) < 1
