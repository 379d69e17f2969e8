"""Models on a CUDA device: inside the stream against the bare compiled loop and the roofline.

Per model, with random weights, which take as long as trained ones, in bfloat16, compiled, with
CUDA graphs: the bare loop runs the compiled network on one batch that is on the device already,
again and again; ``stream`` runs a tier worker and a consensus over the log in memory, in this
process, on arrays that need no decoding, and ``stream, JPEG`` the same on JPEGs of 720p. The
roofline is the rate at which a large bfloat16 matrix product runs, over the network's operations
per image. The share of time in which nothing ran on the device comes from PyTorch's profiler, over
a run of the stream of its own.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import anyio
import msgspec
import numpy as np

from roadstream.bench.harness import show, spread, write_result
from roadstream.bench.models.checkpoints import (
    cascade_file,
    dinov3,
    member,
    rt_detr,
    write_dinov3,
    write_rt_detr,
)
from roadstream.bench.models.gpu_roofline import busy_share, flops_per_image, roofline
from roadstream.bench.models.overhead_child import LoopWatch, WatchedLog, pictures, submit
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.topics import all_topics
from roadstream.stages.inference import Pixels
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.commands.common import run_async
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.runtime import WorkOptions, run_workers

AIM = 0.97
STREAMS = ("stream", "stream, JPEG")
# Side of the product of two matrices whose rate is the roofline.
DENSE = 8192


class Model(NamedTuple):
    """A network at one size.

    Attributes:
        name: Of the row.
        side: Height and width of its pictures.
        write: Writes its checkpoint to a folder.
        build: Makes it, to count operations.
        counted_on: Device on which they are counted.
        head: Whether the checkpoint is a backbone with a head beside it.
    """

    name: str
    side: int
    write: Callable[[Path], Path]
    build: Callable[[], Any]
    counted_on: str = "meta"
    head: bool = True


def models() -> list[Model]:
    """Return the models measured, cheapest first."""

    def vit(name: str, side: int) -> Model:
        return Model(f"{name}, {side}", side, lambda f: write_dinov3(f, name), lambda: dinov3(name))

    found = [
        vit(name, side) for name in ("dinov3-vitl16", "dinov3-vith16plus") for side in (224, 448)
    ]
    return [*found, Model("rt-detr v2 r50, 640", 640, write_rt_detr, rt_detr, "cpu", head=False)]


def tier(model: Model, folder: Path, max_batch: int) -> dict[str, Any]:
    """Write a model's checkpoint, and return a tier with it."""
    place = folder / model.name.partition(",")[0].replace(" ", "-")
    if not place.exists():
        model.write(place)
    how = {"precision": "bfloat16", "compile": True, "cuda_graphs": True, "buckets": [max_batch]}
    own = {"head": str(place / "head.safetensors")} if model.head else {"roadwork": ["roadwork"]}
    one = member(place.name, "torch", place, (model.side, model.side), device="cuda", **how, **own)
    return {"name": f"{place.name}-{model.side}", "max_batch": max_batch, "members": [one]}


