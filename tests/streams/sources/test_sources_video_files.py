"""Videos as devices and people leave them: joined, with several streams, cut, without keyframes."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from roadstream.schemas.records.image import Image, Inline
from roadstream.streams.sources.source import LeftOut, VideoOptions
from roadstream.streams.sources.video.recordings import recordings
from roadstream.streams.sources.video.source import picture_at
from tests.kits.scan_kit import read_video
from tests.kits.video_kit import X264, film, grey, join, picture, problems, seconds, tenths

Pixels = npt.NDArray[np.uint8]


def encode(shown: Pixels) -> bytes:
    """Encode size and the grey level on the right."""
    height, width, _ = shown.shape
    return f"{width}x{height} {shown[:, width * 3 // 4 :].mean():.1f}".encode()


def read(path: Path, fps: float | None = None, stream: str | int | None = None) -> list[Image]:
    assert stream in (None, "all") or isinstance(stream, int)
    return list(read_video(str(path), VideoOptions(encode, fps, stream)))  # type: ignore[arg-type]


def notes(path: Path) -> list[str]:
    left_out = LeftOut()
    list(read_video(str(path), VideoOptions(encode), left_out))
    return [note.removeprefix(f"{path}: ") for note in left_out.notes]


def sizes(images: list[Image]) -> set[bytes]:
    return {image.payload.data.split()[0] for image in images}  # type: ignore[union-attr]


def greys(images: list[Image]) -> list[float]:
    return [float(image.payload.data.split()[1]) for image in images]  # type: ignore[union-attr]


H264, HEVC = ("libx264", (160, 96)), ("libx265", (160, 96))
PARTS = ((0, 1), (1, 2), (3, 2))  # where a time's bits lie, and in how many bytes
SMALL, LARGE = ("libx264", (160, 96)), ("libx264", (320, 192))


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "avi", "flv", "mov", "webm"])
@pytest.mark.parametrize("lengths", [(30, 10), (10, 30), (12, 12, 12)])
def test_joined_recordings_follow_each_other(
    tmp_path: Path, name: str, lengths: tuple[int, ...]
) -> None:
    codec = {"avi": "mjpeg", "webm": "libvpx"}.get(name, "libx264")
    parts = [
        film(tmp_path / f"{n}.{name}", tenths(length), codecs=[(codec, (160, 96))])
        for n, length in enumerate(lengths)
    ]
    path = join(tmp_path / f"a.{name}", *parts)

    images = read(path, fps=1000)

    assert problems(images) == []
    begin, expected = 0.0, []
    for length in lengths:
        expected += tenths(length, begin)
        begin = expected[-1] + 0.1
    assert seconds(images) == pytest.approx(expected, abs=0.15 * len(lengths))
    assert greys(images) == pytest.approx([grey(i) for n in lengths for i in range(n)], abs=6)


@pytest.mark.parametrize("other", [HEVC, LARGE, ("mpeg4", (160, 96))])
def test_joined_recordings_may_be_of_different_cameras(
    tmp_path: Path, other: tuple[str, tuple[int, int]]
) -> None:
    first = film(tmp_path / "1.ts", tenths(30))
    path = join(tmp_path / "a.ts", first, film(tmp_path / "2.ts", tenths(30), codecs=[other]))

    images = read(path)

    assert (seconds(images), problems(images)) == ([float(n) for n in range(6)], [])


@pytest.mark.parametrize(("begins", "follows"), [(5000.0, 0.0), (0.0, 5000.0), (95_440.0, 3.0)])
def test_joined_recordings_follow_whatever_their_clocks_say(
    tmp_path: Path, begins: float, follows: float
) -> None:
    copied, fine = {"mpegts_copyts": "1"}, X264 | {"preset": "superfast"}
    parts = [
        film(tmp_path / f"{n}.ts", tenths(30, begin), muxing=copied, options=fine)
        for n, begin in enumerate((begins, follows))
    ]

    images = read(join(tmp_path / "a.ts", *parts))

    assert (seconds(images), problems(images)) == ([float(n) for n in range(6)], [])


def test_joined_recordings_of_other_packet_numbers_are_read_too(tmp_path: Path) -> None:
    first = film(tmp_path / "1.ts", tenths(30))
    second = film(tmp_path / "2.ts", tenths(30), muxing={"mpegts_start_pid": "500"})

    images = read(join(tmp_path / "a.ts", first, second, first))

    assert (seconds(images), problems(images)) == ([float(n) for n in range(9)], [])


def test_joined_files_of_different_kinds_of_mp4_are_read_whole(tmp_path: Path) -> None:
    parts = [
        film(tmp_path / f"{n}.mp4", tenths(30), muxing={"movflags": flags})
        for n, flags in enumerate(["faststart", "frag_keyframe+empty_moov", "faststart"])
    ]
    path = join(tmp_path / "a.mp4", *parts)

    images = read(path)

    assert (seconds(images), problems(images)) == ([float(n) for n in range(9)], [])
    assert [part.end - part.start for part in recordings(str(path))] == [
        part.stat().st_size for part in parts
    ]
    shown = picture_at(str(path), 7.0)
    assert shown is not None
    assert float(shown[:, 120:].mean()) == pytest.approx(grey(10), abs=6)


def test_a_joined_recording_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    good = film(tmp_path / "1.mp4", tenths(20))
    broken = tmp_path / "2.mp4"
    data = good.read_bytes()
    broken.write_bytes(data[: int.from_bytes(data[:4], "big")] + b"\0\0\0\x10moov" + bytes(8))

    images = read(join(tmp_path / "a.mp4", good, broken, good))

    assert seconds(images) == [0.0, 1.0, 2.0, 3.0]
    assert problems(images)[0].startswith("a recording that was joined on ")


@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_a_recording_joined_to_one_that_cannot_be_opened_is_judged(
    tmp_path: Path, kept: float
) -> None:
    good = film(tmp_path / "1.mp4", tenths(20))  # what tells how to decode it comes last
    cut = tmp_path / "2.mp4"
    data = good.read_bytes()
    cut.write_bytes(data[: int(kept * data.index(b"moov"))])
    path = join(tmp_path / "a.mp4", cut, good)

    images = read(path)

    assert seconds(images) == [0.0, 1.0]
    assert "others were joined to cannot be opened" in problems(images)[0]
    shown = picture_at(str(path), 1.0)
    assert shown is not None
    assert float(shown[:, 120:].mean()) == pytest.approx(grey(10), abs=6)


@pytest.mark.parametrize("names", [("mp4", "ts"), ("mkv", "mp4"), ("ts", "mkv"), ("avi", "mp4")])
def test_joined_recordings_may_be_files_of_different_formats(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    parts = [film(tmp_path / f"{n}.{name}", tenths(30)) for n, name in enumerate(names)]

    images = read(join(tmp_path / f"a.{names[0]}", *parts, *parts), fps=1)

    assert problems(images) == []
    assert seconds(images) == pytest.approx([float(n) for n in range(12)], abs=0.3)


def test_joined_recordings_whose_clock_goes_on_are_no_damage(tmp_path: Path) -> None:
    copied, fine = {"mpegts_copyts": "1"}, X264 | {"preset": "superfast"}
    parts = [
        film(tmp_path / f"{n}.ts", tenths(30, begin), muxing=copied, options=fine)
        for n, begin in enumerate((1.0, 4.0))
    ]

    images = read(join(tmp_path / "a.ts", *parts), fps=10)

    assert problems(images) == []
    assert seconds(images) == pytest.approx(tenths(60), abs=0.01)


@pytest.mark.parametrize("name", ["mp4", "ts"])
def test_streams_that_only_a_joined_recording_has_are_named(tmp_path: Path, name: str) -> None:
    first = film(tmp_path / f"1.{name}", tenths(30))
    second = film(tmp_path / f"2.{name}", tenths(30), codecs=[LARGE, SMALL])

    said = notes(join(tmp_path / f"a.{name}", first, second))

    assert said == ["stream 1 of the recording from 3.0 s left out"]


def test_frames_of_a_joined_recording_are_not_sought_in_the_next_one(tmp_path: Path) -> None:
    first = film(tmp_path / "1.ts", tenths(100))
    second = film(tmp_path / "2.ts", tenths(100), codecs=[LARGE])
    path = str(join(tmp_path / "a.ts", first, second))

    shown = [picture_at(path, float(second)) for second in range(20)]

    assert [each is not None and each.shape[1] for each in shown] == [160] * 10 + [320] * 10


def test_frames_are_found_again_by_way_of_a_keyframe(tmp_path: Path) -> None:
    path = film(tmp_path / "a.ts", tenths(100), codecs=[("mpeg4", (160, 96))])

    for at in range(5, 100, 10):
        shown = picture_at(str(path), at / 10)
        assert shown is not None
        assert float(shown[:, 120:].mean()) == pytest.approx(grey(at), abs=6)


@pytest.mark.parametrize("off", [1000.0, -1000.0])
def test_a_single_wrong_time_costs_no_picture_after_it(tmp_path: Path, off: float) -> None:
    path = film(tmp_path / "a.ts", tenths(100))
    mistime(path, 55, off)

    images = read(path, fps=10)

    assert (len(seconds(images)), problems(images)) == (100, [])
    assert seconds(images)[-1] == 9.9


def mistime(path: Path, number: int, off: float) -> None:
    """Change the time of one picture of a transport stream."""
    data = bytearray(path.read_bytes())
    places = [at for at in range(0, len(data), 188) if b"\0\0\1\xe0" in data[at : at + 48]]
    at = data.index(b"\0\0\1\xe0", places[number]) + 9
    first, second, third = (int.from_bytes(data[at + n : at + n + m], "big") for n, m in PARTS)
    stamp = (first >> 1 & 7) << 30 | second >> 1 << 15 | third >> 1
    stamp = (stamp + round(off * 90_000)) % (1 << 33)
    data[at] = first & 0xF1 | stamp >> 29 & 0xE
    data[at + 1 : at + 3] = ((stamp >> 14 & 0xFFFE) | 1).to_bytes(2, "big")
    data[at + 3 : at + 5] = ((stamp << 1 & 0xFFFE) | 1).to_bytes(2, "big")
    path.write_bytes(data)


def test_bytes_missing_from_one_recording_are_damage_and_not_a_joint(tmp_path: Path) -> None:
    path = film(tmp_path / "a.ts", tenths(100))
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 600] + data[188 * 905 :])

    images = read(path, fps=5)

    (problem,) = problems(images)
    assert "cannot be decoded from " in problem
    assert seconds(images)[-1] == 9.8


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_the_largest_stream_is_judged_and_the_others_are_named(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / f"a.{name}", tenths(20), codecs=[SMALL, LARGE])

    images = read(path)

    assert (seconds(images), sizes(images)) == ([0.0, 1.0], {b"320x192"})
    assert notes(path) == ["stream 0 (160×96 h264) left out (--stream all judges it too)"]


def test_all_streams_have_names_of_their_own(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", tenths(20), codecs=[SMALL, LARGE])

    images = read(path, stream="all")

    assert [image.head.uri.rpartition("#")[2] for image in images] == [
        "t=0.000",
        "t=1.000",
        "t=0.000&stream=0",
        "t=1.000&stream=0",
    ]
    assert len({image.head.image_id for image in images}) == 4
    assert {image.head.session_id for image in images} == {str(path), f"{path}#stream=0"}
    assert images[:2] == read(path) == read(path, stream=1)
    other = [(image.head.image_id, image.payload) for image in read(path, stream=0)]
    assert [(image.head.image_id, image.payload) for image in images[2:]] == other
    shown = picture_at(str(path), 1.0, 0)
    assert shown is not None
    assert shown.shape == (96, 160, 3)


def test_a_stream_that_is_not_there_is_told(tmp_path: Path) -> None:
    (image,) = read(film(tmp_path / "a.mp4", tenths(5)), stream=4)

    assert problems([image]) == ["expected a video stream 4, the file holds stream 0 (160×96 h264)"]


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        cover = av.open(str(jpeg(tmp_path)))
        container.add_attachment("cover.jpg", "image/jpeg", Path(cover.name).read_bytes())
        for index in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(stream.encode(None))

    assert sizes(read(path)) == {b"160x96"}


def jpeg(folder: Path) -> Path:
    path = folder / "cover.jpg"
    with av.open(path, "w", format="image2") as container:
        stream = container.add_stream("mjpeg", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(picture(0, (320, 192)), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_sound_that_goes_on_while_nothing_moves_is_no_missing_end(
    tmp_path: Path, name: str
) -> None:
    path = film(tmp_path / f"a.{name}", tenths(20), sound=20.0)

    images = read(path)

    assert (seconds(images), problems(images)) == ([0.0, 1.0], [])


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_a_picture_refreshed_by_and_by_has_one_keyframe_and_is_seen_all_along(
    tmp_path: Path, name: str
) -> None:
    refreshed = X264 | {"x264-params": "keyint=20:intra-refresh=1:scenecut=0"}
    path = film(tmp_path / f"a.{name}", tenths(250), options=refreshed)

    assert seconds(read(path)) == [0.0, 10.0, 20.0]


def test_a_beginning_that_is_missing_is_named(tmp_path: Path) -> None:
    path = film(tmp_path / "a.ts", tenths(30))
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 3] + data[188 * 40 :])

    assert seconds(read(path))[0] != 0.0
    (said,) = notes(path)
    assert said.startswith("nothing to be shown from 0.0 s to ")


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    path = film(tmp_path / "a.mp4", tenths(100), muxing=fragments)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    (said,) = notes(path)

    assert said.startswith("it was cut off at ")


def test_a_video_without_any_keyframe_is_told(tmp_path: Path) -> None:
    path = film(tmp_path / "a.ts", tenths(30), key_every=100)
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 3] + data[188 * 100 :])

    images = read(path)

    assert seconds(images) == []
    assert len(problems(images)) == 1


def test_damage_costs_ten_seconds_where_no_keyframe_comes(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", tenths(400), key_every=1000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 2000] = np.random.default_rng(3).bytes(2000)
    path.write_bytes(data)

    images = read(path, fps=1)

    assert len(problems(images)) == 1
    assert len(seconds(images)) >= 28
    assert seconds(images)[-1] == 39.0


@pytest.mark.parametrize(
    ("name", "codec", "flags"),
    [
        ("mp4", "libx264", "frag_keyframe+empty_moov"),
        ("mp4", "libx264", "faststart"),
        ("mkv", "libx264", ""),
        ("avi", "mjpeg", ""),
        ("ts", "libx264", ""),
    ],
)
def test_a_recording_joined_to_one_that_was_cut_off_is_read_whole(
    tmp_path: Path, name: str, codec: str, flags: str
) -> None:
    muxing = {"movflags": flags} if flags else {}
    whole = film(tmp_path / f"1.{name}", tenths(40), codecs=[(codec, (160, 96))], muxing=muxing)
    cut = tmp_path / f"2.{name}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])

    images = read(join(tmp_path / f"a.{name}", cut, whole), fps=1000)

    pictures = [image for image in images if isinstance(image.payload, Inline)]
    after = greys(pictures[-40:])
    assert after == pytest.approx([grey(i) for i in range(40)], abs=6)
    assert len(seconds(images)) > 60


def test_padding_behind_a_recording_is_no_damage(tmp_path: Path) -> None:
    path = film(tmp_path / "a.ts", tenths(20))
    path.write_bytes(path.read_bytes() + bytes(3_000_000))

    assert problems(read(path)) == []


@pytest.mark.parametrize(
    ("name", "codec", "rate"), [("h264", "libx264", 25), ("hevc", "libx265", 10)]
)
def test_a_stream_without_a_container_has_times_by_its_order(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = film(tmp_path / f"a.{name}", tenths(60), codecs=[(codec, (160, 96))])

    # A raw H.264 stream does not say its rate; FFmpeg takes 25.
    assert seconds(read(path))[:3] == [0.0, 10 / rate, 20 / rate]
