"""Settings of the engines that need no library of their own: rules and ONNX."""

from schemas.settings.base import EngineSettings


class NoSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine without settings."""


class OnnxSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ``onnx`` engine.

    Attributes:
        boxes: Whether boxes are drawn from the model's evidence, if it tells any.
    """

    boxes: bool = True
