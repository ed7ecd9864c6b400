"""`lunalog`, and `python -m lunalog`: where the command begins.

Until an event loop runs a Ctrl-C ends the process as it ends one that does not know the signal: at once,
without a word, and to a shell with 130.  Python would print a traceback of whatever it was importing.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` without its enumerations
import os
import sys


def run() -> int:
    """Run the command and return its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _fill_standard_descriptors()
    from lunalog.cli.main import main

    return main()


def _fill_standard_descriptors() -> None:
    """Put something in the place of standard streams that a shell has closed (`<&-`).

    A socket would get the number else, and uvloop aborts the process when it closes that one.
    Reading input and writing output fail as before; what goes to stderr is dropped.
    """
    for number, (name, mode, access) in enumerate(
        (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))
    ):
        if getattr(sys, name) is None:
            os.open(os.devnull, access)  # gets the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode))


if __name__ == "__main__":
    sys.exit(run())
