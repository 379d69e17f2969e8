"""Settings of the engines that need no library of their own: rules and ONNX."""

from typing import Annotated

import msgspec

from roadstream.schemas.records.bounds import TagName
from roadstream.schemas.settings.base import EngineSettings, TagsGiven


class NoSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine without settings."""

    def given_tags(self) -> TagsGiven:
        """Return the tags that a member with them may give."""
        return {}


class OnnxSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ``onnx`` engine.

    Attributes:
        boxes: Whether boxes are drawn, if the model finds things or tells evidence per place.
        box_threshold: Score, above 0 and at most 1, from which on things that it finds are drawn.
        tags: Whether the picture is given tags, if the model has outputs that tell some; or the
            names of those that it is given.
        tag_confidence: Share that the likeliest value of a tag must have, above 0 and at most 1;
            below it the picture gets no tag of that name.
        pictures_per_run: Pictures that one run of the model takes, at least 1. A convolutional
            network on a CPU is as fast with one, and needs memory for one only
            (``python -m roadstream.bench.parts.memory``); one of large matrices may gain from more.
    """

    boxes: bool = True
    box_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.3
    tags: bool | list[TagName] = True
    tag_confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    pictures_per_run: Annotated[int, msgspec.Meta(ge=1)] = 1
