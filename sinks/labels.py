"""Labels of pictures and video seconds, and which of them belongs to an answer's uri."""

import csv
import math
import posixpath
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.errors import RunError, UsageError

FILE_COLUMNS = ("file", "uri", "image", "path")
LABEL_COLUMNS = ("label", "roadwork", "y")
TIME_COLUMN = "t_seconds"
TOLERANCE = 0.5
"""Seconds between a frame and the labelled second that it may belong to."""

_MEANING: dict[str, bool | None] = {
    "1": True,
    "1.0": True,
    "true": True,
    "roadwork": True,
    "0": False,
    "0.0": False,
    "false": False,
    "none": False,
    "-1": None,
    "-1.0": None,
    "": None,
}


class LabelColumns(NamedTuple):
    """Which columns of a label file to read; ``None`` takes the first usual name it has."""

    file: str | None = None
    label: str | None = None
    time: str | None = None


USUAL = LabelColumns()


class Label(NamedTuple):
    """One line of a label file; ``roadwork`` is ``None`` when the line leaves it open."""

    line: int
    file: str
    seconds: float | None
    roadwork: bool | None


class Match(NamedTuple):
    """The label of an answer, and whether its file name was the answer's own, letter by letter."""

    label: Label
    exact: bool


class _Labelled:
    """All labels of one file: one for the whole, or one per labelled second."""

    __slots__ = ("file", "labels", "whole")

    def __init__(self, file: str) -> None:
        self.file = file
        self.whole: Label | None = None
        self.labels: list[tuple[float, Label]] | None = None

    def add(self, label: Label) -> Label | None:
        """Take a label; return an earlier one that contradicts it."""
        if label.seconds is None:
            earlier, self.whole = self.whole, self.whole or label
            return _contradicted(earlier, label)
        self.labels = self.labels or []
        place = bisect_left(self.labels, label.seconds, key=_seconds_of)
        if place < len(self.labels) and self.labels[place][0] == label.seconds:
            return _contradicted(self.labels[place][1], label)
        self.labels.insert(place, (label.seconds, label))
        return None

    def at(self, seconds: float | None) -> Label | None:
        """Return the label of the nearest labelled second, else that of the whole file."""
        if seconds is None or not self.labels:
            return self.whole
        place = bisect_left(self.labels, seconds, key=_seconds_of)
        near = self.labels[max(0, place - 1) : place + 1]
        distance, best = min((abs(at - seconds), n) for n, (at, _) in enumerate(near))
        return near[best][1] if distance <= TOLERANCE else self.whole


def _seconds_of(entry: tuple[float, Label]) -> float:
    return entry[0]


def _contradicted(earlier: Label | None, label: Label) -> Label | None:
    return earlier if earlier and earlier.roadwork != label.roadwork else None


class Labels:
    """The labels of one CSV file, findable by uri.

    A uri finds its file by its exact text, else by its path: one of the two paths must be the end
    of the other, folder by folder (``positives/a.jpg`` and ``../data/positives/a.jpg``). Frames of
    a video (``drive.mp4#t=12.3``) find the nearest labelled second within ``TOLERANCE``; a label
    without a time is for all of them.

    Attributes:
        source: The file.
        lines: Labels in it.
        decided: Those that say yes or no.
        first: The first file named, for messages.
    """

    def __init__(self, source: Path, labels: Sequence[Label]) -> None:
        self.source = source
        self.lines = len(labels)
        self.decided = sum(label.roadwork is not None for label in labels)
        self.first = labels[0].file if labels else None
        self._by_text: dict[str, _Labelled] = {}
        self._by_path: dict[str, tuple[_Labelled, ...]] = {}
        self._by_end: dict[int, dict[str, tuple[_Labelled, ...]]] = {}
        for label in labels:
            self._add(label)

    def _add(self, label: Label) -> None:
        entry = self._by_text.get(label.file)
        if entry is None:
            entry = self._by_text[label.file] = _Labelled(label.file)
            path = _path(label.file)
            self._by_path[path] = (*self._by_path.get(path, ()), entry)[:2]
        if earlier := entry.add(label):
            raise UsageError(
                f"{self.source}: expected one label for {label.file}, "
                f"got different ones in lines {earlier.line} and {label.line}"
            )

    def find(self, uri: str) -> Match | None:
        """Return the label of a uri, or ``None``.

        Raises:
            UsageError: Several labelled files fit the uri equally well.
        """
        if entry := self._by_text.get(uri):
            return _match(entry, None, exact=True)
        file, seconds = split_time(uri)
        if entry := self._by_text.get(file):
            return _match(entry, seconds, exact=True)
        fitting = self._fitting(_path(file))
        if len(fitting) > 1:
            names = " and ".join(entry.file for entry in fitting[:2])
            raise UsageError(
                f"{self.source}: {uri} could be {names}; expected names that say more of the path"
            )
        return _match(fitting[0], seconds, exact=False) if fitting else None

    def _fitting(self, path: str) -> list[_Labelled]:
        """Return labelled files whose path ends with this one or is the end of it.

        Of many that fit, two are enough to know that it is not one.
        """
        parts = path.split("/")
        ends = ["/".join(parts[place:]) for place in range(len(parts))]
        shorter = [entry for end in ends for entry in self._by_path.get(end, ())]
        return shorter + list(self._longer(len(parts)).get(path, ()))

    def _longer(self, depth: int) -> dict[str, tuple[_Labelled, ...]]:
        """Return the files deeper than ``depth`` by the last ``depth`` parts of their path."""
        if depth not in self._by_end:
            index = self._by_end[depth] = {}
            for path, entries in self._by_path.items():
                parts = path.split("/")
                if len(parts) > depth:
                    end = "/".join(parts[-depth:])
                    index[end] = (*index.get(end, ()), *entries)[:2]
        return self._by_end[depth]


