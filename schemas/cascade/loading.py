"""Reads cascade files: their text, all that they name, and all that is wrong with it."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from roadstream.cascades import FOLDER
from roadstream.schemas.cascade.checks import check_file, check_member, check_settings
from roadstream.schemas.cascade.model import (
    Cascade,
    CascadeFile,
    Member,
    Snapshot,
    Tier,
    digest,
    is_hub_id,
    shown,
)
from roadstream.schemas.cascade.names import each
from roadstream.schemas.cascade.rules import KIND_WEIGHTS
from roadstream.schemas.cascade.structure import Broken, Reader, decode_toml, known
from roadstream.schemas.cascade.weights import digest_of_bytes, read_file
from roadstream.schemas.cascade.without import check_without, leave_out, named_members
from roadstream.schemas.engines import MODEL_KINDS, engine_named
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.base import EngineSettings
from roadstream.schemas.settings.concepts import read_concepts
from roadstream.schemas.settings.named_files import Kind, named_file, shipped_names
from roadstream.schemas.settings.prompts import read_prompt

# More than 10,000 members fill; what is larger is no cascade file, and would take minutes to parse.
MOST_BYTES = 4 << 20
_READ: dict[Kind, Callable[[bytes, Path], tuple[object, list[ConfigError]]]] = {
    "prompts": read_prompt,
    "concepts": read_concepts,
}


class Examined(NamedTuple):
    """A cascade file, read as far as it can be.

    Attributes:
        cascade: The cascade, if nothing is wrong with it.
        mistakes: All that is wrong.
    """

    cascade: Cascade | None
    mistakes: list[ConfigError]


def shipped_cascades() -> dict[str, Path]:
    """Return the cascades that come with Roadstream, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_cascade(
    name_or_path: str, *, without: Collection[str] = (), option: str = "--cascade"
) -> Cascade:
    """Load a cascade by the name of a shipped one or by path, and check it whole.

    Args:
        name_or_path: The name or path.
        without: Members and tiers to leave out; what they need is not looked at.
        option: What it was given as, for errors.

    Raises:
        ConfigError: The file is missing, is not TOML, has an unknown key or a wrong value, a route
            leads nowhere, or a weight file is not there; the first of its mistakes. Or what is to
            be left out is not there, or cannot be left out.
    """
    return _whole(examine(name_or_path, without=without, option=option))


def examine(
    name_or_path: str, *, without: Collection[str] = (), option: str = "--cascade"
) -> Examined:
    """Load a cascade as ``load_cascade`` does, and tell all that is wrong with it.

    Raises:
        ConfigError: The file is missing, or is not TOML; or what is to be left out cannot be.
    """
    path = shipped_cascades().get(name_or_path, Path(name_or_path))
    data, where = _text(path, name_or_path, option), str(path)
    read = _read(data, where, without)
    return _examined(read, _taken(read, data, where, str(path.resolve().parent)))


def _examined(read: "_Read", snapshot: Snapshot) -> Examined:
    if read.mistakes:
        return Examined(None, sorted(read.mistakes, key=_place))
    said = {name: getattr(read.file, name) for name in CascadeFile.__struct_fields__}
    folder = os.fsdecode(snapshot.folder)
    whole = Cascade(**said, hash=snapshot.hash, folder=folder, snapshot=snapshot)
    return Examined(leave_out(whole, snapshot.without) if snapshot.without else whole, [])


