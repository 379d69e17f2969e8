"""Settings of the ``vllm`` engine: vLLM in a process and an environment of its own."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from roadstream.schemas.records.bounds import NonNegative, PositiveInt, Share
from roadstream.schemas.settings.vlm import Seconds, VlmSettings


class VllmSettings(VlmSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ``vllm`` engine. Those of vLLM have its names, and its defaults where absent.

    Attributes:
        python: Interpreter of the environment with vLLM in it; absent: the one that
            ``ROADSTREAM_VLLM_PYTHON`` names, else this one if vLLM can be imported.
        start: Whether the engine starts with its worker, or when the first picture reaches it.
        idle_after: Seconds without a picture after which it gives back its device: it sleeps where
            vLLM can, and is stopped elsewhere. Absent: never.
        patience: Seconds that a batch waits for an engine that starts or wakes, before it goes on
            without it. The breaker tries again.
        start_timeout: Seconds that a start may take.
        render_processes: Processes that prepare pictures; 0: the engine's front end does, on the
            one thread that vLLM has for it.
        cpu_threads: Threads of a model that runs on the CPU; absent: those of the worker. Two or
            more are bound to cores by vLLM.
        environment: Environment variables of the engine's processes, such as CUDA_VISIBLE_DEVICES.
        top_logprobs: Reads the answer among so many likeliest tokens; 0: the exact
            log-probabilities of every spelling of yes and no. Speculative decoding cannot tell
            those, so that it takes 20.
        max_num_batched_tokens: Tokens per step, and so pictures per step of the vision encoder.
        max_num_seqs: Requests per step.
        max_model_len: Longest prompt and answer, in tokens.
        mm_processor_cache_gb: Cache of preprocessed pictures; no picture comes twice.
        limit_mm_per_prompt: Pictures per prompt; absent: one more than ``frames``, of at most
            ``max_pixels``.
        mm_processor_kwargs: Arguments of the model's own preprocessing.
        mm_encoder_tp_mode: ``data`` gives each device of a tensor-parallel group pictures of its
            own.
        tensor_parallel_size: Devices that the model is spread over.
        dtype: Precision of weights and activations.
        quantization: Method of quantisation, such as ``fp8``.
        kv_cache_dtype: Precision of the KV cache.
        kv_cache_memory_bytes: Size of the KV cache; little is needed for one-token answers.
        gpu_memory_utilization: Share of the device's memory that vLLM may take.
        speculative_config: Speculative decoding; helps long answers only.
        enforce_eager: Whether CUDA graphs and compilation are left out.
        enable_prefix_caching: Whether the instruction, the same for all pictures, is computed once.
        seed: Of sampling.
        revision: Branch, tag or commit of a hub id.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        engine_args: Any other argument of vLLM's ``AsyncEngineArgs``.
    """

    python: str | None = None
    start: Literal["load", "first_use"] = "load"
    idle_after: Seconds | None = None
    patience: NonNegative = 5.0
    start_timeout: Seconds = 1800.0
    render_processes: Annotated[int, Meta(ge=0, le=64)] = 0
    cpu_threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    environment: dict[str, str] = {}
    top_logprobs: Annotated[int, Meta(ge=0, le=128)] = 0

    max_num_batched_tokens: PositiveInt = 16_384
    max_num_seqs: PositiveInt = 256
    max_model_len: PositiveInt | None = None
    mm_processor_cache_gb: NonNegative = 0
    limit_mm_per_prompt: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] = {}
    mm_encoder_tp_mode: Literal["weights", "data"] = "weights"
    tensor_parallel_size: PositiveInt = 1
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    kv_cache_memory_bytes: PositiveInt | None = None
    gpu_memory_utilization: Share | None = None
    speculative_config: dict[str, Any] | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool = True
    seed: int = 0
    revision: str | None = None
    trust_remote_code: bool = False
    engine_args: dict[str, Any] = {}