def _match(entry: _Labelled, seconds: float | None, *, exact: bool) -> Match | None:
    label = entry.at(seconds)
    return Match(label, exact) if label else None


def split_time(uri: str) -> tuple[str, float | None]:
    """Split ``drive.mp4#t=12.3`` into file and seconds; other uris have no seconds."""
    file, mark, fragment = uri.rpartition("#t=")
    seconds = _number(fragment) if mark else None
    return (uri, None) if seconds is None else (file, seconds)


def _path(file: str) -> str:
    """Return a path without what only says where one stands."""
    plain = posixpath.normpath(file.replace("\\", "/").removeprefix("file://"))
    parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or file


def read_labels(path: Path, columns: LabelColumns = USUAL) -> Labels:
    """Read a CSV of labels.

    Labels are ``1``, ``true``, ``roadwork`` or ``0``, ``false``, ``none``; ``-1`` or nothing leaves
    a picture unlabelled. Column names are matched whatever their case.

    Raises:
        UsageError: No such file, no such column, or a line that cannot be understood; says where.
        RunError: The file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return Labels(path, list(_labels(path, csv.DictReader(file), columns)))
    except FileNotFoundError as problem:
        raise UsageError(f"{path}: expected a CSV of labels, found nothing there") from problem
    except (csv.Error, UnicodeDecodeError) as problem:
        raise UsageError(f"{path}: expected CSV in UTF-8: {problem}") from problem
    except OSError as problem:
        raise RunError(f"{path}: cannot be read: {problem.strerror or problem}") from problem


def _labels(path: Path, lines: "csv.DictReader[str]", columns: LabelColumns) -> Iterator[Label]:
    header = list(lines.fieldnames or [])
    file = _column(path, header, columns.file, FILE_COLUMNS)
    label = _column(path, header, columns.label, LABEL_COLUMNS)
    time = columns.time
    if time is not None or TIME_COLUMN in [name.lower() for name in header]:
        time = _column(path, header, time, (TIME_COLUMN,))
    for record in lines:
        where = f"{path}: line {lines.line_num}"
        name = record[file]
        if not name:
            raise UsageError(f"{where}: expected a file in column {file}, got nothing")
        seconds = _seconds(where, time, record.get(time)) if time else None
        yield Label(lines.line_num, name, seconds, _meaning(where, label, record.get(label)))


def _column(path: Path, header: list[str], asked: str | None, usual: Sequence[str]) -> str:
    folded = {name.lower(): name for name in reversed(header)}
    for name in [asked] if asked else usual:
        if name in header:
            return name
        if name.lower() in folded:
            return folded[name.lower()]
    expected = asked or " or ".join(usual)
    raise UsageError(f"{path}: expected a column {expected}, got {', '.join(header) or 'none'}")


def _seconds(where: str, column: str, text: str | None) -> float | None:
    if not text:
        return None
    seconds = _number(text)
    if seconds is None:
        raise UsageError(f"{where}: column {column}: expected seconds, got {text}")
    return seconds


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _meaning(where: str, column: str, text: str | None) -> bool | None:
    try:
        return _MEANING[(text or "").strip().lower()]
    except KeyError as problem:
        raise UsageError(
            f"{where}: column {column}: expected 1, 0, roadwork, none, true, false, "
            f"-1 or nothing, got {text}"
        ) from problem
