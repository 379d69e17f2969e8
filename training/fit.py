"""Training: a neck learns from stored views; averaged weights are kept."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from roadstream.schemas.errors import UsageError
from training.corpus import KINDS
from training.features import Views
from training.network import STRIDE, Found, Neck

WARM_UP_STEPS = 50
SAVE_EVERY = 200  # steps between checkpoints
AVERAGE_DECAY = 0.995
SMOOTHING = 0.04
CELL = 16  # pixels per place of the scene map


@dataclass(frozen=True)
class Recipe:
    """How one run learns; all of it is written beside its weights."""

    passes: float = 3.0
    batch: int = 16
    rate: float = 3e-3
    decay: float = 0.05
    sides_weight: float = 0.3
    scene_weight: float = 0.5
    seed: int = 72


class Targets(NamedTuple):
    """What a batch should say: see `Found` for the shapes.

    Attributes:
        heat: 1 at the centres of objects, falling to 0 around them, float [N, kinds, h, w].
        care: 0 where nothing is taught, float [N, 1, h, w].
        sides: Distances to the box's sides in pixels, float [N, 4, h, w].
        inside: Weight of the sides, float [N, h, w].
        cells: Whether a place of the scene map shows roadwork: 1, 0, -1 unknown, float [N, H, W].
        labels: Of the views: 1, 0, or -1 unknown, float [N].
    """

    heat: Tensor
    care: Tensor
    sides: Tensor
    inside: Tensor
    cells: Tensor
    labels: Tensor


def draw_box(box: NDArray[np.float32], heat: NDArray[np.float32], xs: NDArray[np.float32],
             ys: NDArray[np.float32]) -> NDArray[np.float32]:  # fmt: skip
    """Raise `heat` [h, w] to 1 at the box's centre, falling with its size; return the rise."""
    x1, y1, x2, y2 = box
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    spread_x, spread_y = max(0.14 * (x2 - x1), 3.0), max(0.14 * (y2 - y1), 3.0)
    rise: NDArray[np.float32] = np.exp(
        -(((xs[None] - middle_x) / spread_x) ** 2) / 2
        - (((ys[:, None] - middle_y) / spread_y) ** 2) / 2
    ).astype(np.float32)
    row, column = np.abs(ys - middle_y).argmin(), np.abs(xs - middle_x).argmin()
    rise[row, column] = 1.0
    np.maximum(heat, rise, out=heat)
    return rise


def make_targets(views: Views, rows: Sequence[int]) -> Targets:
    """Say what these views should give."""
    height, width = views.levels.fine.shape[1:3]
    xs = (np.arange(width, dtype=np.float32) + 0.5) * STRIDE
    ys = (np.arange(height, dtype=np.float32) + 0.5) * STRIDE
    count, down, across = len(rows), height * STRIDE // CELL, width * STRIDE // CELL
    heat = np.zeros((count, len(KINDS), height, width), np.float32)
    care = np.ones((count, 1, height, width), np.float32)
    sides = np.ones((count, 4, height, width), np.float32)
    inside = np.zeros((count, height, width), np.float32)
    cells = np.zeros((count, down, across), np.float32)
    for n, row in enumerate(rows):
        if not views.complete[row]:
            care[n], cells[n] = 0.0, -1.0
        for kind, *corners in sorted(views.boxes[row].tolist(), key=lambda box: -_area(box)):
            _teach(int(kind), np.array(corners, np.float32), (xs, ys),
                   (heat[n], care[n, 0], sides[n], inside[n], cells[n]))  # fmt: skip
    labels = views.labels[list(rows)].astype(np.float32)
    return Targets(*map(torch.from_numpy, (heat, care, sides, inside, cells, labels)))


def _area(box: list[float]) -> float:
    return (box[3] - box[1]) * (box[4] - box[2])


