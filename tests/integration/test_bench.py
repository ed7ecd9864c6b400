"""`lunalog bench` as a shell sees it: every workload, in memory and on processes, and its troubles."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import Command, dev_cluster, environment

from lunalog.orchestrator.dev import DevDirectory
from lunalog.orchestrator.process import start_time
from processes import PATIENCE_S, end_by, named, until, until_line
from required import cannot_run

pytestmark = pytest.mark.slow

WORKLOADS = {
    "lone": ("write", "--window", "1"),
    "closed": ("write", "--size", "100"),
    "frames": ("write", "--size", "100", "--batch", "50"),
    "open": ("write", "--rate", "300"),
    "open frames": ("write", "--rate", "3000", "--batch", "100"),
    "catch-up": ("read", "--part", "catch-up"),
    "tail": ("read", "--part", "tail"),
    "e2e": ("e2e",),
    "e2e open": ("e2e", "--rate", "200"),
    "streams": ("streams", "--streams", "12"),
}
PARTS = {
    "write": ["append"],
    "e2e": ["append", "append to follower"],
    "streams": ["create", "lead", "append"],
}
FIELDS = {
    "format",
    "workload",
    "started_at",
    "ended",
    "why",
    "parameters",
    "cluster",
    "machine",
    "parts",
    "verified",
    "notes",
    "streams_left",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    home = tmp_path_factory.mktemp("cluster") / "dev"
    with dev_cluster(home) as command:
        command.home = home
        yield command


@pytest.fixture
def own(tmp_path):
    """A command for benches on clusters of their own; nothing of them may be left."""
    command = Command()
    command.place = tmp_path / "clusters"
    yield command
    assert named(tmp_path) == []
    assert list(command.place.glob("*")) == []


def check(done, workload):
    """A result that must be right; returns it."""
    assert done.code == 0, done
    row = json.loads(done.out)
    assert set(row) == FIELDS
    assert (row["workload"], row["ended"], row["why"]) == (workload, "finished", None)
    verified = row["verified"]
    assert (verified["holds"], verified["why"]) == (True, None)
    assert verified["events"] > 10
    assert row["streams_left"] == []
    written = [p for p in row["parts"] if p["name"] in ("append", "fill")]
    assert sum(p["done"] for p in written) <= verified["events"]
    for part in row["parts"]:
        assert part["done"] > 0
        latency = part["latency_us"]
        if latency is not None:
            assert latency["count"] == part["done"] + part["unanswered"]
            assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
        if part["per_s"] is not None:
            assert sum(point["events"] for point in part["timeline"]) <= part["done"]
    return row


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_in_memory(name):
    words = WORKLOADS[name]
    done = Command("memory://bench").run("bench", *words, "--seconds", "0.5", "-o", "json")
    row = check(done, words[0])
    if words[0] in PARTS:
        assert [part["name"] for part in row["parts"]] == PARTS[words[0]]
    assert row["cluster"]["own"] is False
    is_open = "--rate" in words
    assert (row["parameters"]["mode"] == "open") == is_open
    corrected = [p["corrected_us"] for p in row["parts"] if p["name"] == "append"]
    assert all((found is None) == is_open for found in corrected)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_on_real_processes_leaves_no_stream(cluster, name):
    words = WORKLOADS[name]
    row = check(cluster.run("bench", *words, "--seconds", "0.5", "-o", "json"), words[0])
    assert row["cluster"]["url"] == cluster.url
    assert json.loads(cluster.ok("ls", "-o", "json")) == []


def test_an_embedded_directory_is_a_cluster_of_one(tmp_path):
    command = Command(f"file://{tmp_path}/journal")
    row = check(command.run("bench", "write", "--events", "200", "-o", "json"), "write")
    assert row["verified"]["events"] == 200
    assert command.ok("ls") == b"NAME  LEADER  EPOCH  START  COPIES\n"


def test_a_cluster_of_its_own_comes_and_goes(own):
    where = ("--dir", str(own.place))
    done = own.run("bench", "write", "--seconds", "0.3", "-o", "json", *where)
    row = check(done, "write")
    assert (row["cluster"]["own"], row["cluster"]["servers"]) == (True, 3)
    assert row["cluster"]["directory"].startswith(str(own.place))


def test_events_end_a_run_and_policies_are_kept(own):
    words = ("--events", "77", "--replicas", "2", "--ack-quorum", "2", "--servers", "2")
    done = own.run("bench", "write", *words, "-o", "json", "--dir", str(own.place))
    row = check(done, "write")
    assert row["verified"]["events"] == 77
    assert row["cluster"]["servers"] == 2


def test_failover_of_every_kind(own):
    ways = [
        word for way in ("transfer", "kill", "freeze", "kill-server") for word in ("--how", way)
    ]
    done = own.run(
        "bench", "failover", *ways, "--rounds", "1", "-o", "json", "--dir", str(own.place)
    )
    row = check(done, "failover")
    gaps = {part["name"]: part["samples_ms"] for part in row["parts"] if "samples_ms" in part}
    assert {name: len(samples) for name, samples in gaps.items()} == dict.fromkeys(
        ("transfer", "kill", "freeze", "kill-server"), 1
    )
    assert gaps["freeze"][0] > 500, "a lease must lapse first"
    assert any("was started again meanwhile" in text for text in row["notes"])


def test_failover_in_memory():
    done = Command("memory://bench").run("bench", "failover", "--rounds", "3", "-o", "json")
    row = check(done, "failover")
    assert [part["name"] for part in row["parts"]] == ["append", "transfer"]
    assert len(row["parts"][1]["samples_ms"]) == 3


def test_a_server_of_somebody_else_is_killed_only_when_that_is_asked_for(cluster):
    """It ends when that server is back, whatever else the master finds wrong meanwhile."""
    cluster.ok("create", "five-of-five", "--replicas", "5", "--ack-quorum", "5")
    before = DevDirectory(cluster.home).members()
    done = cluster.run("bench", "failover", "--rounds", "1", "--how", "kill-server")
    assert done.code == 2, done
    assert "its servers are not killed" in done.err
    assert DevDirectory(cluster.home).members() == before
    words = ("bench", "failover", "--rounds", "1", "--how", "kill-server", "-o", "json")
    told = environment(LUNALOG_URL=cluster.url, LUNALOG_DEV_DIR=str(cluster.home))
    done = cluster.run(*words, env=told)
    assert done.code == 0, done
    assert len(json.loads(done.out)["parts"][1]["samples_ms"]) == 1
    after = until(lambda: len(m := DevDirectory(cluster.home).members()) == 4 and m)
    assert len(set(before.items()) - set(after.items())) == 1
    cluster.ok("delete", "five-of-five", "--yes")


# ----------------------------------------------------------------------------------- trouble


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--replicas", "5"), "a cluster of its own has 3 servers here"),
        (("--ack-quorum", "4"), "a cluster of its own has 3 servers here"),
        (("--html", "/none/report.html"), "cannot write /none/report.html"),
        (("--size", "9MiB"), "has 16 (its number and its hash) to 8388608 bytes, not 9437184"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_started(own, words, why):
    done = own.run("bench", "write", *words, "--dir", str(own.place))
    assert done.code == 2
    assert why in done.err
    assert "nothing was started" in done.err
    assert not own.place.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_result_so_far(own, signum):
    words = ("--seconds", "60", "--size", "100", "-o", "json", "--dir", str(own.place))
    child = own.start("bench", "write", *words)
    until_line(child.stderr, "write", "append")
    out, _ = end_by(child, signum)
    row = json.loads(out)
    assert (row["ended"], row["why"]) == ("interrupted", f"by {signal.Signals(signum).name}")
    assert row["verified"]["events"] > 0
    assert row["verified"]["holds"] is not False


def test_a_signal_on_a_given_cluster_leaves_no_stream(cluster):
    child = cluster.start("bench", "streams", "--streams", "5", "--seconds", "60")
    until_line(child.stderr, "streams", "append")
    out, _ = end_by(child, signal.SIGINT)
    assert b"ended early (interrupted): by SIGINT" in out
    assert b"verified: " in out
    assert json.loads(cluster.ok("ls", "-o", "json")) == []


@pytest.mark.parametrize("delay", [0.1, 0.4, 0.8])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(own, delay, monkeypatch):
    # A tracer that starts with the child swallows what interrupts it, and the bench would go on.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    child = own.start("bench", "write", "--seconds", "60", "--dir", str(own.place))
    time.sleep(delay)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    # Before Python runs our code, what it says and how it ends are its own.
    is_early = child.returncode == -signal.SIGINT or b"Fatal Python error: init" in err
    assert is_early or child.returncode == 130, err
    assert is_early or b"Traceback" not in err


def members_of(own):
    (home,) = own.place.iterdir()
    return DevDirectory(home)


def test_a_killed_server_in_the_middle_is_told_and_nothing_is_lost(own):
    words = ("--seconds", "3", "--rate", "300", "-o", "json", "--dir", str(own.place))
    child = own.start("bench", "write", *words)
    until_line(child.stderr, "write", "append")
    assert members_of(own).kill("s1") != 0
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, err
    row = json.loads(out)
    assert row["notes"] == ["server s1 was started again meanwhile"]
    assert row["verified"]["holds"] is True
    assert row["parts"][0]["done"] + row["parts"][0].get("unsent", 0) == 900


def test_a_cluster_that_takes_nothing_more_ends_it_with_what_is_known(own):
    """Two of three servers are frozen, as by disks that hang."""
    words = ("--seconds", "60", "--rate", "300", "--stall", "8", "-o", "json")
    child = own.start("bench", "write", *words, "--dir", str(own.place))
    until_line(child.stderr, "write", "append")
    home = members_of(own)
    pids = [home.members()[name] for name in ("s1", "s2")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        out, err = child.communicate(timeout=PATIENCE_S)
    finally:
        for pid in pids:
            if start_time(pid) is not None:
                os.kill(pid, signal.SIGKILL)
    assert child.returncode == 5, err
    row = json.loads(out)
    assert row["ended"] == "stalled"
    assert row["parts"][0]["done"] > 0
    assert row["parts"][0]["unanswered"] > 0
    # The first without an answer was due up to a 300th of a second after the last that has one.
    assert row["parts"][0]["latency_us"]["max"] >= 7_900_000, "they count with their wait"
    assert "the cluster says: server s1 is lost" in row["notes"]
    assert row["verified"]["holds"] is not False
    assert b"nothing was acknowledged or read for 8 s" in err


def test_a_cluster_that_hangs_for_a_while_is_felt_by_all_that_were_due(own):
    """Two of three servers stand still for a second of four: a quarter of all events wait for them."""
    words = ("--seconds", "4", "--rate", "200", "-o", "json", "--dir", str(own.place))
    child = own.start("bench", "write", *words)
    until_line(child.stderr, "write", "append")
    home = members_of(own)
    pids = [home.members()[name] for name in ("s1", "s2")]
    for signum in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            os.kill(pid, signum)
        time.sleep(1.0 * (signum == signal.SIGSTOP))
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, err
    (part,) = json.loads(out)["parts"]
    assert part["done"] == 800
    assert part["latency_us"]["max"] >= 900_000
    waited = [us for percent, us in part["percentiles_us"] if percent >= 90]
    assert min(waited) >= 100_000, (
        "not one event in a hundred, but all that were due in that second"
    )


def test_whoever_kills_it_kills_all(own, tmp_path):
    """Also a leader that it has frozen at that moment."""
    words = ("--how", "freeze", "--rounds", "50", "--dir", str(own.place))
    child = own.start("bench", "failover", *words)
    until_line(child.stderr, "failover", "append")
    until(lambda: any(map(is_stopped, children_of(child.pid))))
    pids = children_of(child.pid)
    assert len(pids) >= 3, "a master and two leaders"
    child.kill()
    child.communicate()
    until(lambda: all(start_time(pid) is None for pid in pids))
    until(lambda: named(tmp_path) == [])
    for home in own.place.iterdir():  # a killed one cannot clean up
        subprocess.run(["rm", "-r", str(home)], check=True)


def children_of(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(found) for each in lists for found in each.read_text().split()]


def is_stopped(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except OSError:
        return False


def test_a_full_disk_ends_it_with_what_is_known(tmp_path):
    """A file system that is just large enough for the servers to start."""
    if os.geteuid() != 0:
        cannot_run("mounting a tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640m", "bench", disk], check=True)
    try:
        words = ("--seconds", "60", "--size", "64KiB", "--stall", "2", "-o", "json")
        done = Command().run("bench", "write", *words, "--dir", str(disk))
        assert done.code == 5, done
        row = json.loads(done.out)
        assert row["ended"] == "stalled"
        assert row["parts"][0]["done"] > 0
        assert any("disk_full" in text for text in row["notes"]), row["notes"]
        assert row["verified"]["holds"] is not False
        assert list(disk.iterdir()) == []
        small = Command().run("bench", "write", "--servers", "9", "--dir", str(disk))
        assert small.code == 5, small
        assert "choose another --dir" in small.err
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_report_is_written_and_one_that_cannot_be_is_told(tmp_path):
    command, page = Command("memory://bench"), tmp_path / "report.html"
    done = command.run("bench", "e2e", "--seconds", "0.3", "--html", str(page))
    assert done.code == 0, done
    assert f"report: {page}" in done.err
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert text.count("<svg") >= 3
    assert b"append to follower" in done.out
    done = command.run("bench", "write", "--events", "3", "--html", "/dev/full")
    assert done.code != 0, done
    assert b"append" in done.out, "the result is told all the same"
    assert "No space left" in done.err


def test_what_makes_no_sense_is_usage_and_starts_nothing(tmp_path):
    for words in (
        ("write", "--rate", "5", "--window", "5"),
        ("write", "--size", "7"),
        ("write", "--size", "9MiB"),
        ("write", "--size", "much"),
        ("failover", "--how", "fire"),
        ("streams", "--streams", "0"),
    ):
        done = Command().run("bench", *words, "--dir", str(tmp_path))
        assert done.code == 2, (words, done)
        assert done.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_does_not_answer_is_told():
    done = Command("lunalog://127.0.0.1:1").run("bench", "write", "--timeout", "1")
    assert done.code == 5, done
    assert "127.0.0.1:1" in done.err
    assert done.out == b""
