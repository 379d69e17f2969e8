"""What a served model must look like for a member, compared with what the server says of it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.workers.engines.boxes import DETECTOR_OUTPUTS, fit

# What the server calls the types that a score may have.
_FLOATS = ("FP32", "FP64", "FP16")
_DETECTOR = ["FP32", "FP32", "INT64"]
ANY = -1


class Tensor(NamedTuple):
    """An input or output; its shape has the batch first, and −1 where any size fits."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return it as a person would write it."""
        return f"{self.name} {self.datatype} {list(self.shape)}"


class Served(NamedTuple):
    """A model as the server describes it.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
        max_batch: Most pictures per request; 0 where the model makes no difference.
        sha256: Of its weights, if its configuration tells.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    sha256: str | None


class Contract(NamedTuple):
    """How a member asks a model.

    Attributes:
        max_batch: Most pictures per request, at least 1; ``None`` for any number.
        outputs: Outputs to ask for: the score, and what boxes are made of if they are drawn.
        per_picture: Shape of one picture's input, without the batch.
    """

    max_batch: int | None
    outputs: tuple[str, ...]
    per_picture: tuple[int, ...]


def agree(served: Served, settings: TritonSettings, size: tuple[int, int], where: str) -> Contract:
    """Return how to ask a model, or say why it cannot be asked.

    Args:
        served: The model, as the server describes it.
        settings: The member's.
        size: Width and height in pixels of the member's pictures.
        where: Names the member, the server and the model in errors.

    Raises:
        ConfigError: It takes or gives something else than the member's settings say.
    """
    outputs = {tensor.name: tensor for tensor in served.outputs}
    _check_score(outputs.get(settings.output), settings, served, where)
    if settings.sha256 is not None and served.sha256 != settings.sha256:
        got = f"other weights ({served.sha256 or 'the server does not say which'})"
        raise ConfigError(where, f"weights of SHA-256 {settings.sha256}", got)
    chosen = (settings.output, *_places(outputs, settings, where))
    shape = _input_shape(served, settings, size, where)
    return Contract(served.max_batch or None, chosen, shape)


def _places(outputs: Mapping[str, Tensor], settings: TritonSettings, where: str) -> tuple[str, ...]:
    """Return the outputs that boxes are made of, if there are any and boxes are wanted."""
    if settings.boxes and settings.kinds:
        _check_detector([outputs[name] for name in DETECTOR_OUTPUTS if name in outputs], where)
        return DETECTOR_OUTPUTS
    heat = outputs.get(settings.heat)
    if not settings.boxes or heat is None:
        return ()
    if heat.datatype not in _FLOATS or len(heat.shape) != 3:
        raise ConfigError(where, f"evidence {settings.heat} FP32 [-1, h, w]", str(heat))
    return (settings.heat,)


def _check_detector(found: Sequence[Tensor], where: str) -> None:
    shapes = [[None if side == ANY else side for side in tensor.shape] for tensor in found]
    if [tensor.datatype for tensor in found] != _DETECTOR or not fit(shapes):
        expected = "outputs boxes FP32 [-1, K, 4], scores FP32 [-1, K] and kinds INT64 [-1, K]"
        raise ConfigError(where, expected, _listed(found))


def _check_score(
    output: Tensor | None, settings: TritonSettings, served: Served, where: str
) -> None:
    expected = f"an output {settings.output} FP32 [-1] or [-1, 1]"
    if output is None:
        raise ConfigError(where, expected, _listed(served.outputs))
    one = output.shape[:1] == (ANY,) and output.shape[1:] in ((), (1,), (ANY,))
    if output.datatype not in _FLOATS or not one:
        raise ConfigError(where, expected, str(output))


def _input_shape(
    served: Served, settings: TritonSettings, size: tuple[int, int], where: str
) -> tuple[int, ...]:
    """Return the shape of one picture as the model's only input takes it."""
    width, height = size
    if settings.input == "jpeg":
        wanted = Tensor(settings.input_name, "BYTES", (ANY, 1))
        shapes: tuple[tuple[int, ...], ...] = ((), (1,))
    else:
        wanted = Tensor(settings.input_name, "UINT8", (ANY, height, width, 3))
        shapes = ((height, width, 3),)
    expected = f"one input, {wanted}"
    if len(served.inputs) != 1:
        raise ConfigError(where, expected, _listed(served.inputs))
    (found,) = served.inputs
    if (found.name, found.datatype) != wanted[:2] or found.shape[:1] != (ANY,):
        raise ConfigError(where, expected, str(found))
    for shape in shapes:
        if _fits(found.shape[1:], shape):
            return shape
    raise ConfigError(where, expected, str(found))


def _fits(allowed: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    pairs = zip(allowed, shape, strict=False)
    return len(allowed) == len(shape) and all(a in (ANY, s) for a, s in pairs)


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(map(str, tensors)) or "none"
