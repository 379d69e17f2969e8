"""Torch members for tests: cascades around checkpoints in a folder, engines, and pictures."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import convert
from msgspec.structs import replace

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Picture, Pictures, Score
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.torch.engine import TorchEngine
from tests.kits.builders import cascade, tier

SIZE = (96, 64)


def torch_member(
    name: str, model: str, settings: dict[str, Any], size: tuple[int, int] = SIZE
) -> Member:
    """Return a member that runs a checkpoint's folder."""
    return Member(
        name=name,
        engine="torch",
        model=model,
        width=size[0],
        height=size[1],
        settings=convert(settings, TorchSettings),
    )


def torch_cascade(folder: Path, *members: Member) -> Cascade:
    """Return a cascade of one tier, whose file would lie in ``folder``."""
    return replace(cascade(tier("one", *members)), folder=str(folder))


def engine_of(
    folder: Path,
    model: str = "model",
    size: tuple[int, int] = SIZE,
    shared: dict[Hashable, Any] | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    **settings: Any,
) -> TorchEngine:
    """Return an engine, not yet loaded, of the checkpoint in ``folder/model``."""
    member = torch_member("m", model, {"device": "cpu", **settings}, size)
    member = replace(member, sizes=list(sizes))
    options = EngineOptions(threads=1, shared={} if shared is None else shared)
    return TorchEngine(torch_cascade(folder, member), member, options)


def pictures(count: int, seed: int = 0) -> Pictures:
    """Return pictures of different noise on different ground."""
    random = np.random.default_rng(seed)
    shape = (120, 160, 3)
    levels = np.linspace(40, 200, count)
    return Pictures(
        [Picture(random.normal(level, 40, shape).clip(0, 255).astype(np.uint8)) for level in levels]
    )


def raws(engine: TorchEngine, batch: Pictures) -> list[float]:
    """Return the raw score of each picture."""
    found: Sequence[object] = engine.infer(batch)
    return [one.raw for one in found if isinstance(one, Score)]
