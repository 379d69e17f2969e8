"""Which settings belong to which engine, and how they are read from a member."""

from typing import Any, TypeVar

import msgspec

from roadstream.schemas.settings.base import EngineSettings
from roadstream.schemas.settings.local import NoSettings, OnnxSettings
from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.schemas.settings.vllm import VllmSettings

SETTINGS: dict[str, type[EngineSettings]] = {
    "cones": NoSettings,
    "noop": NoSettings,
    "onnx": OnnxSettings,
    "openai": OpenAISettings,
    "torch": TorchSettings,
    "triton": TritonSettings,
    "vllm": VllmSettings,
}

S = TypeVar("S", bound=EngineSettings)


def settings_of(given: dict[str, Any], kind: type[S]) -> S:
    """Return a member's ``settings`` as its engine's own type.

    Raises:
        msgspec.ValidationError: They are not such settings. A cascade that was loaded has been
            checked for this.
    """
    return msgspec.convert(given, kind)
