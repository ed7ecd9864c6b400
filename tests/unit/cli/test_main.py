"""Parsing, help, and what a help costs."""

import errno
import importlib
import json
import os
import socket
import subprocess
import sys

import pytest

from lunalog.cli import main as tree
from lunalog.cli.main import COMMANDS, main, root_command
from lunalog.cli.options import Settings
from lunalog.errors import DeadlineExceededError

HEAVY = ("uvloop", "rich", "sqlite3", "crc32c", "lunalog.client", "lunalog.server")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    monkeypatch.delenv("LUNALOG_URL", raising=False)


def unmeasured() -> dict[str, str]:
    """The environment without who measures coverage: that has imports and costs of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom lunalog.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=unmeasured(),
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stderr.strip() == "[]"
    assert "append" in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert "Usage: lunalog" in capsys.readouterr().out


def test_shared_options_stand_before_or_behind_the_command(monkeypatch):
    seen = []
    monkeypatch.setenv("LUNALOG_URL", "lunalog://env:1")

    def ask(settings, what, question):
        seen.append((settings.cluster, settings.output, settings.timeout))
        return []

    import lunalog.cli.streams as streams

    monkeypatch.setattr(streams, "ask", ask)
    assert main(["ls"]) == 0
    assert main(["--cluster", "lunalog://a:1", "-o", "json", "ls"]) == 0
    assert main(["--cluster", "lunalog://a:1", "ls", "--cluster", "lunalog://b:1"]) == 0
    assert main(["ls", "--timeout", "2"]) == 0
    assert seen == [
        ("lunalog://env:1", "table", None),
        ("lunalog://a:1", "json", None),
        ("lunalog://b:1", "table", None),
        ("lunalog://env:1", "table", 2.0),
    ]


@pytest.mark.parametrize(
    ("line", "is_read_only"),
    [
        ("ls", True),
        ("info s", True),
        ("history s", True),
        ("servers", True),
        ("servers ls", True),
        ("delete s", True),
        ("delete s --yes", False),
        ("create s", False),
        ("transfer s", False),
        ("servers scale 3", False),
    ],
)
def test_only_what_changes_something_may_have_taken_effect(line, is_read_only, monkeypatch, capsys):
    def ask(settings, what, question):
        raise DeadlineExceededError(f"{what}: no answer")

    for module in ("roles", "servers", "streams"):
        monkeypatch.setattr(importlib.import_module(f"lunalog.cli.{module}"), "ask", ask)
    assert main(line.split()) == 5
    assert ("may have" in capsys.readouterr().err) is not is_read_only
    assert main(["-o", "json", *line.split()]) == 5
    assert json.loads(capsys.readouterr().err)["maybe_applied"] is not is_read_only


@pytest.mark.parametrize("line", ["ls", "health", "health --wait", "read s", "watch s"])
def test_a_master_that_says_nothing_is_unavailable_and_nothing_was_changed(line, capsys):
    """Something listens, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"lunalog://127.0.0.1:{silent.getsockname()[1]}"
        code = main(["-o", "json", "--cluster", url, "--timeout", "0.05", *line.split()])
    told = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (code, told["maybe_applied"]) == (5, False)
    assert "no " in told["message"]
    assert "may have" not in told["message"]


