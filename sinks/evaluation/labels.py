"""Labels of pictures and video seconds, and which of them belongs to an answer's uri."""

# Names stay strings as they were written, and are looked up in great numbers.
# ruff: noqa: PTH100, PTH116

import math
import os
import posixpath
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from roadstream.schemas.errors import RunError, UsageError
from roadstream.sinks.files.text_input import Table, decimal, open_table, unmarked

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


class LabelLine(NamedTuple):
    """One line of a label file; ``roadwork`` is ``None`` when the line leaves it open."""

    line: int
    file: str
    seconds: float | None
    roadwork: bool | None


class Match(NamedTuple):
    """The label of an answer.

    Attributes:
        label: The label.
        exact: Whether its file is the answer's own for certain, and not by the end of its path.
        lines: Of the label, and of others that name the same picture otherwise and say the same.
    """

    label: LabelLine
    exact: bool
    lines: tuple[int, ...]


class _Labelled:
    """All labels of one file: one for the whole, or one per labelled second."""

    __slots__ = ("file", "labels", "whole")

    def __init__(self, file: str) -> None:
        self.file = file
        self.whole: LabelLine | None = None
        self.labels: list[tuple[float, LabelLine]] | None = None

    def add(self, label: LabelLine) -> LabelLine | None:
        """Take a label; return an earlier one for the same."""
        if label.seconds is None:
            earlier, self.whole = self.whole, self.whole or label
            return earlier
        self.labels = self.labels or []
        place = bisect_left(self.labels, label.seconds, key=_seconds_of)
        if place < len(self.labels) and self.labels[place][0] == label.seconds:
            return self.labels[place][1]
        self.labels.insert(place, (label.seconds, label))
        return None

    def at(self, seconds: float | None) -> LabelLine | None:
        """Return the label of the nearest labelled second, else that of the whole file."""
        if seconds is None or not self.labels:
            return self.whole
        place = bisect_left(self.labels, seconds, key=_seconds_of)
        near = self.labels[max(0, place - 1) : place + 1]
        distance, best = min((abs(at - seconds), n) for n, (at, _) in enumerate(near))
        return near[best][1] if distance <= TOLERANCE else self.whole


def _seconds_of(entry: tuple[float, LabelLine]) -> float:
    return entry[0]


class Labels:
    """The labels of one CSV file, findable by uri.

    A uri finds its file by its exact text and by being the same file, as it reads or through a
    link; else by its path: one of the two paths must be the end of the other, folder by folder
    (``positives/a.jpg`` and ``../data/positives/a.jpg``), whether accents are composed or not.
    Several names may fit if their labels agree. Frames of a video (``drive.mp4#t=12.3``) find the
    nearest labelled second within ``TOLERANCE``; a label without a time is for all of them.

    Attributes:
        source: The file.
        lines: Labels in it.
        decided: Those that say yes or no, repetitions apart.
        first: The first file named, for messages.
    """

    def __init__(self, source: Path, labels: Sequence[LabelLine]) -> None:
        self.source = source
        self.lines = len(labels)
        self.decided = 0
        self.first = labels[0].file if labels else None
        self._by_text: dict[str, _Labelled] = {}
        self._by_path: dict[str, list[_Labelled]] = {}
        self._by_end: dict[int, dict[str, list[_Labelled]]] = {}
        self._by_inode: dict[tuple[int, int], list[_Labelled]] | None = None
        for label in labels:
            self._add(label)

    def _add(self, label: LabelLine) -> None:
        entry = self._by_text.get(label.file)
        if entry is None:
            entry = self._by_text[label.file] = _Labelled(label.file)
            path = _path(label.file)
            self._by_path.setdefault(path, []).append(entry)
        earlier = entry.add(label)
        if earlier is None:
            self.decided += label.roadwork is not None
        elif earlier.roadwork != label.roadwork:
            raise UsageError(
                f"{self.source}: expected one label for {label.file}, "
                f"got different ones in lines {earlier.line} and {label.line}"
            )

    def find(self, uri: str) -> Match | None:
        """Return the label of a uri, or ``None``.

        Raises:
            UsageError: Several labelled files fit the uri equally well, and their labels differ.
        """
        file, seconds = (uri, None) if uri in self._by_text else split_time(uri)
        if same := self._same(file):
            return self._agreed(uri, seconds, same, exact=True)
        return self._agreed(uri, seconds, self._fitting(_path(file)), exact=False)

    def _agreed(
        self, uri: str, seconds: float | None, entries: list[_Labelled], *, exact: bool
    ) -> Match | None:
        """Return what all of these files say of a picture.

        Raises:
            UsageError: They say different things.
        """
        found = [label for entry in entries if (label := entry.at(seconds)) is not None]
        for label in found[1:]:
            if label.roadwork != found[0].roadwork:
                one, other = (f"{each.file} (line {each.line})" for each in (found[0], label))
                raise UsageError(
                    f"{self.source}: {uri} could be {one} and {other}, whose labels differ; "
                    "expected one label, or names that say more of the path"
                )
        lines = tuple(label.line for label in found)
        return Match(found[0], exact, lines) if found else None

    def _fitting(self, path: str) -> list[_Labelled]:
        """Return labelled files whose path ends with this one or is the end of it."""
        return self._shorter(path) + self._longer(path.count("/") + 1).get(path, [])

    def _shorter(self, path: str) -> list[_Labelled]:
        """Return the files whose path is this one or the end of it."""
        parts = path.split("/")
        ends = ["/".join(parts[place:]) for place in range(len(parts))]
        return [entry for end in ends for entry in self._by_path.get(end, ())]

    def _longer(self, depth: int) -> dict[str, list[_Labelled]]:
        """Return the files deeper than ``depth`` by the last ``depth`` parts of their path."""
        if depth not in self._by_end:
            index = self._by_end[depth] = {}
            for path, entries in self._by_path.items():
                parts = path.split("/")
                if len(parts) > depth:
                    end = "/".join(parts[-depth:])
                    index.setdefault(end, []).extend(entries)
        return self._by_end[depth]

    def _same(self, file: str) -> list[_Labelled]:
        """Return labelled files that are this one for certain; its own name comes first."""
        named = self._by_text.get(file)
        found = [] if named is None else [named]
        absolute = os.path.abspath(file)
        alike = self._shorter(_path(absolute))
        found += [entry for entry in alike if os.path.abspath(entry.file) == absolute]
        if (inode := _inode(file)) is not None:
            found += self._inodes().get(inode, [])
        return list(dict.fromkeys(found))

    def _inodes(self) -> dict[tuple[int, int], list[_Labelled]]:
        """Return the labelled files that are on this machine, by what they are."""
        if self._by_inode is None:
            self._by_inode = {}
            for entry in self._by_text.values():
                if (inode := _inode(entry.file)) is not None:
                    self._by_inode.setdefault(inode, []).append(entry)
        return self._by_inode


