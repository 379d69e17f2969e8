"""scan(): what counts, in which order, under which names, and every way a file can be bad."""

import hashlib
import io
import os
import socket
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest

from roadstream.schemas import codec
from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.image import Image, Inline, Reference, Unreadable
from roadstream.streams.ledgers.run_ledger import RunLedger
from roadstream.streams.sources import listing, places
from roadstream.streams.sources.identity import image_id
from roadstream.streams.sources.places import FileState, Known, file_state, settled
from roadstream.streams.sources.scan import (
    ScanOptions,
    ScanStats,
    count_ahead,
    scan_places,
)
from roadstream.streams.sources.source import VideoOptions
from tests.kits.scan_kit import scan
from tests.kits.video_kit import film, tenths

OPTIONS = ScanOptions()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str, data: bytes = b"picture") -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def uris(*paths: str, options: ScanOptions = OPTIONS, stats: ScanStats | None = None) -> list[str]:
    return [image.head.uri for image in scan(paths, options, stats)]


def faults(*paths: str, options: ScanOptions = OPTIONS) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for image in scan(paths, options):
        if isinstance(image.payload, Unreadable):
            found[image.head.uri] = image.payload.fault, image.payload.problem
    return found


def only(images: Iterator[Image]) -> Image:
    (image,) = images
    return image


def test_a_folder_gives_its_files_in_order_and_then_its_subfolders() -> None:
    write("photos/b.JPG", "photos/a.png", "photos/z/1.jpg", "photos/c.webp", "photos/y/x/2.jpg")

    assert uris("photos") == [
        "photos/a.png",
        "photos/b.JPG",
        "photos/c.webp",
        "photos/y/x/2.jpg",
        "photos/z/1.jpg",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("photos/", "photos/a.jpg"),
        ("./photos", "./photos/a.jpg"),
        ("photos/../photos//", "photos/../photos//a.jpg"),
        ("./photos//a.jpg", "./photos//a.jpg"),
        (".", "./photos/a.jpg"),
    ],
)
def test_uris_are_spelled_as_given(given: str, expected: str) -> None:
    write("photos/a.jpg")

    assert uris(given) == [expected]


def test_a_record_says_where_its_file_is(here: Path) -> None:
    write("drive/a.jpg", "drive/b.jpg")

    first, second = scan(["drive/"], ScanOptions(run_id="r", first_sequence=5, lane="live"))

    digest = hashlib.sha256(b"picture").digest()
    named = hashlib.blake2b(b"drive/a.jpg", key=digest, digest_size=16)
    assert first.payload == Reference(path=f"{here}/drive/a.jpg", size=7, sha256=digest)
    assert first.head.image_id == named.hexdigest()
    assert first.head.content_hash == digest[:16]
    assert (first.head.session_id, first.head.frame_index, first.head.sequence) == ("drive", 0, 5)
    assert (second.head.session_id, second.head.frame_index, second.head.sequence) == (
        "drive",
        1,
        6,
    )
    assert (first.head.run_id, first.head.lane) == ("r", "live")


def test_given_files_belong_to_the_drive_of_their_folder() -> None:
    write("d/a.jpg", "d/b.jpg", "c.jpg")

    heads = [image.head for image in scan(["d/a.jpg", "d/b.jpg", "c.jpg"], OPTIONS)]

    assert [(h.session_id, h.frame_index) for h in heads] == [("d", 0), ("d", 1), (None, 0)]


def test_other_and_hidden_files_are_left_out_and_named() -> None:
    write("d/a.jpg", "d/notes.txt", "d/.hidden.jpg", "d/.git/b.jpg", "d/sub/README")
    write("d/b.json", data=b'{"label": 1}')
    write("d/c.CR2", data=b"II*\0\x10\0\0\0CR")
    write("d/empty", data=b"")
    stats = ScanStats()

    assert uris("d", stats=stats) == ["d/a.jpg"]
    assert stats.left_out.files == {
        "text": (2, "d/notes.txt"),
        "hidden": (2, "d/.git"),
        "a JSON document": (1, "d/b.json"),
        "a camera raw file": (1, "d/c.CR2"),
        "an empty file": (1, "d/empty"),
    }
    assert "1 left out: a JSON document (d/b.json)" in stats.left_out.lines()
    assert "2 left out: text (e.g. d/notes.txt)" in stats.left_out.lines()


