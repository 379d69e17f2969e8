"""Videos as a source: sampling, times and names, odd codecs, and videos that are broken."""

from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.image import Image, Inline, Unreadable
from roadstream.streams.sources.scan import ScanOptions, ScanStats
from roadstream.streams.sources.source import VideoOptions
from roadstream.streams.sources.video.source import picture_at
from tests.kits.scan_kit import read_video, scan
from tests.kits.video_kit import X264, once

Pixels = npt.NDArray[np.uint8]
WIDTH, HEIGHT, RATE, KEY_EVERY = 160, 96, 25, 10


def raw(image: Pixels) -> bytes:
    """Encode by hand, so that tests can read the pixels back: height, then the bytes."""
    return len(image).to_bytes(4, "big") + image.tobytes()


def pixels(image: Image) -> Pixels:
    assert isinstance(image.payload, Inline)
    height = int.from_bytes(image.payload.data[:4], "big")
    return np.frombuffer(image.payload.data[4:], np.uint8).reshape(height, -1, 3)


KEYFRAMES = VideoOptions(encode=raw)


@cache
def frame(index: int, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """A grey level that tells the index, the left half noisy so that packets have some size."""
    image = np.full((height, width, 3), 20 + 2 * index, np.uint8)
    noise = np.random.default_rng(index).integers(0, 200, (height, width // 2, 3), np.uint8)
    image[:, : width // 2] = noise
    image.flags.writeable = False
    return image


def write(
    path: Path,
    frames: int = 100,
    codec: str = "mpeg4",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel_format: str = "yuv420p",
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a video; what is asked for twice is encoded once."""
    encode(path, frames, codec, size, pixel_format, tuple((metadata or {}).items()))
    return path


@once
def encode(
    path: Path,
    frames: int,
    codec: str,
    size: tuple[int, int],
    pixel_format: str,
    metadata: tuple[tuple[str, str], ...],
) -> None:
    options = X264 if codec == "libx264" else {"sc_threshold": "1000000000"}
    muxing = {"movflags": "use_metadata_tags"} if metadata else {}
    with av.open(path, "w", options=muxing) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=RATE, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = KEY_EVERY
        stream.codec_context.bit_rate = 4_000_000
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(frame(index, *size), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def damage(path: Path, begin: float, end: float) -> None:
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * begin), int(len(data) * end)
    data[first:last] = np.random.default_rng(7).integers(0, 256, last - first, np.uint8).tobytes()
    path.write_bytes(data)


def seconds(images: list[Image]) -> list[float | None]:
    return [i.head.captured_at for i in images if isinstance(i.payload, Inline)]


def problems(images: list[Image]) -> list[Unreadable]:
    return [i.payload for i in images if isinstance(i.payload, Unreadable)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.mp4", "libx264")],
)
def test_keyframes_come_with_their_times(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, codec=codec)

    images = list(read_video(str(path), KEYFRAMES))

    assert seconds(images) == [round(k * KEY_EVERY / RATE, 3) for k in range(10)]
    assert problems(images) == []
    for k, image in enumerate(images):
        right = pixels(image)[:, WIDTH * 3 // 4 :]
        assert abs(float(right.mean()) - (20 + 2 * k * KEY_EVERY)) < 6


def test_transport_streams_count_from_their_first_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", codec="mpeg2video")

    assert seconds(list(read_video(str(path), KEYFRAMES)))[:3] == [0.0, 0.4, 0.8]


def test_vp8_gives_keyframes_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.webm", codec="libvpx", frames=30)

    assert seconds(list(read_video(str(path), KEYFRAMES))) == [0.0, 0.4, 0.8]


def test_names_and_ids_are_the_same_on_every_run(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=25)

    first, second = (list(read_video(str(path), KEYFRAMES)) for _ in "ab")

    assert first == second
    assert [image.head.uri for image in first] == [
        f"{path}#t={t}" for t in ("0.000", "0.400", "0.800")
    ]
    assert len({image.head.image_id for image in first}) == 3
    assert {image.head.session_id for image in first} == {str(path)}
    assert [image.head.frame_index for image in first] == [0, 1, 2]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (1.0, [0.0, 1.0, 2.0, 3.0]),
        (2.0, [0.0, 0.52, 1.0, 1.52, 2.0, 2.52, 3.0, 3.52]),
        (0.3, [0.0, 3.36]),
    ],
)
def test_so_many_pictures_a_second(tmp_path: Path, fps: float, expected: list[float]) -> None:
    path = write(tmp_path / "a.mp4")

    assert seconds(list(read_video(str(path), VideoOptions(encode=raw, fps=fps)))) == expected


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_above_zero(fps: float) -> None:
    with pytest.raises(UsageError, match="expected more than 0"):
        VideoOptions(encode=raw, fps=fps)


def test_more_pictures_than_there_are_gives_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=30)

    assert len(list(read_video(str(path), VideoOptions(encode=raw, fps=1000)))) == 30


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("fps", [None, 5.0])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_damaged_middle_is_told_once_and_costs_no_other_picture(
    tmp_path: Path, name: str, fps: float | None, codec: str
) -> None:
    path = write(tmp_path / name, codec=codec)
    whole = seconds(list(read_video(str(path), VideoOptions(raw, fps))))
    damage(path, 0.45, 0.6)

    images = list(read_video(str(path), VideoOptions(raw, fps)))

    assert 1 <= len(problems(images)) <= 2
    assert problems(images)[0].fault == "damaged_video"
    found = seconds(images)
    outside = [t for t in whole if t is not None and (t < 1.3 or t > 3.0)]
    assert set(outside) <= set(found)
    assert len({image.head.uri for image in images}) == len(images)
    broken = next(image for image in images if isinstance(image.payload, Unreadable))
    assert broken.head.uri.startswith(f"{path}#t=")
    assert broken.head.captured_at is not None
    assert 1.0 < broken.head.captured_at < 3.0


def test_a_damaged_avi_goes_on_after_the_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi")
    damage(path, 0.45, 0.6)

    images = list(read_video(str(path), KEYFRAMES))

    # AVI has no timestamps: what is lost makes the rest come earlier.
    assert len(seconds(images)) >= 7
    assert seconds(images)[:4] == [0.0, 0.4, 0.8, 1.2]
    assert len(problems(images)) == 1


def test_a_missing_end_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", codec="libx264")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    images = list(read_video(str(path), KEYFRAMES))

    assert seconds(images)[:3] == [0.0, 0.4, 0.8]
    assert "of 4.0 s" in problems(images)[0].problem


@pytest.mark.parametrize(
    "data", [b"<html>not found</html>", b"\0" * 4096, b"\xff\xd8\xff\xe0" * 99]
)
def test_a_file_that_is_no_video_is_one_unreadable_image(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)

    (image,) = read_video(str(path), KEYFRAMES)

    assert image.head.uri == str(path)
    assert isinstance(image.payload, Unreadable)
    assert image.payload.fault == "damaged_video"
    assert image.payload.problem.startswith("cannot be opened as a video: ")


def test_a_recording_that_broke_off_is_one_unreadable_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    (image,) = read_video(str(path), KEYFRAMES)

    assert isinstance(image.payload, Unreadable)
    assert "broke off" in image.payload.problem


def test_a_playlist_in_disguise_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret.mp4", frames=5)
    path = tmp_path / "a.mp4"
    path.write_text(f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n")

    (image,) = read_video(str(path), KEYFRAMES)

    assert isinstance(image.payload, Unreadable)


@pytest.mark.parametrize(("data", "fault"), [(None, "missing"), (b"", "empty")])
def test_missing_and_empty_videos_are_told(tmp_path: Path, data: bytes | None, fault: str) -> None:
    path = tmp_path / "a.mp4"
    if data is not None:
        path.write_bytes(data)

    (image,) = read_video(str(path), KEYFRAMES)

    assert isinstance(image.payload, Unreadable)
    assert image.payload.fault == fault


def test_sound_without_pictures_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        assert isinstance(stream, av.AudioStream)
        samples = np.zeros((1, 8000), np.int16)
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))

    (image,) = read_video(str(path), KEYFRAMES)

    assert isinstance(image.payload, Unreadable)
    assert image.payload.problem == "the file holds sound but no video"


def test_names_that_look_like_addresses_are_just_names(tmp_path: Path) -> None:
    path = write(tmp_path / "http:a.mp4", frames=5)

    assert seconds(list(read_video(str(path), KEYFRAMES))) == [0.0]


@pytest.mark.parametrize(
    ("size", "pixel_format"),
    [((162, 98), "yuv420p"), ((161, 97), "yuv444p"), ((160, 96), "yuv420p10le")],
)
def test_odd_sizes_and_ten_bits(tmp_path: Path, size: tuple[int, int], pixel_format: str) -> None:
    path = write(tmp_path / "a.mp4", 5, "libx264", size, pixel_format)

    (image,) = read_video(str(path), KEYFRAMES)

    assert pixels(image).shape == (size[1], size[0], 3)


def rotate(path: Path, degrees: int) -> None:
    """Put a rotation into an MP4's first track header: four fixed-point numbers."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 36
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    for offset, value in ((0, a), (4, b), (12, -b), (16, a)):
        data[at + offset : at + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_recordings_come_upright(tmp_path: Path, degrees: int) -> None:
    path = write(tmp_path / "a.mp4", frames=3)
    (plain,) = read_video(str(path), KEYFRAMES)
    rotate(path, degrees)

    (turned,) = read_video(str(path), KEYFRAMES)

    expected = np.rot90(pixels(plain), -degrees // 90)
    assert np.array_equal(pixels(turned), expected)


def test_the_place_of_the_recording_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mov",
        frames=3,
        metadata={"com.apple.quicktime.location.ISO6709": "+48.1372+011.5756+520.000/"},
    )

    (image,) = read_video(str(path), KEYFRAMES)

    assert (image.head.latitude, image.head.longitude) == (48.1372, 11.5756)


def test_a_scan_numbers_pictures_and_frames_alike(tmp_path: Path) -> None:
    write(tmp_path / "b.mp4", frames=25)
    (tmp_path / "a.jpg").write_bytes(b"picture")
    (tmp_path / "c.mp4").write_bytes(b"no video")
    stats = ScanStats()

    images = list(scan([f"{tmp_path}/"], ScanOptions(video=KEYFRAMES, run_id="r"), stats))

    assert [image.head.sequence for image in images] == [0, 1, 2, 3, 4]
    assert {image.head.run_id for image in images} == {"r"}
    assert stats == ScanStats(images=5)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.mkv")
    damage(path, 0.3, 0.9)
    capfd.readouterr()

    list(read_video(str(path), VideoOptions(raw, 10)))

    assert capfd.readouterr() == ("", "")


def test_a_frame_is_found_again_by_the_time_in_its_uri(tmp_path: Path) -> None:
    path = tmp_path / "drive.mp4"
    write(path)
    sent: list[Pixels] = []

    def keep(shown: Pixels) -> bytes:
        sent.append(shown)
        return b"jpeg"

    images = list(read_video(str(path), VideoOptions(encode=keep)))
    for image, shown in zip(images, sent, strict=True):
        found = picture_at(str(path), float(image.head.uri.rpartition("#t=")[2]))
        assert found is not None
        np.testing.assert_array_equal(found, shown)
    assert picture_at(str(tmp_path / "no.mp4"), 0.0) is None


def film(
    path: Path,
    *,
    times: list[float],
    key_every: int = KEY_EVERY,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    codec: str = "libx264",
) -> Path:
    """Write pictures that are shown at given seconds."""
    with av.open(path, "w") as container:
        options = X264 if codec == "libx264" else {"sc_threshold": "0"}
        stream = container.add_stream(codec, rate=10, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = key_every
        stream.codec_context.max_b_frames = 0
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, at in enumerate(times):
            picture = av.VideoFrame.from_ndarray(frame(index % 100, *size), format="rgb24")
            picture.time_base, picture.pts = Fraction(1, 1000), round(at * 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def tenths(count: int, begin: float = 0.0) -> list[float]:
    return [begin + index / 10 for index in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.mpg"])
@pytest.mark.parametrize("lengths", [(50, 20), (20, 50), (30, 30, 30)])
def test_recordings_that_were_joined_follow_each_other(
    tmp_path: Path, name: str, lengths: tuple[int, ...]
) -> None:
    codec = {"a.avi": "mjpeg", "a.mpg": "mpeg2video"}.get(name, "libx264")
    data = b""
    for number, length in enumerate(lengths):
        part = tmp_path / f"{number}{name}"
        write(part, length, codec, pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p")
        data += part.read_bytes()
    (tmp_path / name).write_bytes(data)

    images = list(read_video(str(tmp_path / name), VideoOptions(raw, fps=5)))

    assert problems(images) == []
    found = [at for at in seconds(images) if at is not None]
    assert found == sorted(set(found))
    assert len(found) == pytest.approx(sum(lengths) / RATE * 5, abs=len(lengths))
    assert found[-1] == pytest.approx(sum(lengths) / RATE, abs=0.3)
    for image in images[:: len(images) // 4]:
        shown = picture_at(str(tmp_path / name), float(image.head.uri.rpartition("=")[2]))
        assert shown is not None
        np.testing.assert_array_equal(shown, pixels(image))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("fps", [None, 2.0])
def test_a_scene_in_which_nothing_moves_is_no_damage(
    tmp_path: Path, name: str, fps: float | None
) -> None:
    path = film(tmp_path / name, times=tenths(50) + tenths(50, 3605.0))

    images = list(read_video(str(path), VideoOptions(raw, fps)))

    assert problems(images) == []
    found = seconds(images)
    assert found == sorted(tenths(50, 0)[:: 10 if fps is None else 5]) + [
        round(at, 3) for at in tenths(50, 3605.0)[:: 10 if fps is None else 5]
    ]


def test_a_lapse_of_single_pictures_is_taken_whole(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", times=[index * 2.0 for index in range(20)], key_every=1)

    images = list(read_video(str(path), KEYFRAMES))

    assert (len(seconds(images)), problems(images)) == (20, [])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_keyframes_that_are_far_apart_leave_a_picture_in_ten_seconds(
    tmp_path: Path, name: str
) -> None:
    path = film(tmp_path / name, times=tenths(350), key_every=240)

    images = list(read_video(str(path), KEYFRAMES))

    assert seconds(images) == [0.0, 10.0, 20.0, 24.0, 34.0]
    for image in images:
        assert image.head.captured_at is not None
        grey = 20 + 2 * (round(image.head.captured_at * 10) % 100)
        assert abs(float(pixels(image)[:, WIDTH * 3 // 4 :].mean()) - grey) < 6
