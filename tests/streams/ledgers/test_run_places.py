"""What becomes of a scanned place: sent, known, kept, or sent again after a fault of reading."""

import hashlib

import pytest

from roadstream.schemas.errors import ImageFault
from roadstream.schemas.records.image import Head, Image, Inline, Payload, Reference, Unreadable
from roadstream.streams.ledgers.run_places import PathOnly, Placing, decide
from roadstream.streams.sources.identity import next_id
from roadstream.streams.sources.places import FileState, Scanned

DIGEST = hashlib.sha256(b"abc").digest()
REFERENCE = Reference(path="/a.jpg", size=3, sha256=DIGEST)
SECOND = 1_000_000_000


def found(payload: Payload = REFERENCE, state: FileState | None = None) -> Scanned:
    return Scanned("a.jpg", Image(Head(image_id="x"), payload), state)


def decided(
    scanned: Scanned,
    sent: dict[str, bool] | None = None,
    *,
    stands: bool = False,
    old: PathOnly | None = None,
) -> tuple[str, str] | None:
    known = sent or {}
    placing = decide(scanned, lambda: stands, lambda: old, known.get)
    if placing is None:
        return None
    return placing.action, placing.image.head.image_id if placing.image else ""


def test_what_is_new_is_sent_and_what_was_sent_stands() -> None:
    assert decided(found()) == ("send", "x")
    assert decided(found(), {"x": False}) == ("stand", "x")
    assert decided(found(), {"x": False}, stands=True) == ("stand", "x")


def test_what_is_unchanged_needs_nothing_and_what_holds_images_is_entered() -> None:
    folder = Scanned("d", None, holds="")

    assert decided(Scanned("a.jpg", None)) is None
    assert decide(folder, lambda: True, lambda: None, lambda _: None) == Placing("enter", folder)


@pytest.mark.parametrize("fault", ["missing", "unreadable", "empty"])
def test_a_file_that_is_gone_leaves_what_stands_there_other_faults_replace_it(
    fault: ImageFault,
) -> None:
    bad = found(Unreadable(fault, ""))

    assert decided(bad) == ("send", "x")
    assert decided(bad, stands=True) == (("keep", "") if fault == "missing" else ("send", "x"))


def test_what_could_not_be_read_where_it_lay_is_sent_again_under_another_id() -> None:
    second = next_id("x")
    third = next_id(second)

    assert decided(found(), {"x": True}) == ("send", second)
    assert decided(found(), {"x": True, second: False}) == ("stand", second)
    assert decided(found(), {"x": True, second: True}) == ("send", third)
    assert len({"x", second, third}) == 3


def test_a_file_that_the_scan_itself_cannot_read_is_not_sent_again() -> None:
    assert decided(found(Unreadable("unreadable", "")), {"x": True}) == ("stand", "x")


@pytest.mark.parametrize(
    ("old", "state", "stands"),
    [
        (PathOnly("old", failed=False, content=DIGEST[:16], submitted_at=None), None, True),
        (PathOnly("old", failed=False, content=b"y" * 16, submitted_at=None), None, False),
        (PathOnly("old", failed=True, content=DIGEST[:16], submitted_at=None), None, False),
        (PathOnly("old", failed=False, content=None, submitted_at=None), (3, 1, 1), False),
        (PathOnly("old", failed=False, content=None, submitted_at=10.0), None, False),
        (PathOnly("old", failed=False, content=None, submitted_at=10.0), (3, 7, 7), True),
        (PathOnly("old", failed=False, content=None, submitted_at=10.0), (3, 1, 8), False),
        (PathOnly("old", failed=False, content=None, submitted_at=10.0), (3, 8, 1), False),
        (PathOnly("old", failed=True, content=None, submitted_at=10.0), (3, 1, 1), False),
    ],
)
def test_an_image_of_the_path_alone_stands_if_its_content_is_certain(
    old: PathOnly, state: tuple[int, int, int] | None, *, stands: bool
) -> None:
    seen = None
    if state is not None:
        seen = FileState(state[0], state[1] * SECOND, state[2] * SECOND)
    expected = ("stand", "old") if stands else ("send", "x")

    assert decided(found(state=seen), old=old, stands=True) == expected
    assert decided(found(Inline(b"abc"), seen), old=old, stands=True) == expected


def test_a_fault_never_stands_under_an_id_of_the_path_alone() -> None:
    old = PathOnly("old", failed=False, content=None, submitted_at=10.0)

    assert decided(found(Unreadable("empty", "")), old=old) == ("send", "x")
