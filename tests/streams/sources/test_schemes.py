"""Sources and readers that other distributions bring: what they may give, and what is said."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from roadstream.schemas.errors import ConfigError, ImageError, RunError, UsageError
from roadstream.schemas.records.image import Image, Inline, Reference, Unreadable
from roadstream.streams.sources.payload import Patience, read_payload
from roadstream.streams.sources.places import Known, Scanned
from roadstream.streams.sources.scan import ScanOptions, ScanStats, count_ahead, scan_places
from roadstream.streams.sources.source import state_of
from roadstream.workers.service.option_checks import check_paths
from tests.kits.plug_in_kit import sources_looked_up_anew, write_distribution

MODULE = """
from roadstream.schemas.errors import ImageError, MachineError, RunError, UsageError
from roadstream.schemas.records.image import Inline, Reference, Unreadable
from roadstream.streams.sources.source import *

class Reader(PayloadReader):
    def read(self, path, roots, max_bytes):
        return {read}

class Sea(Source):
    reader = Reader

    def scan(self, left_out):
        left_out.add("a fish", self.word)
        for place in "ab":
            yield Item(f"{{self.word}}/{{place}}", lambda: {load}, {fields})
        {last}

    def count(self):
        yield 2
"""
Bring = Callable[..., None]


def sea(
    *, load: str = "b'picture'", read: str = "b'picture'", fields: str = "", last: str = "return"
) -> str:
    """Return the module of a source of two pictures."""
    return MODULE.format(load=load, read=read, fields=fields, last=last)


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bring]:
    """Yield what installs a distribution: its name, its module, its entry points."""

    modules = set(sys.modules)

    def install(name: str, source: str, **entry_points: str) -> None:
        names = entry_points or {"sea": "Sea"}
        site = write_distribution(tmp_path, (name, "1.0"), source, "roadstream.sources", **names)
        monkeypatch.syspath_prepend(site)

    with sources_looked_up_anew():
        yield install
    for module in set(sys.modules) - modules:  # of one name in several tests
        if module.startswith("brought"):
            del sys.modules[module]


def scan(*words: str, options: ScanOptions | None = None) -> list[Scanned]:
    return list(scan_places(words, options or ScanOptions()))


def images(*words: str, options: ScanOptions | None = None) -> list[Image]:
    return [found.image for found in scan(*words, options=options) if found.image is not None]


def test_what_it_finds_becomes_records_like_ours_in_the_order_of_the_words(
    bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bring("brought-sea", sea(fields="session_id='s', latitude=1.5"))
    for name in "x.jpg", "y.jpg":
        Path(name).write_bytes(b"picture")
    stats, words = ScanStats(), ["x.jpg", "SEA://7", "y.jpg"]

    found = [
        each.image for each in scan_places(words, ScanOptions(run_id="r"), stats) if each.image
    ]

    heads = [image.head for image in found]
    assert [head.uri for head in heads] == ["x.jpg", "SEA://7/a", "SEA://7/b", "y.jpg"]
    assert [head.sequence for head in heads] == [0, 1, 2, 3]
    assert len({head.image_id for head in heads}) == 4
    assert len({head.content_hash for head in heads}) == 1
    assert {head.run_id for head in heads} == {"r"}
    assert (heads[1].session_id, heads[1].latitude) == ("s", 1.5)
    assert found[1].payload == Inline(b"picture")
    assert stats.left_out.lines() == ["1 left out: a fish (SEA://7)"]
    assert sum(count_ahead(words)) == 4


def test_what_is_unchanged_is_not_loaded(bring: Bring) -> None:
    bring("brought-states", sea(load="1/0", fields="state_of('v1')"))
    known = {"sea://7/a": Known("x", state_of("v1")), "sea://7/b": Known("y", state_of("v0"))}

    a, b = scan("sea://7", options=ScanOptions(known=known.get))

    assert a == Scanned("sea://7/a", None)
    assert b.image is not None
    assert b.image.payload == Unreadable("unreadable", "ZeroDivisionError: division by zero")
    assert b.state is None


def test_pictures_are_referred_to_where_both_sides_can(bring: Bring) -> None:
    bring("brought-references", sea(fields="reference=f'sea://there/{place}'"))
    inline = images("sea://7", options=ScanOptions(carry="inline"))
    assert {image.payload for image in inline} == {Inline(b"picture")}

    referred = images("sea://7")

    assert [image.head.image_id for image in referred] == [i.head.image_id for i in inline]
    for image, place in zip(referred, "ab", strict=True):
        assert isinstance(image.payload, Reference)
        assert image.payload.path == f"sea://there/{place}"
        assert read_payload(image.payload, [], 100) == b"picture"


def test_a_payload_of_its_own_is_taken_as_it_is(bring: Bring) -> None:
    bring("brought-payload", sea(load="Reference(path='sea://x', size=7, sha256=b'7' * 32)"))
    for image in images("sea://7"):
        assert image.payload == Reference(path="sea://x", size=7, sha256=b"7" * 32)
        assert image.head.content_hash == b"7" * 16


def test_a_content_that_is_told_makes_the_id_and_needs_no_hash(bring: Bring) -> None:
    told = "Reference(path='sea://x', size=7)"
    bring("brought-content", sea(load=told, fields="content=b'etag'"))
    (first, _), (again, _) = images("sea://7"), images("sea://7")
    assert first == again
    assert first.head.content_hash == bytes.fromhex(first.head.image_id)


@pytest.mark.parametrize(
    ("load", "fault"),
    [
        ("(_ for _ in ()).throw(ImageError('damaged', 'torn'))", ("damaged", "torn")),
        ("open('/no/such/file')", ("missing", "there is no such file (or it has vanished since)")),
        ("bytes(200)", ("too_large", "200 bytes; at most 100 are allowed")),
        ("Unreadable('empty', 'no bytes')", ("empty", "no bytes")),
        ("(_ for _ in ()).throw(ImageError('wet', 'w' * 70_000))", ("unreadable", "w" * 1000)),
        ("{}['k' * 70_000]", ("unreadable", "KeyError: '" + "k" * 989)),
        ("{}['a\\n b']", ("unreadable", "KeyError: 'a\\n b'")),
    ],
)
def test_a_picture_that_it_cannot_load_fails_alone(
    bring: Bring, load: str, fault: tuple[str, str]
) -> None:
    bring("brought-faults", sea(load=load))
    for image in images("sea://7", options=ScanOptions(max_inline=100)):
        assert image.payload == Unreadable(*fault)  # type: ignore[arg-type]


def test_a_name_with_a_line_break_fails_its_picture(bring: Bring) -> None:
    bring("brought-names", sea().replace("{place}", "{place}\\n"))
    faults = {i.payload.fault for i in images("sea://7") if isinstance(i.payload, Unreadable)}
    assert faults == {"bad_name"}


TOLD = "the source sea of {} 1.0 ({}:Sea)"
ENDING = {
    "raising": ({"last": "1/0"}, "sea://7: {} failed: ZeroDivisionError: division by zero"),
    "gone": ({"last": "open('/none')"}, "sea://7: {} failed: FileNotFoundError: [Errno 2] No such"),
    "saying": ({"last": "raise UsageError('which sea?')"}, "which sea?"),
    "machine": ({"load": "(_ for _ in ()).throw(MachineError('full'))"}, "full"),
    "other": ({"last": "yield 'a'"}, "sea://7: expected {} to yield items and containers, got 'a'"),
    "number": (
        {"load": "7"},
        "sea://7: expected {} to load bytes or a payload, at sea://7/a, got int: Expected",
    ),
    "content": (
        {"load": "Reference(path='sea://x', size=7)"},
        "sea://7: expected {} to tell the content or the SHA-256 of the reference, at",
    ),
    "reference": (
        {"load": "Reference(path='s' * 40_000, size=7, sha256=b'x')"},
        "sea://7: expected {} to load bytes or a payload, at sea://7/a, got Reference: Expected",
    ),
    "fault": (
        {"load": "Unreadable('wet', '')"},
        "sea://7: expected {} to load bytes or a payload, at sea://7/a, got Unreadable: Invalid",
    ),
    "state": (
        {"fields": "(2**63, 0, 0)"},
        "sea://7: expected {} to yield what records can hold, at sea://7/a, got Expected `int` <=",
    ),
    "container_content": (
        {"last": "yield Container('sea://7', 5)"},
        "sea://7: expected {} to yield what records can hold, at sea://7, got Expected `str`, got",
    ),
    "field": (
        {"fields": "latitude=91"},
        "sea://7: expected {} to yield what records can hold, at sea://7/a, got Exp",
    ),
    "long": (
        {"fields": "session_id='s' * 40_000"},
        "sea://7: expected {} to yield what records can hold, at sea://7/a, got Exp",
    ),
    "elsewhere": (
        {"last": "yield Item('a.jpg', bytes)"},
        "sea://7: expected {} to yield places in sea://, got a.jpg",
    ),
    "nowhere": (
        {"last": "yield Item(None, bytes)"},
        "sea://7: expected {} to yield places in sea://, got None",
    ),
    "container": (
        {"last": "yield Container('a.zip', 'x')"},
        "sea://7: expected {} to yield places in sea://, got a.zip",
    ),
}


@pytest.mark.parametrize("case", ENDING)
def test_what_no_record_can_hold_ends_the_run_and_names_the_distribution(
    bring: Bring, case: str
) -> None:
    given, said = ENDING[case]
    bring(f"brought-{case}", sea(**given))
    with pytest.raises(RunError) as caught:
        scan("sea://7")
    assert str(caught.value).startswith(
        said.format(TOLD.format(f"brought-{case}", f"brought_{case}"))
    )


@pytest.mark.parametrize("counted", ["'two'", "1/0"])
def test_a_count_that_fails_is_logged_and_keeps_nobody_from_going_on(
    bring: Bring, counted: str
) -> None:
    bring("brought-count", sea().replace("yield 2", f"yield 1\n        yield {counted}"))
    with structlog.testing.capture_logs() as logged:
        assert sum(count_ahead(["sea://7"])) == 1
    assert [(line["event"], line["source"]) for line in logged] == [("count_failed", "sea://7")]


REFUSED = {
    "broken": ("raise ValueError('a\\nb')", "to be importable, got ValueError: a b"),
    "function": ("def Sea(): ...", "to be a class, got <function Sea"),
    "foreign": ("class Sea: ...", "to be a roadstream.streams.sources.source.Source, got <class"),
    "half": (
        "from roadstream.streams.sources.source import Source\nclass Sea(Source): ...",
        "to be a roadstream.streams.sources.source.Source, got one without scan",
    ),
    "reader": (
        sea().replace("reader = Reader", "reader = Reader()"),
        "to have a roadstream.streams.sources.source.PayloadReader as reader, got <brought_reader",
    ),
    "making": (
        sea().replace("def count", "def __init__(self, word, options): 1/0\n    def count"),
        "to be made of it, got ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_that_cannot_be_used_is_told_before_anything_is_done(bring: Bring, case: str) -> None:
    source, said = REFUSED[case]
    bring(f"brought-{case}", source)
    told = TOLD.format(f"brought-{case}", f"brought_{case}")
    with pytest.raises(ConfigError) as caught:
        check_paths("score", ("a.jpg", "sea://7"))
    assert str(caught.value).startswith(f"sea://7: expected {told} {said}")


def test_a_word_that_it_does_not_take_is_told_in_its_own_words(bring: Bring) -> None:
    refusing = "def __init__(self, word, options): raise UsageError('dry')\n    def count"
    bring("brought-refusing", sea().replace("def count", refusing))
    with pytest.raises(UsageError, match=r"^dry$"):
        check_paths("score", ("sea://7",))


def test_a_scheme_that_two_bring_is_taken_by_neither(bring: Bring) -> None:
    bring("brought-one", sea())
    bring("brought-two", sea())
    with pytest.raises(ConfigError, match=r"the source sea, got brought-two 1.0 and brought-o"):
        check_paths("produce", ("sea://7",))


def test_our_own_scheme_is_nobody_elses(bring: Bring, tmp_path: Path) -> None:
    bring("brought-file", sea(), file="Sea")
    with pytest.raises(ConfigError, match=r"source file of brought-file 1.0 \(brought_f"):
        check_paths("score", ("file:///a.jpg",))
    (tmp_path / "a.jpg").write_bytes(b"a")
    reference = Reference(path=f"file://{tmp_path}/a.jpg", size=1)
    assert read_payload(reference, None, 10) == b"a"
    with pytest.raises(ImageError, match="refused: file: references are not followed"):
        read_payload(Reference(path="file://host/a.jpg", size=1), None, 10)


def test_a_word_with_a_wildcard_is_its_sources_and_a_scheme_of_nobody_is_a_path(
    bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bring("brought-wild", sea())
    check_paths("score", ("sea://*?[a]",))
    assert len(scan("sea://*?[a]")) == 2
    for word in "ocean://7", "sea:/7", "./sea://7":
        (image,) = images(word)
        assert image.payload == Unreadable(
            "missing", "there is no such file (or it has vanished since)"
        )


READ = Reference(path="sea://x", size=7)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ("b'other picture'", "changed: expected 7 bytes as when it was sent, got 13"),
        (
            "bytearray(7)",
            "unreadable: the source sea of brought-reading 1.0 (brought_reading:Sea): ",
        ),
        ("1/0", "unreadable: ZeroDivisionError: division by zero"),
        ("open('/none')", "missing: there is no such file"),
        ("(_ for _ in ()).throw(ImageError('refused', 'not yours'))", "refused: not yours"),
    ],
)
def test_what_a_reader_cannot_read_is_the_fault_of_its_picture(
    bring: Bring, read: str, said: str
) -> None:
    bring("brought-reading", sea(read=read))
    with pytest.raises(ImageError) as caught:
        read_payload(READ, None, 100)
    assert str(caught.value).startswith(said)


def test_a_readers_storage_is_waited_for_like_ours(bring: Bring) -> None:
    bring("brought-patience", sea(read="(_ for _ in ()).throw(OSError(5, 'Input/output error'))"))
    waited: list[float] = []
    with pytest.raises(ImageError, match=r"unreadable: Input/output error \(tried 4 times\)"):
        read_payload(READ, None, 100, Patience(waited.append))
    assert waited == list(Patience.DELAYS)


def test_a_reader_that_runs_out_of_memory_is_not_to_blame(bring: Bring) -> None:
    bring("brought-memory", sea(read="(_ for _ in ()).throw(MemoryError())"))
    with pytest.raises(MemoryError):
        read_payload(READ, None, 100)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('bad')", "unreadable: sea://: expected the source sea of brought-n "),
        (sea().replace("reader = Reader", ""), "refused: sea: references are not followed, expec"),
        (
            sea().replace("def read", "def __init__(self): 1/0\n    def read"),
            "unreadable: sea://: ",
        ),
    ],
)
def test_a_reference_of_a_scheme_without_a_reader_is_refused(
    bring: Bring, source: str, said: str
) -> None:
    bring("brought-n", source)
    with pytest.raises(ImageError) as caught:
        read_payload(READ, None, 100)
    assert str(caught.value).startswith(said)
