"""Tables and JSON."""

import datetime
import json
from pathlib import Path

import pytest

from lunalog.cli.options import Settings
from lunalog.cli.render import (
    moment,
    natural,
    plain_table,
    show_one,
    show_rows,
    show_table,
    size,
    text,
)


def test_columns_are_aligned_and_numbers_stand_right():
    assert plain_table(("name", "start"), [("a", "7"), ("orders", "1234")]) == [
        "NAME    START",
        "a           7",
        "orders   1234",
    ]
    assert plain_table(("name",), []) == ["NAME"]


def test_names_are_sorted_as_people_do_it():
    names = ["s10", "s2", "a", "s1", "s1b2", "s1b10", "10", "9", ""]
    assert sorted(names, key=natural) == ["", "9", "10", "a", "s1", "s1b2", "s1b10", "s2", "s10"]


def test_rows_in_each_form(capsys):
    rows = [{"name": "a", "leader": None, "more": 1}]
    show_rows(Settings(output="table"), rows, ("name", "leader"))
    assert capsys.readouterr().out == "NAME  LEADER\na     -\n"
    show_rows(Settings(output="json"), rows, ("name",))
    assert json.loads(capsys.readouterr().out) == rows
    show_rows(Settings(output="jsonl"), rows * 2, ("name",))
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows * 2


def test_one_thing_in_each_form(capsys):
    show_one(Settings(output="table"), {"a_b": True, "c": ["x", "y"]})
    assert capsys.readouterr().out == "a b  yes\nc    x, y\n"
    show_one(Settings(output="json"), {"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_values_for_people():
    assert (text(None), text(False), text(()), text(3)) == ("-", "no", "-", "3")
    assert (size(5), size(1536), size(3 << 30)) == ("5 B", "1.5 KiB", "3.0 GiB")


def test_only_numbers_stand_right():
    for number in ("7", "1,234,567", "1.5", "512 B", "3.2 MiB/s", "45 µs", "7.00 ms"):
        assert plain_table(("number of it",), [(number,)])[1] == f"{number:>12}"
    cells = [("1.0 GiB", "127.0.0.1:7600", "2 of 3", "-"), ("512 B", "h:1", "10 of 16", "7")]
    assert plain_table(("free", "address", "copies", "end"), cells) == [
        "   FREE  ADDRESS         COPIES    END",
        "1.0 GiB  127.0.0.1:7600  2 of 3      -",
        "  512 B  h:1             10 of 16    7",
    ]


@pytest.mark.parametrize(
    ("environment", "is_decorated"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_on_a_terminal_the_headers_stand_out(environment, is_decorated, capsys, monkeypatch):
    rows = [["a", "7"]]
    show_table(["name", "start"], rows)
    plain = capsys.readouterr().out
    assert plain == "NAME  START\na         7\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    show_table(["name", "start"], rows)
    drawn = capsys.readouterr().out
    bold = plain.replace("NAME  START", "\x1b[1mNAME  START\x1b[0m")
    assert drawn == (bold if is_decorated else plain)


def test_what_json_does_not_know_is_told_in_words(capsys):
    when = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    row = {"at": when, "id": b"\x01\xff", "where": Path("/x")}
    expected = {"at": "2024-05-06T07:08:09+00:00", "id": "01ff", "where": "/x"}
    show_one(Settings(output="jsonl"), row)
    assert json.loads(capsys.readouterr().out) == expected
    show_rows(Settings(output="json"), [row], ("at",))
    assert json.loads(capsys.readouterr().out) == [expected]
    assert text(when).startswith("2024-05-0")
    assert moment(0) is None
    assert moment(1_000_000) == datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC)


def test_a_size_has_the_largest_unit_that_leaves_a_whole_one_of_it():
    assert (size(0), size(1023), size(1024)) == ("0 B", "1023 B", "1.0 KiB")
    assert (size(1 << 50), size(1 << 60)) == ("1.0 PiB", "1024.0 PiB")
