"""The master: streams, epochs, leases, elections, servers, and the metadata they rest on."""

from lunalog.master.memory import MemoryStore
from lunalog.master.service import Master
from lunalog.master.sqlite import SqliteStore
from lunalog.master.store import MetadataStore

__all__ = ["Master", "MemoryStore", "MetadataStore", "SqliteStore"]
