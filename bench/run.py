"""Every target of the README's table in one run: `make bench`, or `bench/run.py --rounds 5 --only read`.

Each round runs the floor and the prototype, then the product, in turn, so that a machine whose speed
drifts does so for all.  One line a target: median, spread, bound, verdict.  Exit 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LEASE_MS = 2000
Rows = dict[str, dict[str, float]]


def lines(*command: str, **options: object) -> list[dict[str, Any]]:
    """Run a program of this folder and parse the JSON lines it prints."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, cwd=HERE, **options
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def yardstick() -> Rows:
    """The floor and the prototype, by the name of the test."""
    with tempfile.TemporaryDirectory(prefix="lunalog-yardstick-") as directory:
        environment = {**os.environ, "PYTHON": sys.executable}
        found = lines("bash", "yardstick/run.sh", directory, env=environment)
    return {str(r.get("test") or r["floor"]): r for r in found}


def throughput() -> Rows:
    """The product on the same work, written by one process and read back by another."""
    import asyncio

    from cluster import BenchCluster  # needs the package, which --help does not

    async def work() -> list[dict[str, Any]]:
        async with BenchCluster() as cluster:
            python = sys.executable
            client = await asyncio.to_thread(
                lines, python, "product_client.py", cluster.url, "bench"
            )
            parts = cluster.directory / "parts"
            parts.write_text(json.dumps(client.pop()["parts"]))
            return client + await asyncio.to_thread(
                lines, python, "product_reader.py", cluster.url, "bench", str(parts)
            )

    return {str(r["test"]): r for r in asyncio.run(work())}


class Report:
    """Collects one figure a round and target; prints the verdicts."""

    def __init__(self) -> None:
        self.figures: dict[str, tuple[list[float], float, str, bool]] = {}

    def note(self, name: str, value: float, bound: float, unit: str, *, at_least: bool) -> None:
        """Add one round's figure."""
        self.figures.setdefault(name, ([], bound, unit, at_least))[0].append(value)

    def show(self) -> bool:
        """Print one line a target; true when all are met."""
        print(f"\n{'target':<34}{'median':>12}{'min':>12}{'max':>12}{'bound':>14}  verdict")
        met_all = True
        for name, (values, bound, unit, at_least) in self.figures.items():
            median = statistics.median(values)
            met = median >= bound if at_least else median <= bound
            met_all &= met
            sign = ">=" if at_least else "<="
            print(
                f"{name:<34}{median:>12.2f}{min(values):>12.2f}{max(values):>12.2f}"
                f"{sign + f' {bound:g} {unit}':>14}  {'met' if met else 'MISSED'}"
            )
        return met_all


def speed(report: Report, rounds: int) -> None:
    """Throughput, lone latency and catch-up read, against the yardstick of the same round."""
    for n in range(rounds):
        base, ours = yardstick(), throughput()
        print(json.dumps({"round": n, "yardstick": base, "product": ours}), flush=True)
        for name, row in ours.items():
            if name.startswith(("futures", "batches")):
                ratio = row["events_s"] / base[name]["events_s"]
                report.note(f"{name} / prototype", ratio, 0.8, "x", at_least=True)
        floor, lone = base["lone 1KiB 2 of 3"], ours["lone 1KiB"]
        report.note(
            "lone 1KiB p50 / floor", lone["p50_us"] / floor["p50_us"], 2.0, "x", at_least=False
        )
        for name, bound in (("p50", 1.25), ("p90", 2.0)):
            ratio = lone[f"{name}_us"] / base["lone 1KiB"][f"{name}_us"]
            report.note(f"lone 1KiB {name} / prototype", ratio, bound, "x", at_least=False)
        bare = base["lone 1KiB"]["p50_us"] / floor["p50_us"]
        print(f"the prototype's own lone 1KiB p50 is {bare:.2f} times the floor's", flush=True)
        report.note(
            "read 100B events/s", ours["read 100B"]["events_s"], 500_000, "/s", at_least=True
        )


def failovers(report: Report, rounds: int) -> None:
    """Times without an ack."""
    bounds = {
        "handover": 100.0,
        "killed leader": 1000.0,
        "killed server": 500.0,
        "frozen leader": LEASE_MS + 500.0,
    }
    for n in range(rounds):
        (found,) = lines(sys.executable, "failover.py")
        print(json.dumps({"round": n, "failover": found}), flush=True)
        for name, bound in bounds.items():
            report.note(name, found[name], bound, "ms", at_least=False)


def memory(report: Report, streams: int) -> None:
    """Resident memory; once, because it does not depend on the machine's speed."""
    (found,) = lines(sys.executable, "memory.py", str(streams))
    bounds = {
        "idle server MiB": (80, "MiB"),
        "stream at server B": (4096, "B"),
        "stream at master B": (4096, "B"),
    }
    for name, (bound, unit) in bounds.items():
        report.note(name, found[name], bound, unit, at_least=False)


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=10_000, help="for the memory row")
    parser.add_argument("--only", choices=["speed", "failover", "memory"], action="append")
    wanted = parser.parse_args()
    report = Report()
    only = wanted.only or ["speed", "failover", "memory"]
    print(f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    if "speed" in only:
        speed(report, wanted.rounds)
    if "failover" in only:
        failovers(report, wanted.rounds)
    if "memory" in only:
        memory(report, wanted.streams)
    return 0 if report.show() else 1


if __name__ == "__main__":
    sys.exit(main())
