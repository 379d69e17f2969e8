"""The torch and the ONNX engine inside the stream, against a bare loop with the same engines.

Each model is a cascade of one tier with one member. Inside the stream is ``roadstream score``:
scan, log, worker processes, consensus, ledger. The loop has the same engine code, decoder, batch
size and threads, one process per core, and nothing else (see ``roadstream.bench.parts.bare_loop``).
Both are timed from when the models are warm, in fresh processes, in turn. Random weights take as
long as trained ones: ResNet-18 and ViT-S/16 at 224 by PyTorch, and the member ``objects`` of the
``lite`` cascade (EfficientNet-Lite0 and a neck at 672×384, int8) by onnxruntime.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from roadstream.bench.harness import Spread, machine, show, spread, write_result
from roadstream.bench.models.checkpoints import TIMM, cascade_file, member, write_timm
from roadstream.bench.pipeline import Run, run_loop, run_score
from roadstream.cascades import FOLDER
from roadstream.workers.demo.render import write_drive

AIM = 0.95
OBJECTS = "onnx objects"


def cascades(folder: Path, max_batch: int) -> dict[str, Path]:
    """Write a cascade per model; return their files."""
    found: dict[str, Path] = {}
    for name, architecture in TIMM.items():
        place = write_timm(folder / name, architecture)
        one = member(name, "torch", place, (224, 224), roadwork=["roadwork"], device="cpu")
        tier = {"name": "only", "max_batch": max_batch, "members": [one]}
        found[f"torch {name}"] = cascade_file(folder, name, tier)
    weights = FOLDER / "lite" / "objects.onnx"
    one = member("objects", "onnx", weights, (672, 384))
    tier = {"name": "only", "max_batch": max_batch, "members": [one]}
    found[OBJECTS] = cascade_file(folder, "objects", tier)
    return found


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, dict[str, list[Run]]]:
    """Run stream and loop in turn for each model; the first round warms up."""
    files = cascades(scratch, options.max_batch)
    chosen = {
        name: path for name, path in files.items() if not options.only or name in options.only
    }
    pictures = scratch / "pictures"
    write_drive(pictures, options.images, width=1280, height=720, seed=1)
    (pictures / "labels.csv").unlink()
    paths, cores = sorted(map(str, pictures.iterdir())), machine().cores
    runs: dict[str, dict[str, list[Run]]] = {}
    for name, path in chosen.items():
        found = runs[name] = {"stream": [], "loop": []}
        for number in range(options.rounds + 1):
            pair = {
                "stream": run_score(pictures, str(path), len(paths), scratch),
                "loop": run_loop(paths, str(path), cores),
            }
            speeds = ", ".join(f"{who} {run.images_per_second:.1f}/s" for who, run in pair.items())
            print(f"round {number}: {name}: {speeds}", flush=True)
            for who, run in pair.items() if number else ():
                found[who].append(run)
    return runs


def summary(found: dict[str, list[Run]]) -> dict[str, Any]:
    """Return speeds, processor time and the ratio, paired by round."""
    speeds = {who: spread([run.images_per_second for run in runs]) for who, runs in found.items()}
    cpu = {who: spread([run.cpu_milliseconds for run in runs]) for who, runs in found.items()}
    pairs = zip(found["stream"], found["loop"], strict=True)
    ratios = spread([a.images_per_second / b.images_per_second for a, b in pairs])
    return {"images_per_second": speeds, "cpu_milliseconds": cpu, "ratio": ratios}


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.models.engines", description=__doc__
    )
    parser.add_argument("--images", type=int, default=800, help="pictures to render")
    parser.add_argument("--max-batch", type=int, default=16, help="largest batch, of both")
    parser.add_argument("--only", action="append", help=f"such as {OBJECTS!r}; repeatable")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, in turn")
    parser.add_argument("--name", default="engines", help="name of the result")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = parse()
    with tempfile.TemporaryDirectory(prefix="roadstream-bench-") as scratch:
        runs = measure(options, Path(scratch))
    models = {name: summary(found) for name, found in runs.items()}
    rows = []
    for name, found in models.items():
        ratio: Spread = found["ratio"]
        rows.append(
            [
                name,
                *[found["images_per_second"][who].text(".1f") for who in ("stream", "loop")],
                ratio.text(".3f"),
                *[f"{found['cpu_milliseconds'][who].median:.1f}" for who in ("stream", "loop")],
            ]
        )
    show(
        f"{options.images:,} pictures of 720p, batches of {options.max_batch}, all cores",
        ["model", "stream, images/s", "loop, images/s", "ratio", "CPU ms, stream", "CPU ms, loop"],
        rows,
    )
    limit = (
        f"Both are bound by decoding and the model on all cores; aim {AIM}. Processor time per "
        "image includes starting and loading for the stream, which its speed does not."
    )
    print(limit)
    result = {"options": vars(options), "models": models, "aim": AIM, "limit_in_words": limit}
    print(f"written: {write_result(options.name, result)}")


if __name__ == "__main__":
    main()
