"""Logging of the command: JSON lines, or plain text on a terminal."""

from __future__ import annotations

import datetime
import json
import logging
import sys

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LEVELS = {0: logging.WARNING, 1: logging.INFO}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        row = {
            "ts": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, event and fields, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).astimezone()
        pairs = "".join(f" {key}={value}" for key, value in fields(record).items())
        text = f"{when:%H:%M:%S} {record.levelname.lower():7} {record.getMessage()}{pairs}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what was passed as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in STANDARD}


def configure_logging(verbose: int, *, default: int | None = None) -> None:
    """Send the log of this process to stderr; nodes pass INFO as `default`."""
    level = LEVELS.get(verbose, logging.DEBUG)
    if default is not None:
        level = min(level, default)
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    root = logging.getLogger("lunalog")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
