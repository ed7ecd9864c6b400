"""The comparison with other logs: what is read, summed up, judged and drawn; no peer is started."""

import dataclasses
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest

from peers import contest, install, nodes, plot, results, table
from peers.nodes import Nodes, PeerFailedError
from peers.results import Absent, Line, Round, Row, Spread

BENCH = Path(__file__).parents[2] / "bench"


def figures(small, large, p50, p99=None):
    return {
        "window 100B": {"events_s": small},
        "window 1024B": {"events_s": large},
        "lone 1024B": {"p50_us": p50, "p99_us": p99 or 2 * p50},
    }


def a_round(*peers, batches=(600_000, 100_000, 500), futures=(300_000, 90_000, 500), absent=()):
    """A round of lunalog and rows `(key, fsyncs, figures)`."""
    rows = {
        "lunalog/batches": Row("lunalog", "A2 of 3", "append_many", True, figures(*batches)),
        "lunalog/futures": Row("lunalog", "A2 of 3", "append_soon", True, figures(*futures)),
    }
    for key, fsyncs, done in peers:
        title, setting, client = key.split("/")
        rows[key] = Row(title, setting, client, fsyncs, done)
    return Round("2026-01-02 03:04", "a machine", "abc1234", 4.0, rows, list(absent))


def line_of(key, *rounds):
    (found,) = (line for line in results.lines(rounds) if line.key == key)
    return found


# ------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("fsyncs", "done", "judged"),
    [
        (True, figures(200_000, 33_000, 501), "met"),
        (True, figures(201_000, 33_000, 501), "missed, 100 B: 2.99 of 3 times"),
        (True, figures(200_000, 50_000, 501), "missed, 1 KiB: 2.00 of 3 times"),
        (True, figures(200_000, 33_000, 500), "missed, lone p50: 1.00 of 1 times"),
        (
            True,
            figures(600_000, 100_000, 250),
            "missed, 100 B: 1.00 of 3 times; 1 KiB: 1.00 of 3 times; lone p50: 0.50 of 1 times",
        ),
        (False, figures(300_000, 50_000, 1), "met"),
        (False, figures(301_000, 50_000, 1), "missed, 100 B: 1.99 of 2 times"),
    ],
)
def test_a_goal_that_is_missed_is_named_with_its_figure(fsyncs, done, judged):
    line = line_of("p/s/c", a_round(("p/s/c", fsyncs, done)))
    assert results.verdict(line) == judged


def test_lunalog_and_the_yardsticks_are_not_judged():
    one = a_round()
    one.rows["floor"] = Row("floor", "", "", True, {"lone 1024B": {"p50_us": 1.0}})
    assert {results.verdict(line) for line in results.lines([one])} == {""}


def test_ratios_are_of_the_same_round_and_the_median_is_of_the_ratios():
    """A machine that is twice as fast in one round changes no ratio."""
    rounds = [
        a_round(("p/s/c", True, figures(100, 10, 1000)), batches=(300, 30, 500), futures=(1, 1, 1)),
        a_round(("p/s/c", True, figures(200, 20, 500)), batches=(600, 60, 250), futures=(1, 1, 1)),
        a_round(("p/s/c", True, figures(100, 10, 1000)), batches=(500, 50, 250), futures=(1, 1, 1)),
    ]
    line = line_of("p/s/c", *rounds)
    assert line.ahead["window 100B"] == Spread(3.0, 3.0, 5.0)
    assert line.lone == Spread(2.0, 2.0, 4.0)
    assert line.figures["window 100B", "events_s"] == Spread(100, 100, 200)


def test_the_better_of_our_two_ways_counts_by_size():
    one = a_round(
        ("p/s/c", True, figures(100, 100, 1)), batches=(400, 200, 1), futures=(300, 500, 1)
    )
    ahead = line_of("p/s/c", one).ahead
    assert {test: spread.median for test, spread in ahead.items()} == {
        "window 100B": 4.0,
        "window 1024B": 5.0,
    }


def test_a_round_without_a_peer_does_not_count_for_it():
    line = line_of("p/s/c", a_round(), a_round(("p/s/c", True, figures(200_000, 1, 1))))
    assert line.rounds == 1
    assert line.ahead["window 100B"].median == 3.0


# --------------------------------------------------------------------------- the drivers


def test_rows_are_the_json_lines_of_an_output():
    text = 'noise\n{"test": "window 100B", "events_s": 5}\nmore\n{"test": "kept", "acked": 1}\n'
    assert contest.read_rows(text) == {"window 100B": {"events_s": 5}, "kept": {"acked": 1}}


