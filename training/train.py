"""Fine-tune EfficientNet-Lite0 on views of the training pictures and keep averaged weights.

The stem and first stages stay as ImageNet left them and all batch statistics are frozen: the
collection is small, and this halves the time on a CPU. A run is a list of stages, each a
resolution with a number of short epochs, e.g. `--stages 384x256:5,512x352:5`.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import (
    CACHE_SIZE,
    FOLDS,
    INPUT_SIZES,
    Picture,
    Pixels,
    add_folder_options,
    load_cache,
    load_pictures,
)
from network import Lite0, imagenet_lite0
from sklearn.metrics import matthews_corrcoef, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, WeightedRandomSampler
from views import Recipe, Views, sampling_weights

BATCH = 16
HEAD_RATE_FACTOR = 5.0  # the new classifier learns faster than the pretrained trunk
SMOOTHING = 0.05
AVERAGE_DECAY = 0.985  # per step: the averaged weights look back about 65 steps
WARM_UP_STEPS = 25


def parse_stages(text: str) -> list[tuple[tuple[int, int], int]]:
    """Read `WIDTHxHEIGHT:EPOCHS,...`; raises ValueError on anything else."""
    stages = []
    for part in text.split(","):
        size, epochs = part.split(":")
        width, height = size.split("x")
        stages.append(((int(width), int(height)), int(epochs)))
    return stages


def freeze(net: Lite0, blocks: int) -> None:
    """Fix the stem and the first `blocks` blocks; their inputs then need no gradients either."""
    for part in [net._conv_stem, net._bn0, *net._blocks[:blocks]]:
        part.requires_grad_(False)


def training_mode(net: Lite0) -> None:
    """Switch dropout and stochastic depth on and leave batch normalisation at its statistics."""
    net.train()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def make_optimiser(net: Lite0, rate: float, decay: float) -> torch.optim.AdamW:
    """Make AdamW with no decay on biases and norms and a faster classifier."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in net.named_parameters():
        if value.requires_grad:
            speed = rate * (HEAD_RATE_FACTOR if name.startswith("classifier") else 1.0)
            groups.setdefault((speed, decay if value.ndim > 1 else 0.0), []).append(value)
    parts = [{"params": p, "lr": s, "weight_decay": d} for (s, d), p in groups.items()]
    return torch.optim.AdamW(parts)


def schedule(step: int, steps: int) -> float:
    """Scale the rate: linear warm-up, then a cosine down to 3 %."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps))


def average(kept: Lite0, net: Lite0, step: int) -> None:
    """Move the averaged weights towards the current ones; quickly in the first steps."""
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(kept.parameters(), net.parameters(), strict=True):
            old.lerp_(new, 1 - decay)


def scores(net: Lite0, images: Pixels, rows: list[int]) -> np.ndarray:
    """Score pictures of a cache array with a net in evaluation mode: log-odds [len(rows)]."""
    net.eval()
    results = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(rows), 16):
            batch = torch.from_numpy(images[rows[start : start + 16]]).permute(0, 3, 1, 2)
            results.append(net(batch.float()).float().numpy())
    return np.concatenate(results)


def summary(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Summarise log-odds against labels by AUC, and MCC and accuracy at a probability of 0.5."""
    guesses = logits > 0
    both = len(set(labels.tolist())) == 2
    return {
        "auc": float(roc_auc_score(labels, logits)) if both else float("nan"),
        "mcc": float(matthews_corrcoef(labels, guesses)),
        "accuracy": float((guesses == labels).mean()),
    }