@pytest.mark.parametrize(
    ("form", "is_terminal", "is_told"),
    [("table", True, True), ("table", False, False), ("json", True, False)],
)
def test_who_waits_at_a_terminal_is_told_for_whom(form, is_terminal, is_told, monkeypatch, capsys):
    monkeypatch.setattr("lunalog.cli.running.PATIENCE_S", 0.01)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"lunalog://127.0.0.1:{silent.getsockname()[1]}"
        assert main(["--cluster", url, "--timeout", "0.1", "-o", form, "ls"]) == 5
    told = capsys.readouterr().err
    note = f"no master answers yet at {url}; this goes on trying for 0.1 s\n"
    assert told.startswith(note) is is_told
    assert "within 0.1 s" in told, "what was asked for, and no share of it"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["read"],
        ["read", "s", "--null", "-f", "%p"],
        ["read", "s", "--to", "3", "-n", "3"],
        ["read", "s", "--follow", "--linearizable"],
        ["server", "--data", "/tmp/x", "--masters", ","],
        ["read", "s", "-f", "%x"],
        ["append", "s", "--null", "--length-prefixed"],
        ["ls", "--timeout", "0"],
        ["ls", "-o", "yaml"],
        ["server", "--data", "/tmp/x", "--masters", "nowhere"],
        ["server", "--data", "/tmp/x", "--label", "rack"],
        ["lead", "s"],
    ],
)
def test_what_makes_no_sense_is_usage(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "rror: " in err
    assert "Traceback" not in err


OWN = ["--servers=5", "--dir=/tmp/x"]
"""Options of a cluster that a bench starts itself."""


@pytest.mark.parametrize("option", OWN)
@pytest.mark.parametrize("how", ["--cluster", "LUNALOG_URL"])
@pytest.mark.parametrize("workload", ["write", "failover"])
def test_a_bench_of_a_given_cluster_says_what_means_nothing_there(
    option, how, workload, monkeypatch, capsys
):
    line, url = ["bench", workload, option, "--timeout", "0.05"], "lunalog://127.0.0.1:1"
    if how == "--cluster":
        line += ["--cluster", url]
    else:
        monkeypatch.setenv("LUNALOG_URL", url)
    assert main(line) == 2
    told = capsys.readouterr().err
    assert f"{option.partition('=')[0]} is of a cluster" in told
    assert how in told


REFUSED = "--cluster is for commands that ask a cluster; nothing was done; "


@pytest.mark.parametrize("command", ["up", "down", "status", "kill s1"])
def test_dev_says_that_another_cluster_cannot_be_meant(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lunalog.orchestrator.dev.DevDirectory", None)  # nobody looks for one
    line = ["dev", *command.split(), "--dir", str(tmp_path), "--cluster", "lunalog://127.0.0.1:1"]
    assert main(line) == 2
    told = f"error: {REFUSED}--dir says which cluster of this machine is meant\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("config show client", "settings are those in effect here, and --config names a file"),
        ("completion bash", "a script is good for all of them"),
    ],
)
def test_what_is_true_of_all_clusters_is_asked_of_none(line, instead, monkeypatch, capsys):
    words, url = line.split(), "lunalog://127.0.0.1:1"
    for refused in (["--cluster", url, *words], [*words, "--cluster", url]):
        assert main(refused) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"error: {REFUSED}{instead}")
    monkeypatch.setenv("LUNALOG_URL", url)
    assert main(words) == 0
    assert capsys.readouterr().out


