"""Settings of the ``torch`` engine: one structure for all families; each says which it reads."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from roadstream.schemas.records.bounds import Share
from roadstream.schemas.records.votes import MOST_BOXES
from roadstream.schemas.settings.base import EngineSettings, TagsGiven
from roadstream.schemas.settings.concepts import Concepts, TagTexts, Text, texts_of
from roadstream.schemas.settings.named_files import named_file
from roadstream.schemas.settings.signs import SIGNS_AGAINST, SIGNS_FOR

Count = Annotated[int, Meta(ge=1)]
Confidence = Annotated[float, Meta(gt=0, lt=1)]
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
        concepts: A list of more such texts, and of more ``tags``: name of one that ships, or a TOML
            file relative to the cascade file. A model that tells by itself whether a text fits does
            without what means none.
        tags: Per tag its values, and what means each: texts for a model that takes text, names of
            classes for one that knows classes. A member without ``roadwork`` or ``prompts`` gives
            tags alone. Of a tag that ``concepts`` has too, these values count.
        tag_confidence: A tag is given where its likeliest value is at least so likely.
        examples: Pictures of what means roadwork, each filled by one such thing, relative to the
            cascade file; for OWLv2.
        head: A safetensors file of a trained head, relative to the cascade file; see
            ``docs/guide/models.md`` for its tensors.
        layers: Blocks (of a ConvNeXt: stages) of the backbone that the head looks at, counted from
            1. Empty: the output of the last one.
        pooling: What the head gets of each: the class token, the mean of the patches, or both.
        min_confidence: Boxes below it are not told.
        max_boxes: The strongest so many boxes are told.
        max_exemplars: Boxes of earlier tiers that a text gets as examples, the strongest; for SAM 3
            with ``evidence`` of ``boxes``.
        min_exemplar_confidence: Boxes below it are no examples.
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
    concepts: str | None = None
    tags: TagTexts = {}
    tag_confidence: Annotated[float, Meta(gt=0, le=1)] = 0.5
    examples: list[Text] = []
    head: str | None = None
    layers: list[Count] = []
    pooling: Literal["cls", "mean", "cls+mean"] = "cls"
    min_confidence: Confidence = 0.3
    max_boxes: Count = 20
    max_exemplars: Annotated[int, Meta(ge=1, le=MOST_BOXES)] = 3
    min_exemplar_confidence: Confidence = 0.5
    prompt: str | None = None
    max_leak: Share = 0.5
    template: dict[str, Any] = {}
    max_tokens: Annotated[int, Meta(ge=1, le=1024)] = 256
    signs_for: tuple[Text, ...] = SIGNS_FOR
    signs_against: tuple[Text, ...] = SIGNS_AGAINST
    sign_odds: Annotated[float, Meta(gt=0, le=16)] = 3.0

    def files(self) -> list[str]:
        """Return the head, the prompt, the concepts and the examples, if there are such."""
        named = [named_file("prompts", name) for name in self.prompt_names()]
        named += [named_file("concepts", name) for name in self.concept_names()]
        return [*([self.head] if self.head else []), *named, *self.examples]

    def prompt_names(self) -> list[str]:
        """Return the prompt, if there is one."""
        return [] if self.prompt is None else [self.prompt]

    def concept_names(self) -> list[str]:
        """Return the list of concepts, if there is one."""
        return [] if self.concepts is None else [self.concepts]

    def with_concepts(self, concepts: Concepts, *, others: bool) -> "TorchSettings":
        """Return them with what a list has behind their own texts.

        Args:
            concepts: The list.
            others: Whether texts that mean no roadwork are wanted.
        """
        return msgspec.structs.replace(
            self,
            prompts=[*self.prompts, *texts_of(concepts.roadwork)],
            other_prompts=[*self.other_prompts, *(texts_of(concepts.other) if others else [])],
            tags={**concepts.tags, **self.tags},
            concepts=None,
        )

    def given_tags(self) -> TagsGiven | None:
        """Return the tags that readers of signs and depth members may give, and those asked for."""
        if self.concepts is not None:
            return None  # a list of concepts may bring tags
        asked = {name: frozenset(values) for name, values in self.tags.items()}
        depth = frozenset({"metres", "relative"})
        signs = {"text": None, "zone": frozenset({"begins", "ends"})}
        unsigned = {"signs": frozenset({"none", "other", "both"})}
        return {**signs, **unsigned, "depth": depth, **asked}
