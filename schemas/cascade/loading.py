"""Reads cascade files: their text, all that they name, and what is wrong with it."""

import contextlib
import datetime
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from roadstream.cascades import FOLDER
from roadstream.schemas.cascade.model import (
    EXIT,
    Cascade,
    CascadeFile,
    Isotonic,
    Member,
    Snapshot,
    Tier,
    digest,
    is_hub_id,
    shown,
)
from roadstream.schemas.cascade.weights import digest_of_bytes
from roadstream.schemas.engines import MODEL_KINDS, EngineEntry, engine_named
from roadstream.schemas.errors import ConfigError, config_error
from roadstream.schemas.settings.base import EngineSettings

# What TOML has and JSON has not.
_TOML_TYPES = (datetime.datetime, datetime.date, datetime.time)


def shipped_cascades() -> dict[str, Path]:
    """Return the cascades that come with Roadstream, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_cascade(name_or_path: str) -> Cascade:
    """Load a cascade by the name of a shipped one or by path, and check it whole.

    Raises:
        ConfigError: The file is missing, is not TOML, has an unknown key or a wrong value, a route
            leads nowhere, or a weight file is not there.
    """
    path = shipped_cascades().get(name_or_path, Path(name_or_path))
    try:
        data = path.read_bytes()
    except OSError as error:
        names = ", ".join(shipped_cascades())
        raise ConfigError(
            "--cascade", f"a cascade file or one of {names}", f"{name_or_path} ({error.strerror})"
        ) from None
    cascade = parse_cascade(data, where := str(path))
    return _loaded(cascade, _taken(cascade, data, where, str(path.resolve().parent)))


def cascade_of(snapshot: Snapshot) -> Cascade:
    """Return the cascade that a snapshot was taken of; nothing is read."""
    return _loaded(parse_cascade(snapshot.text, os.fsdecode(snapshot.where)), snapshot)


def _loaded(cascade: Cascade, snapshot: Snapshot) -> Cascade:
    return msgspec.structs.replace(
        cascade, hash=snapshot.hash, folder=os.fsdecode(snapshot.folder), snapshot=snapshot
    )


def parse_cascade(data: bytes, where: str) -> Cascade:
    """Decode and check a cascade file's bytes; ``where`` names it in errors.

    Raises:
        ConfigError: As ``load_cascade``, weight files aside.
    """
    try:
        given = msgspec.toml.decode(data)
    # The parser of the standard library recurses into nested arrays and tables.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(where, "a TOML file", str(error)) from None
    try:
        file = msgspec.convert(given, CascadeFile, builtin_types=_TOML_TYPES, str_keys=True)
    except msgspec.ValidationError as error:
        raise config_error(error, given, where, schema="cascade") from None
    cascade = Cascade(**{name: getattr(file, name) for name in file.__struct_fields__})
    _check_names(cascade, where)
    tiers = [
        _read_tier(
            tier, said["members"], cascade.tier_names[index + 1 :], f"{where}: tiers[{index}]"
        )
        for index, (tier, said) in enumerate(zip(cascade.tiers, given["tiers"], strict=True))
    ]
    return msgspec.structs.replace(cascade, tiers=tiers)


def _check_names(cascade: Cascade, where: str) -> None:
    members = [member.name for tier in cascade.tiers for member in tier.members]
    for kind, names in (("tier", cascade.tier_names), ("member", members)):
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(where, f"{kind} names to be unique", f"{name} twice")
    if EXIT in cascade.tier_names:
        raise ConfigError(where, "tier names other than 'exit'", EXIT)


def _read_tier(tier: Tier, said: list[dict[str, Any]], later: list[str], where: str) -> Tier:
    """Check a tier, and return it with its members' settings.

    Args:
        tier: Of the file.
        said: What the file says of its members.
        later: Names of the tiers behind it.
        where: The file, and its place there.
    """
    if not any(member.weight > 0 for member in tier.members):
        raise ConfigError(f"{where}.members", "a member of weight above 0", "only shadow members")
    for index, route in enumerate(tier.routes):
        if route.to not in (EXIT, *later):
            raise ConfigError(
                f"{where}.routes[{index}].to", f"one of {', '.join((EXIT, *later))}", route.to
            )
    _check_fusion(tier, where)
    members = [
        _read_member(member, given, f"{where}.members[{index}]")
        for index, (member, given) in enumerate(zip(tier.members, said, strict=True))
    ]
    return msgspec.structs.replace(tier, members=members)


def _check_fusion(tier: Tier, where: str) -> None:
    names = [member.name for member in tier.members if member.weight > 0]
    for index, name in enumerate(tier.fusion.members if tier.fusion else []):
        if name not in names:
            expected = f"a member of this tier of weight above 0 ({', '.join(names)})"
            raise ConfigError(f"{where}.fusion.members[{index}]", expected, name)


def _read_member(member: Member, said: dict[str, Any], where: str) -> Member:
    """Check a member, and return it with the settings of its engine's own type.

    Args:
        member: Of the file; its settings are not read yet.
        said: What the file says of it.
        where: The file, and its place there.
    """
    engine, fitted = engine_named(member.engine, f"{where}.engine"), member.calibration
    if member.model is None and engine.model != "none":
        raise ConfigError(f"{where}.model", MODEL_KINDS[engine.model], "nothing")
    if member.sizes and not engine.several_sizes:
        expected = f"no further sizes for the engine {engine.name}"
        raise ConfigError(f"{where}.sizes", expected, f"{member.sizes}")
    settings = _read_settings(said.get("settings", {}), engine, f"{where}.settings")
    if isinstance(fitted, Isotonic) and not _increases(fitted):
        raise ConfigError(
            f"{where}.calibration",
            "as many probabilities as raw scores, at least 2, raw increasing",
            f"raw={fitted.raw}, probability={fitted.probability}",
        )
    return msgspec.structs.replace(member, settings=settings)


def _read_settings(said: dict[str, Any], engine: EngineEntry, where: str) -> EngineSettings:
    try:
        return msgspec.convert(said, engine.settings)
    except msgspec.ValidationError as error:
        file, _, root = where.rpartition(": ")
        schema = f"{engine.name}-settings"
        raise config_error(error, said, file, root=root, schema=schema) from None


def _increases(fitted: Isotonic) -> bool:
    pairs = zip(fitted.raw, fitted.raw[1:], strict=False)
    return len(fitted.raw) == len(fitted.probability) >= 2 and all(a < b for a, b in pairs)


def _taken(cascade: Cascade, text: bytes, where: str, folder: str) -> Snapshot:
    """Read all files that a cascade names; their hash tells one cascade from another.

    Raises:
        ConfigError: One cannot be read.
    """
    told = hashlib.sha256(text)
    files: dict[str, bytes] = {}
    weights: dict[str, str] = {}
    engines: dict[str, str] = {}
    for i, tier in enumerate(cascade.tiers):
        for j, member in enumerate(tier.members):
            key = f"{where}: tiers[{i}].members[{j}]"
            engine = engine_named(member.engine)
            if engine.origin:
                engines[engine.name] = engine.origin
                told.update(f"{engine.name} of {engine.origin}".encode())
            if (path := _weights(member, folder)) is not None:
                with _readable(path, f"{key}.model", MODEL_KINDS[engine.model]):
                    found = digest(path, member)
                weights[member.name] = shown(found)
                told.update(found)
            for name in member.settings.files():
                if name not in files:
                    path = Path(folder, name)
                    with _readable(path, f"{key}.settings", "a file"):
                        files[name] = path.read_bytes()
                told.update(digest_of_bytes(files[name]))
    return Snapshot(
        where=os.fsencode(where),
        text=text,
        folder=os.fsencode(folder),
        hash=told.hexdigest()[:16],
        files=files,
        weights=weights,
        engines=engines,
    )


@contextlib.contextmanager
def _readable(path: Path, where: str, expected: str) -> Iterator[None]:
    """Name the file that cannot be read, and who names it."""
    try:
        yield
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = "does not exist" if missing else f"cannot be read ({error.strerror})"
        raise ConfigError(where, expected, f"{path}, which {why}") from None


def _weights(member: Member, folder: str) -> Path | None:
    """Return where a member's weights lie; ``None`` if they lie elsewhere, or there are none."""
    if member.model is None or engine_named(member.engine).model == "server":
        return None
    path = Path(folder, member.model)
    return None if is_hub_id(member) and not path.exists() else path
