"""N2: who could not work gets no turn while others stand, until it has worked again."""

from __future__ import annotations

from typing import Any

from lunalog.wire.messages import Release


async def test_who_gave_up_with_a_segment_open_stays_last_when_another_has_led(
    started: Any,
) -> None:
    """A client that is cut off from its servers would else lead anew after each hand-over."""
    lame, two, three = [await started.client(name) for name in ("lame", "two", "three")]
    members = await started.three()
    head = await lame.create()
    await lame.stand(head.stream)
    head = await lame.led(head.stream)
    head = (await lame.ask(lame.opens(head, members))).head
    await two.stand(head.stream)
    await lame.beat((head.stream, 9))
    await lame.ask(Release(head.stream, head.promise))
    head = await two.led(head.stream)
    head = (await two.ask(two.opens(head, members, end=3, chain=5))).head
    await three.stand(head.stream)
    await two.ask(two.closes(head, end=4, chain=6))
    assert (await three.led(head.stream, epoch=3)).epoch == 3


async def test_who_has_opened_a_segment_since_is_as_good_as_others(started: Any) -> None:
    one, two = [await started.client(name) for name in ("one", "two")]
    members = await started.three()
    head = await one.create()
    await one.stand(head.stream)
    head = await one.led(head.stream)
    await one.ask(Release(head.stream, head.promise))
    head = await one.led(head.stream, epoch=2)  # nobody else stands
    head = (await one.ask(one.opens(head, members))).head
    await two.stand(head.stream)
    head = (await one.ask(one.closes(head))).head
    head = await two.led(head.stream)
    three = await started.client("three")
    await three.stand(head.stream)
    await one.beat((head.stream, 9))
    await two.ask(Release(head.stream, head.promise))
    assert (await one.led(head.stream, epoch=4)).epoch == 4
