"""A cascade's members as a model repository for Triton, and the cascade that runs them there."""

import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import structs
from msgspec.structs import replace

from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.cascade.model import Cascade, Member, Tier
from roadstream.schemas.engines import engine_named
from roadstream.schemas.errors import ConfigError, UsageError
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.workers.engines.triton.contract import ANY, Tensor
from roadstream.workers.engines.triton.from_onnx import model_of
from roadstream.workers.engines.triton.repository import (
    CannotExportError,
    Instances,
    Model,
    write_model,
)
from roadstream.workers.engines.triton.toml import cascade_toml

REPOSITORY = "models"
CASCADE = "cascade.toml"
Tell = Callable[[str], None]


class Wanted(NamedTuple):
    """What is exported, and for which server.

    Attributes:
        members: Names; empty for all that can be.
        url: Of the server, for the new cascade file.
        kind: ``KIND_AUTO``, ``KIND_CPU`` or ``KIND_GPU``.
        instances: Instances per model.
        max_batch: Most pictures per request; ``None`` for the tier's.
    """

    members: Sequence[str] = ()
    url: str = "127.0.0.1:8001"
    kind: str = "KIND_AUTO"
    instances: int = 1
    max_batch: int | None = None


def claim_folder(folder: Path, *, force: bool) -> None:
    """Make the folder; with ``force``, what is in the way of an export goes.

    Raises:
        UsageError: It is not empty, or a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out: expected a folder, got the file {folder}")
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise UsageError(f"--out: expected an empty folder, got {folder}; --force overwrites")
        shutil.rmtree(folder / REPOSITORY, ignore_errors=True)
    (folder / REPOSITORY).mkdir(parents=True, exist_ok=True)


def export_members(cascade: Cascade, wanted: Wanted, folder: Path, tell: Tell) -> Path:
    """Write the repository and the cascade file; return the latter.

    Args:
        cascade: The cascade, loaded.
        wanted: What of it.
        folder: Made by `claim_folder`.
        tell: Gets a line per member.

    Raises:
        ConfigError: A member that was asked for by name cannot be exported, or a model is not what
            it should be.
    """
    _check_names(cascade, wanted.members)
    tiers = [
        replace(
            tier, members=[_moved(cascade, m, tier, wanted, (folder, tell)) for m in tier.members]
        )
        for tier in cascade.tiers
    ]
    if not any((folder / REPOSITORY).iterdir()):
        raise ConfigError(cascade.name, "a member that Triton can run", "none")
    path = folder / CASCADE
    comment = f"{cascade.name}, its models on Triton; written by `roadstream export triton`."
    text = cascade_toml(replace(cascade, tiers=tiers), comment)
    parse_cascade(text.encode(), str(path))
    path.write_text(text, encoding="utf-8")
    return path


def _check_names(cascade: Cascade, names: Sequence[str]) -> None:
    members = {member.name: member for tier in cascade.tiers for member in tier.members}
    for name in names:
        if name not in members:
            raise UsageError(f"--member: expected one of {', '.join(members)}, got {name}")
        if why := engine_named(members[name].engine).stays:
            raise ConfigError(f"--member {name}", "a member with weights to export", why)


def _moved(
    cascade: Cascade, member: Member, tier: Tier, wanted: Wanted, to: tuple[Path, Tell]
) -> Member:
    """Export a member; return what stands for it in the new cascade."""
    folder, tell = to
    why = engine_named(member.engine).stays
    if not why and wanted.members and member.name not in wanted.members:
        why = "not asked for"
    if why:
        tell(f"{member.name}: stays on {member.engine} ({why})")
        return _relocated(cascade, member, folder)
    try:
        model = _model(cascade, member)
        instances = Instances(wanted.kind, wanted.instances, wanted.max_batch or tier.max_batch)
        digest = write_model(folder / REPOSITORY, model, instances)
    except CannotExportError as error:
        if wanted.members:
            raise
        shutil.rmtree(folder / REPOSITORY / member.name)
        tell(f"{member.name}: stays on {member.engine} ({error})")
        return _relocated(cascade, member, folder)
    size = sum(file.stat().st_size for file in (folder / REPOSITORY / member.name / "1").iterdir())
    lost = f", without its tags {', '.join(model.lost)}" if model.lost else ""
    tell(f"{member.name}: {member.engine}, {size / 1e6:,.1f} MB → {REPOSITORY}/{member.name}{lost}")
    settings = TritonSettings(url=wanted.url, sha256=digest, kinds=list(model.kinds))
    if isinstance(found := member.settings, OnnxSettings):
        settings = replace(settings, boxes=found.boxes, box_threshold=found.box_threshold)
    return replace(member, engine="triton", model=member.name, settings=settings)


def _model(cascade: Cascade, member: Member) -> Model:
    where = f"{cascade.name}: member {member.name}"
    if isinstance(member.settings, OnnxSettings):
        return model_of(member, cascade.model_path(member), where)
    try:
        from roadstream.workers.engines.triton.from_torch import write_onnx
    except ImportError as error:
        expected = "torch and onnx (pip install 'roadstream[export]')"
        raise ConfigError(f"{where}: engine", expected, str(error)) from None
    images = Tensor("images", "UINT8", (ANY, member.height, member.width, 3))
    logit = Tensor("logit", "FP32", (ANY,))
    return Model(member.name, (images,), (logit,), functools.partial(write_onnx, cascade, member))


def _relocated(cascade: Cascade, member: Member, folder: Path) -> Member:
    """Return a member whose files are found from another folder."""

    def moved(name: str) -> str:
        return os.path.relpath(Path(cascade.folder, name).resolve(), folder.resolve())

    model = member.model
    if model is not None and engine_named(member.engine).model != "server":
        model = moved(model) if Path(cascade.folder, model).exists() else model
    files = set(member.settings.files())

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return list(map(placed, value))
        return moved(value) if isinstance(value, str) and value in files else value

    said = {key: placed(value) for key, value in structs.asdict(member.settings).items()}
    return replace(member, model=model, settings=replace(member.settings, **said))