@pytest.mark.parametrize("missing", ["lone 1024B", "window 100B", "window 1024B", "kept"])
def test_a_driver_that_skips_a_part_of_the_work_has_failed(missing):
    rows = {**figures(1, 1, 1), "kept": {"acked": 1, "held": 1}}
    assert contest.complete(rows) == rows
    del rows[missing]
    with pytest.raises(PeerFailedError, match=missing):
        contest.complete(rows)


def test_a_peer_that_holds_less_than_it_acknowledged_has_failed():
    rows = {**figures(1, 1, 1), "kept": {"acked": 7, "held": 8}}
    assert contest.complete(rows) == rows  # one was kept whose acknowledgement came too late
    rows["kept"] = {"acked": 7, "held": 6}
    with pytest.raises(PeerFailedError, match="7 events were acknowledged, 6 are held"):
        contest.complete(rows)


def test_the_reason_of_a_driver_that_fails_is_told():
    program = "import sys; print('no such topic', file=sys.stderr); sys.exit(3)"
    with pytest.raises(PeerFailedError, match="ended with 3: no such topic"):
        contest.drive([sys.executable, "-c", program], 0.0, 0.0)


# ------------------------------------------------------------------------ the processes


def test_the_file_system_is_that_of_the_deepest_mount():
    mounts = "none / ext4 rw 0 0\nnone /tmp tmpfs rw 0 0\nnone /tmp/disk xfs rw 0 0\n"
    kinds = {path: nodes.filesystem(Path(path), mounts) for path in ("/a", "/tmp/b", "/tmp/disk/c")}
    assert kinds == {"/a": "ext4", "/tmp/b": "tmpfs", "/tmp/disk/c": "xfs"}
    assert nodes.filesystem(Path("/tmpfile"), mounts) == "ext4"


def test_free_ports_are_all_different():
    assert len(set(nodes.free_ports(20))) == 20


