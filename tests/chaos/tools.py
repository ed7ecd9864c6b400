"""What this machine lets us do: each fault names what it needs, and is listed as not run without it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

CGROUP_MEMORY = Path("/sys/fs/cgroup/memory")
NETNS_DIRECTORY = Path("/run/netns")
FAKETIME_PLACES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
)
INSTALL = "tests/chaos/install installs it"


def faketime_library() -> str:
    """The library that shifts the wall clock of a process, or an empty string."""
    found = [str(path) for place in FAKETIME_PLACES for path in Path("/").glob(place[1:])]
    return found[0] if found else ""


def memory_group_of(pid: int) -> Path:
    """The memory group that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return CGROUP_MEMORY / path.lstrip("/")
    return CGROUP_MEMORY


def _tries(*commands: list[str]) -> str:
    """Run commands that together leave nothing behind; say what fails."""
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except OSError as error:
            return f"{command[0]}: {error.strerror}; {INSTALL}"
        except subprocess.TimeoutExpired:
            return f"{command[0]} hangs"
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip() or done.returncode}"
    return ""


def _strace() -> str:
    if shutil.which("strace") is None:
        return f"strace is not installed; {INSTALL}"
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO", "true"]
    return _tries(inject)


def _namespaces() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "nft", "nsenter"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed; {INSTALL}"
    name = f"lcprobe-{os.getpid()}"
    inside = ["nsenter", f"--net={NETNS_DIRECTORY / name}"]
    why = _tries(
        ["ip", "netns", "add", name],
        [*inside, "nft", "add table inet probe"],
        [*inside, "ip", "link", "add", "lcprobe0", "type", "veth", "peer", "name", "lcprobe1"],
        [*inside, "ip", "link", "add", "lcprobe2", "type", "bridge"],
    )
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return why


def _mount() -> str:
    if os.geteuid() != 0:
        return "mounting a tmpfs needs root"
    inside = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    return _tries(inside)


def _cgroup() -> str:
    if not (CGROUP_MEMORY / "memory.limit_in_bytes").exists():
        return f"no memory controller at {CGROUP_MEMORY}"
    probe = CGROUP_MEMORY / f"lunalog-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"no group can be made at {CGROUP_MEMORY}: {error.strerror}"
    return ""


def _faketime() -> str:
    return "" if faketime_library() else f"libfaketime is not installed; {INSTALL}"


PROBES: dict[str, Callable[[], str]] = {
    "strace": _strace,
    "namespaces": _namespaces,
    "mount": _mount,
    "cgroup": _cgroup,
    "faketime": _faketime,
}


@functools.cache
def why_not(tool: str) -> str:
    """Why `tool` cannot be used here; empty: it can.  It is tried, not only looked for."""
    return PROBES[tool]()