@pytest.mark.parametrize("name", ["IMG_0001", "a.jpeg_large", "a.JPG_original", "a.dat", "a.jpg~"])
def test_pictures_in_a_folder_are_known_by_their_bytes(name: str) -> None:
    write(f"d/{name}", data=b"\xff\xd8\xff\xe0" * 9)

    assert uris("d") == [f"d/{name}"]


def test_archives_and_tables_of_answers_are_named() -> None:
    write("d/a.tgz", data=b"\x1f\x8b" + bytes(20))
    write("d/b.tar", data=bytes(257) + b"ustar\x0000" + bytes(248))
    write("d/c.7z", data=b"7z\xbc\xaf\x27\x1c" + bytes(20))
    write("d/d.parquet", data=b"PAR1" + bytes(20))
    stats = ScanStats()

    assert uris("d", stats=stats) == []
    assert stats.left_out.lines() == [
        "1 left out: a Parquet file (d/d.parquet)",
        "2 left out: an archive (e.g. d/b.tar)",
        "1 left out: gzip-compressed data (d/a.tgz)",
    ]


def test_what_cannot_be_looked_at_is_named_and_hangs_nothing() -> None:
    write("d/a.jpg")
    os.mkfifo("d/pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("d/socket")
    Path("d/link").symlink_to("nowhere")
    Path("d/loop").symlink_to("..")
    stats = ScanStats()

    assert uris("d", stats=stats) == ["d/a.jpg"]
    assert set(stats.left_out.files) == {
        "a pipe",
        "a socket",
        "a symbolic link to nothing",
        "a link to a folder that it lies in",
    }


def test_a_given_file_is_taken_whatever_its_name() -> None:
    write("d/picture.dat", "d/.hidden.jpg")

    assert uris("d/picture.dat", "d/.hidden.jpg") == ["d/picture.dat", "d/.hidden.jpg"]


def test_globs_expand_in_order() -> None:
    write("d/b.jpg", "d/a.jpg", "d/c.txt", "d/e/f/g.jpg", "d/.h/i.jpg")

    assert uris("d/*.jpg") == ["d/a.jpg", "d/b.jpg"]
    assert uris("./d/[b-z]*") == ["./d/b.jpg", "./d/c.txt", "./d/e/f/g.jpg"]
    assert uris("d/**/*.jpg") == ["d/a.jpg", "d/b.jpg", "d/e/f/g.jpg"]
    assert uris("**/g.jpg") == ["d/e/f/g.jpg"]
    assert uris("d/e/**") == ["d/e/f/g.jpg"]
    assert uris("*/e/*/?.jpg") == ["d/e/f/g.jpg"]


def test_an_absolute_glob_gives_absolute_uris(here: Path) -> None:
    write("d/a.jpg")

    assert uris(f"{here}/*/a.jpg") == [f"{here}/d/a.jpg"]


def test_a_glob_that_matches_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"photos/\*\.jpg matches no file"):
        uris("photos/*.jpg")


def test_a_file_named_like_a_glob_is_that_file() -> None:
    write("a[1].jpg", "a1.jpg")

    assert uris("a[1].jpg") == ["a[1].jpg"]


@pytest.mark.parametrize(
    "data",
    [b"d\nb.jpg\n", b"d\r\n\nb.jpg", b"d\0b.jpg\0", b"d\0b.jpg"],
)
def test_a_dash_reads_a_list(data: bytes) -> None:
    write("d/a.jpg", "b.jpg", "c.jpg")

    assert uris("c.jpg", "-", options=ScanOptions(stdin=io.BytesIO(data))) == [
        "c.jpg",
        "d/a.jpg",
        "b.jpg",
    ]


def test_a_list_may_hold_line_breaks_in_names_when_separated_by_nul() -> None:
    stdin = io.BytesIO(b"a\nb.jpg\0c.jpg\0")

    assert uris("-", options=ScanOptions(stdin=stdin)) == ["a\nb.jpg", "c.jpg"]


def test_a_list_that_is_no_list_is_a_usage_error() -> None:
    stdin = io.BytesIO(b"\xff\xd8" * 2_000_000)

    with pytest.raises(UsageError, match="expected one path per line"):
        uris("-", options=ScanOptions(stdin=stdin))


