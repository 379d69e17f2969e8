"""An ONNX file as a model of a repository, checked against the contract."""

import shutil
from pathlib import Path

from schemas.cascade import Member
from schemas.errors import ConfigError
from schemas.settings.triton import TritonSettings
from workers.engines.triton.contract import ANY, Served, Tensor, agree
from workers.engines.triton.repository import Model

_TYPES = {
    "tensor(uint8)": "UINT8",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
}


def model_of(member: Member, file: Path, where: str) -> Model:
    """Return an ONNX file as a model that is named like the member.

    Raises:
        ConfigError: It is no ONNX model, or takes or gives something else than the ``onnx`` engine
            and Triton can both do with, such as batches of one size only.
    """
    inputs, outputs = _described(file, f"{where}: {file}", "an ONNX model")
    served = Served(inputs, outputs, max_batch=0, sha256=None)
    agree(served, TritonSettings(), (member.width, member.height), f"{where}: {file}")

    def copy(target: Path) -> None:
        shutil.copyfile(file, target)
        _described(target, f"{where}: {file}", "an ONNX file that holds its weights itself")

    return Model(member.name, inputs, outputs, copy)


def _described(
    file: Path, where: str, expected: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return what a file takes and gives.

    Raises:
        ConfigError: onnxruntime cannot open it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base of their own
        problem = str(error).strip().splitlines()[0]
        raise ConfigError(where, expected, problem) from None
    inputs = tuple(map(_tensor, session.get_inputs()))
    return inputs, tuple(map(_tensor, session.get_outputs()))


def _tensor(told: object) -> Tensor:
    """Return an input or output of onnxruntime's; sizes that have a name only can be any."""
    name, kind, shape = (getattr(told, key) for key in ("name", "type", "shape"))
    sizes = tuple(size if isinstance(size, int) else ANY for size in shape)
    return Tensor(name, _TYPES.get(kind, kind), sizes)