def _teach(
    kind: int,
    box: NDArray[np.float32],
    places: tuple[NDArray[np.float32], NDArray[np.float32]],
    maps: tuple[NDArray[np.float32], ...],
) -> None:
    """Enter one box into the maps of its view; smaller boxes come later and win."""
    xs, ys = places
    heat, care, sides, inside, cells = maps
    x1, y1, x2, y2 = box
    within = np.ix_(
        (ys > y1 - STRIDE) & (ys < y2 + STRIDE), (xs > x1 - STRIDE) & (xs < x2 + STRIDE)
    )
    part = cells[int(y1 // CELL) : math.ceil(y2 / CELL), int(x1 // CELL) : math.ceil(x2 / CELL)]
    if kind < 0:
        care[within] = 0.0
        part[part < 1] = -1.0
        return
    care[within] = 1.0
    part[:] = 1.0
    rise = draw_box(box, heat[kind], xs, ys)
    taught = rise > 0.4
    inside[taught] = rise[taught]
    distances = np.stack(
        np.broadcast_arrays(xs[None] - x1, ys[:, None] - y1, x2 - xs[None], y2 - ys[:, None])
    )
    sides[:, taught] = np.maximum(distances, 1.0)[:, taught]


def loss_of(found: Found, wanted: Targets, recipe: Recipe) -> Tensor:
    """Focal loss of the heat, log distance of the sides, cross-entropy of the scene map."""
    chance = torch.sigmoid(found.heat).clamp(1e-5, 1 - 1e-5)
    peak = wanted.heat == 1.0
    hit = -((1 - chance) ** 2) * torch.log(chance) * peak
    miss = -((1 - wanted.heat) ** 4) * chance**2 * torch.log(1 - chance) * ~peak
    heat = ((hit + miss) * wanted.care).sum() / peak.sum().clamp(min=8)
    away = (torch.log(found.sides) - torch.log(wanted.sides)).abs().mean(1)
    sides = (away * wanted.inside).sum() / wanted.inside.sum().clamp(min=8)
    known = wanted.cells >= 0
    cells = functional.binary_cross_entropy_with_logits(
        found.scene[known], wanted.cells[known] * (1 - SMOOTHING) + SMOOTHING / 4
    )
    pooled = pool_scene(found.scene)
    told = wanted.labels >= 0
    labels = functional.binary_cross_entropy_with_logits(
        pooled[told], wanted.labels[told] * (1 - SMOOTHING) + SMOOTHING / 2
    )
    return heat + recipe.sides_weight * sides + recipe.scene_weight * (cells + labels)


def pool_scene(scene: Tensor) -> Tensor:
    """Join the places of the scene map [N, h, w]: twice the log of the mean root of the odds."""
    flat = scene.flatten(1) / 2
    return 2 * (torch.logsumexp(flat, 1) - math.log(flat.shape[1]))


def make_optimiser(neck: Neck, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW: no decay on biases and norms."""
    decays = [value for value in neck.parameters() if value.ndim > 1]
    others = [value for value in neck.parameters() if value.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decays, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}],
        recipe.rate,
    )


def schedule(step: int, steps: int) -> float:
    """Scale the rate: linear warm-up, then a cosine down to 2 %."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def average(kept: nn.Module, net: nn.Module, step: int) -> None:
    """Move the averaged weights towards the current ones; quickly in the first steps."""
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(kept.parameters(), net.parameters(), strict=True):
            old.lerp_(new, 1 - decay)
        for held, now in zip(kept.buffers(), net.buffers(), strict=True):
            if held.is_floating_point():
                held.lerp_(now, 1 - decay)


def order_of(rows: NDArray[np.int64], recipe: Recipe) -> NDArray[np.int64]:
    """Return the rows in the order they are learnt from, [steps, batch].

    Raises:
        UsageError: There are none.
    """
    rng = np.random.default_rng(recipe.seed)
    seen = int(len(rows) * recipe.passes)
    if not seen:
        raise UsageError(f"expected views to learn from, got {len(rows)}: ask for more --views")
    batch = min(recipe.batch, seen)
    steps = seen // batch
    turns: list[NDArray[np.int64]] = [
        rng.permutation(rows) for _ in range(math.ceil(recipe.passes) + 1)
    ]
    order: NDArray[np.int64] = np.concatenate(turns)[: steps * batch]
    return order.reshape(steps, batch)


def fit(views: Views, rows: NDArray[np.int64], recipe: Recipe, path: Path) -> Neck:
    """Train on these rows, or take up an interrupted run; the weights are kept in `path`.

    Returns:
        The averaged neck.
    """
    torch.manual_seed(recipe.seed)
    net: Neck = Neck().to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    kept = copy.deepcopy(net)
    if path.exists():
        kept.load_state_dict(torch.load(path, weights_only=True)["kept"])
        return kept
    order = order_of(rows, recipe)
    optimiser = make_optimiser(net, recipe)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: schedule(s, len(order)))
    parts: dict[str, Any] = {"net": net, "kept": kept, "optimiser": optimiser, "rates": rates}
    unfinished = path.with_suffix(".unfinished")
    first = _take_up(parts, unfinished)
    net.train()
    total, begun = 0.0, time.monotonic()
    for step in range(first, len(order)):
        batch = order[step].tolist()
        loss = loss_of(net(views.levels.take(batch)), make_targets(views, batch), recipe)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        rates.step()
        average(kept, net, step)
        total += loss.item()
        if (step + 1) % SAVE_EVERY == 0:
            spent, begun = time.monotonic() - begun, time.monotonic()
            print(
                f"{path.stem}: {step + 1}/{len(order)} {total / SAVE_EVERY:.4f} {spent:.0f} s",
                flush=True,
            )
            total = 0.0
            save({n: p.state_dict() for n, p in parts.items()} | {"step": step + 1}, unfinished)
    save({"kept": kept.state_dict(), "recipe": asdict(recipe)}, path)
    unfinished.unlink(missing_ok=True)
    return kept


def save(state: dict[str, object], path: Path) -> None:
    """Write a file that torch can load; whole, or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)


def load_neck(path: Path) -> Neck:
    """Load what `fit` kept."""
    neck = Neck()
    neck.load_state_dict(torch.load(path, weights_only=True)["kept"])
    return neck


def _take_up(parts: dict[str, Any], path: Path) -> int:
    """Load a checkpoint if there is one; return the step that comes next."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
