"""ONNX models on the CPU by onnxruntime: uint8 pictures in, one log-odds per picture out.

The model's contract: input ``images`` uint8 [N, H, W, 3] RGB, whole upright pictures stretched to
the member's size; output ``logit`` float32 [N]. A detector also has ``boxes`` float32 [N, K, 4]
(x1, y1, x2, y2 in [0, 1] of the whole picture), ``scores`` float32 [N, K] in [0, 1] and ``kinds``
int64 [N, K], whose names are its metadata property ``kinds``, separated by commas. A model that
knows evidence per place has ``heat`` float32 [N, h, w]. One that can tell something else of a
picture, such as its light, has ``tag_NAME`` float32 [N, K], log-odds of values whose names are the
metadata property ``tag_NAME``, separated by commas.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from numpy.typing import NDArray

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.errors import ConfigError, DeviceMemoryError
from roadstream.schemas.records.votes import NO_TAGS, Box
from roadstream.schemas.settings.base import TagsGiven
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.batching.shapes import sizes_of
from roadstream.stages.inference import Engine, Pictures, Score
from roadstream.workers.engines.boxes import DETECTOR_OUTPUTS, Detector, from_heat, kinds_of
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.tagging import Tagger, chosen_heads

# onnxruntime tells by text alone that an arena, the C++ runtime or a device has no more memory
# (core/framework/bfc_arena.cc, core/providers/cuda/cuda_call.cc).
_NO_MEMORY = re.compile(
    r"failed to allocate memory|bad[_ ]alloc|out of memory|ALLOC_FAILED", re.IGNORECASE
)


class OnnxEngine(Engine):
    """Runs one ONNX file.

    Args:
        cascade: For where the file lies.
        member: For its name, input size and settings, see ``OnnxSettings``.
        options: For onnxruntime's threads per call.

    Raises:
        ConfigError: The file is not there.
    """

    only_at_size = True

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        assert isinstance(member.settings, OnnxSettings)
        self._member, self._settings, self._threads = member, member.settings, options.threads
        self._path = cascade.model_path(member)
        self._places: tuple[str, ...] = ()
        self._boxes: Callable[..., list[Box]] = from_heat
        self._tagger = Tagger((), self._settings.tag_confidence)

    def load(self) -> None:
        """Read the file and check it against the contract.

        Raises:
            ConfigError: It is no ONNX model, or has other inputs or outputs.
        """
        self._session = self._opened()
        outputs = {output.name: output for output in self._session.get_outputs()}
        inputs = [(i.name, i.type) for i in self._session.get_inputs()]
        if "logit" not in outputs or inputs != [("images", "tensor(uint8)")]:
            raise ConfigError(
                str(self._path),
                "an input images of tensor(uint8) and an output logit",
                f"inputs {inputs}, outputs {list(outputs)}",
            )
        self._check_shape(self._session.get_inputs()[0].shape)
        if self._settings.boxes:
            self._choose_places(outputs)
        tags, where = self._settings.tags, f"{self._path}: member {self._member.name}"
        heads = chosen_heads(outputs, self._properties(), tags, where)
        self._tagger = self._tagger._replace(heads=heads)

    def given_tags(self) -> TagsGiven:
        """Return the tags that the file may give, once loaded."""
        return {head.tag: frozenset(head.values) for head in self._tagger.heads}

    def _opened(self) -> Any:
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
            return ort.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base of their own
            problem = str(error).strip().splitlines()[0]
            raise ConfigError(str(self._path), "an ONNX model", problem) from None

    def _choose_places(self, outputs: Mapping[str, Any]) -> None:
        """Choose the outputs that boxes are made of, if there are any."""
        if "boxes" in outputs:
            kinds = kinds_of(outputs, self._properties(), str(self._path))
            self._places = DETECTOR_OUTPUTS
            self._boxes = Detector(kinds, self._settings.box_threshold).boxes
        elif "heat" in outputs:
            self._places = ("heat",)

    def _properties(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

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
        """Return log-odds, boxes and tags per picture, from as many runs as that takes.

        Raises:
            DeviceMemoryError: The pictures of one run do not fit into memory.
        """
        per_run = self._settings.pictures_per_run
        scores: list[Score] = []
        for start in range(0, len(batch), per_run):
            scores += self._run(batch[start : start + per_run])
        return scores

    def _run(self, batch: Pictures) -> list[Score]:
        size = batch.size_for(self._member)
        # One picture needs no copy.
        images = batch[0].at(*size)[None] if len(batch) == 1 else batch.stack(*size)
        wanted = ["logit", *self._places, *(head.output for head in self._tagger.heads)]
        try:
            logit, *told = self._session.run(wanted, {"images": images})
        except Exception as error:  # onnxruntime's errors share no base of their own
            if _NO_MEMORY.search(str(error)):
                raise DeviceMemoryError(f"a batch of {len(batch)}: {error}") from error
            raise
        logits = logit.reshape(-1).tolist()
        if not told:
            return [Score(logit, []) for logit in logits]
        return [self._score(logit, rest) for logit, *rest in zip(logits, *told, strict=True)]

    def _score(self, logit: float, told: list[NDArray[Any]]) -> Score:
        """Make one picture's boxes and tags of its rows of the other outputs."""
        count = len(self._places)
        boxes = self._boxes(*told[:count]) if count else []
        return Score(logit, boxes, tags=self._tagger.tags(told[count:]) or NO_TAGS)

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
