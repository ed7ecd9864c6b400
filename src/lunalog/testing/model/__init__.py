"""Small models of the protocol as executable specification, explored state by state.

Each module is one model: a state as a named tuple, actions as guarded steps with their rule, invariants
as predicates.  `explore.py` visits every reachable state, `mutants.py` breaks one rule at a time and
must be found out, `trace.py` holds a simulated run against the models' steps.

Source: docs/protocol.md "The model".
"""