def dense_rate() -> float:
    """Return operations per second of a large bfloat16 matrix product, the best of several."""
    import torch

    a, b = (torch.randn(DENSE, DENSE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        torch.cuda.synchronize()
        best = max(best, 5 * 2 * DENSE**3 / (time.perf_counter() - began))
    return best


def bare_rate(cascade: Cascade, seconds: float) -> float:
    """Return images per second of the compiled network alone, on a batch that is on the device."""
    import torch

    from roadstream.workers.engines.options import EngineOptions
    from roadstream.workers.engines.torch.device_link import link_for
    from roadstream.workers.engines.torch.engine import TorchEngine

    (only,) = cascade.tiers
    shared: dict[Any, Any] = {}
    engine = TorchEngine(cascade, only.members[0], EngineOptions(1, shared))
    engine.load()
    engine.warm_up(only.max_batch)
    backbone, link = engine.model.backbone, link_for(torch.device(engine.device), 1, shared)
    done = 0
    with link.turn():
        backbone.features(only.max_batch)
        torch.cuda.synchronize()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(10):
                backbone.features(only.max_batch)
            torch.cuda.synchronize()
            done += 10 * only.max_batch
        rate = done / (time.perf_counter() - began)
    engine.close()
    gc.collect()
    torch.cuda.empty_cache()
    return rate


def stream_rate(
    cascade: Cascade,
    images: int,
    encoded: list[bytes],
    during: AbstractContextManager[object] | None = None,
) -> float:
    """Return images per second of worker and consensus, from the first record to the last answer.

    Args:
        cascade: What is judged.
        images: How many there are.
        encoded: Their bytes, again and again.
        during: Entered once a tenth is answered, left at the end.
    """
    found: list[float] = []

    async def measure() -> None:
        log = MemoryLog()
        await log.create_topics(all_topics(cascade.tier_names), 4)
        await submit(log, encoded, images)
        first = LoopWatch(images, outputs=False)
        last = LoopWatch(images, outputs=True, warm=images // 10)
        consensus = build_consensus(WatchedLog(log, last), cascade)
        worker, stopping = WatchedLog(log, first), anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_workers, worker, cascade, WorkOptions(), stopping)
            tasks.start_soon(consensus.run, stopping)
            await last.warmed.wait()
            with during or nullcontext():
                await last.reached.wait()
            stopping.set()
        found.append(images / (last.began_at + last.seconds - first.began_at))

    run_async("error", measure)
    return found[0]


@contextmanager
def undecoded(side: int) -> Iterator[None]:
    """Have workers take one array for every picture instead of decoding it."""
    pixels: Pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    with patch("roadstream.workers.tier.judge.decode", lambda *_, **__: pixels):
        yield


def idle_share(cascade: Cascade, images: int, encoded: list[bytes]) -> float:
    """Return the share of the time in which nothing ran on the device, in a run of its own."""
    from torch.profiler import ProfilerActivity, profile

    profiled: Any = profile(activities=[ProfilerActivity.CUDA])
    stream_rate(cascade, images, encoded, profiled)
    spans = [
        (float(event.time_range.start), float(event.time_range.end))
        for event in profiled.events()
        if event.device_type.name == "CUDA"
    ]
    begin, end = min(first for first, _ in spans), max(last for _, last in spans)
    return 1.0 - busy_share(spans, begin, end)


def measure(
    model: Model, folder: Path, dense: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Return a model's figures."""
    only = tier(model, folder, options.max_batch)
    cascade = load_cascade(str(cascade_file(folder, only["name"], only)))
    flops = flops_per_image(model.build, model.side, model.counted_on)
    jpegs = pictures(options.pictures)
    bare: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in STREAMS}
    for _ in range(options.rounds):
        bare.append(bare_rate(cascade, options.seconds))
        images = max(20 * options.max_batch, int(bare[-1] * options.seconds))
        with undecoded(model.side):
            rates["stream"].append(stream_rate(cascade, images, jpegs))
        rates["stream, JPEG"].append(stream_rate(cascade, images, jpegs))
    with undecoded(model.side):
        idle = idle_share(cascade, images, jpegs)
    pairs = zip(rates["stream"], bare, strict=True)
    return {
        "model": model.name,
        "bare": spread(bare),
        **{name: spread(found) for name, found in rates.items()},
        "ratio": spread([stream / alone for stream, alone in pairs]),
        "idle_share": idle,
        "roofline": roofline(flops, dense, spread(rates["stream"]).median),
        "roofline_of_bare": roofline(flops, dense, spread(bare).median),
    }


def mixed(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a cascade of two tiers, which all images pass."""
    first, second = models()[0], models()[-1]
    tiers = [tier(one, folder, options.max_batch) for one in (first, second)]
    files = [cascade_file(folder, one["name"], one) for one in tiers]
    alone = [bare_rate(load_cascade(str(file)), options.seconds) for file in files]
    bound = 1.0 / sum(1.0 / rate for rate in alone)
    cascade = load_cascade(str(cascade_file(folder, "mixed", *tiers)))
    images, jpegs = max(640, int(bound * options.seconds)), pictures(options.pictures)
    with undecoded(second.side):
        rates = [stream_rate(cascade, images, jpegs) for _ in range(options.rounds)]
        idle = idle_share(cascade, images, jpegs)
    return {
        "model": f"{first.name} then {second.name}",
        "bare": spread([bound]),
        "stream": spread(rates),
        "ratio": spread([rate / bound for rate in rates]),
        "idle_share": idle,
    }


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.models.gpu", description=__doc__
    )
    parser.add_argument("--only", action="append", help="part of a row's name; repeatable")
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, about")
    parser.add_argument("--pictures", type=int, default=50, help="JPEGs rendered")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, contenders in turn")
    parser.add_argument("--name", default="gpu", help="name of the result")
    return parser.parse_args()


def require_cuda() -> str:
    """Return the device's name.

    Raises:
        SystemExit: There is none.
    """
    try:
        import torch
    except ImportError as error:
        raise SystemExit(
            "roadstream.bench.models.gpu needs PyTorch (pip install 'roadstream[torch]')"
        ) from error
    if not torch.cuda.is_available():
        raise SystemExit(
            "roadstream.bench.models.gpu needs a CUDA device, and PyTorch sees none here"
        )
    return str(torch.cuda.get_device_name())


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = parse()
    device = require_cuda()
    dense = dense_rate()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="roadstream-bench-") as scratch:
        for model in models():
            if not options.only or any(part in model.name for part in options.only):
                found.append(measure(model, Path(scratch), dense, options))
                print(msgspec.json.encode(found[-1]).decode(), flush=True)
        if not options.only or "mixed" in options.only:
            found.append(mixed(Path(scratch), options))
    report(found, device, dense, options)


def report(
    found: list[dict[str, Any]], device: str, dense: float, options: argparse.Namespace
) -> None:
    """Print the table and write the JSON."""
    rows = [
        [
            one["model"],
            *[one[name].text() if name in one else "" for name in ("bare", *STREAMS)],
            one["ratio"].text(".3f"),
            f"{one['roofline'].share:.2f}" if "roofline" in one else "",
            f"{one['idle_share']:.1%}",
        ]
        for one in found
    ]
    columns = ["model", "bare, images/s", *STREAMS, "ratio", "of roofline", "idle"]
    show(f"{device}, bfloat16, batches of {options.max_batch}", columns, rows)
    limit = (
        f"A product of {DENSE}×{DENSE} matrices runs at {dense / 1e12:,.0f} TFLOP/s: the roofline. "
        f"Aim: {AIM} of the bare loop inside the stream. On JPEGs the host's cores decode."
    )
    print(limit)
    facts = {"device": device, "dense_flops_per_second": dense, "models": found, "aim": AIM}
    result = {"options": vars(options), **facts, "limit_in_words": limit}
    print(f"written: {write_result(options.name, result)}")


if __name__ == "__main__":
    main()
