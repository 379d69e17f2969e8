"""What is fuzzed: each decoder of the product with its good inputs and its documented errors."""

import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import anyio
import msgspec
import numpy as np

from roadstream.bench.fuzz import pictures, seeds
from roadstream.bench.fuzz.target import Target, mend_png
from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.errors import ConfigError, ImageError, RecordError, RunError, UsageError
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.records.partial import (
    decode_partial_answer,
    decode_partial_escalation,
    decode_partial_image,
    decode_partial_votes,
)
from roadstream.schemas.topics import VOTES
from roadstream.sinks.columns import row
from roadstream.sinks.consensus.join import Join
from roadstream.sinks.consensus.refusal import check
from roadstream.sinks.evaluation.labels import read_labels
from roadstream.sinks.files.readers import read_answers
from roadstream.stages.decoding import exif, jpeg
from roadstream.stages.decoding.decode import DecodeLimits, decode
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.kafka.settings import load_kafka_settings
from roadstream.streams.ledgers.event_ledger import LedgerFile
from roadstream.streams.ledgers.run_ledger import LedgerRow, RunLedger
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.sources import identity, listing
from roadstream.streams.sources.payload import read_payload
from roadstream.streams.sources.places import FileState, Scanned
from roadstream.streams.sources.sniff import DECODABLE, OTHERS, PICTURES, sniff
from roadstream.workers.service.access.connect import open_log

SMALL = DecodeLimits(max_pixels=1 << 20, max_jpeg_pixels=1 << 20)
_WANTED = ((1, 1), (16, 12), (64, 64), (1000, 1000))


