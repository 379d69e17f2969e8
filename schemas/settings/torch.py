"""Settings of the ``torch`` engine: one structure for all families; each says which it reads."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from roadstream.schemas.records.bounds import Share
from roadstream.schemas.settings.base import EngineSettings
from roadstream.schemas.settings.prompts import prompt_file
from roadstream.schemas.settings.signs import SIGNS_AGAINST, SIGNS_FOR

Count = Annotated[int, Meta(ge=1)]
Confidence = Annotated[float, Meta(gt=0, lt=1)]
Text = Annotated[str, Meta(min_length=1, max_length=400)]
DeviceName = Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")]


class TorchSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ``torch`` engine.

    Attributes:
        family: How the checkpoint is read, where its own ``config.json`` leaves it open: a name of
            ``docs/guide/models.md``.
        revision: Branch, tag or commit of a hub id; ``main`` if absent.
        trust_remote_code: Whether code that comes with the checkpoint may run here.
        device: ``auto`` (the first CUDA device, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: What weights and activations are held in. Scores are computed in float32.
        channels_last: Memory layout for convolutions; absent: on a CUDA device.
        compile: Whether ``torch.compile`` prepares the network, once per batch size of ``buckets``.
        cuda_graphs: Whether the network is recorded as one CUDA graph per batch size of
            ``buckets``; on a CUDA device only.
        buckets: Batch sizes that the network is run with; a batch is filled up with blank pictures
            to the next. Empty: 1, 2, 4, … up to the tier's largest batch where ``compile`` or
            ``cuda_graphs`` is on, and no filling up elsewhere.
        roadwork: Names of the classes that mean roadwork; for a model that knows classes.
        classes: Names of a classifier's or head's outputs, in order, where the checkpoint has none.
        activation: How a classifier's outputs become probabilities; absent: as its
            ``config.json`` says, ``softmax`` if it does not.
        prompts: Texts that mean roadwork; for a model that takes text.
        other_prompts: Texts that mean none, which the score is held against.
        examples: Pictures of what means roadwork, each filled by one such thing, relative to the
            cascade file; for OWLv2.
        head: A safetensors file of a trained head, relative to the cascade file; see
            ``docs/guide/models.md`` for its tensors.
        layers: Blocks (of a ConvNeXt: stages) of the backbone that the head looks at, counted from
            1. Empty: the output of the last one.
        pooling: What the head gets of each: the class token, the mean of the patches, or both.
        min_confidence: Boxes below it are not told.
        max_boxes: The strongest so many boxes are told.
        prompt: What a vision-language model is asked: name of a prompt that ships, or a TOML file
            relative to the cascade file.
        max_leak: A vision-language model abstains if more than this share of the probability is on
            neither yes nor no.
        template: Arguments for its chat template, such as ``enable_thinking``.
        max_tokens: Tokens that a model may write which reads signs.
        signs_for: Texts on signs that mean roadwork; case, accents and punctuation do not count.
        signs_against: Texts on signs that mean none, or its end. What they cover does not count
            as a text that means roadwork.
        sign_odds: Log-odds of roadwork where such a text is read beyond doubt.
    """

    family: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    device: DeviceName = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool | None = None
    compile: bool = False
    cuda_graphs: bool = False
    buckets: list[Count] = []
    roadwork: list[Text] = []
    classes: list[Text] = []
    activation: Literal["softmax", "sigmoid"] | None = None
    prompts: list[Text] = []
    other_prompts: list[Text] = []
    examples: list[Text] = []
    head: str | None = None
    layers: list[Count] = []
    pooling: Literal["cls", "mean", "cls+mean"] = "cls"
    min_confidence: Confidence = 0.3
    max_boxes: Count = 20
    prompt: str | None = None
    max_leak: Share = 0.5
    template: dict[str, Any] = {}
    max_tokens: Annotated[int, Meta(ge=1, le=1024)] = 256
    signs_for: tuple[Text, ...] = SIGNS_FOR
    signs_against: tuple[Text, ...] = SIGNS_AGAINST
    sign_odds: Annotated[float, Meta(gt=0, le=16)] = 3.0

    def files(self) -> list[str]:
        """Return the head, the prompt and the examples, if there are such."""
        prompt = [prompt_file(self.prompt)] if self.prompt is not None else []
        return [*([self.head] if self.head else []), *prompt, *self.examples]

    def prompt_names(self) -> list[str]:
        """Return the prompt, if there is one."""
        return [] if self.prompt is None else [self.prompt]
