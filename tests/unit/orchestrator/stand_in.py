"""A tiny stand-in for a journal server: takes its pid file, then waits for SIGTERM."""

import signal
import sys
import threading
from pathlib import Path

from lunalog.orchestrator.process import PidFile, watch_lifeline


def main() -> int:
    directory, masters, *rest = sys.argv[1:]
    if (Path(directory) / "broken").exists():
        print("error: broken on purpose", file=sys.stderr)
        return 3
    ended = threading.Event()
    stubborn = (Path(directory) / "stubborn").exists()
    signal.signal(signal.SIGTERM, (lambda *_: None) if stubborn else (lambda *_: ended.set()))
    if "--lifeline" in rest:
        watch_lifeline(int(rest[rest.index("--lifeline") + 1]), ended.set)
    held = PidFile(Path(directory) / "server.pid")
    options = rest[: rest.index("--lifeline")] if "--lifeline" in rest else rest
    held.take((masters, *options))  # from here on it is found, and told to end
    print("up", file=sys.stderr, flush=True)
    while not ended.wait(0.02):
        pass
    held.release()
    return 11 if (Path(directory) / "leaves").exists() else 0


if __name__ == "__main__":
    sys.exit(main())
