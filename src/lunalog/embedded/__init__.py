"""Clusters inside one process: `memory://NAME` and `file:///directory`."""

from lunalog.embedded.journal import SingleWriteJournal, connect

__all__ = ["SingleWriteJournal", "connect"]
