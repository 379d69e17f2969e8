"""A cascade's members as a model repository for Triton, and the cascade that runs them there."""

import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from roadstream.schemas.cascade import Cascade, Member, Tier, parse_cascade
from roadstream.schemas.errors import ConfigError, UsageError
from roadstream.schemas.settings.registry import SETTINGS, settings_of
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
# Why a member stays what it is.
_STAYS = {
    "cones": "a rule without weights",
    "noop": "it has no weights",
    "vllm": "vLLM runs it",
    "openai": "another server runs it",
    "triton": "Triton runs it already",
}
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
        if (why := _STAYS.get(members[name].engine)) is not None:
            raise ConfigError(f"--member {name}", "a member with weights to export", why)


def _moved(
    cascade: Cascade, member: Member, tier: Tier, wanted: Wanted, to: tuple[Path, Tell]
) -> Member:
    """Export a member; return what stands for it in the new cascade."""
    folder, tell = to
    why = _STAYS.get(member.engine)
    if why is None and wanted.members and member.name not in wanted.members:
        why = "not asked for"
    if why is not None:
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
    tell(f"{member.name}: {member.engine}, {size / 1e6:,.1f} MB → {REPOSITORY}/{member.name}")
    settings: dict[str, Any] = {"url": wanted.url, "sha256": digest}
    if model.kinds:
        settings["kinds"] = list(model.kinds)
    if member.engine == "onnx":
        shared = ("boxes", "box_threshold")
        settings |= {key: member.settings[key] for key in shared if key in member.settings}
    return replace(member, engine="triton", model=member.name, settings=settings)


def _model(cascade: Cascade, member: Member) -> Model:
    where = f"{cascade.name}: member {member.name}"
    if member.engine == "onnx":
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
    if model is not None and Path(cascade.folder, model).exists():
        model = moved(model) if member.engine not in {"openai", "triton"} else model
    files = set(settings_of(member.settings, SETTINGS[member.engine]).files())
    settings = {
        key: moved(value) if isinstance(value, str) and value in files else value
        for key, value in member.settings.items()
    }
    return replace(member, model=model, settings=settings)
