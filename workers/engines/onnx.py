"""ONNX models on the CPU by onnxruntime: uint8 pictures in, one log-odds per picture out.

The model's contract: input ``images`` uint8 [N, H, W, 3] RGB, output ``logit`` float32 [N], and
optionally ``heat`` float32 [N, h, w], evidence per place, from which boxes are drawn.
"""

import math
import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.cascade import Member
from schemas.errors import ConfigError, DeviceMemoryError
from schemas.records import Box
from schemas.settings.local import OnnxSettings
from schemas.settings.registry import settings_of
from stages.inference import Engine, Pictures, Score
from stages.shapes import sizes_of

Heat = NDArray[np.float32]
# A place is drawn if its evidence is at least this, and at least half of the strongest place's:
# of 40 test pictures each, 39 with roadwork have such a place for lite0, and 16 without.
HEAT_FLOOR = 8.0
MAX_BOXES = 8
# onnxruntime tells by text alone that an arena, the C++ runtime or a device has no more memory
# (core/framework/bfc_arena.cc, core/providers/cuda/cuda_call.cc).
_NO_MEMORY = re.compile(
    r"failed to allocate memory|bad[_ ]alloc|out of memory|ALLOC_FAILED", re.IGNORECASE
)


class OnnxEngine(Engine):
    """Runs one ONNX file.

    Args:
        member: For its name, input size and settings, see ``OnnxSettings``.
        path: The file.
        threads: onnxruntime's threads per call.
    """

    only_at_size = True

    def __init__(self, member: Member, path: Path, threads: int = 1) -> None:
        self._member, self._path, self._threads = member, path, threads
        self._settings = settings_of(member.settings, OnnxSettings)
        self._outputs: list[str] = []

    def load(self) -> None:
        """Read the file and check it against the contract.

        Raises:
            ConfigError: It is no ONNX model, or has other inputs or outputs.
        """
        import onnxruntime as ort

        _share_memory()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A plan per batch size would keep memory for each of them, and gains no time.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.use_env_allocators", "1")
        # Spinning threads would take the cores from the other processes of a cascade.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base of their own
            problem = str(error).strip().splitlines()[0]
            raise ConfigError(str(self._path), "an ONNX model", problem) from None
        found = [output.name for output in self._session.get_outputs()]
        inputs = [(i.name, i.type) for i in self._session.get_inputs()]
        if "logit" not in found or inputs != [("images", "tensor(uint8)")]:
            raise ConfigError(
                str(self._path),
                "an input images of tensor(uint8) and an output logit",
                f"inputs {inputs}, outputs {found}",
            )
        self._check_shape(self._session.get_inputs()[0].shape)
        boxes = "heat" in found and self._settings.boxes
        self._outputs = ["logit", "heat"] if boxes else ["logit"]

    def _check_shape(self, shape: list[int | str | None]) -> None:
        """Check that the model takes one picture of each of the member's sizes: [N, H, W, 3]."""
        for width, height in sizes_of(self._member):
            wanted = (1, height, width, 3)
            if len(shape) != len(wanted) or any(
                isinstance(is_, int) and is_ != side
                for is_, side in zip(shape, wanted, strict=True)
            ):
                raise ConfigError(
                    f"{self._path}: member {self._member.name}",
                    f"an input images that takes [N, {height}, {width}, 3] with N = 1",
                    f"{shape}",
                )

    def prepare(self, batch: Pictures) -> None:
        """Resize, beside another batch's run."""
        size = batch.size_for(self._member)
        for picture in batch:
            picture.at(*size)

    def infer(self, batch: Pictures) -> list[Score]:
        """Return log-odds and boxes per picture, from as many runs of the model as that takes.

        Raises:
            DeviceMemoryError: The pictures of one run do not fit into memory.
        """
        per_run = self._settings.pictures_per_run
        scores: list[Score] = []
        for start in range(0, len(batch), per_run):
            scores += self._run(batch[start : start + per_run])
        return scores

    def _run(self, batch: Pictures) -> list[Score]:
        images = batch.stack(*batch.size_for(self._member))
        try:
            found = self._session.run(self._outputs, {"images": images})
        except Exception as error:  # onnxruntime's errors share no base of their own
            if _NO_MEMORY.search(str(error)):
                raise DeviceMemoryError(f"a batch of {len(batch)}: {error}") from error
            raise
        logits = found[0].reshape(-1).tolist()
        if len(found) == 1:
            return [Score(logit, []) for logit in logits]
        return [Score(logit, boxes(heat)) for logit, heat in zip(logits, found[1], strict=True)]

    def close(self) -> None:
        """Let go of the session."""
        self.__dict__.pop("_session", None)


@cache
def _share_memory() -> None:
    """Let the models of this process share one arena: on the CPU, one runs at a time."""
    import onnxruntime as ort

    arena = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    # What a run needs and no more; by default an arena doubles whenever it grows.
    ort.create_and_register_allocator(arena, ort.OrtArenaCfg({"arena_extend_strategy": 1}))


def boxes(heat: Heat) -> list[Box]:
    """Return the places of evidence as boxes, strongest first.

    A box's confidence is σ of what its places add to the picture's log-odds.

    Args:
        heat: float32 [h, w]; a place adds its evidence, divided by h·w, to the log-odds.
    """
    hot = (heat >= max(HEAT_FLOOR, float(heat.max()) / 2)).astype(np.uint8)
    rows, columns = heat.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    found = []
    for i in range(1, count):
        x, y, w, h = (int(v) for v in stats[i][:4])
        evidence = float(heat[labels == i].sum()) / heat.size
        confidence = 1.0 / (1.0 + math.exp(-evidence))
        corners = (x / columns, y / rows, (x + w) / columns, (y + h) / rows)
        found.append(Box(*corners, confidence, "evidence"))
    return sorted(found, key=lambda box: -box.confidence)[:MAX_BOXES]
