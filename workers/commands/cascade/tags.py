"""Which tags members may give: as their settings say, or the files that they name."""

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.engines import engine_named
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.base import TagsGiven
from roadstream.schemas.settings.concepts import load_concepts
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.schemas.settings.torch import TorchSettings


def given_by(cascade: Cascade, member: Member) -> TagsGiven | None:
    """Return the tags that a member may give, each with its values; ``None`` if nobody can tell."""
    settings = member.settings
    if engine_named(member.engine).origin:
        return None  # of another distribution, whatever its settings are called
    try:
        if isinstance(settings, OnnxSettings) and settings.tags:
            return _of_file(cascade, member)
        if isinstance(settings, TorchSettings) and settings.concepts is not None:
            files = cascade.snapshot.files
            concepts = load_concepts(settings.concepts, cascade.folder, "concepts", files)
            settings = settings.with_concepts(concepts, others=True)
    except ConfigError:
        return None  # whoever loads it says why
    return settings.given_tags()


def _of_file(cascade: Cascade, member: Member) -> TagsGiven:
    # With numpy and OpenCV, which take half a second.
    from roadstream.workers.engines.onnx import OnnxEngine
    from roadstream.workers.engines.options import EngineOptions

    engine = OnnxEngine(cascade, member, EngineOptions(threads=1))
    try:
        engine.load()
        return engine.given_tags()
    finally:
        engine.close()
