"""Run a benchmark of this folder and keep what it prints: `bench/keep.py goals.py --rounds 5`.

The output goes to the terminal and to `results/goals.txt`, below the time, commit, machine and command.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from origin import commit, machine

HERE = Path(__file__).parent


def main() -> int:
    """Run, show, keep; returns what the benchmark does."""
    if len(sys.argv) < 2 or not (HERE / sys.argv[1]).is_file():
        sys.exit(f"keep.py: name a benchmark of {HERE}\n\n{__doc__}")
    name, *arguments = sys.argv[1:]
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    lines = [f"{now}, commit {commit()}, {machine()}", f"$ bench/{name} {' '.join(arguments)}", ""]
    with subprocess.Popen(
        [sys.executable, name, *arguments], stdout=subprocess.PIPE, text=True, cwd=HERE
    ) as running:
        for line in running.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    kept = HERE / "results" / f"{Path(name).stem}.txt"
    kept.write_text("\n".join(lines) + "\n")
    return running.returncode


if __name__ == "__main__":
    sys.exit(main())
