"""How long Hypothesis drives a state machine: a little and always the same way, or long and anew.

With `HYPOTHESIS_PROFILE=written` it does not at all: what it reaches by luck does not count as covered.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

NIGHTLY_TIMES = 20
NIGHTLY_LIVES_MAX = 1_000
"""A test has 300 s; the slowest of them, the replica's, does not end 2,400 lives in 140 s of a core."""
PHASES = {"nightly": tuple(Phase), "written": (Phase.explicit,)}


def machine_settings(examples: int, steps: int) -> settings:
    """Settings of a machine; at night it has many more lives, and what fails is made short."""
    profile = os.environ.get("HYPOTHESIS_PROFILE", "")
    is_nightly = profile == "nightly"
    return settings(
        max_examples=min(examples * NIGHTLY_TIMES, NIGHTLY_LIVES_MAX) if is_nightly else examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not is_nightly,
        phases=PHASES.get(profile, (Phase.explicit, Phase.generate)),
        suppress_health_check=list(HealthCheck),
    )
