"""What a served model must look like for a member, compared with what the server says of it."""

from typing import NamedTuple

from schemas.errors import ConfigError
from schemas.settings.triton import TritonSettings

# What the server calls the types that a score may have.
_FLOATS = ("FP32", "FP64", "FP16")
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
        outputs: Outputs to ask for: the score, and evidence if boxes are drawn.
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
    chosen = [settings.output]
    heat = outputs.get(settings.heat)
    if settings.boxes and heat is not None:
        if heat.datatype not in _FLOATS or len(heat.shape) != 3:
            raise ConfigError(where, f"evidence {settings.heat} FP32 [-1, h, w]", str(heat))
        chosen.append(settings.heat)
    shape = _input_shape(served, settings, size, where)
    return Contract(served.max_batch or None, tuple(chosen), shape)


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


def _listed(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(map(str, tensors)) or "none"
