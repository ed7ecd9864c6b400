"""`lunalog`, and `python -m lunalog`: where the command begins."""

from __future__ import annotations

import os
import signal
import sys


def run() -> int:
    """Run the command; a Ctrl-C while it is still being imported ends it without a word."""
    _fill_standard_descriptors()
    handler = signal.getsignal(signal.SIGINT)
    is_ours = handler is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lunalog.cli.main import main

    if is_ours:
        signal.signal(signal.SIGINT, handler)
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
