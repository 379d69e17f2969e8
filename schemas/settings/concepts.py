"""Lists of concepts: texts that models hold pictures against, as TOML files with a version."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from roadstream.schemas.cascade.structure import Reader, decode_toml, joined
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.bounds import MOST_TAG, MOST_TAGS, Name, TagName
from roadstream.schemas.settings.named_files import NONE_READ, read_named
from roadstream.schemas.settings.prompts import Version

Text = Annotated[str, Meta(min_length=1, max_length=400, pattern=r"\S")]
Texts = Annotated[list[Text], Meta(min_length=1)]
Groups = dict[Name, Texts]
# As records hold it: one line, its words parted by one blank each.
TagValue = Annotated[str, Meta(max_length=MOST_TAG, pattern=r"^\S+( \S+)*$(?!\n)")]
# All are embedded at once on loading.
MOST_TEXTS = 1000
TagValues = dict[TagValue, Texts]
TagTexts = Annotated[
    dict[TagName, Annotated[TagValues, Meta(min_length=1)]], Meta(max_length=MOST_TAGS)
]


class Concepts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts that a member of the ``torch`` engine holds pictures against, beside its own.

    Attributes:
        version: Changes with every change of a word; shown in every vote.
        roadwork: Texts that mean roadwork, in groups whose names are for people alone.
        other: Texts that mean none, which the score is held against, likewise.
        tags: Per tag its values, and the texts that mean each.
        name: Filled on loading: the file's name without its suffix.
    """

    version: Version
    roadwork: Groups = {}
    other: Groups = {}
    tags: TagTexts = {}
    name: str = ""

    @property
    def tag(self) -> str:
        """Name and version, as votes show them."""
        return f"{self.name}@{self.version}"


def texts_of(groups: Mapping[str, list[str]]) -> list[str]:
    """Return the texts of all groups, in the order of the file."""
    return [text for texts in groups.values() for text in texts]


def load_concepts(
    name: str, folder: str | Path, where: str, files: Mapping[str, bytes] = NONE_READ
) -> Concepts:
    """Load a list of concepts by the name of a shipped one, or by path.

    Args:
        name: As the member's settings say.
        folder: What a path is relative to: the cascade file's folder.
        where: The setting, for errors.
        files: What was read already, by its name; it is not read again.

    Raises:
        ConfigError: It is not there, is not TOML, or does not say what such a list says.
    """
    data, path = read_named("concepts", name, folder, where, files)
    concepts, mistakes = read_concepts(data, path)
    if mistakes:
        raise mistakes[0]
    return concepts


def read_concepts(data: bytes, path: Path) -> tuple[Concepts, list[ConfigError]]:
    """Return what a list says, and all that is wrong with it.

    Args:
        data: Its bytes.
        path: Where it lies.

    Raises:
        ConfigError: It is no TOML.
    """
    reader = Reader(str(path), "concepts")
    concepts: Concepts = reader.read(decode_toml(data, str(path)), Concepts)
    if reader.mistakes:
        return concepts, reader.mistakes
    return msgspec.structs.replace(concepts, name=path.stem), [*_mistakes(concepts, str(path))]


def _mistakes(concepts: Concepts, where: str) -> Iterator[ConfigError]:
    if not (concepts.roadwork or concepts.other or concepts.tags):
        yield ConfigError(where, "texts in roadwork, other or tags", "none")
    if concepts.other and not concepts.roadwork:
        yield ConfigError(f"{where}: other", "texts in roadwork too", "none")
    meant = [*texts_of(concepts.roadwork), *texts_of(concepts.other)]
    count = len(meant) + sum(len(texts_of(values)) for values in concepts.tags.values())
    if count > MOST_TEXTS:
        yield ConfigError(where, f"at most {MOST_TEXTS} texts", f"{count}")
    yield from _repeated(meant, f"{where}: roadwork, other")
    for tag, values in concepts.tags.items():
        at = f"{where}: {joined('tags', tag)}"
        if len(values) == 1:
            yield ConfigError(at, "several values, of which the likeliest is told", *values)
        yield from _repeated(texts_of(values), at)


def _repeated(texts: list[str], where: str) -> Iterator[ConfigError]:
    for text, times in Counter(one.strip().casefold() for one in texts).items():
        if times > 1:
            yield ConfigError(where, "each text once", f"{text!r} {times} times")
