"""Scans as most tests look at them: the images alone, of paths and of a single video."""

from collections.abc import Iterable, Iterator

from roadstream.schemas.records.image import Image
from roadstream.streams.sources.scan import Records, ScanOptions, ScanStats, scan_places
from roadstream.streams.sources.source import LeftOut, VideoOptions
from roadstream.streams.sources.video.source import VideoSource


def scan(
    paths: Iterable[str], options: ScanOptions, stats: ScanStats | None = None
) -> Iterator[Image]:
    """Yield the images that a scan finds."""
    return (found.image for found in scan_places(paths, options, stats) if found.image is not None)


def read_video(
    path: str, options: VideoOptions, left_out: LeftOut | None = None
) -> Iterator[Image]:
    """Yield the images of a video."""
    records = Records(ScanOptions(), ScanStats(left_out=left_out or LeftOut()))
    found = records.of(VideoSource(path, options))
    return (scanned.image for scanned in found if scanned.image is not None)
