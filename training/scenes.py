"""Training of the classifier of whole pictures: it learns from views and their labels alone."""

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from training.features import Views
from training.fit import Recipe, average, order_of, schedule
from training.network import Scene, scene_start

RECIPE = Recipe(passes=0.8, rate=2.5e-4, decay=0.03)
HEAD_RATE = 5.0  # the new layer learns this much faster than the trunk
AVERAGE_DECAY = 0.98
SMOOTHING = 0.05


def make_optimiser(net: Scene, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW with no decay on biases and a faster last layer."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in net.trained():
        rate = recipe.rate * (HEAD_RATE if name.startswith("logit") else 1.0)
        groups.setdefault((rate, recipe.decay if value.ndim > 1 else 0.0), []).append(value)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]
    )


def fit_scene(views: Views, rows: NDArray[np.int64], recipe: Recipe, path: Path) -> Scene:
    """Train on those of the rows that have a label; the weights are kept in `path`.

    Returns:
        The averaged net.
    """
    torch.manual_seed(recipe.seed)
    net = scene_start()
    kept = copy.deepcopy(net)
    if path.exists():
        kept.load_state_dict(torch.load(path, weights_only=True)["kept"])
        return kept
    order = order_of(rows[views.labels[rows] >= 0], recipe)
    optimiser = make_optimiser(net, recipe)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: schedule(s, len(order)))
    net.train()
    total = 0.0
    for step, batch in enumerate(order.tolist()):
        labels = torch.from_numpy(views.labels[batch].astype(np.float32))
        logits = net.judge(views.levels.fine_of(batch))
        wanted = labels * (1 - SMOOTHING) + SMOOTHING / 2
        loss = functional.binary_cross_entropy_with_logits(logits, wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([value for _, value in net.trained()], 5.0)
        optimiser.step()
        rates.step()
        average(kept, net, step, AVERAGE_DECAY)
        total += loss.item()
        if (step + 1) % 50 == 0:
            print(f"{path.stem}: {step + 1}/{len(order)} {total / 50:.4f}", flush=True)
            total = 0.0
    torch.save({"kept": kept.state_dict()}, path)
    return kept


def load_scene(path: Path) -> Scene:
    """Load what `fit_scene` kept."""
    scene = Scene()
    scene.load_state_dict(torch.load(path, weights_only=True)["kept"])
    return scene