def test_a_long_list_is_read_lazily() -> None:
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b"nowhere/at/all.jpg\n" * 1000

    images = scan(["-"], ScanOptions(stdin=Endless()))

    assert sum(1 for _ in islice(images, 10_000)) == 10_000


def test_inline_carries_the_bytes() -> None:
    write("a.jpg", data=b"abc")

    assert only(scan(["a.jpg"], ScanOptions(carry="inline"))).payload == Inline(b"abc")


def ids(*paths: str, options: ScanOptions = OPTIONS) -> list[str]:
    return [image.head.image_id for image in scan(paths, options)]


def test_an_id_tells_the_path_and_the_content() -> None:
    write("d/a.jpg", "d/copy.jpg", data=b"one")
    a, copy = ids("d")
    assert a != copy

    write("d/a.jpg", data=b"two")
    assert ids("d/a.jpg") != [a]
    write("d/a.jpg", data=b"one")
    assert ids("d/a.jpg") == [a]


def test_an_id_is_the_same_however_the_bytes_are_carried() -> None:
    write("a.jpg")

    assert ids("a.jpg") == ids("a.jpg", options=ScanOptions(carry="inline"))


def test_runs_on_a_shared_log_have_ids_of_their_own() -> None:
    write("a.jpg")
    shared, one, two = (
        ids("a.jpg", options=ScanOptions(run_id=run, owned=run is not None))
        for run in (None, "one", "two")
    )

    assert len({*shared, *one, *two}) == 3


def test_the_id_of_an_unreadable_file_tells_its_fault() -> None:
    missing = ids("a.jpg")
    write("a.jpg", data=b"")
    empty = ids("a.jpg")

    assert missing != empty
    assert ids("a.jpg") == empty


def test_an_unchanged_file_is_not_read_and_keeps_its_place_in_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "SETTLING_NS", 0)
    write("d/a.jpg", "d/b.jpg", "d/c.jpg")
    os.utime("d/b.jpg", (1, 1))
    stats, state = ScanStats(), file_state(Path("d/b.jpg").stat())
    known = {"d/b.jpg": Known("x", state), "d/c.jpg": Known("y", None)}
    options = ScanOptions(known=known.get)

    a, b, c = scan_places(["d"], options, stats)

    assert (b.place, b.image, b.holds) == ("d/b.jpg", None, None)
    assert [found.image.head.sequence for found in (a, c) if found.image] == [0, 2]
    assert stats.images == 3

    write("d/b.jpg")
    (changed,) = scan_places(["d/b.jpg"], options)
    assert changed.image is not None


@pytest.mark.parametrize(
    ("mtime", "ctime", "trusted"),
    [(0, 0, True), (7, 7, True), (8, 0, False), (0, 8, False), (99, 0, False)],
)
def test_a_file_that_was_written_just_now_is_read_again(
    *, mtime: int, ctime: int, trusted: bool
) -> None:
    state = FileState(5, mtime * 1_000_000_000, ctime * 1_000_000_000)

    assert settled(state, 10_000_000_000) == (state if trusted else None)


def test_a_scan_that_only_counts_reads_nothing() -> None:
    write("d/a.jpg", data=b"")
    os.mkfifo("d/b.jpg")
    write("d/c.jpg")
    Path("d/c.jpg").chmod(0o000)

    assert sum(count_ahead(["d"])) == 3


def test_a_folder_that_can_be_listed_again_is_told() -> None:
    write("d/a.jpg")
    options = ScanOptions(known={"d": Known("x", None)}.get)

    assert [(found.place, found.holds) for found in scan_places(["d"], options)] == [
        ("d/a.jpg", None),
        ("d", ""),
    ]


def test_limits_depend_on_how_bytes_are_carried() -> None:
    write("a.jpg", data=bytes(200))

    assert faults("a.jpg", options=ScanOptions(carry="inline", max_inline=100)) == {
        "a.jpg": ("too_large", "200 bytes; at most 100 are allowed")
    }
    assert faults("a.jpg", options=ScanOptions(max_inline=100)) == {}
    assert faults("a.jpg", options=ScanOptions(max_bytes=100))["a.jpg"][0] == "too_large"


