"""What a peer is to the harness: how it is installed, started in a setting, and driven by its clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from peers.nodes import Nodes


@dataclass(frozen=True)
class Setting:
    """One way to run a peer.

    Args:
        label: what is different about it, for the table.
        fsyncs: whether an acknowledged event is on the disks of a quorum.
        options: words that the peer's `start` and its drivers understand.
    """

    label: str
    fsyncs: bool
    options: Sequence[str] = ()


@dataclass
class Clients:
    """What can drive a peer: commands by label, and reasons for what cannot be had."""

    commands: dict[str, list[object]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


class Peer(ABC):
    """One other system."""

    name: ClassVar[str]
    title: ClassVar[str]
    settings: ClassVar[tuple[Setting, ...]]
    warm_s: ClassVar[float] = 0.0
    """How long each figure is warmed up at least: a runtime that compiles while it runs is slow at first."""

    @abstractmethod
    def install(self) -> Clients:
        """Get servers and clients from the registries; what is there already stays.

        Raises:
            NotInstalledError: with the reason, if the servers cannot be had.
        """

    @abstractmethod
    def start(self, nodes: Nodes, setting: Setting) -> str:
        """Start three nodes: the address for the drivers."""

    def driven_by(self, setting: Setting) -> Sequence[str]:
        """Further words for the drivers in a setting."""
        return ()
