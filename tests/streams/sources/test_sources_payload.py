"""read_payload(): where references may point, and what may have happened to the file since."""

import errno
import hashlib
import os
import socket
from pathlib import Path

import pytest

from roadstream.schemas.errors import ImageError, MachineError
from roadstream.schemas.records.image import Inline, Payload, Reference, Unreadable
from roadstream.streams.sources.identity import local, portable
from roadstream.streams.sources.payload import Patience, read_payload, ready

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


def test_a_file_that_would_have_to_be_waited_for_has_nothing_to_read() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with (
        os.fdopen(reader, "rb") as file,
        os.fdopen(writer, "wb"),
        pytest.raises(BlockingIOError, match="nothing to be read now"),
    ):
        ready(file.read(7))


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


class Flaky:
    """Opens files after so many failures of one kind."""

    def __init__(self, number: int, failures: int) -> None:
        self.number, self.failures, self.calls = number, failures, 0
        self.open = os.open

    def __call__(self, path: str, flags: int, **more: int) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(self.number, os.strerror(self.number))
        return self.open(path, flags, **more)


STORAGE = [errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR]
EXHAUSTED = [errno.EMFILE, errno.ENFILE, errno.ENOMEM]


@pytest.mark.parametrize("number", [*STORAGE, *EXHAUSTED], ids=errno.errorcode.get)
def test_an_error_that_passes_is_waited_out(
    picture: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("os.open", Flaky(number, 3))
    reference = Reference(path=str(picture), size=7)

    assert read_payload(reference, None, LIMIT, Patience(waited.append)) == b"picture"
    assert waited == sorted(waited)
    assert len(waited) == 3


@pytest.mark.parametrize("number", STORAGE, ids=errno.errorcode.get)
def test_an_error_that_does_not_pass_is_given_up_on(
    picture: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("os.open", Flaky(number, 100))
    with pytest.raises(ImageError) as caught:
        read_payload(Reference(path=str(picture), size=7), None, LIMIT, Patience(waited.append))

    assert str(caught.value) == f"unreadable: {os.strerror(number)} (tried 4 times)"
    assert len(waited) == 3


@pytest.mark.parametrize("number", EXHAUSTED, ids=errno.errorcode.get)
def test_what_the_machine_lacks_is_no_fault_of_the_picture(
    picture: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("os.open", Flaky(number, 100))
    for roots in (None, [picture.parent]):
        with pytest.raises(MachineError, match=f"{os.strerror(number)} .tried 4 times"):
            read_payload(
                Reference(path=str(picture), size=7), roots, LIMIT, Patience(waited.append)
            )

    assert len(waited) == 6


def test_pictures_of_a_batch_share_their_patience(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    patience = Patience(waited.append, budget=1.0)
    monkeypatch.setattr("os.open", Flaky(errno.EIO, 10_000))
    for _ in range(1000):
        with pytest.raises(ImageError, match="unreadable"):
            read_payload(Reference(path=str(picture), size=7), None, LIMIT, patience)

    assert 0.6 < sum(waited) <= 1.0


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ELOOP])
def test_an_error_that_will_not_pass_is_told_at_once(
    picture: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    waited: list[float] = []
    flaky = Flaky(number, 100)
    monkeypatch.setattr("os.open", flaky)
    with pytest.raises(ImageError):
        read_payload(Reference(path=str(picture), size=7), None, LIMIT, Patience(waited.append))

    assert (flaky.calls, waited) == (1, [])


@pytest.mark.parametrize(
    "path",
    ["http://host/a.jpg", "https://host/a.jpg", "s3://b/a.jpg", "file://host/a.jpg", "FILE:/a.jpg",
     "gs://b/a", "data:image/png;base64,AA", "c:/a.jpg"],
)  # fmt: skip
def test_urls_are_refused_whatever_the_roots(path: str) -> None:
    for roots in (None, [], [Path("/")]):
        name, problem = fault(Reference(path=path, size=7), roots)
        assert name == "refused"
        assert problem.endswith(f"are not followed, expected an absolute path, got {path!r}")


def test_a_link_out_of_the_roots_is_refused_wherever_it_stands(
    picture: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"secret!")
    (picture.parent / "sub").symlink_to(outside)
    (picture.parent / "file.jpg").symlink_to(outside / "a.jpg")
    for path in ("sub/a.jpg", "file.jpg", "sub/../outside/a.jpg", "./sub/./a.jpg"):
        reference = Reference(path=f"{picture.parent}/{path}", size=7)
        assert fault(reference, [picture.parent])[0] == "refused"
        assert read_payload(reference, [tmp_path], LIMIT) == b"secret!"


@pytest.mark.parametrize("name", [b"a.jpg", "é %41.jpg".encode(), b"\xdf%\xff.jpg", b"file: a.jpg"])
def test_every_absolute_path_has_a_text_that_leads_back_to_it(tmp_path: Path, name: bytes) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    Path(path).write_bytes(b"picture")

    text = portable(path)

    assert text.encode().decode() == text
    assert local(text) == path
    for roots in (None, [tmp_path]):
        assert read_payload(Reference(path=text, size=7), roots, LIMIT) == b"picture"
    assert fault(Reference(path=text, size=7), [])[0] == "refused"
