"""open_inside(): no link leads out of a folder, also when the path changes while it is opened."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roadstream.schemas.errors import ImageError
from roadstream.streams.sources import beneath
from roadstream.streams.sources.beneath import Opener, best_opener, by_kernel, by_steps, open_inside

OPENERS = [by_kernel, by_steps]
INSIDE, OUTSIDE = b"inside", b"outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with sub/a.jpg, beside one with another a.jpg."""
    for folder, content in (("root/sub", INSIDE), ("outside", OUTSIDE)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.jpg").write_bytes(content)
    return tmp_path / "root"


@pytest.fixture(params=OPENERS, ids=["kernel", "steps"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param is by_kernel and best_opener() is not by_kernel:
        pytest.fail("this kernel has no openat2: expected Linux 5.6 or later in these tests")
    chosen: Opener = request.param
    return chosen


def read(path: Path | str, roots: list[Path], opener: Opener) -> bytes:
    descriptor = open_inside(str(path), roots, opener)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


@pytest.fixture
def folder(root: Path) -> Iterator[int]:
    descriptor = os.open(root, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_file_inside_is_opened_however_it_is_spelled(root: Path, opener: Opener) -> None:
    (root / "b.jpg").symlink_to("sub/a.jpg")
    (root / "absolute.jpg").symlink_to(root / "sub" / "a.jpg")
    (root / "also").symlink_to(root / "sub")
    (root.parent / "here").symlink_to(root)
    for path in ("sub/a.jpg", "./sub/../sub/a.jpg", "b.jpg", "absolute.jpg", "also/a.jpg"):
        assert read(f"{root}/{path}", [root], opener) == INSIDE
    assert read(root.parent / "here" / "sub" / "a.jpg", [root], opener) == INSIDE
    assert read(root / "sub" / "a.jpg", [root.parent / "here"], opener) == INSIDE
    assert read(root / "sub" / "a.jpg", [Path("/")], opener) == INSIDE


def test_a_folder_whose_name_only_begins_like_a_root_is_outside(root: Path, opener: Opener) -> None:
    beside = root.with_name("root2")
    beside.mkdir()
    (beside / "a.jpg").write_bytes(OUTSIDE)
    with pytest.raises(ImageError, match=r"refused: .* is not inside an allowed folder"):
        read(beside / "a.jpg", [root], opener)


def test_what_has_become_a_link_that_leads_out_is_not_followed(
    root: Path, folder: int, opener: Opener
) -> None:
    (root / "sub" / "a.jpg").unlink()
    (root / "sub").rmdir()
    (root / "sub").symlink_to(root.parent / "outside")
    (root / "file.jpg").symlink_to("../outside/a.jpg")
    for path in ("sub/a.jpg", "file.jpg", "../outside/a.jpg"):
        with pytest.raises(OSError, match=r".") as caught:
            opener(folder, path)
        assert caught.value.errno in {errno.EXDEV, errno.ELOOP, errno.ENOTDIR}


def test_an_exchange_at_the_worst_moment_is_looked_at_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch, opener: Opener
) -> None:
    sub, away = root / "sub", root / "away"

    def exchanged_before(call: int) -> Callable[[int, str], int]:
        calls = 0

        def open_then(descriptor: int, below: str) -> int:
            nonlocal calls
            calls += 1
            if calls == call:
                sub.rename(away)
                sub.symlink_to(root.parent / "outside")
            return opener(descriptor, below)

        return open_then

    with pytest.raises(ImageError, match="refused"):
        read(sub / "a.jpg", [root], exchanged_before(1))


def test_a_path_that_never_stands_still_is_refused(root: Path) -> None:
    calls = []

    def always(descriptor: int, below: str) -> int:
        calls.append(below)
        raise OSError(errno.EXDEV, "leads out")

    with pytest.raises(ImageError, match="refused"):
        read(root / "sub" / "a.jpg", [root], always)
    assert calls == ["sub/a.jpg"] * beneath._TRIES


def test_while_a_folder_is_exchanged_for_a_link_nothing_from_outside_is_read(
    root: Path, opener: Opener
) -> None:
    sub, away, link = root / "sub", root / "away", root / "link"
    link.symlink_to(root.parent / "outside")
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            sub.rename(away)
            link.rename(sub)
            sub.rename(link)
            away.rename(sub)

    thread = threading.Thread(target=exchange)
    thread.start()
    found: set[bytes] = set()
    try:
        for _ in range(3000):
            try:
                found.add(read(sub / "a.jpg", [root], opener))
            except (ImageError, FileNotFoundError, NotADirectoryError):
                continue  # the link stood there, or nothing did
    finally:
        stop.set()
        thread.join()
    assert found <= {INSIDE}


def test_no_descriptor_is_left_open(root: Path, opener: Opener) -> None:
    (root / "sub" / "deep").mkdir()
    (root / "out").symlink_to("/etc")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("sub/a.jpg", "sub/none/a.jpg", "sub/deep/none.jpg", "out/hostname"):
        for _ in range(3):
            try:
                read(root / path, [root], opener)
            except (ImageError, OSError):
                continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
