"""What TLS costs: the same work on a plain cluster and on one under TLS, in turn, in one run.

    .venv/bin/python bench/tls.py --rounds 5

Both clusters live side by side (a master, three servers); one works at a time, and who begins changes
with each round.  The ratio of a row is the median of the rounds' ratios.  Exit 1 if appending falls
below 0.6 in a row.  What reading the same events back costs is told beside it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import platform
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cluster import BenchCluster
from lunalog import SingleWriteJournal
from lunalog.client.writer import StreamWriter
from product_client import batches, futures

BOUND = 0.6
Work = Callable[[StreamWriter], Awaitable[None]]


def rows() -> dict[str, tuple[int, int, Work]]:
    """Name of a row -> bytes of an event, events, what appends them."""
    small, middle, large = os.urandom(100), os.urandom(1024), os.urandom(65536)
    return {
        "futures 100B": (100, 200_000, lambda w: futures(w, small, 200_000)),
        "batches 100B": (100, 600_000, lambda w: batches(w, small, 600_000, 1000)),
        "futures 1KiB": (1024, 60_000, lambda w: futures(w, middle, 60_000)),
        "batches 1KiB": (1024, 100_000, lambda w: batches(w, middle, 100_000, 200)),
        "futures 64KiB": (65536, 1_500, lambda w: futures(w, large, 1_500)),
    }


class Side:
    """One of the two clusters."""

    def __init__(self, journal: SingleWriteJournal) -> None:
        self.journal = journal
        self.rates: dict[str, list[float]] = collections.defaultdict(list)
        self.reads: dict[str, list[float]] = collections.defaultdict(list)

    async def measure(self, name: str, number: int, size: int, count: int, work: Work) -> None:
        """Append to a stream of its own and read it back, both timed, then delete it."""
        stream = f"bench-{number}-{name.replace(' ', '-')}"
        await self.journal.create_stream(stream)
        async with self.journal.lead(stream) as writer:
            began = time.perf_counter()
            await work(writer)
            self.rates[name].append(count / (time.perf_counter() - began))
            if writer.tail != count:
                raise RuntimeError(f"{stream}: tail {writer.tail}, appended {count}")
        began = time.perf_counter()
        read = 0
        async for event in self.journal.read(stream, start=0, linearizable=True):
            read += 1
            if len(event.payload) != size:
                raise RuntimeError(f"{stream}: {event.sequence} has {len(event.payload)} bytes")
        self.reads[name].append(read / (time.perf_counter() - began))
        if read != count:
            raise RuntimeError(f"{stream}: {read} events read, {count} appended")
        await self.journal.delete_stream(stream)


def show(title: str, sizes: dict[str, int], plain: dict, tls: dict, bound: float | None) -> bool:
    """Print one line a row; true when all keep the bound, if there is one."""
    print(f"\n{title:<16}{'plain /s':>12}{'tls /s':>12}{'tls MB/s':>10}", end="")
    print(f"{'ratio':>8}{'min':>7}{'max':>7}", f"  at least {bound:g}" if bound else "")
    met_all = True
    for name, rates in plain.items():
        ratios = [theirs / ours for ours, theirs in zip(rates, tls[name], strict=True)]
        ratio, rate = statistics.median(ratios), statistics.median(tls[name])
        met = bound is None or ratio >= bound
        met_all &= met
        verdict = "" if bound is None else "met" if met else "MISSED"
        print(
            f"{name:<16}{statistics.median(rates):>12,.0f}{rate:>12,.0f}"
            f"{rate * sizes[name] / 1e6:>10.1f}{ratio:>8.2f}{min(ratios):>7.2f}{max(ratios):>7.2f}"
            f"   {verdict}".rstrip()
        )
    return met_all


def certificates(home: Path) -> tuple[tuple[str, ...], str]:
    """Make a throw-away authority; returns the options of a node and the authority's file."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(home / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(home / "node.pem")
    ca = str(home / "ca.pem")
    return ("--tls-certificate", str(home / "node.pem"), "--tls-authority", ca), ca


async def run(rounds: int, only: str) -> bool:
    """Measure all rounds and print the verdict."""
    work = {name: row for name, row in rows().items() if only in name}
    sizes = {name: row[0] for name, row in work.items()}
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lunalog-tls-")))
        options, ca = certificates(home)
        sides = []
        for cluster in (BenchCluster(), BenchCluster(options=options, ca=ca)):
            await stack.enter_async_context(cluster)
            connecting = SingleWriteJournal.connect(cluster.url, peer="bench")
            sides.append(Side(await stack.enter_async_context(connecting)))
        plain, tls = sides
        for number in range(rounds + 1):
            if number == 1:  # the first one warmed up
                plain.rates.clear(), tls.rates.clear(), plain.reads.clear(), tls.reads.clear()
            for name, (size, count, append) in work.items():
                for side in sides if number % 2 else reversed(sides):
                    await side.measure(name, number, size, count, append)
    print(json.dumps({"plain": plain.rates, "tls": tls.rates}))
    print(json.dumps({"plain reads": plain.reads, "tls reads": tls.reads}))
    met = show("append", sizes, plain.rates, tls.rates, BOUND)
    show("read back", sizes, plain.reads, tls.reads, None)
    return met


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    wanted = parser.parse_args()
    import uvloop

    print(
        f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}, "
        f"{ssl.OPENSSL_VERSION}, uvloop {uvloop.__version__}"
    )
    return 0 if uvloop.run(run(wanted.rounds, wanted.only)) else 1


if __name__ == "__main__":
    sys.exit(main())
