"""Provisioning of journal servers: the seam that the master asks, and its local implementation."""

from lunalog.orchestrator.base import Orchestrator, ProcessInfo

__all__ = ["Orchestrator", "ProcessInfo"]