def test_a_group_takes_the_options_that_its_commands_take(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LUNALOG_DEV_DIR", str(tmp_path))
    assert main(["dev", "-o", "json", "status"]) == 5
    assert json.loads(capsys.readouterr().err)["exit_code"] == 5
    assert main(["config", "-o", "json", "show", "client"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["role"] == "client"


@pytest.mark.parametrize("role", ["master", "server"])
def test_a_node_says_that_it_heeds_no_cluster(role, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LUNALOG_URL", "lunalog://127.0.0.1:1")
    data = tmp_path / role
    assert main([role, "--data", str(data), "--cluster", "lunalog://127.0.0.1:1"]) == 2
    assert REFUSED in capsys.readouterr().err
    assert main([role, "--data", str(data), "--config", str(data)]) == 2
    told = (
        f"error: cannot read settings from {data}: No such file or directory; nothing was changed\n"
    )
    assert capsys.readouterr().err == told, "what the environment says is of others"
    assert not data.exists()
    assert main([role, "--help"]) == 0
    assert "--cluster" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["up", "down", "status", "kill"])
def test_the_help_of_dev_offers_no_other_cluster(command, capsys):
    assert main(["dev", command, "--help"]) == 0
    assert "--cluster" not in capsys.readouterr().out
    assert main(["ls", "--help"]) == 0
    assert "--cluster" in capsys.readouterr().out


def test_the_help_of_a_bench_says_which_cluster_it_takes_unless_told(capsys):
    assert main(["bench", "write", "--help"]) == 0
    assert "default: one of its own]" in " ".join(capsys.readouterr().out.split())


def test_dev_takes_no_offence_at_the_cluster_of_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LUNALOG_URL", "lunalog://127.0.0.1:1")
    assert main(["dev", "status", "--dir", str(tmp_path)]) == 5
    assert "no cluster is up" in capsys.readouterr().err


def test_a_misspelt_command_is_guessed(capsys):
    told = "error: no such command {}; nothing was done; see `lunalog{} --help`\n"
    assert main(["apend"]) == 2
    assert capsys.readouterr().err == told.format("'apend' (did you mean 'append'?)", "")
    assert main(["dev", "stats"]) == 2
    assert capsys.readouterr().err == told.format("'stats' (did you mean 'status'?)", " dev")
    for name in ("nope", "help"):
        assert main([name]) == 2
        assert capsys.readouterr().err == told.format(repr(name), "")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("ls --timeout x", "invalid value for '--timeout': 'x' is no number above 0"),
        ("ls --timeout -1", "invalid value for '--timeout': '-1' is no number above 0"),
        ("ls --timeout nan", "invalid value for '--timeout': 'nan' is no number above 0"),
        ("ls --timeout inf", "invalid value for '--timeout': 'inf' is no number above 0"),
        ("read s --from x", "invalid value for '--from': 'x' is no whole number"),
        ("read s --from 1e99", "invalid value for '--from': '1e99' is no whole number"),
        (
            "read s -n -1",
            "invalid value for '-n' / '--count': '-1' is no whole number of 0 or more",
        ),
        ("truncate s x", "invalid value for 'BEFORE': 'x' is no whole number of 0 or more"),
        ("truncate s -35", "a negative number means nothing here"),
        ("servers scale " + "9" * 20, f"invalid value for 'COUNT': '{'9' * 20}' is too large"),
        ("create s --replicas 0", "invalid value for '--replicas': '0' is no whole number above 0"),
        (
            "dev up --port 65536",
            "invalid value for '--port': '65536' is no whole number from 0 to ",
        ),
        ("lead s --grace -1 -- x", "invalid value for '--grace': '-1' is no number of 0 or more"),
        ("read s --formt x", "no such option '--formt' (did you mean '--format' or '--from'?)"),
        ("read", "missing argument 'STREAM'"),
        ("ls a b", "got unexpected extra argument (b)"),
    ],
)
def test_what_cannot_be_read_is_told_in_words_with_the_effect_and_what_to_do(line, what, capsys):
    assert main(line.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {what}"), told
    assert "; nothing was done; see `lunalog " in told
    assert told.endswith(" --help`\n")
    assert "range" not in told


@pytest.mark.parametrize("option", ["-o json", "--output jsonl", "--output=json"])
@pytest.mark.parametrize("line", ["ls --timeout x", "ls --nope", "nope"])
def test_who_asks_for_json_gets_it_also_of_a_line_that_cannot_be_read(line, option, capsys):
    assert main([*line.split(), *option.split()]) == 2
    assert json.loads(capsys.readouterr().err)["error"] == "usage"
    assert main([*line.split(), "--", *option.split()]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_command_ends_with_the_code_it_returns(monkeypatch):
    monkeypatch.setattr(root_command, "main", lambda **_: 10)
    assert main([]) == 10

    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(root_command, "main", interrupted)
    assert main([]) == 130


def test_help_shows_no_range_of_a_parser(capsys):
    for line in (["--help"], ["read", "--help"], ["lead", "--help"], ["server", "--help"]):
        assert main(line) == 0
        out = capsys.readouterr().out
        assert "x>" not in out
        assert "RANGE" not in out


def test_a_bug_is_told_as_one_without_traceback(monkeypatch, capsys):
    def broken(**_):
        raise RuntimeError("oops")

    monkeypatch.setattr(root_command, "main", broken)
    assert main([]) == 1
    err = capsys.readouterr().err
    assert "bug" in err
    assert "Traceback" not in err


def test_settings_defaults():
    assert Settings().cluster == "lunalog://127.0.0.1:7600"
    assert tree.root_command.name == "root"


def test_config_show_names_the_source(monkeypatch, capsys, tmp_path):
    file = tmp_path / "lunalog.toml"
    file.write_text("[master]\nlease_ms = 3000\n")
    monkeypatch.setenv("LUNALOG_MASTER_PORT", "7700")
    assert main(["config", "show", "master", "--config", str(file)]) == 0
    lines = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["lease_ms"][2:] == ["3000", "file", str(file)]
    assert lines["port"][2:] == ["7700", "environment"]
    assert lines["heartbeat_ms"][2:] == ["500", "default"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "_LUNALOG_COMPLETE" in capsys.readouterr().out


def cpu_s(code: str) -> float:
    """Processor time of a new interpreter that runs this."""
    code = f"import sys, time\n{code}\nprint(time.process_time(), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=unmeasured(), capture_output=True, text=True, check=True
    )
    return float(done.stderr)


def test_help_is_fast():
    """Little more than what any command costs here: so a slow or busy machine changes nothing."""
    bare, took = "import asyncio, click", "from lunalog.cli.main import main\nmain(['--help'])"
    pairs = [(cpu_s(bare), cpu_s(took)) for _ in range(3)]
    assert min(took for _, took in pairs) < 3 * min(bare for bare, _ in pairs)


def test_a_pipe_that_nobody_reads_is_told_by_the_exit_code(monkeypatch, capsys):
    import lunalog.cli.streams as streams

    def ask(settings, what, question):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(streams, "ask", ask)
    monkeypatch.setattr(tree, "_drop_stdout", lambda: None)
    assert main(["ls"]) == 141
    assert capsys.readouterr().err == ""


def test_a_bad_url_is_explained_once(capsys):
    assert main(["--cluster", "http://x", "ls"]) == 2
    assert capsys.readouterr().err.count("memory://NAME") == 1


def test_without_uvloop_the_command_runs_on_what_there_is(monkeypatch):
    from lunalog.cli.running import loop_factory

    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory() is None


def test_what_the_system_refuses_is_an_error_and_no_bug(monkeypatch, capsys):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(root_command, "main", full)
    assert main([]) != 0
    err = capsys.readouterr().err
    assert "No space left" in err or "full" in err
    assert "bug" not in err


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 server is wanted"), (3, "3 servers are wanted")]
)
def test_scaling_says_what_is_wanted_from_now_on(monkeypatch, capsys, count, said):
    import lunalog.cli.servers as servers

    monkeypatch.setattr(servers, "ask", lambda settings, what, question: None)
    assert main(["servers", "scale", str(count)]) == 0
    assert said in capsys.readouterr().err


def test_dev_lives_where_the_desktop_keeps_data(monkeypatch, tmp_path):
    from lunalog.cli.dev import default_directory

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "lunalog" / "dev"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_directory() == tmp_path / "home" / ".local" / "share" / "lunalog" / "dev"


@pytest.mark.parametrize(
    ("closed", "code", "told"),
    [
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        (">&-", 1, "error: cannot go on: standard output: Bad file descriptor\n"),
        ("<&- >&- 2>&-", 1, ""),
    ],
)
def test_closed_standard_streams_are_no_room_for_sockets(closed, code, told):
    """uvloop aborts a process that closes a socket with one of their numbers."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m lunalog --cluster memory://closed ls {closed}', sys.executable],
        env=unmeasured(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (code, told)