def same_file(one: str, other: str) -> bool:
    """Whether two names are of one file, as they read or as it lies on this machine."""
    if os.path.abspath(one) == os.path.abspath(other):
        return True
    return (inode := _inode(one)) is not None and inode == _inode(other)


def _inode(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def split_time(uri: str) -> tuple[str, float | None]:
    """Split ``drive.mp4#t=12.3`` into file and seconds; other uris have no seconds."""
    file, mark, fragment = uri.rpartition("#t=")
    seconds = _number(fragment) if mark else None
    return (uri, None) if seconds is None else (file, seconds)


def _path(file: str) -> str:
    """Return a path without what only says where one stands."""
    composed = unicodedata.normalize("NFC", file)  # macOS decomposes names
    plain = posixpath.normpath(composed.replace("\\", "/").removeprefix("file://"))
    parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or file


def read_labels(path: Path, columns: LabelColumns = USUAL) -> Labels:
    """Read a CSV of labels.

    Labels are ``1``, ``true``, ``roadwork`` or ``0``, ``false``, ``none``; ``-1`` or nothing leaves
    a picture unlabelled. Column names are matched whatever their case.

    Raises:
        UsageError: No such file, no such column, two of it, or a line that cannot be understood;
            says where.
        RunError: The file cannot be read.
    """
    try:
        with open_table(path) as table:
            return Labels(path, list(_labels(table, columns)))
    except FileNotFoundError as problem:
        raise UsageError(f"{path}: expected a CSV of labels, found nothing there") from problem
    except OSError as problem:
        raise RunError(f"{path}: cannot be read: {problem.strerror or problem}") from problem


def _labels(table: Table, columns: LabelColumns) -> Iterator[LabelLine]:
    file = _column(table, columns.file, FILE_COLUMNS)
    label = _column(table, columns.label, LABEL_COLUMNS)
    time = None
    if columns.time is not None or table.column(TIME_COLUMN) is not None:
        time = _column(table, columns.time, (TIME_COLUMN,))
    for record in table:
        where = f"{table.path}: line {table.line}"
        cells = record + [""] * (len(table.header) - len(record))
        if not cells[file]:
            name = table.header[file]
            raise UsageError(f"{where}: expected a file in column {name}, got nothing")
        seconds = None
        if time is not None:
            seconds = _seconds(f"{where}: column {table.header[time]}", cells[time])
        meaning = _meaning(f"{where}: column {table.header[label]}", cells[label])
        yield LabelLine(table.line, unmarked(cells[file]), seconds, meaning)


def _column(table: Table, asked: str | None, usual: Sequence[str]) -> int:
    for name in [asked] if asked else usual:
        if (place := table.column(name)) is not None:
            return place
    expected = asked or " or ".join(usual)
    got = ", ".join(table.header) or "none"
    raise UsageError(f"{table.path}: expected a column {expected}, got {got}")


def _seconds(where: str, text: str) -> float | None:
    if not text.strip():
        return None
    seconds = _number(decimal(text))
    if seconds is None:
        raise UsageError(f"{where}: expected seconds, got {text}")
    return seconds


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _meaning(where: str, text: str) -> bool | None:
    try:
        return _MEANING[decimal(text.strip()).lower()]
    except KeyError as problem:
        raise UsageError(
            f"{where}: expected 1, 0, roadwork, none, true, false, -1 or nothing, got {text}"
        ) from problem
