"""What a command or a simulation changes of the process that runs it is put back.

Hypothesis repeats itself here, draws anew with `HYPOTHESIS_PROFILE=nightly`, and draws nothing with
`written`: then only examples that a test writes down are run, as `make coverage` wants it.
"""

import logging
import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", settings.get_profile("ci"), derandomize=False, print_blob=True)
settings.register_profile("written", settings.get_profile("ci"), phases=[Phase.explicit])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores Ctrl-C for what it starts in the background, and children of ours would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging():
    root = logging.getLogger("lunalog")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before


@pytest.fixture(autouse=True)
def _signals():
    """A command past its point of no return ignores them; children of later tests would, too."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)
