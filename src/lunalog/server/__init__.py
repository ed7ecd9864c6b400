"""The journal server: a durable replica of segments (design.md section 6)."""

from lunalog.server.process import JournalServer

__all__ = ["JournalServer"]
