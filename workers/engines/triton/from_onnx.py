"""An ONNX file as a model of a repository, checked against the contract."""

import shutil
from pathlib import Path
from typing import Any

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.workers.engines.boxes import kinds_of
from roadstream.workers.engines.tagging import chosen_heads
from roadstream.workers.engines.triton.contract import ANY, Served, Tensor, agree
from roadstream.workers.engines.triton.repository import Model

_TYPES = {
    "tensor(uint8)": "UINT8",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(int64)": "INT64",
}


def model_of(member: Member, file: Path, where: str) -> Model:
    """Return an ONNX file as a model that is named like the member.

    Raises:
        ConfigError: It is no ONNX model, or takes or gives something else than the ``onnx`` engine
            and Triton can both do with, such as batches of one size only.
    """
    where = f"{where}: {file}"
    session = _opened(file, where, "an ONNX model")
    inputs = tuple(map(_tensor, session.get_inputs()))
    outputs = tuple(map(_tensor, session.get_outputs()))
    served = Served(inputs, outputs, max_batch=0, sha256=None)
    agree(served, TritonSettings(), (member.width, member.height), where)
    told = {output.name: output for output in session.get_outputs()}
    properties = session.get_modelmeta().custom_metadata_map
    kinds: list[str] = []
    assert isinstance(member.settings, OnnxSettings)
    if member.settings.boxes and "boxes" in told:
        kinds = kinds_of(told, properties, where)
    heads = chosen_heads(told, properties, member.settings.tags, where)
    lost = [head.tag for head in heads]

    def copy(target: Path) -> None:
        shutil.copyfile(file, target)
        _opened(target, where, "an ONNX file that holds its weights itself")

    return Model(member.name, inputs, outputs, copy, kinds, lost)


def _opened(file: Path, where: str, expected: str) -> Any:
    """Open a file.

    Raises:
        ConfigError: onnxruntime cannot open it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base of their own
        problem = str(error).strip().splitlines()[0]
        raise ConfigError(where, expected, problem) from None


def _tensor(told: object) -> Tensor:
    """Return an input or output of onnxruntime's; sizes that have a name only can be any."""
    name, kind, shape = (getattr(told, key) for key in ("name", "type", "shape"))
    sizes = tuple(size if isinstance(size, int) else ANY for size in shape)
    return Tensor(name, _TYPES.get(kind, kind), sizes)
