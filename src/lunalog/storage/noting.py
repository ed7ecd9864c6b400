"""What is durable becomes findable: the records of a batch enter the index and the tail cache.

Source: R12; design.md section 6.
"""

from __future__ import annotations

from lunalog.storage.cache import TailCache
from lunalog.storage.index import Index
from lunalog.storage.records import FrameRecord, MarkRecord, OpenRecord
from lunalog.storage.writer import Committed


def note(batch: Committed, index: Index, cache: TailCache) -> bool:
    """Enter a durable batch; true if it holds more than marks."""
    offsets, extent = iter(batch.offsets), batch.extent
    has_records = False
    for put in batch.puts:
        for record, offset in zip(put.records, offsets, strict=False):
            if type(record) is FrameRecord:
                index.add(record, extent, offset)
                cache.add(record)
            elif type(record) is OpenRecord:
                index.opened(record)
            has_records |= type(record) is not MarkRecord
    return has_records
