"""Score pictures by a real vLLM with a tiny model of each architecture that was tried.

``python -m tests.kits.vlm_trial [--code FOLDER] [NAME ...]``, from the repository's root. FOLDER
holds the authors' code of Molmo 2, see `write_molmo2`; without it what it fails with is told. Each
model runs through ``roadstream score``, which takes half a minute of CPU.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tomli_w
from PIL import Image

from tests.kits.checkpoints import others, vlms
from tests.kits.checkpoints.molmo2 import write_molmo2
from tests.kits.checkpoints.ovis2 import write_ovis2
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.vllm_kit import SIZE, SMALL, pixels


class Trial(NamedTuple):
    """A tiny model, and the settings that its architecture wants."""

    write: Callable[[Path], Path]
    settings: Mapping[str, Any] = MappingProxyType({})


TRIALS = {
    "qwen3-vl": Trial(write_qwen3_vl),
    "qwen3-vl-moe": Trial(lambda folder: write_qwen3_vl(folder, experts=4)),
    "internvl": Trial(others.internvl, {"max_leak": 1.0}),
    "glm-4.6v": Trial(vlms.glm4v, {"multiple": 28}),
    "llama-4": Trial(vlms.llama4),
    "ovis-2": Trial(write_ovis2),
    "molmo-2": Trial(write_molmo2, {"trust_remote_code": True, "system_turn": False}),
}
PICTURES = 3


def main() -> None:
    """Run the trials that are named, or all, and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--code", type=Path)
    parser.add_argument("names", nargs="*", default=list(TRIALS))
    given = parser.parse_args()
    for name in given.names:
        with tempfile.TemporaryDirectory() as folder:
            for line in tried(Path(folder), TRIALS[name], given.code):
                sys.stdout.write(f"{name}: {line}\n")


def tried(folder: Path, trial: Trial, code: Path | None) -> Iterator[str]:
    """Yield the raw score of each picture, or the last lines of what went wrong."""
    model = trial.write(folder / "model")
    if code is not None and trial.write is write_molmo2:
        for source in code.glob("*_molmo2.py"):
            shutil.copy(source, model)
    for number, picture in enumerate(pixels(PICTURES)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    command = ["score", str(folder), "--cascade", str(_cascade(folder, model, trial.settings))]
    answers = folder / "answers.jsonl"
    done = subprocess.run(
        ["roadstream", *command, "--out", str(answers), "--workers", "1"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        yield from [f"status {done.returncode}", *done.stdout.splitlines()[-3:]]
        return
    for line in answers.read_text().splitlines():
        answer = json.loads(line)
        votes = {vote["member"]: vote.get("raw") for vote in answer["votes"]}
        yield f"{answer['status']} {answer['flags']} {votes}"


def _cascade(folder: Path, model: Path, settings: Mapping[str, Any]) -> Path:
    """Write a cascade whose second tier asks the model."""
    width, height = SIZE
    size = {"width": width, "height": height}
    quick = {"name": "quick", "engine": "noop", **size}
    asked = {**SMALL, "patience": 300.0, **settings}
    vlm = {"name": "vlm", "engine": "vllm", "model": str(model), "settings": asked, **size}
    tiers = [{"name": one["name"], "members": [one]} for one in (quick, vlm)]
    path = folder / "trial.toml"
    path.write_text(tomli_w.dumps({"name": "trial", "tiers": tiers}))
    return path


if __name__ == "__main__":
    main()
