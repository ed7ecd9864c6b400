"""Fuzz targets for a while: `python -m tests.fuzz.run [--seconds 60] [--target NAME] [--keep]`.

Each target runs in a process of its own, as many at a time as there are processors, from the inputs
kept in `corpus/NAME` and its valid ones.  An input that breaks a property is saved there as `crash-…`,
where the test suite replays it from then on.  With `--keep`, inputs that reach new lines are added,
the smallest first.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.canaries import CANARIES
from tests.fuzz.harness import Target
from tests.fuzz.lines import lines_of, measure
from tests.fuzz.targets import TARGETS

HOME = Path(__file__).resolve().parent
CORPUS = HOME / "corpus"
BROKEN = ("crash-", "oom-", "timeout-")
"""What the fuzzer calls an input that broke something."""
KEPT_BYTES_MAX = 4096
KEPT_FILES_MAX = 12
"""Of one target, besides crashes; what its seeds reach needs no file."""


@dataclass(frozen=True)
class Result:
    """What one run of one target did."""

    executions: int
    crash: bytes | None
    text: str
    found: tuple[bytes, ...]
    """Inputs that reached something new."""

    @property
    def trouble(self) -> str:
        """What the fuzzer printed of the input that broke a property."""
        start = self.text.find("=== Uncaught Python exception")
        return self.text[max(0, start) :].partition("INFO: Instr")[0][-3000:]


def kept(name: str) -> dict[str, bytes]:
    """The inputs of a target that are kept in the tree."""
    folder = CORPUS / name
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def is_there() -> bool:
    """Whether the fuzzer is installed."""
    return importlib.util.find_spec("atheris") is not None


def fuzz(target: Target, *, seconds: int = 0, runs: int = -1, seed: int = 0) -> Result:
    """Fuzz one target until time or runs are over, or a property fails."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        work = Path(name)
        corpus = work / "corpus"
        corpus.mkdir()
        before = set()
        for source in (target.seeds(), kept(target.name)):
            for label, data in source.items():
                if not label.startswith("crash-"):
                    (corpus / label).write_bytes(data)
                    before.add(data)
        options = [
            "-max_len=16384", "-timeout=60", "-rss_limit_mb=1024", "-print_final_stats=1",
            f"-max_total_time={seconds}", f"-runs={runs}", f"-seed={seed}",
        ]  # fmt: skip
        command = [sys.executable, "-m", "tests.fuzz.engine", target.name, *options, str(corpus)]
        root = HOME.parent.parent
        paths = os.pathsep.join([str(root / "src"), str(root)])
        done = subprocess.run(
            command,
            cwd=work,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + 300,
        )
        text = done.stderr + done.stdout
        count = re.search(r"number_of_executed_units: (\d+)", text)
        crashes = [path.read_bytes() for path in work.iterdir() if path.name.startswith(BROKEN)]
        found = {path.read_bytes() for path in corpus.iterdir()} - before
        if done.returncode and not crashes:
            raise RuntimeError(f"{target.name} did not run:\n{text[-3000:]}")
    ordered = tuple(sorted(found, key=lambda data: (len(data), data)))
    return Result(int(count[1]) if count else 0, crashes[0] if crashes else None, text, ordered)


def keep(target: Target, found: tuple[bytes, ...]) -> int:
    """Put into the corpus what reaches lines that nothing kept reaches."""
    reached = set()
    for data in (*target.seeds().values(), *kept(target.name).values()):
        reached |= lines_of(target, data)
    added = 0
    for data in found:
        if len(data) > KEPT_BYTES_MAX or len(kept(target.name)) >= KEPT_FILES_MAX:
            continue
        lines = lines_of(target, data)
        if lines - reached:
            reached |= lines
            save(target, "", data)
            added += 1
    return added


def save(target: Target, label: str, data: bytes) -> Path:
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label}{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    return path


def report(target: Target, result: Result, kept_now: int) -> str:
    """One line of the table."""
    inputs = [*target.seeds().values(), *kept(target.name).values(), *result.found[-200:]]
    reached, whole = measure(target, inputs)
    share = 100 * reached // max(1, whole)
    state = "CRASH" if result.crash is not None else "ok"
    return (
        f"{target.name:<16} {result.executions:>10,} executions  {reached:>4} of {whole:>4} lines "
        f"({share:>3} %)  {len(result.found):>4} new inputs, {kept_now} kept  {state}"
    )


def told(target: Target, result: Result, options: argparse.Namespace) -> bool:
    """Say what came of one target; true if it is sound."""
    kept_now = keep(target, result.found) if options.keep else 0
    print(report(target, result, kept_now), flush=True)
    if result.crash is not None:
        path = save(target, "crash-", result.crash)
        print(f"{result.trouble}\nsaved as {path}")
        print("the test suite replays it: pytest tests/fuzz/test_corpus.py")
    if result.executions == 0:
        print(f"{target.name}: nothing was executed")
    return result.crash is None and result.executions > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--target", default="", help="one only")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    parser.add_argument("--keep", action="store_true", help="add to the corpus")
    options = parser.parse_args()
    if not is_there():
        print(
            "NOT RUN: the fuzzer is not installed: pip install --group fuzz (Linux, Python 3.11+)"
        )
        return 1
    wanted = [options.target] if options.target else sorted(TARGETS)
    if options.target and options.target not in {**TARGETS, **CANARIES}:
        print(f"no target {options.target!r}: there are {', '.join(sorted(TARGETS))}")
        return 2
    targets = [{**TARGETS, **CANARIES}[name] for name in wanted]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(
            lambda target: fuzz(target, seconds=options.seconds, seed=options.seed), targets
        )
        failed = sum(
            not told(target, result, options)
            for target, result in zip(targets, results, strict=True)
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
