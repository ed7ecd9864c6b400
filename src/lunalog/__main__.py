"""`lunalog`, and `python -m lunalog`: where the command begins."""

from __future__ import annotations

import signal
import sys


def run() -> int:
    """Run the command; a Ctrl-C while it is still being imported ends it without a word."""
    handler = signal.getsignal(signal.SIGINT)
    is_ours = handler is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lunalog.cli.main import main

    if is_ours:
        signal.signal(signal.SIGINT, handler)
    return main()


if __name__ == "__main__":
    sys.exit(run())
