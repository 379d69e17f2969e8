"""Which engine runs a member. Each engine's libraries are imported only where one is built."""

from roadstream.schemas.cascade import Cascade, Member
from roadstream.stages.inference import Engine
from roadstream.workers.engines.options import EngineOptions


def build_engine(cascade: Cascade, member: Member, options: EngineOptions) -> Engine:  # noqa: PLR0911
    """Return the member's engine, not yet loaded.

    Raises:
        ConfigError: Its weights are not there, or what runs it is not installed.
    """
    match member.engine:
        case "onnx":
            from roadstream.workers.engines.onnx import OnnxEngine

            return OnnxEngine(member, cascade.model_path(member), options.threads)
        case "torch":
            from roadstream.workers.engines.torch.engine import TorchEngine

            return TorchEngine(cascade, member, options)
        case "vllm":
            from roadstream.workers.engines.vllm.engine import VllmEngine

            return VllmEngine(cascade, member, options)
        case "openai":
            from roadstream.workers.engines.openai.engine import OpenAIEngine

            return OpenAIEngine(cascade, member, options)
        case "triton":
            from roadstream.workers.engines.triton.engine import TritonEngine

            return TritonEngine(cascade, member, options)
        case "cones":
            from roadstream.workers.engines.rules import ConesEngine

            return ConesEngine(member)
        case "noop":
            from roadstream.workers.engines.rules import NoopEngine

            return NoopEngine()
