"""What lunalog aims at beyond the targets of `make bench`: near the floor of the machine, in one run.

`make goals`, or `bench/goals.py --rounds 5 --only parts`.  Each round runs the yardstick, then the
product.  One line a goal: median, spread, bound, verdict.  Exit 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

from run import Report, Rows, lines, throughput, yardstick

DISK = "3 writers chunk 1048576"


def near_the_floor(report: Report, base: Rows, ours: Rows) -> None:
    """Throughput against the prototype and the disks, lone latency against blocking sockets."""
    for name in ("futures 100B", "batches 100B"):
        ratio = ours[name]["events_s"] / base[name]["events_s"]
        report.note(f"{name} / prototype", ratio, 1.0, "x", at_least=True)
    for name, bound in (("futures 1024B", 0.6), ("batches 1024B", 0.6), ("futures 65536B", 0.85)):
        # What three writers reach on these disks, or 1.1 times the prototype where that is lower.
        floor = min(base[DISK]["mb_s_each"], 1.1 * base[name]["mb_s"])
        report.note(f"{name} / disk floor", ours[name]["mb_s"] / floor, bound, "x", at_least=True)
    (lone,) = lines(sys.executable, "lone.py")
    for name, bound in (("p50", 1.3), ("p90", 2.0), ("p99", 2.0)):
        ratio = lone["product"][f"{name}_us"] / lone["floor"][f"{name}_us"]
        report.note(f"lone 1KiB {name} / floor", ratio, bound, "x", at_least=False)
    report.note("read 100B events/s", ours["read 100B"]["events_s"], 1e6, "/s", at_least=True)


def parts(report: Report) -> None:
    """A follower, and many streams."""
    from follow import BEHIND_US_MAX  # needs the package, which --help does not
    from streams import BOUNDS

    (late,) = lines(sys.executable, "follow.py")
    report.note("follower behind", late["behind us"], BEHIND_US_MAX, "us", at_least=False)
    (many,) = lines(sys.executable, "streams.py")
    for name, (bound, unit) in BOUNDS.items():
        report.note(name, many[name], bound, unit, at_least=True)


def restart(report: Report) -> None:
    """Starts of a server with a large log; they do not depend on the round."""
    from restart import BOUND_S, GIB

    for found in lines(sys.executable, "restart.py"):
        report.note(f"restart with {GIB} GiB", found["s"], BOUND_S, "s", at_least=False)


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["speed", "parts", "restart"], action="append")
    wanted = parser.parse_args()
    only = wanted.only or ["speed", "parts", "restart"]
    report = Report()
    print(f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    for n in range(wanted.rounds):
        if "speed" in only:
            base, ours = yardstick(), throughput()
            print(json.dumps({"round": n, "yardstick": base, "product": ours}), flush=True)
            near_the_floor(report, base, ours)
        if "parts" in only:
            parts(report)
    if "restart" in only:
        restart(report)
    return 0 if report.show() else 1


if __name__ == "__main__":
    sys.exit(main())