@cache
def scratch() -> Path:
    """Return a folder for this process's files, in memory where there is such a place."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    folder = tempfile.TemporaryDirectory(prefix="roadstream-fuzz-", dir=base)
    _scratch.append(folder)  # removed when the process ends
    return Path(folder.name).resolve()


_scratch: list[tempfile.TemporaryDirectory[str]] = []


def _round_trip(decoder: Callable[[bytes], object], data: bytes) -> None:
    """Decode; what decodes must come back from its own encoding, byte by byte."""
    once = codec.encode(codec.decode(decoder, data, "topic", 0, 0))
    assert codec.encode(decoder(once)) == once, "encoding does not round-trip"


def _event(data: bytes) -> None:
    once = codec.encode_json(codec.decode_event(data))
    assert codec.encode_json(codec.decode_event(once)) == once, "encoding does not round-trip"


def _in_part(
    look: Callable[[bytes], object], decoder: Callable[[bytes], object], data: bytes
) -> None:
    """Decode a record in part; whatever a full decoder takes must decode in part too."""
    try:
        codec.decode(look, data, "topic", 0, 0)
    except RecordError:
        try:
            codec.decode(decoder, data, "topic", 0, 0)
        except RecordError:
            raise
        raise AssertionError("decodes whole, and not in part") from None


def _shown(data: bytes) -> None:
    """Decode an answer, and make its row as the files of answers hold it."""
    answer = codec.decode(codec.decode_answer, data, "topic", 0, 0)
    msgspec.json.encode(row(answer))


def _joined(data: bytes) -> None:
    """Decode votes and join them; what was taken in and is not open has an answer."""
    tp, now = TopicPartition(VOTES, 0), 1.7e9
    pack = codec.decode(codec.decode_votes, data, *tp, 0)
    lost = check(pack, seeds.TIERS, (tp, 0))
    kept = msgspec.structs.replace(pack, images=[one for one in pack.images if one not in lost])
    versions = seeds.versions()
    if pack.cascade_hash not in versions:
        versions.learn(pack.cascade_hash, None)
    join = Join(versions)
    join.assign({0: {}})
    answered = len(join.add(kept, (tp, 0), now).answers)
    answered += len(join.expire(1e11).answers)
    assert answered + join.open_images == len({one.head.image_id for one in kept.images})
    due = join.next_deadline_at
    assert due is None or due > 1e11, due


def _payload(data: bytes) -> None:
    image = codec.decode(codec.decode_image, data, "topic", 0, 0)
    found = read_payload(image.payload, [scratch()], 1 << 20)
    assert isinstance(found, bytes)


def _decode(data: bytes) -> None:
    checksum = zlib.crc32(data)
    width, height = _WANTED[checksum % len(_WANTED)]
    # Most with small limits, for speed; some with those that users have.
    limits = DecodeLimits() if checksum % 257 == 0 else SMALL
    image = decode(data, min_width=width, min_height=height, limits=limits)
    assert image.dtype == np.uint8, image.dtype
    assert image.ndim == 3, image.shape
    assert image.shape[2] == 3, image.shape
    assert image.size > 0, image.shape
    assert image.flags.c_contiguous


def _sniff(data: bytes) -> None:
    name = sniff(data)
    assert name in DECODABLE or name in PICTURES or name in OTHERS, name


def _exif(data: bytes) -> None:
    assert 1 <= exif.orientation(data) <= 8
    focal = exif.focal_length(data, (3, 2))
    assert focal is None or 0 <= focal < 2000, focal


def _file(read: Callable[[Path], object], name: str, data: bytes) -> None:
    path = scratch() / name
    path.write_bytes(data)
    found = read(path)
    if isinstance(found, Iterator):
        for _ in found:
            pass


def _list(data: bytes) -> None:
    for path in listing.read_list(BytesIO(data)):
        assert path
        identity.bad_name(path)
        identity.display(path).encode()
        assert len(identity.image_id(path, data[:64])) == 32
        if "\0" not in path:
            listing.is_glob(path)


def _url(data: bytes) -> None:
    open_log(data.decode("utf-8", "surrogateescape"))


def _log_file(data: bytes) -> None:
    """Open a damaged log, and do with it what a worker does."""
    anyio.run(_use_log, EmbeddedLog(_database("damaged.db", data), busy_timeout=0.1))


def _database(name: str, data: bytes) -> Path:
    path = scratch() / name
    for suffix in ("", "-wal", "-shm"):  # a new file, on which no earlier connection has a lock
        path.with_name(name + suffix).unlink(missing_ok=True)
    path.write_bytes(data)
    return path


async def _use_log(log: EmbeddedLog) -> None:
    async with log:
        await log.partition_counts(["t"])
        await log.lag("g", ["t"])
        async with log.consumer("g", ["t"], member_id="m") as consumer:
            polled = await consumer.poll(max_records=100, timeout=0)
            done = {tp: records[-1].offset + 1 for tp, records in polled.items()}
            output = Output("t", b"key", b"value")
            await consumer.publish([output], done, consumer.assignment.epoch)
        await log.trim(["t"], "g")


def _run_file(data: bytes) -> None:
    """Open a damaged run ledger, and do with it what a job does."""
    anyio.run(_use_run, RunLedger(_database("damaged-run.db", data)))


async def _use_run(ledger: RunLedger) -> None:
    async with ledger:
        await ledger.facts()
        await ledger.counts()
        await ledger.positions()
        await ledger.submitted([("d", 3)])
        await ledger.record([LedgerRow("d", 3, "answered", None, None, b"d")], {0: 9})
        scanned = [
            Scanned(place, Image(Head(image_id=place), Inline(b"d")), FileState(1, 2, 3))
            for place in ("a.jpg", "v.mp4", "v.mp4#t=1.000")
        ]
        await ledger.note(await ledger.plan([Scanned("v.mp4", None, holds="c"), *scanned]))
        ledger.known("a.jpg")
        for some in ledger.answers(in_order=True):
            assert all(isinstance(answer, bytes) for answer in some)


def _cascade(data: bytes) -> None:
    parse_cascade(data, "fuzzed.toml")


def _kafka_settings(data: bytes) -> None:
    _file(load_kafka_settings, "kafka.toml", data)


_RECORD = (RecordError,)
_READER = (UsageError, RunError)
_DECODERS: dict[str, Callable[[bytes], object]] = {
    "image": codec.decode_image,
    "escalation": codec.decode_escalation,
    "votes": codec.decode_votes,
    "answer": codec.decode_answer,
    "dead-letter": codec.decode_dead_letter_or_settled,
}
_PARTIAL = {
    "image": decode_partial_image,
    "escalation": decode_partial_escalation,
    "votes": decode_partial_votes,
    "answer": decode_partial_answer,
}


def targets() -> dict[str, Target]:
    """Return the targets by name, made anew."""
    folder = scratch()
    return _records(folder) | _texts() | _files(folder) | _pictures()


def _records(folder: Path) -> dict[str, Target]:
    words, found = seeds.MSGPACK_WORDS, {}
    encoded = {name: seeds.encoded(some) for name, some in seeds.records(folder).items()}
    for name, some in encoded.items():
        decoder = _DECODERS[name]
        found[f"record-{name}"] = Target(some, words, partial(_round_trip, decoder), _RECORD)
        if (look := _PARTIAL.get(name)) is not None:
            found[f"partial-{name}"] = Target(
                some, words, partial(_in_part, look, decoder), _RECORD
            )
    told = [codec.encode_json(image) for image in seeds.images(folder)]
    whole, part = codec.decode_image, partial(_in_part, decode_partial_image, codec.decode_image)
    found["image-json"] = Target(told, seeds.JSON_WORDS, partial(_round_trip, whole), _RECORD)
    found["partial-image-json"] = Target(told, seeds.JSON_WORDS, part, _RECORD)
    found["joined"] = Target(encoded["votes"], words, _joined, _RECORD)
    found["answer-row"] = Target(encoded["answer"], words, _shown, _RECORD)
    paths = [*words, b"/../", b"\0", b"/"]
    found["payload"] = Target(encoded["image"], paths, _payload, (RecordError, ImageError))
    return found


def _texts() -> dict[str, Target]:
    ends = [b"\0", b"\n", b"\r", b"\xff", b"*", b"["]
    torn = (msgspec.DecodeError, UnicodeDecodeError)
    return {
        "event": Target(seeds.events(), seeds.JSON_WORDS, _event, torn),
        "cascade": Target([seeds.CASCADE], seeds.TOML_WORDS, _cascade, (ConfigError,)),
        "kafka-settings": Target([seeds.KAFKA], seeds.TOML_WORDS, _kafka_settings, (ConfigError,)),
        "url": Target(seeds.URLS, seeds.URL_WORDS, _url, (UsageError,)),
        "list": Target(seeds.LISTS, ends, _list, (UsageError,)),
    }


def _files(folder: Path) -> dict[str, Target]:
    lines = [b"\n".join([*seeds.events(), b""])]
    ledger = partial(_file, lambda path: iter(LedgerFile(path)), "ledger.jsonl")
    labels = partial(_file, read_labels, "labels.csv")
    words = [b"CREATE TABLE", b"SQLite format 3\0", b"\x0d\0\0\0", b"\x05\0\0\0", b"INTEGER"]
    found = {
        "event-ledger": Target(lines, seeds.JSON_WORDS, ledger, (RunError,)),
        "log-file": Target([anyio.run(seeds.log_file, folder)], words, _log_file, _READER),
        "run-file": Target([anyio.run(seeds.run_file, folder)], words, _run_file, _READER),
        "labels": Target(seeds.LABELS, seeds.CSV_WORDS, labels, _READER),
    }
    of_answers = {
        ".jsonl": seeds.JSON_WORDS,
        ".csv": seeds.CSV_WORDS,
        ".parquet": [b"PAR1", b"\x15\x00", b"\x19\x1c"],
    }
    for suffix, words in of_answers.items():
        read = partial(_file, read_answers, f"answers{suffix}")
        seed = seeds.answer_file(folder, suffix)
        found[f"answers{suffix}"] = Target([seed], words, read, _READER)
    return found


def _pictures() -> dict[str, Target]:
    every, found = pictures.pictures(), {}
    for kind, good in every.items():
        mend = mend_png if kind == "png" else None
        words = pictures.file_words(kind)
        found[f"picture-{kind}"] = Target(good, words, _decode, (ImageError,), mend)
    jpegs = every["jpeg"], pictures.file_words("jpeg")
    found["jpeg-header"] = Target(*jpegs, jpeg.read_header, (ImageError,))
    tags = [b"Exif\0\0", b"II*\0", b"\x12\x01"]
    found["exif"] = Target([pictures.exif_block()], tags, _exif)
    firsts = [good[0] for good in every.values()]
    found["sniff"] = Target(firsts, [b"ftyp", b"RIFF", b"<svg"], _sniff)
    return found
