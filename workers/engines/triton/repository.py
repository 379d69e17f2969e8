"""A model repository for Triton: one folder per model, with its ONNX file and its configuration."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from roadstream.schemas.errors import ConfigError
from roadstream.workers.engines.triton.contract import ANY, Tensor

_CONFIG = """\
# Written by `roadstream export triton`; any of it may be changed except names and types.
name: "{name}"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: {max_batch}
{tensors}
# Batches are made of what waits when an instance gets free; nothing waits for more to come.
# A request says how long it is worth anything, and is refused if it is still queued by then; the
# server heeds that only where a default is set, and only if the request's time is shorter.
dynamic_batching {{
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: 600000000
    allow_timeout_override: true
  }}
}}
instance_group {{
  kind: {kind}
  count: {instances}
}}
parameters {{
  key: "sha256"
  value {{ string_value: "{sha256}" }}
}}
"""


class CannotExportError(ConfigError):
    """A member's network is in order, but no ONNX file can be made of it."""


class Instances(NamedTuple):
    """How a model is run: on which kind of device, by how many instances, in which batches."""

    kind: str = "KIND_AUTO"
    number: int = 1
    max_batch: int = 16


class Model(NamedTuple):
    """A model to be put into a repository.

    Attributes:
        name: Its name on the server.
        inputs: With the batch first.
        outputs: Likewise.
        write: Writes its ONNX file to a path.
        kinds: Names of what it finds, by number; none if it is no detector.
        lost: Tags that it gives here and cannot give on a server.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    write: Callable[[Path], None]
    kinds: Sequence[str] = ()
    lost: Sequence[str] = ()


def write_model(repository: Path, model: Model, instances: Instances) -> str:
    """Write a model's folder; return the SHA-256 of its weights."""
    folder = repository / model.name
    version = folder / "1"
    version.mkdir(parents=True)
    model.write(version / "model.onnx")
    digest = _digest(version)
    (folder / "config.pbtxt").write_text(config(model, instances, digest), encoding="utf-8")
    return digest


def config(model: Model, instances: Instances, sha256: str) -> str:
    """Return a model's ``config.pbtxt``."""
    tensors = [_tensor("input", one) for one in model.inputs]
    tensors += [_tensor("output", one) for one in model.outputs]
    return _CONFIG.format(
        name=model.name,
        max_batch=instances.max_batch,
        tensors="\n".join(tensors),
        kind=instances.kind,
        instances=instances.number,
        sha256=sha256,
    )


def _digest(version: Path) -> str:
    """Return that of all files: networks of 2 GB and more keep their weights beside the graph."""
    digest = hashlib.sha256()
    for path in sorted(version.iterdir()):
        with path.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _tensor(kind: str, tensor: Tensor) -> str:
    """Return an input or output as the configuration has it: without the batch.

    A model whose output is one number per picture has no dimension beside the batch, while a
    configuration needs one: it says 1, and that the model has none.
    """
    rest = tensor.shape[1:]
    assert tensor.shape[0] == ANY
    dims = ", ".join(map(str, rest)) or "1"
    lines = [
        f"{kind} {{",
        f'  name: "{tensor.name}"',
        f"  data_type: TYPE_{'STRING' if tensor.datatype == 'BYTES' else tensor.datatype}",
        f"  dims: [ {dims} ]",
    ]
    if not rest:
        lines.append("  reshape { shape: [ ] }")
    return "\n".join([*lines, "}"])