def test_every_bad_file_becomes_an_unreadable_image_and_harms_no_neighbour() -> None:
    write("d/a.jpg", "d/z.jpg")
    write("d/empty.jpg", data=b"")
    Path("d/folder.jpg/inner").mkdir(parents=True)
    write("d/folder.jpg/inner/not_seen.jpg")
    Path("d/broken.jpg").symlink_to("nowhere")
    Path("d/circle.jpg").symlink_to("circle.jpg")
    os.mkfifo("d/pipe.jpg")

    assert faults("d") == {
        "d/broken.jpg": ("missing", "a symbolic link to nothing"),
        "d/circle.jpg": ("unreadable", "symbolic links lead in a circle"),
        "d/empty.jpg": ("empty", "the file has no bytes"),
        "d/folder.jpg": ("unreadable", "is a folder, expected a picture file"),
        "d/pipe.jpg": ("unreadable", "is a pipe, expected a picture file"),
    }
    assert len(uris("d")) == 7


def test_a_missing_path_is_an_unreadable_image() -> None:
    write("a.jpg")

    assert faults("b.jpg", "a.jpg/c.jpg", "x" * 300 + ".jpg") == {
        "b.jpg": ("missing", "there is no such file (or it has vanished since)"),
        "a.jpg/c.jpg": ("missing", "there is no such file (or it has vanished since)"),
        "x" * 300 + ".jpg": ("bad_name", "the name is longer than the file system allows"),
    }


def test_a_file_that_vanishes_during_the_scan_is_missing() -> None:
    write("d/a.jpg", "d/b.jpg")
    images = scan(["d"], OPTIONS)
    next(images)

    Path("d/b.jpg").unlink()

    assert isinstance(payload := next(images).payload, Unreadable)
    assert payload.fault == "missing"


def test_a_folder_that_vanishes_during_the_scan_is_one_unreadable_image() -> None:
    write("d/a.jpg", "d/e/b.jpg", "d/f/c.jpg")
    images = scan(["d"], OPTIONS)
    next(images)

    Path("d/e/b.jpg").unlink()
    Path("d/e").rmdir()

    rest = list(images)
    assert [image.head.uri for image in rest] == ["d/f/c.jpg"] or (
        [image.head.uri for image in rest] == ["d/e", "d/f/c.jpg"]
        and isinstance(rest[0].payload, Unreadable)
    )


@pytest.mark.parametrize(
    ("name", "uri", "problem"),
    [
        (b"d/a\nb.jpg", "d/a\nb.jpg", "the name holds a line break"),
        (b"d/a\x1b[31m.jpg", "d/a\x1b[31m.jpg", "the name holds a control character ('\\x1b')"),
        (b"d/a\xff\xfe.jpg", "d/a\\xff\\xfe.jpg", "the name is not valid UTF-8"),
        (b"d/e\n/b.jpg", "d/e\n/b.jpg", "the name holds a line break"),
    ],
)
def test_bad_names_are_told_and_their_uris_are_valid_text(
    name: bytes, uri: str, problem: str
) -> None:
    Path("d").mkdir()
    Path(os.fsdecode(os.path.dirname(name))).mkdir(exist_ok=True)  # noqa: PTH120 (bytes)
    Path(os.fsdecode(name)).write_bytes(b"picture")

    image = only(scan(["d"], OPTIONS))

    assert image.head.uri == uri
    assert image.payload == Unreadable("bad_name", problem)
    named = hashlib.blake2b(name, key=b"bad_name", digest_size=16)
    assert image.head.image_id == named.hexdigest()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(image), type=Image) == image


def test_names_in_any_script_are_fine() -> None:
    write("fotos/straße ☃ 道路.jpg")

    assert faults("fotos") == {}


def test_names_with_different_bytes_have_different_ids() -> None:
    assert image_id(os.fsdecode(b"a\xff.jpg"), b"x") != image_id("a\\xff.jpg", b"x")


def test_links_to_folders_are_followed_but_never_in_a_circle() -> None:
    write("d/a.jpg", "elsewhere/b.jpg")
    Path("d/up").symlink_to("..")
    Path("d/self").symlink_to(".")
    Path("d/other").symlink_to("../elsewhere")

    assert sorted(uris("d")) == ["d/a.jpg", "d/other/b.jpg", "d/up/elsewhere/b.jpg"]


