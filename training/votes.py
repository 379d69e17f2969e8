"""Scores of the shipped members on the held-out pictures, and what each member costs."""

import argparse
import hashlib
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from corpus import CONES_SIZE, FOLDS, HERE, INPUT_SIZES, Picture, Pixels, load_cache, stretch
from pooling import MEMBERS, Floats
from prepare import decode

sys.path.insert(0, str(HERE.parent))
from stages.cones import find_cones

NETS = HERE.parent / "cascades" / "lite"
TIMED_PICTURES = 24


def open_net(name: str) -> onnxruntime.InferenceSession:
    """Open one net on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = NETS / f"{name}.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def digest(name: str) -> str:
    """Name a net's file by its SHA-256."""
    return hashlib.sha256((NETS / f"{name}.onnx").read_bytes()).hexdigest()


def net_scores(name: str, images: Pixels, rows: list[int]) -> Floats:
    """Score pictures of a cache array one by one: log-odds float64 [len(rows)]."""
    net = open_net(name)
    return np.array(
        [net.run(["logit"], {"images": images[row : row + 1]})[0][0] for row in rows], np.float64
    )


def cone_scores(data: Path, pictures: list[Picture]) -> Floats:
    """Score pictures by the cone rule."""
    images = (stretch(decode(data / p.file), CONES_SIZE) for p in pictures)
    return np.array([find_cones(image).score for image in images])


def member_scores(
    options: argparse.Namespace, pictures: list[Picture], rows: list[int]
) -> dict[str, Floats]:
    """Score the pictures `rows` of `pictures` by every member.

    Scores of a net are kept in the cache under the file's digest, as the largest net is slow.
    """
    scores = {"cones": cone_scores(options.data, [pictures[row] for row in rows])}
    for name, size in INPUT_SIZES.items():
        kept = options.cache / f"scores_{name}_{digest(name)[:16]}_{len(rows)}.npy"
        if not kept.exists():
            np.save(kept, net_scores(name, load_cache(options.cache, size), rows))
        scores[name] = np.load(kept)
    return scores


def unseen_scores(options: argparse.Namespace, pictures: list[Picture]) -> dict[str, Floats]:
    """Score every picture by nets trained without its source; NaN where there was no such run.

    The cone rule is the shipped one: its few constants were fitted with all sources.
    """
    scores = {"cones": cone_scores(options.data, pictures)}
    for name in ("tiny", "lite0"):
        scores[name] = np.full(len(pictures), np.nan)
        for fold, families in FOLDS.items():
            inside = np.array([p.family in families for p in pictures])
            run = options.cache / "runs" / f"{name}-without-{fold}.npy"
            if run.exists():
                scores[name][inside] = np.load(run)[inside]
    return scores


def milliseconds(options: argparse.Namespace, pictures: list[Picture]) -> dict[str, float]:
    """Time every member on one thread: the lower quartile over pictures, milliseconds per picture.

    The lower quartile, because other work on the machine only ever makes a run slower.
    """
    cv2.setNumThreads(1)
    step = len(pictures) // TIMED_PICTURES
    decoded = [stretch(decode(options.data / p.file), CONES_SIZE) for p in pictures[::step]]
    result = {}
    for member in MEMBERS:
        spent = []
        if member == "cones":
            for image in decoded:
                begun = time.perf_counter()
                find_cones(image)
                spent.append(time.perf_counter() - begun)
        else:
            net = open_net(member)
            images = load_cache(options.cache, INPUT_SIZES[member])[::step]
            for index in range(len(images)):
                batch = np.array(images[index : index + 1])
                begun = time.perf_counter()
                net.run(["logit"], {"images": batch})
                spent.append(time.perf_counter() - begun)
        result[member] = round(float(np.percentile(spent, 25)) * 1e3, 2)
    return result
