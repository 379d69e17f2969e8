"""The shipped cascades with tiny random checkpoints in the places of their models.

Tiers, routes, rules, kinds, weights and prompts stay as they ship; what changes are the models, the
sizes of pictures, and settings that only say where and how exactly a network runs.
"""

import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import tomli_w

from roadstream.cascades import FOLDER
from tests.kits.checkpoints import backbones, detectors, others
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.vllm_kit import SIZE, SMALL

Write = Callable[[Path], object]
_LAYERS = 24


def _dinov3(folder: Path) -> None:
    backbones.dinov3_vit(folder, layers=_LAYERS)
    backbones.head(folder / "head.safetensors", {"linear.weight": [1, 96], "linear.bias": [1]})


def _qwen(folder: Path) -> None:
    write_qwen3_vl(folder)


def _precise(folder: Path) -> None:
    write_qwen3_vl(folder, seed=1)


def _experts(folder: Path) -> None:
    write_qwen3_vl(folder, experts=4)


def _signs(folder: Path) -> None:
    others.florence2(folder)


# By what the model's name begins with: who writes the checkpoint, and the size of its pictures.
_TORCH: dict[str, tuple[Write, tuple[int, int]]] = {
    "google/siglip2": (backbones.siglip2, (64, 64)),
    "google/owlv2": (detectors.owlv2, (64, 64)),
    "florence-community/": (_signs, (64, 64)),
    "facebook/dinov3": (_dinov3, (64, 64)),
    "facebook/sam3": (others.sam3, (56, 56)),
    "depth-anything/": (others.depth_anything, (84, 56)),
    "Ultralytics/": (detectors.yolos, (64, 64)),
    "Intellindust/": (detectors.deimv2, (64, 64)),
    "PekingU/": (detectors.rt_detr_v2, (64, 64)),
    "Roboflow/": (detectors.rf_detr, (64, 64)),
    "ustc-community/": (detectors.d_fine, (64, 64)),
    "openmmlab-community/": (detectors.mm_grounding_dino, (64, 64)),
}
# What a model that is asked in vLLM keeps of its settings.
_ASKED = {
    "prompt", "evidence", "boxes", "points", "frames", "reasoning_tokens", "reasoning_end",
    "start", "patience",
}  # fmt: skip


# Scores of random networks hardly differ from picture to picture: mean and spread of them, by the
# kind of member. Calibrated by these, votes are spread from one end to the other.
_SPREAD: dict[str, tuple[float, float]] = {
    "siglip": (-0.087, 0.006),
    "concepts": (-0.010, 0.002),
    "d-fine": (1.568, 0.03),
    "grounding-dino": (-4.136, 0.04),
    "sam3": (0.414, 0.15),
    "sam3-exemplars": (0.363, 0.15),
    "owlv2": (2.366, 0.3),
}
_ASKED_SPREAD = {"qwen": (-0.45, 0.05), "experts": (-0.70, 0.1), "precise": (-0.45, 0.05)}


def _calibration(member: dict[str, Any]) -> dict[str, Any] | None:
    concepts = member.get("settings", {}).get("concepts") == "roadwork-concepts"
    spread = _SPREAD.get("concepts" if concepts else member["name"])
    spread = _ASKED_SPREAD.get(member.get("model", "")) or spread
    if spread is None:
        return None
    mean, scale = spread
    return {"method": "platt", "slope": 1.0 / scale, "intercept": -mean / scale}


def tiny(name: str, folder: Path, *, vllm: Collection[str] = ()) -> Path:
    """Write a shipped cascade with tiny checkpoints, and return its file.

    Args:
        name: Name of the cascade.
        folder: What it is written into, and its checkpoints.
        vllm: Members that a real vLLM runs; other models that are asked run in torch.
    """
    said: dict[str, Any] = tomllib.loads(Path(FOLDER, f"{name}.toml").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for tier in said["tiers"]:
        for member in tier["members"]:
            if member["engine"] in {"vllm", "openai"}:
                _ask(member, folder, in_vllm=member["name"] in vllm)
            elif member["engine"] == "torch":
                _look(member, folder)
            if (fitted := _calibration(member)) is not None:
                member["calibration"] = fitted
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(said))
    return path


def _look(member: dict[str, Any], folder: Path) -> None:
    [(write, size)] = [made for start, made in _TORCH.items() if member["model"].startswith(start)]
    member["model"] = _written(write, folder)
    member["width"], member["height"] = size
    settings = member["settings"]
    settings |= {"device": "cpu", "precision": "float32"}
    if "head" in settings:
        settings["head"] = f"{member['model']}/head.safetensors"
    if "roadwork" in settings:
        settings["roadwork"] = ["barrier", "traffic cone"]
    if settings.get("family") == "ultralytics":
        del settings["family"]
    if write is detectors.mm_grounding_dino:  # it takes 32 tokens
        settings["prompts"] = settings["prompts"][:1]


def _ask(member: dict[str, Any], folder: Path, *, in_vllm: bool) -> None:
    settings = member["settings"]
    kept = {key: value for key, value in settings.items() if key in _ASKED}
    member["width"], member["height"] = SIZE
    if in_vllm:
        # A checkpoint of its own per level, so that each has a vLLM of its own.
        write = {"power-vlm": _experts, "precision-vlm": _precise}.get(member["kind"], _qwen)
        member["model"] = _written(write, folder)
        member["engine"], member["settings"] = "vllm", {**SMALL, **kept, "max_leak": 1.0}
        return
    member["model"], member["engine"] = _written(_qwen, folder), "torch"
    member["width"], member["height"] = 96, 64
    prompt = kept.get("prompt", "active-roadwork")
    member["settings"] = {"prompt": prompt, "device": "cpu", "max_leak": 1.0}


def _written(write: Write, folder: Path) -> str:
    """Return the folder of a checkpoint, relative to the cascade file; written once."""
    name = write.__name__.strip("_")
    if not (folder / name).exists():
        write(folder / name)
    return name
