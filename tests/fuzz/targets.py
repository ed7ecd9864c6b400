"""All fuzz targets, by name."""

from __future__ import annotations

from tests.fuzz import other_targets, storage_targets, wire_targets
from tests.fuzz.harness import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (*wire_targets.TARGETS, *storage_targets.TARGETS, *other_targets.TARGETS)
}
