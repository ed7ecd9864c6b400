"""Stored records: what cannot be read is told as damage, whatever is wrong with it."""

import pytest

from lunalog.errors import CorruptRecordError
from lunalog.master import records
from lunalog.master.records import ServerRecord

RECORD = ServerRecord("s1", 3, 7, 99, "10.0.0.1", 4001, ("host=a",))


def test_a_record_is_read_back():
    assert records.decode(records.encode(RECORD), ServerRecord, "server/s1") == RECORD


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        records.encode(7),
        records.encode(RECORD).replace(b"host", b"\xff\xfe\xfd\xfc"),
        b"\x9a" + records.encode(RECORD)[1:] + b"\x91" * 100_000,
    ],
    ids=["nothing", "no value", "another record", "no text", "deep"],
)
def test_what_is_no_record_is_damage_that_names_its_key(value):
    """Text that is not UTF-8, and depth, are told by other errors than all other shapes."""
    with pytest.raises(CorruptRecordError, match="server/s1"):
        records.decode(value, ServerRecord, "server/s1")
