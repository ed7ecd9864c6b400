"""One fuzz target under Atheris, a coverage-guided fuzzer: `python -m tests.fuzz.engine TARGET -runs=…`.

What the target executes is instrumented before it is imported.  Arguments behind the name are
libFuzzer's own.  An input on which a property fails ends the process and is left as a file.
"""

from __future__ import annotations

import random
import sys

import atheris

with atheris.instrument_imports(include=["lunalog"], exclude=["lunalog.testing"]):
    from tests.fuzz.canaries import CANARIES
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = {**TARGETS, **CANARIES}[sys.argv[1]]

    def feed(data: bytes) -> None:
        target.run(data)

    def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.2 or target.mutate is None:
            return bytes(atheris.Mutate(data, max_size))
        return target.mutate(data, chance)[:max_size]

    options = {} if target.mutate is None else {"custom_mutator": custom_mutator}
    atheris.Setup([sys.argv[0], *sys.argv[2:]], feed, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
