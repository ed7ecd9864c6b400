"""The commands on a real cluster, as a shell sees them."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from command import Command, dev_cluster

from lunalog import limits
from processes import PATIENCE_S, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with dev_cluster(tmp_path_factory.mktemp("cluster") / "dev") as command:
        yield command


@pytest.fixture
def stream(cluster, request):
    """A stream of its own for a test."""
    name = f"s-{abs(hash(request.node.nodeid)) % 10**9}"
    cluster.ok("create", name)
    return name


def leader(cluster, stream):
    return json.loads(cluster.ok("info", stream, "-o", "json"))["leader"]


def test_append_and_read_in_every_form(cluster, stream):
    done = cluster.run("append", stream, given=b"one\n\nthree")
    assert (done.code, done.out, done.err) == (0, b"", "appended 0..2, tail 3\n")
    done = cluster.run("append", stream, "--null", given=b"a\nb\0\xff\0")
    assert done.err == "appended 3..4, tail 5\n"
    packed = struct.pack("<I", 0) + struct.pack("<I", 2) + b"xy"
    assert cluster.run("append", stream, "--length-prefixed", given=packed).code == 0
    assert cluster.run("append", stream).err == "appended nothing, tail 7\n"

    everything = [b"one", b"", b"three", b"a\nb", b"\xff", b"", b"xy"]
    assert cluster.ok("read", stream) == b"".join(e + b"\n" for e in everything)
    assert cluster.ok("read", stream, "-0") == b"".join(e + b"\0" for e in everything)
    assert cluster.ok("read", stream, "--length-prefixed") == b"".join(
        struct.pack("<I", len(e)) + e for e in everything
    )
    assert cluster.ok("read", stream, "--from", "2", "--to", "3") == b"three\n"
    assert cluster.ok("read", stream, "--from", "-1") == b"xy\n"
    assert cluster.ok("read", stream, "-n", "1", "-f", r"%s:%l\t%p\n") == b"0:3\tone\n"
    assert cluster.ok("read", stream, "--linearizable", "-n", "2") == b"one\n\n"
    rows = [json.loads(r) for r in cluster.ok("read", stream, "-o", "jsonl").splitlines()]
    assert [r["sequence"] for r in rows] == list(range(7))
    assert rows[4]["payload_base64"] == "/w=="


def test_a_long_input_comes_out_as_it_went_in(cluster, stream):
    lines = b"".join(b"%d %s\n" % (i, b"x" * (i % 90)) for i in range(60_000))
    done = cluster.run("append", stream, given=lines)
    assert done.err == "appended 0..59999, tail 60000\n", done
    assert cluster.ok("read", stream) == lines


def test_streams_as_things(cluster, stream):
    assert cluster.run("create", stream).code == 4
    assert cluster.run("create", stream, "--exist-ok").code == 0
    assert cluster.run("create", "no such name").code == 2
    assert cluster.run("create", "x", "--replicas", "2", "--ack-quorum", "3").code == 2
    names = [row["name"] for row in json.loads(cluster.ok("ls", "-o", "json"))]
    assert stream in names
    assert names == sorted(names)
    cluster.ok("append", stream, given=b"a\nb\nc\n")
    cluster.ok("truncate", stream, "2")
    assert cluster.ok("read", stream) == b"c\n"
    done = cluster.run("read", stream, "--from", "0")
    assert done.code == 3
    assert "2" in done.err
    history = json.loads(cluster.ok("history", stream, "-o", "json"))
    assert history[-1]["end"] == 3
    assert cluster.run("delete", stream).code == 2
    assert cluster.run("read", stream).code == 0
    cluster.ok("delete", stream, "--yes")
    for command in ("read", "info", "history", "watch"):
        done = cluster.run(command, stream)
        assert done.code == 3, (command, done)
        assert done.err.startswith("error: ")
    assert cluster.run("append", stream, given=b"a\n").code == 3


def test_only_one_appends_and_the_other_is_told_who(cluster, stream):
    first = cluster.start("append", stream, "--peer", "first")
    until(lambda: leader(cluster, stream) == "first")
    done = cluster.run("append", stream, given=b"no\n")
    assert done.code == 4, done
    assert "first" in done.err
    waiting = cluster.start("append", stream, "--wait")
    waiting.stdin.write(b"second\n")
    waiting.stdin.flush()
    _, err = first.communicate(b"first\n", timeout=PATIENCE_S)
    assert err == b"appended 0..0, tail 1\n"
    assert waiting.communicate(timeout=PATIENCE_S)[1] == b"appended 1..1, tail 2\n"
    assert cluster.ok("read", stream) == b"first\nsecond\n"


def test_ctrl_c_tells_what_is_acknowledged_and_leaves_nothing_open(cluster, stream):
    child = cluster.start("append", stream)
    child.stdin.write(b"a\nb\n")
    child.stdin.flush()
    until(lambda: cluster.ok("read", stream) == b"a\nb\n")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130
    assert err == b"appended 0..1; ended early: 2 of 2 acknowledged\n"
    done = cluster.run("read", stream)
    assert (done.out, done.err) == (b"a\nb\n", "")


def test_an_oversized_event_is_refused_and_those_before_it_are_kept(cluster, stream):
    big = b"x" * (limits.PAYLOAD_BYTES_MAX + 1)
    done = cluster.run("append", stream, given=b"small\n" + big + b"\nlater\n")
    assert done.code == 2, done
    assert "event 1 of the input" in done.err
    kept = cluster.ok("read", stream)
    count = kept.count(b"\n")
    assert kept in (b"", b"small\n")
    assert f"{count} of {count} acknowledged" in done.err
    exact = b"y" * limits.PAYLOAD_BYTES_MAX
    assert cluster.run("append", stream, given=exact).code == 0
    assert cluster.ok("read", stream, "--from", "-1") == exact + b"\n"


def test_a_leader_that_died_is_told_by_read(cluster, stream):
    child = cluster.start("append", stream)
    child.stdin.write(b"a\n")
    child.stdin.flush()
    until(lambda: cluster.ok("read", stream) == b"a\n")
    child.kill()
    child.communicate()
    done = until(lambda: (d := cluster.run("read", stream)).err and d)
    assert "may exist" in done.err
    assert done.code == 0
    cluster.ok("append", stream, given=b"b\n")
    done = cluster.run("read", stream)
    assert (done.out, done.err) == (b"a\nb\n", "")


def test_follow_shows_what_comes_and_ends_with_its_pipe(cluster, stream):
    child = cluster.start("read", stream, "--follow")
    cluster.ok("append", stream, given=b"one\n")
    assert child.stdout.readline() == b"one\n"
    cluster.ok("append", stream, given=b"two\n")
    assert child.stdout.readline() == b"two\n"
    child.stdout.close()
    cluster.ok("append", stream, given=b"three\n" * 10)
    err = child.stderr.read()
    assert (child.wait(PATIENCE_S), err) == (141, b"")
    child.stdin.close()
    child.stderr.close()


def test_head_of_a_long_stream_is_quiet(cluster, stream):
    cluster.ok("append", stream, given=b"line\n" * 200_000)
    shell = f"{sys.executable} -m lunalog read {stream} | head -1"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LUNALOG_URL": cluster.url}
    done = subprocess.run(shell, shell=True, capture_output=True, env=env, timeout=PATIENCE_S)
    assert (done.stdout, done.stderr) == (b"line\n", b"")


def test_lead_runs_a_command_with_a_fence_token(cluster, stream):
    script = 'echo "$LUNALOG_STREAM $LUNALOG_EPOCH"; exit 5'
    done = cluster.run("lead", stream, "--", "sh", "-c", script)
    name, first = done.out.split()
    assert (done.code, name.decode()) == (5, stream)
    second = cluster.run("lead", stream, "--", "sh", "-c", script).out.split()[1]
    assert int(second) > int(first)


def test_lead_ends_its_command_when_the_epoch_is_lost(cluster, stream, tmp_path):
    script = f"echo $$ > {tmp_path}/pid; exec sleep 600"
    child = cluster.start("lead", stream, "--", "sh", "-c", script)
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    done = cluster.run("lead", stream, "--no-wait", "--", "true")
    assert done.code == 4, done
    cluster.ok("delete", stream, "--yes")
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode in (3, 4), err
    assert b"Traceback" not in err
    until(lambda: not Path(f"/proc/{pid}").exists())


def until_led(watching, by):
    """Read what is watched up to where a peer leads."""
    while json.loads(watching.stdout.readline())["leader"] != by:
        continue


def test_transfer_and_watch(cluster, stream):
    watching = cluster.start("watch", stream, "-o", "jsonl")
    first = cluster.start("append", stream, "--peer", "a")
    until_led(watching, "a")
    assert leader(cluster, stream) == "a"
    second = cluster.start("append", stream, "--peer", "b", "--wait")
    until(lambda: cluster.run("transfer", stream, "--to", "b").code == 0)
    assert leader(cluster, stream) == "b"
    _, err = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 4, err
    assert second.communicate(b"x\n", timeout=PATIENCE_S)[1] == b"appended 0..0, tail 1\n"
    until_led(watching, "b")
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 130
    assert err == b""
    assert cluster.run("transfer", stream).code != 0


def test_health_and_servers(cluster):
    done = cluster.run("health", "--wait", "--timeout", "30")
    assert done.code == 0, done
    assert json.loads(cluster.ok("health", "-o", "json"))["healthy"] is True
    rows = json.loads(cluster.ok("servers", "ls", "-o", "json"))
    assert [row["name"] for row in rows] == ["s1", "s2", "s3"]
    assert {row["state"] for row in rows} == {"alive"}
    assert b"s1" in cluster.ok("servers", "ls")


def test_what_cannot_be_reached_is_told():
    nobody = Command("lunalog://127.0.0.1:1")
    done = nobody.run("ls", "--timeout", "1")
    assert done.code == 5, done
    assert "127.0.0.1:1" in done.err
    assert "Traceback" not in done.err
    for url in ("nonsense", "http://x", "lunalog://", "lunalog://host:port"):
        done = Command(url).run("ls")
        assert done.code == 2, (url, done)


def test_a_server_that_cannot_start_says_why(cluster, tmp_path):
    masters = cluster.url.removeprefix("lunalog://")
    (tmp_path / "file").write_text("")
    done = cluster.run("server", "--data", str(tmp_path / "file"), "--masters", masters)
    assert done.code in (1, 2), done
    assert "error: " in done.err
    taken = masters.split(":")[1]
    done = cluster.run(
        "server", "--data", str(tmp_path / "a"), "--masters", masters, "--port", taken
    )
    assert done.code in (1, 2), done
    assert "in use" in done.err
