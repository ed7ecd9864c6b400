"""How long Hypothesis drives a state machine: a little and always the same way, or long and anew."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

NIGHTLY_TIMES = 20


def machine_settings(examples: int, steps: int) -> settings:
    """Settings of a machine; at night it has many more lives, and what fails is made short."""
    is_nightly = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
    return settings(
        max_examples=examples * (NIGHTLY_TIMES if is_nightly else 1),
        stateful_step_count=steps,
        deadline=None,
        derandomize=not is_nightly,
        phases=tuple(Phase) if is_nightly else (Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