def loss_of(net: Lite0, images: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy with smoothed labels, computed in bfloat16 up to the logits."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(images.float().contiguous(memory_format=torch.channels_last))
    target = labels * (1 - SMOOTHING) + SMOOTHING / 2
    return functional.binary_cross_entropy_with_logits(logits.float(), target)


def fit(net: Lite0, pictures: list[Picture], images: Pixels, options: argparse.Namespace) -> Lite0:
    """Train through all stages and return the averaged net; prints a line per epoch."""
    stages = parse_stages(options.stages)
    steps_per_epoch = options.samples // BATCH
    steps = sum(epochs for _, epochs in stages) * steps_per_epoch
    optimiser = make_optimiser(net, options.rate, options.decay)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule(step, steps))
    kept = copy.deepcopy(net)
    step = 0
    for number, (size, epochs) in enumerate(stages):
        views = Views(
            pictures,
            images,
            Recipe(size, options.crop[0], options.crop[1], options.beside),
            options.seed + number,
        )
        sampler = WeightedRandomSampler(
            sampling_weights(pictures).tolist(), epochs * steps_per_epoch * BATCH
        )
        training_mode(net)
        total, begun = 0.0, time.monotonic()
        for batch in DataLoader(views, BATCH, sampler=sampler, num_workers=1):
            loss = loss_of(net, *batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            rates.step()
            average(kept, net, step)
            step += 1
            total += loss.item()
            if step % steps_per_epoch == 0:
                spent, begun = time.monotonic() - begun, time.monotonic()
                print(
                    f"{size} {step}/{steps} {total / steps_per_epoch:.4f} {spent:.0f}s", flush=True
                )
                total = 0.0
    return kept


def build(options: argparse.Namespace) -> Lite0:
    """Start from ImageNet, or from the averaged weights of an earlier run."""
    net = imagenet_lite0()
    if options.start_from:
        net.load_state_dict(torch.load(options.start_from, weights_only=True))
    freeze(net, options.frozen_blocks)
    return net.to(memory_format=torch.channels_last)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_options(parser)
    parser.add_argument("--name", required=True, help="run name; weights go to CACHE/runs/NAME.pt")
    parser.add_argument("--stages", default="384x256:9,512x352:4", help="WIDTHxHEIGHT:EPOCHS,...")
    parser.add_argument("--samples", type=int, default=640, help="views per epoch")
    parser.add_argument("--crop", type=float, nargs=2, default=(0.2, 1.0), help="share of area")
    parser.add_argument("--beside", type=float, default=0.3, help="chance of crops beside boxes")
    parser.add_argument("--rate", type=float, default=4e-4, help="peak learning rate of the trunk")
    parser.add_argument("--decay", type=float, default=0.03, help="weight decay")
    parser.add_argument("--frozen-blocks", type=int, default=5, help="blocks left as pretrained")
    parser.add_argument("--leave-out", choices=sorted(FOLDS), help="train without these sources")
    parser.add_argument("--start-from", type=Path, help="weights of an earlier run")
    parser.add_argument("--view", choices=("tiny", "lite0"), default="lite0", help="scoring size")
    parser.add_argument("--threads", type=int, default=1, help="threads of one run")
    parser.add_argument("--seed", type=int, default=72)
    return parser.parse_args()


def main() -> None:
    """Train one run, score what it did not see, and store weights, scores and settings."""
    options = read_options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    pictures = load_pictures(options.data)
    left_out = FOLDS.get(options.leave_out, ())
    chosen = [
        i
        for i, p in enumerate(pictures)
        if (p.family not in left_out if left_out else p.split == "train")
    ]
    cached = load_cache(options.cache, CACHE_SIZE)
    net = fit(build(options), [pictures[i] for i in chosen], cached[chosen], options)
    runs = options.cache / "runs"
    runs.mkdir(exist_ok=True)
    torch.save(net.state_dict(), runs / f"{options.name}.pt")
    held_out = sorted(set(range(len(pictures))) - set(chosen))
    logits = np.full(len(pictures), np.nan)
    images = load_cache(options.cache, INPUT_SIZES[options.view])
    logits[held_out] = scores(net, images, held_out)
    labels = np.array([p.label for p in pictures])
    report: dict[str, Any] = {"options": {k: str(v) for k, v in vars(options).items()}}
    parts = {split: [p.split == split for p in pictures] for split in ("val", "test")}
    if left_out:
        parts = {"left-out": [p.family in left_out for p in pictures]}
    for part, mask in parts.items():
        report[part] = summary(logits[mask], labels[mask])
        print(part, report[part])
    np.save(runs / f"{options.name}.npy", logits)
    (runs / f"{options.name}.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
