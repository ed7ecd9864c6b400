"""Deterministic simulation of whole clusters, and checkers of what they did.

For code that uses lunalog: `Trial` runs it on simulated machines with faults, by seed; the pytest
fixture `lunalog_trial` is one (docs/simulating.md).  The public names are imported when first used.

Below it is what lunalog itself is tried with.  Start with `simulation.Simulation`: nodes (`machine`),
network, disks and virtual time from one seed.  `nemesis` breaks them and heals them again; `history`
and `checkers` say whether that was survived.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lunalog.testing.scheduler import SimulationError
    from lunalog.testing.simulation import ViolationError
    from lunalog.testing.trial import NotConvergedError, Program, Trial, fault_kinds

__all__ = [
    "NotConvergedError",
    "Program",
    "SimulationError",
    "Trial",
    "ViolationError",
    "fault_kinds",
]

_HOMES = {
    "SimulationError": "lunalog.testing.scheduler",
    "ViolationError": "lunalog.testing.simulation",
}
"""Where each public name lives; all others are in `lunalog.testing.trial`."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'lunalog.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "lunalog.testing.trial")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