def is_running(pid):
    """Not gone, nor dead and waiting for somebody to ask."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_every_process_and_file_is_gone_after_an_interrupt():
    with pytest.raises(KeyboardInterrupt), Nodes() as cluster:  # noqa: PT012
        for name in ("one", "two"):
            cluster.start(name, [sys.executable, "-c", "import time; time.sleep(600)"])
        pids = [process.pid for process in cluster.processes.values()]
        assert all(map(is_running, pids))
        raise KeyboardInterrupt
    assert not any(map(is_running, pids))
    assert not cluster.directory.exists()


def test_last_words_are_a_line_without_colours_and_without_where_our_files_are():
    text = f"x\n\x1b[31merror\x1b[0m in {BENCH}/peers/a.py\n"
    text += f"and {BENCH.parent}/.peers/b, {Path.home()}/c\n"
    assert nodes.last_words(text) == "x error in bench/peers/a.py and ./.peers/b, ~/c"
    assert nodes.last_words("y" * 9999) == "y" * nodes.LOG_TAIL


def test_a_preparation_that_fails_is_told():
    with Nodes() as cluster:
        cluster.start("good", [sys.executable, "-c", ""])
        cluster.finish("good")
        cluster.start("bad", [sys.executable, "-c", "raise SystemExit('not empty')"])
        with pytest.raises(PeerFailedError, match="bad ended with 1: not empty"):
            cluster.finish("bad")


def test_a_node_that_ends_while_it_starts_is_told_with_its_last_words():
    with Nodes() as cluster:
        cluster.start("n", [sys.executable, "-c", "print('port in use'); raise SystemExit(2)"])
        with pytest.raises(PeerFailedError, match="n ended with 2: port in use"):
            cluster.wait_for("n", nodes.free_ports(1)[0])


class _Broken(contest.Peer):
    name, title = "broken", "Broken 1.0"
    settings = (contest.Setting("as it comes", fsyncs=True),)

    def install(self):
        return contest.Clients(commands={"C": ["true"]})

    def start(self, nodes, setting):
        raise PeerFailedError("it will not start")


class _Missing(_Broken):
    name, title = "missing", "Missing 2.0"

    def install(self):
        raise install.NotInstalledError("the registry said no")


class _Working(_Broken):
    name, title = "working", "Working 3.0"

    def install(self):
        lines = [
            '{"test": "window 100B", "events_s": 10}',
            '{"test": "window 1024B", "events_s": 5}',
            '{"test": "lone 1024B", "p50_us": 9, "p99_us": 10}',
            '{"test": "kept", "acked": 3, "held": 3}',
        ]
        program = f"import sys; print({chr(10).join(lines)!r})"
        return contest.Clients(commands={"C": [sys.executable, "-c", program]})

    def start(self, nodes, setting):
        return "nowhere"


def test_a_peer_that_fails_or_is_missing_is_told_and_the_others_go_on(monkeypatch):
    kinds = {kind.name: kind for kind in (_Missing, _Broken, _Working)}
    monkeypatch.setattr(contest, "PEERS", kinds)
    monkeypatch.setattr(contest, "yardstick", dict)
    monkeypatch.setattr(contest, "lunalog", lambda: a_round().rows)
    kept = []

    def keep(measured):
        kept.append(len(measured.rows))

    found = contest.Contest(kinds, None, 0.0, 0.0, lambda words: None).round(keep)
    assert kept == [2, 3]  # after the broken one, too
    assert found.rows["working/as it comes/C"].figures["window 100B"] == {"events_s": 10}
    assert {absent.title: absent.reason for absent in found.absent} == {
        "Missing 2.0": "not installed: the registry said no",
        "Broken 1.0": "failed: it will not start",
    }
    assert found.peers == {"missing", "broken", "working"}


def test_a_client_that_is_not_wanted_takes_no_part(monkeypatch):
    monkeypatch.setattr(contest, "PEERS", {"working": _Working})
    assert contest.Contest(["working"], ["C"], 0, 0, lambda words: None).peers[0][1].commands
    assert not contest.Contest(["working"], ["D"], 0, 0, lambda words: None).peers[0][1].commands


def test_a_peer_that_does_not_exist_is_refused_by_name():
    done = subprocess.run(
        [sys.executable, "-m", "peers", "--peers", "kafka,kafak"],
        cwd=BENCH,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "kafak: not one of kafka, bookkeeper" in done.stderr


# -------------------------------------------------------------------------- what is kept


def test_rounds_are_read_as_they_were_written(tmp_path):
    rounds = [a_round(("p/s/c", True, figures(1, 2, 3)), absent=[Absent("q", "Q", "", "", "no")])]
    assert results.parse(results.dump(rounds)) == rounds
    assert results.load(tmp_path / "none") == []


def test_a_new_run_replaces_only_the_peers_that_took_part():
    old = a_round(
        ("p/s/c", True, figures(1, 2, 3)),
        ("q/s/c", True, figures(4, 5, 6)),
        absent=[Absent("p", "P", "", "x", "no")],
    )
    only_p = a_round(("p/s/c", True, figures(7, 8, 9)))
    new = dataclasses.replace(only_p, when="later")
    rounds = results.replaced([only_p, old], [new])
    assert [each.when for each in rounds] == ["2026-01-02 03:04", "later"]
    assert rounds[0].peers == {"q"}
    assert rounds[0].absent == []
    assert line_of("p/s/c", *rounds).figures["window 100B", "events_s"].median == 7


def test_a_peer_that_can_no_longer_be_installed_replaces_its_figures():
    old = a_round(("p/s/c", True, figures(1, 2, 3)))
    new = a_round(absent=[Absent("p", "P", "", "", "not installed: no")])
    assert "p/s/c" not in {line.key for line in results.lines(results.replaced([old], [new]))}


# -------------------------------------------------------------------- the table, the plot


def three_rounds():
    peers = [("P 1/sync/C", True, figures(n, 2_000, 4_000)) for n in (20_000, 10_000, 30_000)]
    absent = [Absent("q", "Q 2", "", "", "not installed: no such | package")]
    return [a_round(peer, absent=absent) for peer in peers]


def cells_of(text, title):
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {title} "))
    return [cell.strip() for cell in row.replace("\\|", "/").split("|")[1:-1]]


def test_the_table_has_a_row_for_each_with_medians_ratios_and_verdict():
    text = table.table(three_rounds())
    assert cells_of(text, "P 1") == [
        "P 1", "sync", "C", "yes", "3",
        "20 k (10 to 30)", "30.00x (20.00 to 60.00)",
        "2,000", "50.00x",
        "4.00", "8.00", "met",
    ]  # fmt: skip
    assert len({line.count(" | ") for line in text.replace("\\|", "").splitlines()}) == 1
    assert len({len(line) for line in text.splitlines()}) == 1


def test_the_table_says_why_a_peer_has_no_figures_once():
    assert cells_of(table.table(three_rounds()), "Q 2") == [
        "Q 2", *["-"] * 10, "not installed: no such / package",
    ]  # fmt: skip


def test_the_page_names_machine_commit_and_time_of_each_round():
    text = table.page(three_rounds(), "plot.svg")
    assert "2026-01-02 03:04 UTC, commit abc1234, 4 s a figure, a machine: P 1" in text
    assert "(plot.svg)" in text


def test_the_plot_is_one_document_with_every_contestant_and_no_link():
    drawn = plot.svg([*three_rounds(), a_round(("<&>/s/c", False, figures(1, 1, 1)))])
    tree = ET.fromstring(drawn)
    words = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"lunalog", "P 1", "<&>"} <= set(words)
    assert "20 k" in words
    assert "4.00, 8.00" in words
    assert "href" not in drawn
    assert "url(" not in drawn


def test_a_longer_bar_is_more():
    share = plot.scale([5.0, 10.0], logarithmic=False)
    assert (share(0.0), share(5.0), share(10.0)) == (0.0, 0.5, 1.0)
    share = plot.scale([20.0, 1000.0], logarithmic=True)
    assert share(10.0) == 0.0
    assert share(100.0) == pytest.approx(0.5)
    assert share(1000.0) == pytest.approx(1.0)


def test_the_plot_of_nothing_is_a_document():
    assert ET.fromstring(plot.svg([])).tag.endswith("svg")


def test_colours_tell_who_syncs():
    def of(key, *, fsyncs):
        return plot.colour(Line(key, Row("x", "", "", fsyncs, {}), 1, {}, {}, None))

    kinds = [of("p/s/c", fsyncs=True), of("p/s/c", fsyncs=False), of("floor", fsyncs=True)]
    assert len(set(kinds)) == 3


# -------------------------------------------------------------------------- installation


def test_a_pom_is_nothing_but_its_dependencies():
    tree = ET.fromstring(install.pom("x", ["a.b:c:1", "d:e:2"]))
    space = "{http://maven.apache.org/POM/4.0.0}"
    found = [[part.text for part in each] for each in tree.iter(f"{space}dependency")]
    assert found == [["a.b", "c", "1"], ["d", "e", "2"]]


def test_what_is_installed_is_made_anew_only_when_it_is_made_from_something_else(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(install, "HOME", tmp_path)
    driver = tmp_path / "driver.go"
    driver.write_text("one")
    room = install.Room("x", ["1.0"], driver)
    assert not room.is_ready
    room.empty()
    room.finish()
    assert install.Room("x", ["1.0"], driver).is_ready
    assert not install.Room("x", ["1.1"], driver).is_ready
    driver.write_text("two")
    assert not install.Room("x", ["1.0"], driver).is_ready


def test_a_tool_that_fails_or_is_not_there_is_the_reason():
    program = "print('404 for that version'); raise SystemExit(1)"
    with pytest.raises(install.NotInstalledError, match="404 for that version"):
        install.run(sys.executable, "-c", program)
    program = "print('[ERROR] no such version [Help 1]\\n[ERROR] To see more'); raise SystemExit(1)"
    with pytest.raises(install.NotInstalledError, match=r"no such version \[Help 1\]$"):
        install.run(sys.executable, "-c", program)
    with pytest.raises(install.NotInstalledError, match="no-such-tool"):
        install.run("no-such-tool")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_harness_that_is_ended_leaves_no_process_and_no_file(tmp_path, number):
    """Nor one that was started by a shell, as the yardstick's are."""
    script = tmp_path / "harness.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "from peers import __main__ as harness, contest\n"
        "from peers.nodes import Nodes\n"
        "def fake(*_):\n"
        "    with Nodes() as cluster:\n"
        "        cluster.start('n', [sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "        print(cluster.processes['n'].pid, cluster.directory, flush=True)\n"
        "        subprocess.run(['bash', '-c', 'sleep 600 & echo $!; wait'])\n"
        "contest.Contest = fake\n"
        "sys.argv = ['peers']\n"
        "sys.exit(harness.main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(BENCH)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
    ) as harness:
        pid, directory = harness.stdout.readline().split()
        of_a_shell = harness.stdout.readline()
        harness.send_signal(number)
        assert harness.wait(30) == 128 + number
    assert not is_running(int(pid))
    assert not is_running(int(of_a_shell))
    assert not Path(directory).exists()


def failing_yardstick():
    raise subprocess.CalledProcessError(1, "run.sh")


def test_a_yardstick_that_fails_is_told_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(contest, "PEERS", {"working": _Working})
    monkeypatch.setattr(contest, "yardstick", failing_yardstick)
    monkeypatch.setattr(contest, "lunalog", lambda: a_round().rows)
    found = contest.Contest(["working"], None, 0, 0, lambda words: None).round(
        lambda measured: None
    )
    assert "working/as it comes/C" in found.rows
    assert [absent.title for absent in found.absent] == ["yardstick"]
