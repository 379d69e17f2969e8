"""Good inputs for the fuzzer, made in memory: records, events, files, and words that matter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterSettled
from roadstream.schemas.records.events import (
    Acknowledged,
    Assigned,
    Closed,
    Committed,
    Delivered,
    Done,
    Fenced,
    Missed,
    Opened,
    Revoked,
)
from roadstream.schemas.records.image import Head, Image, Inline, Reference, Unreadable
from roadstream.schemas.records.votes import (
    Box,
    Escalation,
    Evidence,
    ImageVotes,
    MemberRun,
    PriorVote,
    VotesPack,
)
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.sinks.sink import open_writer
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.database import Database
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.ledgers.run_ledger import SCHEMA, SCHEMA_VERSION, LedgerRow, RunLedger
from roadstream.streams.log import Output

HEAD = Head(
    image_id="0123456789abcdef0123456789abcdef",
    uri="drive/größe 1.mp4#t=12.000",
    session_id="drive",
    frame_index=7,
    captured_at=12.0,
    latitude=-33.9,
    longitude=151.2,
    lane="live",
    submitted_at=1.7e9,
    deadline_at=1.7e9 + 2,
    run_id="run",
    sequence=7,
    content_hash=bytes(range(16)),
)
_RUNS = [
    MemberRun("glance", "1", 1.5, True, 0.01, 16),
    MemberRun("shadow", "2", 0.0, False, 0.02, 16),
]
_TIER = AnswerTier(
    "glance",
    _RUNS,
    [1.5, None],
    [0.8, None],
    0.1,
    0.2,
    0.3,
    [[Box(0.1, 0.1, 0.5, 0.5, 0.9)], []],
    tags=[{"weather": "rain"}, {}],
    reason="confidence ≥ 0.9",
)
_IMAGE_VOTES = ImageVotes(
    HEAD, [1.5, None], [0.8, None], "look", "because", 0.1, 0.2, 0.3, None, "shadow: gone"
)


# Those of the votes here, in a cascade of their own.
TIERS = ["glance", "look"]


def versions() -> KnownVersions:
    """Return the rules by which votes of these tiers are joined."""
    return KnownVersions(parse_cascade(CASCADE, "fuzzed.toml"), vote_math)


def images(folder: Path) -> list[Image]:
    """Return image records of every kind of payload; the references lead into ``folder``."""
    picture = folder / "picture.jpg"
    picture.write_bytes(b"\xff\xd8 not much of a picture")
    size = picture.stat().st_size
    return [
        Image(HEAD, Inline(b"\xff\xd8\xff\xd9")),
        Image(Head(image_id="a"), Reference(path=str(picture), size=size, sha256=bytes(32))),
        Image(Head(image_id="b"), Reference(path=str(picture), size=size)),
        Image(Head(image_id="c"), Reference(path=f"{folder}/../secret", size=1)),
        Image(HEAD, Unreadable("missing", "there is no such file")),
    ]


def answers() -> list[Answer]:
    """Return answers of every status."""
    return [
        Answer(HEAD, "answered", "roadwork", 0.8, 0.6, exit_tier="glance", tiers=[_TIER, _TIER],
               disagreement=0.1, flags=["shadow"], cascade="lite", cascade_hash="01", took=1.0),
        Answer(HEAD, "partial", "none", 0.1, 0.8, tiers=[_TIER], flags=["partial", "degraded"]),
        Answer(Head(image_id="x"), "failed", flags=["failed"], error="missing: gone"),
    ]  # fmt: skip


def records(folder: Path) -> dict[str, list[Any]]:
    """Return records by the name of their decoder."""
    letter = DeadLetter(
        topic="images.live", partition=3, offset=17, key=b"k", value=b"\x81\xa1x\x01",
        error="unreadable", group="work-glance", failed_at=1.7e9, image_id="x", tier="glance",
    )  # fmt: skip
    pack = VotesPack(
        tier="glance",
        cascade="lite",
        cascade_hash="0123456789abcdef",
        sent_at=1.7e9,
        runs=_RUNS,
        images=[_IMAGE_VOTES, _IMAGE_VOTES],
    )
    found = Evidence([Box(-1.0, 0.1, 0.5, 2.0, 0.9, "cone")], {"light": "day"}, {"m": "STOP"}, 0.5)
    votes = [PriorVote("glance", 1.5, 0.8)]
    escalation = Escalation(HEAD, Inline(b"\xff\xd8"), votes, "why", "0123456789abcdef", found)
    return {
        "image": list(images(folder)),
        "escalation": [escalation],
        "votes": [pack],
        "answer": list(answers()),
        "dead-letter": [letter, DeadLetterSettled(17, "replayed", 1.7e9, "x~replay-1")],
    }


def events() -> list[bytes]:
    """Return lines of an event ledger."""
    at = 1.7e9
    place = ("images.live", 3, 17)
    some = [
        Opened(at, "worker", "g", "m", 1, "host"),
        Acknowledged(at, ["a", "b\u0000"]),
        Assigned(at, 1, [place, ("votes", 0, -1)]),
        Revoked(at, 1),
        Delivered(at, 1, [(*place, 20)]),
        Done(at, 1, [(*place, 20)]),
        Committed(at, [place]),
        Fenced(at, 1),
        Missed(at, "images.live", 3, 17, 20),
        Closed(at),
    ]
    return [codec.encode_json(event) for event in some]


def answer_file(folder: Path, suffix: str) -> bytes:
    """Return a file of answers, as the product writes it."""
    path = folder / f"seed{suffix}"
    with open_writer(path) as writer:
        writer.write(answers())
    return path.read_bytes()


async def log_file(folder: Path) -> bytes:
    """Return an embedded log with some records and a group."""
    path = folder / "seed-log.db"
    path.unlink(missing_ok=True)
    async with EmbeddedLog(path) as log, log.producer() as producer:
        log.database.connection.execute("PRAGMA page_size=512")
        log.database.connection.execute("PRAGMA journal_mode=DELETE")
        await log.create_topics(["t"], 2)
        await producer.publish([Output("t", b"%d" % i, bytes(i)) for i in range(40)])
        async with log.consumer("g", ["t"]) as consumer:
            polled = await consumer.poll(max_records=10, timeout=1)
            done = {tp: records[-1].offset + 1 for tp, records in polled.items()}
            await consumer.publish([], done, consumer.assignment.epoch)
        # A member that died, and what it owned.
        for row in ("members VALUES ('g', 'x', 'y', 5.0)", "owners VALUES ('g', 0, 'x', 'y')"):
            log.database.connection.execute(f"INSERT INTO {row}")
        log.database.connection.execute("VACUUM")
    return path.read_bytes()


async def run_file(folder: Path) -> bytes:
    """Return a run ledger with some answers."""
    path = folder / "seed-run.db"
    path.unlink(missing_ok=True)
    async with RunLedger(path) as ledger:
        await ledger.set_facts({"run_id": "r"})
        await ledger.submitted([("a", 0), ("b", 1), ("c", 2)])
        rows = [LedgerRow("a", 0, "answered", "look", "none", b"a")]
        await ledger.record(rows, {0: 7})
    # On a connection of its own, as only one alone may leave the write-ahead log.
    database = Database(path)
    await database.run(database.open, SCHEMA, SCHEMA_VERSION)
    database.connection.execute("PRAGMA page_size=512")
    database.connection.execute("PRAGMA journal_mode=DELETE")
    database.connection.execute("VACUUM")
    database.close()
    return path.read_bytes()


MSGPACK_WORDS = [
    b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xcb\x7f\xf0\0\0\0\0\0\0",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd3\x80\0\0\0\0\0\0\0", b"\xc0", b"\xc2", b"\xc3",
    b"\x90", b"\x80", b"\xa0", b"\xc7\x04\x01abcd", b"\xc1", b"\xd9\x02\xff\xfe", b"\x91" * 600,
    b"\x81\xa1a" * 300, b"\xa6schema", b"\xa4head", b"\xa7payload", b"\xa4kind", b"\xa6inline",
    b"\xa9reference", b"\xa8image.v1", b"\xa8votes.v1", b"\xa9answer.v1",
]  # fmt: skip
JSON_WORDS = [
    b"[", b"{", b"}", b"]", b'"', b",", b":", b"null", b"true", b"-1", b"1e999", b"NaN",
    b"99999999999999999999", b"\\ud800", b"\\u0000", b"\xff", b'"event":', b'"offsets":',
    b"[" * 600,
]  # fmt: skip
TOML_WORDS = [
    b"[[tiers]]\n", b"[[tiers.members]]\n", b"[[tiers.routes]]\n", b"[pool]\n", b"nan", b"-inf",
    b"= 1e400", b'"""', b"'''", b"\\u0000", b"name = ", b"[" * 500, b"{a=" * 300, b"1979-05-27",
    b"0x", b"= -1", b"= true", b"= []", b"weight", b"exit", b"\xef\xbb\xbf", b"a.b.c = 1\n",
]  # fmt: skip
CSV_WORDS = [
    b",", b'"', b'""', b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"label", b"image_id", b"t_seconds",
    b"-1", b"nan", b"1e999", b"\xef\xbb\xbf", b"[" * 300, b"roadwork", b"null", b"{",
]  # fmt: skip
URL_WORDS = [
    b"kafka://", b"embedded:", b"[", b"]", b"::1", b"@", b":", b"/", b"?", b"#", b",", b"%00",
    b"\xc2\xb2", b"\xd9\xa3", b"65536", b"-1", b" ", b"\0", b"\xe2\x84\x80", b"99999999999999",
]  # fmt: skip

CASCADE = b"""name = "all"
threshold = 0.5
[pool]
method = "log"
prior = 0.4
effective_voters = 1.75
[[tiers]]
name = "glance"
max_batch = 16
[[tiers.members]]
name = "glance"
engine = "onnx"
model = "lite/glance.onnx"
calibration = { method = "platt", slope = 1.3, intercept = -1.4 }
settings = { boxes = false }
[[tiers.members]]
name = "cones"
engine = "cones"
weight = 0.0
calibration = { method = "isotonic", raw = [0.0, 1.0], probability = [0.1, 0.9] }
[[tiers.routes]]
min_confidence = 0.96
max_disagreement = 2.0
to = "exit"
[[tiers]]
name = "look"
[[tiers.members]]
name = "objects"
engine = "noop"
"""
KAFKA = b"""bootstrap_servers = "a:9092,b:9093"
session_timeout = 6.0
drain_timeout = 5.0
security_protocol = "SASL_SSL"
ssl_ca_file = "ca.pem"
sasl_mechanism = "SCRAM-SHA-256"
sasl_username = "me"
check_crcs = true
"""
LABELS = [
    b"file,label,t_seconds\na.jpg,1,\nb.jpg,roadwork,\n\"c,d.mp4\",0,12.5\ne.mp4,-1,13\n",
    b"uri;y\nimage\n", b"\xef\xbb\xbfIMAGE,Roadwork\r\nx/y.png,TRUE\r\nz.png,none\r\n",
]  # fmt: skip
LISTS = [b"a.jpg\nb c.png\r\n\n/abs/d.webp\n", b"a.jpg\0b\nc.png\0", "größe/ü.jpg\n".encode()]
URLS = [
    b"embedded:log.db", b"embedded:/tmp/x y.db", b"kafka://127.0.0.1:9092",
    b"kafka://a.example:9092,b.example:9093", b"kafka://user:secret@host:9092", b"kafka://[::1]:9092",
]  # fmt: skip


def encoded(some: Sequence[msgspec.Struct]) -> list[bytes]:
    """Return records as they stand on the log."""
    return [codec.encode(record) for record in some]