def _place(mistake: ConfigError) -> list[tuple[int, str]]:
    """Return what sorts mistakes by the places that they name, numbers as such."""
    parts = re.findall(r"\d+|\D+", mistake.where)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _text(path: Path, given: str, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        expected = f"a cascade file or one of {', '.join(shipped_cascades())}"
        raise ConfigError(option, expected, f"{given} ({error.strerror})") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(str(path), f"a cascade file of at most {MOST_BYTES >> 20} MiB", "more")
    return data


def cascade_of(snapshot: Snapshot) -> Cascade:
    """Return the cascade that a snapshot was taken of; nothing is read."""
    read = _read(snapshot.text, os.fsdecode(snapshot.where), snapshot.without)
    return _whole(_examined(read, snapshot))


def parse_cascade(data: bytes, where: str) -> Cascade:
    """Decode and check a cascade file's bytes; ``where`` names it in errors.

    Raises:
        ConfigError: As ``load_cascade``, weight files aside.
    """
    return _whole(_examined(_read(data, where), Snapshot()))


def _whole(examined: Examined) -> Cascade:
    if examined.cascade is None:
        raise examined.mistakes[0]
    return examined.cascade


class _Read(NamedTuple):
    """What a file says.

    Attributes:
        file: As far as it is well.
        mistakes: All that is wrong.
        without: What is to be left out.
        absent: The members that are meant by it; their engines and files are not looked at.
    """

    file: CascadeFile
    mistakes: list[ConfigError]
    without: list[str]
    absent: set[str]


def _read(data: bytes, where: str, without: Collection[str] = ()) -> _Read:
    """Read a file.

    Raises:
        ConfigError: It is no TOML; or what is to be left out cannot be.
    """
    reader = Reader(where, "cascade", untouched=EngineSettings)
    file: CascadeFile = reader.read(_with_weights(decode_toml(data, where)), CascadeFile)
    mistakes = [*reader.mistakes, *check_file(file, where)]
    if without and not mistakes:
        check_without(file, without)
    absent = named_members(file, without)
    read = _Read(file, mistakes, sorted({*without}), absent)
    if not known(file.tiers):
        return read
    tiers = [
        _with_settings(tier, f"{where}: tiers[{i}]", read) if known(tier) else tier
        for i, tier in enumerate(file.tiers)
    ]
    return read._replace(file=msgspec.structs.replace(file, tiers=tiers))


def _with_weights(said: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says, with the kind's weight for members that name a kind and no weight.

    What is not as it should be is left for the reader to tell of.
    """
    tiers = said.get("tiers")
    for tier in tiers if isinstance(tiers, list) else ():
        members = tier.get("members") if isinstance(tier, dict) else None
        for member in members if isinstance(members, list) else ():
            kind = member.get("kind") if isinstance(member, dict) else None
            if isinstance(kind, str) and kind in KIND_WEIGHTS:
                member.setdefault("weight", KIND_WEIGHTS[kind])
    return said


def _with_settings(tier: Tier, where: str, read: _Read) -> Tier:
    """Return a tier whose members have the settings of their engines' own types."""
    if not known(tier.members):
        return tier
    members = [
        _read_member(member, f"{where}.members[{i}]", read.mistakes)
        if known(member) and member.name not in read.absent
        else member
        for i, member in enumerate(tier.members)
    ]
    return msgspec.structs.replace(tier, members=members)


def _read_member(member: Member, where: str, mistakes: list[ConfigError]) -> Member | Broken:
    """Return a member with the settings of its engine's own type; ``Broken`` without an engine."""
    if not known(member.engine):
        return Broken(member)
    try:
        engine = engine_named(member.engine, f"{where}.engine")
    except ConfigError as error:
        mistakes.append(error)
        return Broken(member)
    mistakes += check_member(member, engine, where)
    if not known(given := member.settings):
        return member
    file, _, key = where.rpartition(": ")
    reader = Reader(file, f"{engine.name}-settings")
    said: object = {} if isinstance(given, EngineSettings) else given
    settings = reader.read(said, engine.settings, f"{key}.settings")
    mistakes += reader.mistakes
    if reader.mistakes:
        return msgspec.structs.replace(member, settings=Broken(given))
    mistakes += check_settings(settings, engine, where)
    return msgspec.structs.replace(member, settings=settings)


def _taken(read: _Read, text: bytes, where: str, folder: str) -> Snapshot:
    """Read all files that a cascade names; their hash tells one cascade from another.

    Args:
        read: The cascade file; files of it that cannot be read are added to its mistakes.
        text: Its bytes.
        where: Names it in errors.
        folder: What names in it are relative to.
    """
    taken = _Taken(Path(folder), read.mistakes)
    told = hashlib.sha256(text)
    for i, tier in each(read.file.tiers):
        for j, member in each(tier.members):
            if member.name not in read.absent:
                for part in taken.parts(member, f"{where}: tiers[{i}].members[{j}]"):
                    told.update(part)
    for name in read.without:
        told.update(f"without {name}\0".encode())
    return Snapshot(
        where=os.fsencode(where),
        text=text,
        folder=os.fsencode(folder),
        hash=told.hexdigest()[:16],
        files=taken.files,
        weights=taken.weights,
        engines=taken.engines,
        without=read.without,
    )


class _Taken:
    """What is read of the files that members name, each once.

    Args:
        folder: What their names are relative to.
        mistakes: Those that cannot be read are added.
    """

    def __init__(self, folder: Path, mistakes: list[ConfigError]) -> None:
        self._folder, self._mistakes = folder, mistakes
        self.files: dict[str, bytes] = {}
        self.weights: dict[str, str] = {}
        self.engines: dict[str, str] = {}
        self._checked: set[tuple[Kind, str]] = set()

    def parts(self, member: Member, where: str) -> Iterator[bytes]:
        """Yield what the cascade's hash says of a member's engine, weights and files."""
        engine = engine_named(member.engine)
        if engine.origin:
            self.engines[engine.name] = engine.origin
            yield f"{engine.name} of {engine.origin}".encode()
        if (path := _weights(member, self._folder)) is not None:
            with self._readable(path, f"{where}.model", MODEL_KINDS[engine.model]):
                found = digest(path, member)
                self.weights[member.name] = shown(found)
                yield found
        if known(member.settings):
            yield from self._files(member.settings, f"{where}.settings")

    def _files(self, settings: EngineSettings, where: str) -> Iterator[bytes]:
        prompts = [named_file("prompts", name) for name in settings.prompt_names()]
        concepts = [named_file("concepts", name) for name in settings.concept_names()]
        kinds: dict[str, Kind] = dict.fromkeys(prompts, "prompts")
        kinds |= dict.fromkeys(concepts, "concepts")
        for name in settings.files():
            if name not in self.files:
                path = Path(self._folder, name)
                with self._readable(path, where, _expected(kinds.get(name))):
                    self.files[name] = read_file(path)
            if name in self.files:
                yield digest_of_bytes(self.files[name])
        self._check("prompts", prompts)
        self._check("concepts", concepts)

    def _check(self, kind: Kind, files: list[str]) -> None:
        """Note what is wrong in files that were read, once for each."""
        for file in files:
            if file in self.files and (kind, file) not in self._checked:
                self._checked.add((kind, file))
                try:
                    _, found = _READ[kind](self.files[file], Path(self._folder, file))
                except ConfigError as error:
                    found = [error]
                self._mistakes += found

    @contextlib.contextmanager
    def _readable(self, path: Path, where: str, expected: str) -> Iterator[None]:
        """Note the file that cannot be read, and who names it."""
        try:
            yield
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = "does not exist" if missing else f"cannot be read ({error.strerror})"
            self._mistakes.append(ConfigError(where, expected, f"{path}, which {why}"))


def _expected(kind: Kind | None) -> str:
    return "a file" if kind is None else f"a file, or one of {', '.join(shipped_names(kind))}"


def _weights(member: Member, folder: Path) -> Path | None:
    """Return where a member's weights lie; ``None`` if they lie elsewhere, or there are none."""
    if member.model is None or not known(member.model):
        return None
    if engine_named(member.engine).model == "server":
        return None
    path = Path(folder, member.model)
    return None if is_hub_id(member) and not path.exists() else path
