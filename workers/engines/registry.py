"""Which engine runs a member."""

from schemas.cascade import Cascade, Member
from stages.inference import Engine


def build_engine(cascade: Cascade, member: Member, threads: int) -> Engine:
    """Return the member's engine, not yet loaded.

    Raises:
        ConfigError: Its weight file is not there.
    """
    if member.engine == "onnx":
        from workers.engines.onnx import OnnxEngine

        return OnnxEngine(member, cascade.model_path(member), threads)
    from workers.engines.rules import ConesEngine, NoopEngine

    return ConesEngine(member) if member.engine == "cones" else NoopEngine()
