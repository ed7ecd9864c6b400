"""`python -m chaos --minutes 10 [--seed N] [--faults NAME,...]`: the soak, from the command line.

Exit codes: 0 nothing wrong; 1 a violation; 2 usage; 3 a fault that was demanded was not inflicted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chaos import soak, tools
from chaos.faults import FAULTS
from chaos.world import NUMBERS, Size, World


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help="of faults, sizes, delays; default: drawn")
    parser.add_argument(
        "--faults", default="", help="only these, with commas; each must be inflicted"
    )
    parser.add_argument(
        "--number", type=int, default=NUMBERS[0], help="of its networks: this one, or the next free"
    )
    parser.add_argument("--rate", type=float, default=Size.rate, help="events a second, about")
    parser.add_argument("--keep", action="store_true", help="keep directories and logs in any case")
    parser.add_argument("--list", action="store_true", help="list the faults and what they need")
    return parser.parse_args(arguments)


def catalogue() -> None:
    """Print the faults."""
    for name, fault in sorted(FAULTS.items()):
        what = (fault.inflict.__doc__ or "").strip().splitlines()[0]
        print(f"{name:15} {what}{'  NOT RUN: ' + fault.why_not if fault.why_not else ''}")


async def main(options: argparse.Namespace, names: list[str], home: Path) -> tuple[World, bool]:
    """Run one soak; whatever happens, nothing is left behind."""
    has_lan = not tools.why_not("namespaces")
    numbers = range(options.number, NUMBERS.stop)
    world = World(home, options.seed, Size(rate=options.rate), has_lan=has_lan, numbers=numbers)
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)  # type: ignore[union-attr]
    done = None
    is_whole = False
    try:
        done = await soak.run(world, names, options.minutes * 60)
        is_whole = True
    except asyncio.CancelledError:
        print("\ninterrupted: everything is taken down", flush=True)
    finally:
        await world.down()
    if done is not None:
        done.summary()
    return world, is_whole


def run(arguments: list[str]) -> int:
    """Entry."""
    options = parse(arguments)
    if options.list:
        catalogue()
        return 0
    demanded = [name for name in options.faults.split(",") if name]
    if unknown := [name for name in demanded if name not in FAULTS]:
        print(f"no such fault: {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    wanted = demanded or sorted(FAULTS)
    missing = [name for name in wanted if FAULTS[name].why_not]
    again = f"make chaos MINUTES={options.minutes:g} SEED={options.seed}"
    again += f" FAULTS={options.faults}" if demanded else ""
    print(f"seed {options.seed}: {again}")
    list_missing(missing)
    if demanded and missing:
        return 3
    home = Path(tempfile.mkdtemp(prefix="lunalog-chaos-"))
    names = [name for name in wanted if name not in missing]
    world, is_whole = asyncio.run(main(options, names, home))
    violations = world.monitor.violations
    for violation in violations:
        print(f"VIOLATION {violation}")
    if violations or options.keep:
        print(f"directories and logs: {home}\nagain: {again}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    if violations:
        return 1
    if not is_whole:
        return 130
    list_missing(missing)
    if absent := [name for name in demanded if not world.faults[name]]:
        print(f"NOT INFLICTED: {', '.join(absent)}")
        return 3
    return 0


def list_missing(names: list[str]) -> None:
    """Say what is not run, and why."""
    for name in names:
        print(f"NOT RUN {name}: {FAULTS[name].why_not}")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
