"""Batches that cannot be read: one record tells of each, and what stands behind them is read."""

import struct
from collections.abc import Callable

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import ConsumerRecord
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from roadstream.schemas.codec import Unreadable, decode, decode_image
from roadstream.schemas.errors import RecordError
from roadstream.streams.kafka.records import Batches, ToleratingRecords, extent

TP = KafkaTopicPartition("images.archive", 3)
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
HEADER = 61


def batch(base: int, values: list[bytes], codec: int = 0) -> bytearray:
    """Return a batch as a broker stores it."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1 << 20,
    )  # fmt: skip
    for i, value in enumerate(values):
        builder.append(i, 1000 + i, b"key", value, [("traceparent", b"00"), ("none", None)])
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base)
    return built


def read(*batches: bytes | bytearray, start: int = 0) -> list[ConsumerRecord]:
    data = b"".join(map(bytes, batches))
    records = ToleratingRecords(TP, Batches(data), [], start, None, None, True, 0)
    found = list(records)
    assert not records._records.has_next()
    return found


def flipped(built: bytearray, at: int) -> bytearray:
    changed = bytearray(built)
    changed[at] ^= 0xFF
    return changed


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
def test_what_can_be_read_is_read_as_before(codec: int) -> None:
    found = read(batch(5, [b"a", b"b"], codec), batch(7, [b"c"], codec), start=5)

    assert [(r.offset, r.value, r.key, r.timestamp) for r in found] == [
        (5, b"a", b"key", 1000), (6, b"b", b"key", 1001), (7, b"c", b"key", 1000)
    ]  # fmt: skip


def wrong_checksum(built: bytearray) -> bytearray:
    return flipped(built, HEADER + 4)


def unknown_codec(built: bytearray) -> bytearray:
    built[22] = (built[22] & ~7) | 7
    return with_checksum(built)


def no_zstd(built: bytearray) -> bytearray:
    built[22] = (built[22] & ~7) | ZSTD
    return with_checksum(built)


def too_many_records(built: bytearray) -> bytearray:
    struct.pack_into(">i", built, 57, 9)
    return with_checksum(built)


def with_checksum(built: bytearray) -> bytearray:
    from aiokafka.record.util import calc_crc32c

    struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[21:])))
    return built


Damage = Callable[[bytearray], bytearray]


@pytest.mark.parametrize(
    "damage", [wrong_checksum, unknown_codec, no_zstd], ids=lambda d: str(d.__name__)
)
def test_a_batch_that_cannot_be_read_is_one_record_and_the_next_is_read(damage: Damage) -> None:
    bad = damage(batch(5, [b"aa", b"bb", b"cc"]))
    found = read(batch(4, [b"0"]), bad, batch(8, [b"d", b"e"]), start=4)

    assert [r.offset for r in found] == [4, 7, 8, 9]
    poison = found[1]
    assert (poison.topic, poison.partition, poison.key) == ("images.archive", 3, None)
    assert isinstance(poison.value, Unreadable)
    assert poison.value == bytes(bad)
    assert poison.value.problem.startswith("offsets 5 to 7 cannot be read: ")


def test_what_a_damaged_batch_gave_before_it_broke_is_kept() -> None:
    found = read(too_many_records(batch(5, [b"a", b"b"])), batch(7, [b"c"]), start=5)

    assert [r.offset for r in found if not isinstance(r.value, Unreadable)] == [5, 6, 7]
    assert [r.offset for r in found] == sorted({r.offset for r in found})


def test_several_in_a_row_and_one_at_the_end_are_told_each() -> None:
    bad = [wrong_checksum(batch(base, [b"a", b"b"])) for base in (0, 2, 4)]
    found = read(*bad)

    assert [r.offset for r in found] == [1, 3, 5]
    assert all(isinstance(r.value, Unreadable) for r in found)


def test_a_batch_is_not_told_again_when_it_is_fetched_from_its_middle() -> None:
    bad = wrong_checksum(batch(0, [b"a", b"b", b"c"]))
    records = ToleratingRecords(TP, Batches(bytes(bad)), [], 0, None, None, True, 0)
    assert [r.offset for r in records] == [2]
    assert records.next_fetch_offset == 3


def test_an_end_that_nothing_bears_out_skips_nothing() -> None:
    liar = batch(10, [b"a", b"b"])
    struct.pack_into(">i", liar, 23, 1_000_000)

    assert extent(bytes(liar), b"").last == 10
    assert extent(bytes(liar), struct.pack(">q", 12)).last == 11
    struct.pack_into(">i", liar, 23, -5)
    assert extent(bytes(liar), b"").last == 10
    assert extent(bytes(liar), struct.pack(">q", 3)).last == 10
    assert extent(bytes(batch(10, [b"a", b"b"])), b"").last == 11


def test_a_length_that_is_none_ends_the_fetch_and_not_the_reader() -> None:
    bad = batch(3, [b"a"])
    struct.pack_into(">i", bad, 8, 2)
    found = read(bad, start=3)

    assert [r.offset for r in found] == [3]


def test_whoever_decodes_it_is_told_why() -> None:
    value = read(wrong_checksum(batch(0, [b"a"])))[0].value
    with pytest.raises(RecordError, match=r"t\[1\]@0: offset 0 cannot be read: CorruptRecord"):
        decode(decode_image, value, "t", 1, 0)
