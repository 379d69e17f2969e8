"""``roadstream evaluate`` and ``roadstream report``: what a file of answers is worth and shows."""

import re
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from roadstream.schemas.errors import ImageError
from roadstream.sinks.evaluation.measure import evaluate as evaluate_answers
from roadstream.sinks.evaluation.measure import join_labels
from roadstream.sinks.evaluation.table import render
from roadstream.sinks.report.page import ReportOptions, write_report
from roadstream.stages.decoding.decode import decode
from roadstream.stages.inference import Pixels
from roadstream.streams.sources.identity import local
from roadstream.streams.sources.payload import read_file
from roadstream.workers.observe.terminal import console, screen

THUMBNAIL = (320, 180)
# As ``read_video`` writes it.
_FRAME = re.compile(
    r"(?P<path>.+)#t=(?P<seconds>[0-9]{1,12}(\.[0-9]{1,6})?)(&stream=(?P<stream>[0-9]{1,4}))?",
    re.DOTALL,
)
MAX_PICTURE_BYTES = 64 << 20


def evaluate(
    answers: Path,
    labels: Path,
    *,
    file_column: Annotated[
        str | None, Parameter(help="Column of the file names: file, uri, image or path if absent.")
    ] = None,
    label_column: Annotated[
        str | None, Parameter(help="Column of the labels: label, roadwork or y if absent.")
    ] = None,
    time_column: Annotated[
        str | None,
        Parameter(help="Column of seconds into a video: t_seconds if absent and there is one."),
    ] = None,
    json: Annotated[bool, Parameter(negative="", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare ANSWERS with LABELS, a CSV file of file names and labels.

    Prints MCC, F1, expected calibration error and the confusion table, overall, per exit tier and
    per member, and the reward that subnet 72's validators would have given for this stream of
    answers. A label is 1, 0, roadwork, none, true or false; -1 or nothing leaves the picture out.
    """
    found = evaluate_answers(join_labels(answers, labels, file_column, label_column, time_column))
    if json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    else:
        screen().print(render(found))


def report(
    answers: Path,
    out: Annotated[Path | None, Parameter(help="The page; beside the answers if absent.")] = None,
) -> None:
    """Write one self-contained HTML page about ANSWERS: totals, timings, pictures, failures.

    The pictures are read from where the answers say they came from; those that have moved are shown
    as placeholders.
    """
    page = out or answers.with_suffix(".html")
    write_report(answers, page, ReportOptions(load_image=load_image, made_at=time.time()))
    console().print(f"report: {page}", soft_wrap=True)


def load_image(uri: str) -> Pixels | None:
    """Return a picture, or a frame of a video, for a thumbnail; ``None`` if it cannot be had."""
    if "\0" in uri:
        return None
    try:
        return decode(
            read_file(local(uri), MAX_PICTURE_BYTES),
            min_width=THUMBNAIL[0],
            min_height=THUMBNAIL[1],
        )
    except ImageError:
        frame = _FRAME.fullmatch(uri)
    if frame is None:
        return None
    from roadstream.streams.sources.video.source import picture_at

    stream = None if frame["stream"] is None else int(frame["stream"])
    return picture_at(local(frame["path"]), float(frame["seconds"]), stream)
