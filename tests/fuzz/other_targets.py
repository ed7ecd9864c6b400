"""What else is read: metadata records, pipes of events, formats, URLs."""

from __future__ import annotations

from tests.fuzz.harness import Target, require
from tests.fuzz.mutate import mutator
from tests.unit.wire import samples

from lunalog import limits
from lunalog.cli import records as pipes
from lunalog.client import url
from lunalog.errors import BadAddressError, CorruptRecordError, PayloadTooLargeError, UsageError
from lunalog.master import records
from lunalog.master.records import HeadRecord, ServerRecord, Tombstone
from lunalog.types import Event, SealedSegment

KINDS: tuple[type, ...] = (HeadRecord, SealedSegment, Tombstone, ServerRecord, int)


def run_metadata(data: bytes) -> bool:
    if not data:
        return False
    kind = KINDS[data[0] % len(KINDS)]
    try:
        found = records.decode(data[1:], kind, "fuzz")
    except CorruptRecordError:
        return False
    again = records.encode(found)
    require(records.decode(again, kind, "fuzz") is not None, "what decodes can be stored")
    require(records.encode(records.decode(again, kind, "fuzz")) == again, "the bytes it was")
    return True


def _metadata() -> dict[str, bytes]:
    values = (
        HeadRecord(samples.HEAD, "engine-1", (samples.SEGMENT,)),
        samples.ROW,
        Tombstone(samples.STREAM, "orders", samples.PROMISE, ("s1", "s2")),
        ServerRecord("s1", 3, 7, 99, "10.0.0.1", 4001, ("host=a",), True, False),
        5,
    )
    return {type(v).__name__: bytes([i]) + records.encode(v) for i, v in enumerate(values)}


SPLITTERS = (
    lambda: pipes.DelimitedSplitter(b"\n"),
    lambda: pipes.DelimitedSplitter(b"\0"),
    pipes.LengthSplitter,
)
FORMATS = ("lines", "null", "length-prefixed")


def _cut(kind: int, data: bytes, step: int) -> tuple[list[bytes], str]:
    splitter = SPLITTERS[kind]()
    events: list[bytes] = []
    try:
        for at in range(0, len(data), step):
            events += splitter.feed(data[at : at + step])
        events += splitter.finish()
    except (PayloadTooLargeError, UsageError) as error:
        return events, type(error).__name__
    return events, ""


def run_pipe(data: bytes) -> bool:
    if not data:
        return False
    kind, step, rest = data[0] % 3, 1 + data[0] // 3, data[1:]
    events, trouble = _cut(kind, rest, max(1, len(rest)))
    require(_cut(kind, rest, step) == (events, trouble), "how the input was cut changes nothing")
    require(all(len(event) <= limits.PAYLOAD_BYTES_MAX for event in events), "bounded")
    if not trouble:
        written = b"".join(
            pipes.FORMATS[FORMATS[kind]](Event(i, 1, event, 0)) for i, event in enumerate(events)
        )
        ends = (b"\n", b"\0", b"")[kind]
        require(written in {rest, rest + ends}, "written as it was read")
    return bool(events)


def run_format(data: bytes) -> bool:
    event = Event(7, 3, data, int.from_bytes(data[:8], "little") >> 1)
    pipes.as_json(Event(7, 3, data, 1_700_000_000_000_000))
    try:
        render = pipes.template(data.decode("utf-8", "replace"))
    except UsageError:
        return False
    require(isinstance(render(Event(*pick(event))), bytes), "bytes")
    return True


def pick(event: Event) -> tuple[int, int, bytes, int]:
    return event.sequence, event.epoch, event.payload[:10], 1_700_000_000_000_000


def run_url(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    try:
        found = url.parse(text)
    except BadAddressError:
        return False
    if isinstance(found, url.ClusterUrl):
        require(all(0 < port < 1 << 16 for _, port in found.masters), "a port")
    else:
        require(url.parse(str(found)) == found, "shown as it is understood")
    return True


TARGETS = (
    Target(
        "metadata",
        run_metadata,
        _metadata,
        ("lunalog.master.records",),
        1500,
        mutate=mutator(lambda: list(_metadata().values()), 1),
    ),
    Target(
        "pipe",
        run_pipe,
        lambda: {
            "lines": b"\x00one\n\ntwo",
            "null": b"\x04one\0two\0",
            "lengths": b"\x08\x03\0\0\0one\0\0\0\0\x02\0\0\0xy",
        },
        ("lunalog.cli.records",),
        bytes_each=400,
        refused=b"\x08\xff\xff\xff\xff",
    ),
    Target(
        "format",
        run_format,
        lambda: {"all": rb"%s %e %p %l %t %%\t\\\n", "plain": b"x%p"},
        ("lunalog.cli.records",),
        bytes_each=2000,
        refused=b"%x",
    ),
    Target(
        "url",
        run_url,
        lambda: {
            "memory": b"memory://test",
            "file": b"file:///var/lib/journal",
            "cluster": b"lunalog://a:7600,[::1]:7601/",
        },
        ("lunalog.client.url",),
        bytes_each=2000,
    ),
)
