"""On what machine, and of which commit, something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def machine() -> str:
    """What it was measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {models[0] if models else platform.machine()}, {platform.platform()}"


def commit() -> str:
    """The last commit that changed the product, `+` if it has changes that are in none."""
    home = Path(__file__).parents[1]
    try:
        last = _git(home, "log", "-1", "--format=%h", "--", "src")
        changed = _git(home, "status", "--porcelain", "--", "src")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return last + ("+" if changed else "")


def _git(home: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=True, cwd=home)
    return done.stdout.strip()
