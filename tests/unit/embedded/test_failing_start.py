"""What does not start leaves nothing behind: the next one of that name begins anew."""

from __future__ import annotations

import pytest

from lunalog import (
    DeadlineExceededError,
    MasterUnavailableError,
    NotEnoughServersError,
    SingleWriteJournal,
)
from lunalog.embedded import cluster
from lunalog.server.process import JournalServer


async def test_servers_that_do_not_come_up_are_told_and_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "START_TIMEOUT_S", 0.05)
        patch.setattr(JournalServer, "is_registered", property(lambda self: False))
        with pytest.raises(DeadlineExceededError, match=r"did not start within 0\.05 s"):
            await SingleWriteJournal.connect("memory://slow-start")
    async with SingleWriteJournal.connect("memory://slow-start") as journal:
        await journal.create_stream("orders")


async def test_a_journal_that_does_not_connect_leaves_its_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object) -> None:
        raise MasterUnavailableError("nobody")

    with monkeypatch.context() as patch:
        patch.setattr("lunalog.client.journal.SingleWriteJournal.start", refuse)
        with pytest.raises(MasterUnavailableError, match="nobody"):
            await SingleWriteJournal.connect("memory://refused")
    async with SingleWriteJournal.connect("memory://refused") as journal:
        await journal.create_stream("orders")


async def test_a_policy_that_the_cluster_can_never_hold_is_refused() -> None:
    async with SingleWriteJournal.connect("memory://small") as journal:
        with pytest.raises(NotEnoughServersError, match="nothing was created") as refused:
            await journal.create_stream("orders", replicas=5, ack_quorum=4)
        assert (refused.value.have, refused.value.need) == (3, 4)
