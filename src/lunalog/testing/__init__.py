"""Deterministic simulation of whole clusters, and checkers of what they did.

Start with `simulation.Simulation`: nodes (`machine`), network, disks and virtual time from one seed.
`nemesis` breaks them and heals them again; `history` and `checkers` say whether that was survived.
"""