def test_deep_folders_need_no_deep_stack() -> None:
    folders = [Path("d", *["e"] * k) for k in range(1200)]
    for folder in folders:
        folder.mkdir()
    picture = folders[-1] / "a.jpg"
    picture.write_bytes(b"x")

    found = uris("d")

    picture.unlink()  # pytest's own clean-up recurses
    for folder in reversed(folders):
        folder.rmdir()
    assert found == [str(picture)]


def test_a_folder_over_the_sorting_bound_comes_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SORT_BOUND", 10)
    write(*(f"d/{k:02}.jpg" for k in range(25)), *(f"d/s{k:02}/x.jpg" for k in range(15)))

    found = uris("d")

    assert sorted(found[:25]) == [f"d/{k:02}.jpg" for k in range(25)]
    assert sorted(found[25:]) == [f"d/s{k:02}/x.jpg" for k in range(15)]


def test_memory_stays_flat(here: Path) -> None:
    write("real.jpg")
    for sub in range(40):
        (here / f"d/{sub}").mkdir(parents=True)
        for k in range(100):
            os.link("real.jpg", f"d/{sub}/{k}.jpg")
    images = scan(["d"] * 3, OPTIONS)
    for _ in islice(images, 4000):
        pass
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        count = sum(1 for _ in images)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 8000
    assert peak - before < 200_000


def test_transport_streams_are_told_from_typescript() -> None:
    write("d/code.ts", data=b"export const a = 1;\n")
    stats = ScanStats()
    options = ScanOptions(video=VideoOptions(encode=bytes))

    assert uris("d", options=options, stats=stats) == []
    assert stats.left_out.files == {"text": (1, "d/code.ts")}


def test_a_folder_named_like_a_video_is_just_a_folder() -> None:
    write("d/trip.mp4/a.jpg")

    assert uris("d", options=ScanOptions(video=VideoOptions(encode=bytes))) == ["d/trip.mp4/a.jpg"]


@pytest.mark.parametrize("name", ["x" * 100_000, "x" * 32_704, "x" * 32_703, "\udcff" * 20_000])
def test_a_path_longer_than_any_is_a_record_that_decodes(name: str) -> None:
    image = only(scan([name], OPTIONS))
    assert codec.decode_image(codec.encode(image)) == image
    assert isinstance(image.payload, Unreadable)
    assert image.payload.fault == "bad_name"
    assert image.head.uri.startswith(name[:100] if name.isascii() else "\\xff" * 25)
    assert only(scan([name], OPTIONS)).head.image_id == image.head.image_id
    assert only(scan([name + "y"], OPTIONS)).head.image_id != image.head.image_id


def test_videos_in_a_folder_are_known_by_their_bytes_and_sound_is_left_out() -> None:
    Path("d").mkdir()
    film(Path("d/v.mp4"), tenths(5)).rename("d/VID_0001")
    write("d/song", data=b"OggS" + bytes(99))
    write("d/memo", data=b"\0\0\0\x20ftypM4A " + bytes(99))
    with av.open("d/voice.mkv", "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        assert isinstance(stream, av.AudioStream)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 48_000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    Path("d/voice.mkv").rename("d/voice")
    stats = ScanStats()
    options = ScanOptions(video=VideoOptions(encode=bytes))

    assert uris("d", options=options, stats=stats) == ["d/VID_0001#t=0.000"]
    assert stats.left_out.files == {
        "a sound file": (2, "d/memo"),
        "the file holds sound but no video": (1, "d/voice"),
    }
    assert len(uris("d/voice", "d/song", options=options)) == 2


async def test_the_state_of_a_run_is_not_looked_into(here: Path) -> None:
    write("d/a.jpg", "d/out.csv.roadstream/b.jpg", "d/other.roadstream/c.jpg")
    async with RunLedger(here / "d/out.csv.roadstream/ledger.db"), RunLedger(here / "d/sent"):
        stats = ScanStats()
        assert uris("d", stats=stats) == ["d/a.jpg", "d/other.roadstream/c.jpg"]

    assert stats.left_out.files == {
        "the state of a run": (1, "d/out.csv.roadstream"),
        "a file of this very run": (1, "d/sent"),
        "a database": (2, "d/sent-shm"),
    }
