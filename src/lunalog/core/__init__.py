"""Decisions without I/O, clock or chance: replicas, leaders, elections, placement."""
