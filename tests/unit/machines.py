"""How long Hypothesis drives a state machine: a little and always the same way, or long and anew.

`HYPOTHESIS_PROFILE=brief` is for who only asks which lines a machine reaches, as `make coverage` does.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

TIMES = {"nightly": 20.0, "brief": 0.2}


def machine_settings(examples: int, steps: int) -> settings:
    """Settings of a machine; at night it has many more lives, and what fails is made short."""
    profile = os.environ.get("HYPOTHESIS_PROFILE", "")
    is_nightly = profile == "nightly"
    return settings(
        max_examples=max(1, round(examples * TIMES.get(profile, 1.0))),
        stateful_step_count=steps,
        deadline=None,
        derandomize=not is_nightly,
        phases=tuple(Phase) if is_nightly else (Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
