"""The engines that run members: one table of ours, and those that other distributions bring.

Whatever depends on which engines there are is taken from here: what a cascade file may say, the
messages about it, `roadstream schema`, what builds an engine, and the table in
``docs/guide/models.md``. Nothing here imports an engine of ours; one of another distribution is
imported when a cascade names it, and looked for only then.
"""

from typing import Any, Literal

import msgspec

from roadstream.schemas.plugins import PlugIn, PlugIns
from roadstream.schemas.settings.base import EngineSettings
from roadstream.schemas.settings.local import NoSettings, OnnxSettings
from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.schemas.settings.vllm import VllmSettings

ModelKind = Literal["none", "file", "folder", "hub", "server"]
MODEL_KINDS: dict[ModelKind, str] = {
    "none": "a weight file",  # which it does not need; one that is named has to be there
    "file": "a weight file",
    "folder": "a folder of weights",
    "hub": "a folder of weights, or the id of a model on the hub (org/name)",
    "server": "a model's name",
}
"""What a member's ``model`` names, in words."""


class EngineTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What a cascade file may say of an engine's members.

    Attributes:
        settings: Type of their ``settings``.
        model: What their ``model`` names: a ``file`` or a ``folder`` (or file) of weights, relative
            to the cascade file; such a folder or the id of a model on the ``hub``; a name on a
            ``server``; or ``none`` is needed.
        several_sizes: Whether they may have ``sizes``.
        evidence: Whether they can make use of what earlier tiers found, and so may ask for it.
    """

    settings: type[EngineSettings] = NoSettings
    model: ModelKind = "none"
    several_sizes: bool = False
    evidence: bool = False


class EngineEntry(EngineTraits, frozen=True, kw_only=True):
    """An engine: of the table, or brought by another distribution.

    Attributes:
        name: As a member's ``engine`` has it.
        runs: What it runs, in a line.
        implementation: Its class, ``module:name``: an ``Engine`` of ``roadstream.stages.inference``
            that is made of the cascade, the member and an ``EngineOptions``.
        extra: The extra of Roadstream that brings what it needs; empty if it needs nothing more.
        modules: What must be importable here before it is built.
        stays: Why `roadstream export triton` leaves its members as they are; empty if it does not.
        origin: Distribution and version that brings it; empty for ours.
    """

    name: str
    runs: str = ""
    implementation: str
    extra: str = ""
    modules: tuple[str, ...] = ()
    stays: str = ""
    origin: str = ""


_ENGINES = "roadstream.workers.engines"
ENGINES = {
    engine.name: engine
    for engine in (
        EngineEntry(
            name="onnx",
            runs="ONNX files on the CPU",
            settings=OnnxSettings,
            model="file",
            several_sizes=True,
            implementation=f"{_ENGINES}.onnx:OnnxEngine",
        ),
        EngineEntry(
            name="torch",
            runs="checkpoints of known families on a CPU or a CUDA device",
            settings=TorchSettings,
            model="hub",
            several_sizes=True,
            evidence=True,
            implementation=f"{_ENGINES}.torch.engine:TorchEngine",
            extra="torch",
            modules=("torch", "safetensors", "transformers"),
        ),
        EngineEntry(
            name="vllm",
            runs="vision-language models by vLLM, in a process and an environment of its own",
            settings=VllmSettings,
            model="hub",
            evidence=True,
            implementation=f"{_ENGINES}.vllm.engine:VllmEngine",
            extra="vllm",
            stays="vLLM runs it",
        ),
        EngineEntry(
            name="openai",
            runs="vision-language models on a server that speaks OpenAI's protocol",
            settings=OpenAISettings,
            model="server",
            evidence=True,
            implementation=f"{_ENGINES}.openai.engine:OpenAIEngine",
            extra="openai",
            modules=("httpx",),
            stays="another server runs it",
        ),
        EngineEntry(
            name="triton",
            runs="models on a Triton server",
            settings=TritonSettings,
            model="server",
            implementation=f"{_ENGINES}.triton.engine:TritonEngine",
            extra="triton",
            modules=("tritonclient.grpc.aio",),
            stays="Triton runs it already",
        ),
        EngineEntry(
            name="cones",
            runs="a rule that looks for cones by colour and shape",
            implementation=f"{_ENGINES}.rules:ConesEngine",
            stays="a rule without weights",
        ),
        EngineEntry(
            name="noop",
            runs="nothing, for load tests: every picture gets the same score",
            several_sizes=True,
            implementation=f"{_ENGINES}.rules:NoopEngine",
            stays="it has no weights",
        ),
    )
}


def engine_named(name: str, where: str = "engine") -> EngineEntry:
    """Return an engine of ours, or else one that an installed distribution brings.

    Args:
        name: Its name.
        where: File and key that name it, for errors.

    Raises:
        ConfigError: There is none, there are several, or the distribution's cannot be used.
    """
    return plug_ins.named(name, where)


def _entry(found: PlugIn) -> EngineEntry:
    traits = getattr(found.made, "traits", EngineTraits())
    if (problem := _problem(traits)) is not None:
        raise found.refused(f"to have {problem[0]}", problem[1])
    return EngineEntry(
        name=found.name,
        implementation=found.implementation,
        stays=f"{found.origin} runs it",
        origin=found.origin,
        **msgspec.structs.asdict(traits),
    )


def _problem(traits: Any) -> tuple[str, str] | None:
    """Return what the traits of somebody else's engine should be, and what they are."""
    if not isinstance(traits, EngineTraits):
        return "EngineTraits as traits", repr(traits)
    if traits.model not in MODEL_KINDS:
        return f"one of {', '.join(MODEL_KINDS)} as traits.model", repr(traits.model)
    settings = traits.settings
    if not (isinstance(settings, type) and issubclass(settings, EngineSettings)):
        return "a type of EngineSettings as traits.settings", repr(settings)
    if not settings.__struct_config__.forbid_unknown_fields:
        return "settings with forbid_unknown_fields=True", settings.__qualname__
    return None


plug_ins = PlugIns("roadstream.engines", "engine", ENGINES, _entry)
"""All engines, by name."""
