"""Real processes under faults: a cluster of the real commands, a nemesis, and checkers that run along.

`python -m chaos` (by `make chaos`) is the soak; `test_*.py` are its parts one by one.
"""
