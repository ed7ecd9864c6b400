"""`python -m lunalog.testing.model --scope ci`: explore every model, and every mutant of one.

Exit 1 if an invariant is broken, a scope was not exhausted, or a mutant survives.
"""

from __future__ import annotations

import argparse
import resource
import sys
from concurrent.futures import ProcessPoolExecutor

from lunalog.testing.model.explore import Report
from lunalog.testing.model.scopes import MUTANTS, SCOPES, Scope

HEADING = f"{'':58}{'states':>11}{'transitions':>13}{'depth':>7}{'seconds':>9}"


def _run(scope: Scope) -> Report:
    return scope.run()


def _line(scope: Scope, report: Report) -> str:
    kind = f"{scope} {'goals' if scope.examine.__name__ == 'probe' else ''}"
    numbers = f"{report.states:11,}{report.transitions:13,}{report.depth:7}{report.seconds:9.1f}"
    return f"{kind:58}{numbers}"


def main(arguments: list[str]) -> int:
    """Explore what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m lunalog.testing.model")
    parser.add_argument("--scope", choices=[*SCOPES, "mutants"], default="ci")
    parser.add_argument("--only", default="", help="scopes whose line begins with this")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    scopes = [s for s in SCOPES.get(options.scope, []) if str(s).startswith(options.only)]
    mutants = [] if options.only or options.scope in ("nightly", "wide") else MUTANTS
    failed, states, transitions, seconds = 0, 0, 0, 0.0
    print(HEADING)
    with ProcessPoolExecutor(options.jobs) as pool:
        for scope, report in zip(scopes, pool.map(_run, scopes), strict=True):
            states, transitions = states + report.states, transitions + report.transitions
            seconds += report.seconds
            print(_line(scope, report), "exhausted" if report.is_exhausted else "", flush=True)
            if not report.is_exhausted:
                failed += 1
                print(report.story() if report.violation else "NOT EXHAUSTED")
        if scopes:
            print(
                f"{len(scopes)} scopes, {states:,} states, {transitions:,} transitions, "
                f"{seconds:.0f} s of processor time"
            )
        killed = 0
        for scope, report in zip(mutants, pool.map(_run, mutants), strict=True):
            found = report.violation.split(" ")[0]
            print(f"{scope.model.__name__:27} {_line(scope, report)} {found or 'SURVIVES'}")
            killed += bool(report.violation)
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(f"{megabytes:.0f} MB in the largest process")
    if mutants:
        print(f"{killed} of {len(mutants)} mutants are found out")
    return 1 if failed or killed < len(mutants) or not (scopes or mutants) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
