"""Clusters inside one process: `memory://NAME` and `file:///directory`."""
