"""All faults, a file a room."""

from importlib import import_module

OPEN: frozenset[str] = frozenset()
"""Not killed for sure yet: the workloads are blind there.  Each run names them; none is added."""
ROOMS = ("recovery", "leading", "replica", "storage", "master", "client")


def load() -> None:
    """Register every fault."""
    for room in ROOMS:
        import_module(f"tests.mutants.faults.{room}")
