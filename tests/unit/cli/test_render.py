"""Tables and JSON."""

import json

from lunalog.cli.options import Settings
from lunalog.cli.render import plain_table, show_one, show_rows, size, text


def test_columns_are_aligned_and_numbers_stand_right():
    assert plain_table(("name", "start"), [("a", "7"), ("orders", "1234")]) == [
        "NAME    START",
        "a           7",
        "orders   1234",
    ]
    assert plain_table(("name",), []) == ["NAME"]


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
