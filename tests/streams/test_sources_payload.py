"""read_payload(): where references may point, and what may have happened to the file since."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from schemas.errors import ImageError
from schemas.records import Inline, Payload, Reference, Unreadable
from streams.sources.payload import read_payload

LIMIT = 1000


def fault(payload: Payload, roots: list[Path] | None = None) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        read_payload(payload, roots, LIMIT)
    return caught.value.fault, caught.value.problem


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "archive" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(b"picture")
    return path


def test_inline_bytes_come_back() -> None:
    assert read_payload(Inline(b"abc"), [], LIMIT) == b"abc"


def test_inline_bytes_over_the_limit_are_refused() -> None:
    assert fault(Inline(bytes(1001))) == ("too_large", "1,001 bytes; at most 1,000 are allowed")


def test_an_unreadable_payload_raises_its_own_fault() -> None:
    assert fault(Unreadable("bad_name", "the name holds a line break")) == (
        "bad_name",
        "the name holds a line break",
    )


def test_a_reference_inside_a_root_is_read(picture: Path) -> None:
    reference = Reference(path=str(picture), size=7, sha256=hashlib.sha256(b"picture").digest())

    assert read_payload(reference, [picture.parent], LIMIT) == b"picture"
    assert read_payload(reference, None, LIMIT) == b"picture"


def test_a_root_may_be_a_symbolic_link(picture: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(picture.parent)

    assert read_payload(Reference(path=str(link / "a.jpg"), size=7), [link], LIMIT) == b"picture"


@pytest.mark.parametrize("place", ["{archive}/../secret", "{archive}/out", "/etc/hostname"])
def test_a_reference_that_leads_outside_the_roots_is_refused(
    picture: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (picture.parent / "out").symlink_to(tmp_path / "secret")
    path = place.format(archive=picture.parent)

    name, problem = fault(Reference(path=path, size=6), [picture.parent])

    assert name == "refused"
    assert f"(allowed: {picture.parent})" in problem


def test_a_folder_whose_name_begins_like_a_root_is_outside(picture: Path, tmp_path: Path) -> None:
    other = tmp_path / "archive2"
    other.mkdir()
    (other / "b.jpg").write_bytes(b"b")

    assert fault(Reference(path=str(other / "b.jpg"), size=1), [picture.parent])[0] == "refused"
    assert fault(Reference(path=str(picture), size=7), [])[0] == "refused"


@pytest.mark.parametrize("path", ["a.jpg", "../a.jpg", "", "/tmp/a\0.jpg"])
def test_only_absolute_paths_are_followed(path: str) -> None:
    assert fault(Reference(path=path, size=7))[0] == "refused"


def test_another_size_means_changed(picture: Path) -> None:
    assert fault(Reference(path=str(picture), size=12)) == (
        "changed",
        "expected 12 bytes as when it was sent, got 7",
    )


def test_other_content_of_the_same_size_means_changed(picture: Path) -> None:
    reference = Reference(path=str(picture), size=7, sha256=hashlib.sha256(b"another").digest())

    assert fault(reference)[0] == "changed"


def test_a_file_that_is_too_large_is_not_read(picture: Path) -> None:
    picture.write_bytes(bytes(2000))

    assert fault(Reference(path=str(picture), size=2000))[0] == "too_large"
    assert fault(Reference(path=str(picture), size=7))[0] == "too_large"


def test_a_vanished_file_is_missing(picture: Path) -> None:
    picture.unlink()

    assert fault(Reference(path=str(picture), size=7), [picture.parent])[0] == "missing"
    assert fault(Reference(path=str(picture / "b"), size=7))[0] == "missing"


def test_pipes_sockets_and_folders_are_told_and_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))

        assert fault(Reference(path=str(tmp_path / "pipe.jpg"), size=7)) == (
            "unreadable",
            "is a pipe, expected a picture file",
        )
        assert fault(Reference(path=str(tmp_path / "s"), size=7))[0] == "unreadable"
    assert fault(Reference(path=str(tmp_path), size=7))[1].startswith("is a folder")
    assert fault(Reference(path="/dev/zero", size=7))[1].startswith("is a device")


def test_links_in_a_circle_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")

    assert fault(Reference(path=str(tmp_path / "a"), size=7)) == (
        "unreadable",
        "symbolic links lead in a circle",
    )
