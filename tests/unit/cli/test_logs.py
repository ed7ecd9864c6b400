"""The log of a command: an object a line for machines, a sentence a line for people."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from lunalog.cli.logs import JsonFormatter, TextFormatter, configure_logging


@pytest.fixture(autouse=True)
def _logger_as_it_was():
    root = logging.getLogger("lunalog")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], level, root.propagate = before
    root.setLevel(level)


def record(error: BaseException | None = None) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "lunalog.server", "levelno": logging.WARNING, "levelname": "WARNING",
         "msg": "record_damaged", "created": 1.5, "file": "x.wal", "offset": 7}
    )  # fmt: skip
    if error is not None:
        made.exc_info = (type(error), error, None)
    return made


def test_an_event_is_one_object_with_its_fields():
    row = json.loads(JsonFormatter().format(record()))
    assert row == {
        "ts": "1970-01-01T00:00:01.500+00:00", "level": "warning", "logger": "lunalog.server",
        "event": "record_damaged", "file": "x.wal", "offset": 7,
    }  # fmt: skip
    assert "error" not in row
    assert (
        "ValueError: oops"
        in json.loads(JsonFormatter().format(record(ValueError("oops"))))["error"]
    )


def test_for_people_the_fields_stand_behind_the_event():
    line = TextFormatter().format(record())
    assert line[8:] == " warning record_damaged file=x.wal offset=7"
    assert TextFormatter().format(record(ValueError("oops"))).endswith("\nValueError: oops")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_text_and_everything_else_json(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    configure_logging(0)
    logging.getLogger("lunalog.client").warning("stream_lost", extra={"stream": "orders"})
    logging.getLogger("lunalog.client").info("not told")
    line = capsys.readouterr().err.strip()
    assert ("stream=orders" in line) == is_terminal
    assert (line[:1] == "{") != is_terminal
    assert "not told" not in line


@pytest.mark.parametrize(
    ("verbose", "default", "level"),
    [(0, None, logging.WARNING), (1, None, logging.INFO), (2, None, logging.DEBUG),
     (0, logging.INFO, logging.INFO), (2, logging.INFO, logging.DEBUG)],
)  # fmt: skip
def test_more_v_tell_more_and_nodes_at_least_info(verbose, default, level):
    configure_logging(verbose, default=default)
    assert logging.getLogger("lunalog").level == level
