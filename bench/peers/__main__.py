"""Compare with other replicated logs: `make bench-peers`, or `python -m peers --peers kafka,redis`.

Each round runs the yardstick, lunalog, and every peer in turn.  What is measured replaces the rounds
that are kept of the same peers (`--add` keeps them); the table, the plot and the figures stand in
`bench/results`.  A peer that cannot be installed, or fails, is told as such, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"


def options() -> argparse.Namespace:
    """What the command line says."""
    from peers.contest import PEERS

    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )

    def names(value: str) -> list[str]:
        found = [name for name in value.split(",") if name]
        unknown = set(found) - set(PEERS)
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(PEERS)}")
        return found

    parser.add_argument("--peers", type=names, default=list(PEERS), help=", ".join(PEERS))
    parser.add_argument(
        "--clients",
        type=lambda value: value.split(","),
        help="the labels of some, `Java,librdkafka`",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each figure")
    parser.add_argument("--warm", type=float, help="before each figure; as long if not given")
    parser.add_argument("--add", action="store_true", help="keep earlier rounds of the same peers")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory")
    return parser.parse_args()


def end(number: int, frame: object) -> None:
    """End all that was started and is still there, children of children too, then unwind."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    sys.exit(128 + number)


def main() -> int:
    """Install, run the rounds, keep and show the results."""
    wanted = options()
    from peers import plot, results, table
    from peers.contest import Contest

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)

    def tell(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    warm = wanted.seconds if wanted.warm is None else wanted.warm
    contest = Contest(wanted.peers, wanted.clients, warm, wanted.seconds, tell)
    if wanted.install_only:
        return 0
    kept = results.load(wanted.results / "peers.json")
    new: list[results.Round] = []

    def keep(measured: results.Round) -> None:
        """What is interrupted later is not lost."""
        done = [*new, measured]
        rounds = [*kept, *done] if wanted.add else results.replaced(kept, done)
        wanted.results.mkdir(parents=True, exist_ok=True)
        (wanted.results / "peers.json").write_text(results.dump(rounds))
        (wanted.results / "peers.svg").write_text(plot.svg(rounds))
        (wanted.results / "peers.md").write_text(table.page(rounds, "peers.svg"))

    for n in range(wanted.rounds):
        tell(f"round {n + 1} of {wanted.rounds}")
        new.append(contest.round(keep))
    print(table.table(new))
    return 0


if __name__ == "__main__":
    sys.exit(main())
