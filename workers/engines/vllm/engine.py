"""Vision-language models on this machine by vLLM, in a process and an environment of its own.

An answer is one token's log-probabilities of yes and of no; see ``roadstream.stages.rules.yes_no``.
"""

import os
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.errors import (
    ChangedError,
    ConfigError,
    EngineDownError,
    EngineError,
    ImageError,
)
from roadstream.schemas.settings.vllm import VllmSettings
from roadstream.stages.inference import (
    Abstained,
    Engine,
    EngineResult,
    Picture,
    Pictures,
    Pixels,
    Score,
)
from roadstream.stages.rules.yes_no import AnswerTokens, answer_tokens, read_tokens, read_words
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vllm.child import engine_wire as wire
from roadstream.workers.engines.vllm.idle_policy import IdleOptions
from roadstream.workers.engines.vllm.managed import ManagedEngine
from roadstream.workers.engines.vllm.process import EngineProcess, Reply, find_interpreter
from roadstream.workers.engines.vlm.asking import LATE, Asking, Question, shortest

SCRIPT = Path(__file__).parent / "child" / "engine_server.py"
# The engine aborts what is late by itself; so much later it is no longer waited for.
_GRACE = 2.0
_SPECULATIVE_TOP = 20
Pending = tuple[int, Future[Reply]] | None


class VllmEngine(Engine):
    """Runs one member by vLLM.

    Args:
        cascade: For where its weights and prompt lie.
        member: With ``VllmSettings``.
        options: For the number of threads of a model on the CPU, and for sharing one engine between
            members that ask the same model.
    """

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        self._where = f"{cascade.name}: member {member.name}"
        self._cascade, self._member = cascade, member
        assert isinstance(member.settings, VllmSettings)
        self._settings = member.settings
        self._source = cascade.model_source(member)
        self._threads = self._settings.cpu_threads or options.threads
        self._shared = options.shared
        self._asking = Asking(cascade, member, self._settings)
        self._managed: ManagedEngine | None = None
        self._tokens: AnswerTokens | None = None
        self._how: wire.How | None = None
        self.device = f"vllm:{member.name}"

    def load(self) -> None:
        """Read the prompt and, unless it is to wait for its first use, start the engine.

        Raises:
            ConfigError: There is no vLLM, or it cannot run the model as the settings say.
        """
        settings = self._settings
        self.version = self._asking.load().tag
        self._managed = self._kept(find_interpreter(settings.python, f"{self._where}: settings"))
        if settings.start == "first_use":
            return
        try:
            with self._managed.using(settings.start_timeout) as process:
                # A tokenizer without the words is a mistake of the settings: told now.
                self._prepared(process)
        except EngineDownError as error:
            self.close()
            raise ConfigError(
                self._where, "settings that vLLM can start with", str(error)
            ) from None
        except ConfigError:
            self.close()
            raise

    def _kept(self, interpreter: str) -> ManagedEngine:
        """Return the engine of those settings, the same for every member that has them."""
        settings = self._settings
        load = self._load()
        environment = self._environment()
        key = ("vllm", interpreter, repr(load), repr(settings.environment), settings.idle_after)
        managed: ManagedEngine | None = self._shared.get(key)
        if managed is None:
            name = Path(str(self._source)).name
            command = [interpreter, "-u", str(SCRIPT)]
            managed = self._shared[key] = ManagedEngine(
                name,
                partial(self._made, command, environment, name),
                load,
                options=IdleOptions(idle_after=settings.idle_after),
                start_timeout=settings.start_timeout,
            )
        managed.share()
        return managed

    def _made(self, command: list[str], environment: dict[str, str], name: str) -> EngineProcess:
        """Return a process that is about to load the weights, hours after the start perhaps.

        Raises:
            EngineDownError: They are not those of the cascade any more.
        """
        try:
            self._cascade.check_weights(self._member)
        except ChangedError as error:
            raise EngineDownError(str(error)) from None
        return EngineProcess(command, environment, name)

    @property
    def managed(self) -> ManagedEngine:
        """What keeps the engine's process."""
        assert self._managed is not None, "load() comes first"
        return self._managed

    def warm_up(self, largest: int = 1) -> None:
        """Answer blank pictures of the largest size, unless it waits for its first use."""
        if self._settings.start == "first_use":
            return
        side = isqrt(self._asking.limits.largest)
        blank = np.zeros((side, side, 3), np.uint8)
        self.infer(Pictures([Picture(blank) for _ in range(largest)]))

    def prepare(self, batch: Pictures) -> None:
        """Resize the pictures: vLLM has but one thread for it."""
        self._asking.prepare(batch)

    def infer(self, batch: Pictures) -> list[EngineResult]:
        """Return the log-odds of yes per picture.

        Raises:
            EngineDownError: The engine died, or does not run yet.
        """
        questions = self._asking.questions(batch)
        wait = shortest(questions, self._settings.patience)
        with self.managed.using(wait) as process:
            tokens, how = self._prepared(process)
            pending = [_ask(process, how, one) for one in questions]
            found: list[EngineResult] = []
            try:
                for one, asked in zip(questions, pending, strict=True):
                    found.append(self._said(process, one, asked, tokens))
            finally:
                for late in pending[len(found) :]:
                    if late is not None:
                        process.forget(late[0])
            return found

    def close(self) -> None:
        """End the engine."""
        managed, self._managed = self._managed, None
        if managed is not None:
            managed.close()
            if managed.closed:
                for key in [key for key, one in self._shared.items() if one is managed]:
                    del self._shared[key]

    def _said(
        self, process: EngineProcess, question: Question, asked: Pending, tokens: AnswerTokens
    ) -> EngineResult:
        if asked is None:
            return LATE
        match self._reply(process, question, asked):
            case wire.Answered() as answer:
                return self._score(answer, question, tokens)
            case wire.Late() | None:
                return LATE
            case wire.Undecided(reason=reason):
                return Abstained(reason)
            case wire.Refused(problem=problem):
                return ImageError("model_failed", problem)
            case other:
                return ImageError("model_failed", f"expected an answer, got {other}")

    def _reply(
        self, process: EngineProcess, question: Question, asked: tuple[int, Future[Reply]]
    ) -> Reply | None:
        """Wait for a reply; ``None`` if the picture's deadline has passed without one.

        Raises:
            EngineDownError: The engine died, or has been silent for too long and was ended.
        """
        number, reply = asked
        patience, limit = question.patience, self._settings.request_timeout
        wait = limit if patience is None else min(limit, patience + _GRACE)
        try:
            return reply.result(wait)
        except FutureTimeoutError:
            if wait < limit:
                process.forget(number)
                return None
            process.kill()
            raise EngineDownError(f"{self._member.name}: no answer in {limit:g} s") from None

    def _score(
        self, answer: wire.Answered, question: Question, tokens: AnswerTokens
    ) -> Score | Abstained:
        if answer.top:
            reading = read_words(answer.top, self._asking.words)
        else:
            reading = read_tokens(answer.exact, tokens)
        return self._asking.score(reading, question, answer.text)

    def _prepared(self, process: EngineProcess) -> tuple[AnswerTokens, wire.How]:
        """Return the tokens of an answer and how the engine is asked, found once."""
        if self._tokens is None or self._how is None:
            assert process.ready is not None
            words = self._asking.words
            try:
                self._tokens = answer_tokens(process.ready.vocabulary, words)
            except EngineError as error:
                where = f"{self._where}: settings.prompt"
                raise ConfigError(where, "words that the model knows", str(error)) from None
            self._how = self._asked_how(self._tokens)
        return self._tokens, self._how

    def _asked_how(self, tokens: AnswerTokens) -> wire.How:
        settings, prompt = self._settings, self._asking.prompt
        return wire.How(
            order=prompt.order,
            system=prompt.system,
            template=settings.template,
            tokens=tokens.ids,
            top_logprobs=self._top_logprobs(),
            reasoning_tokens=settings.reasoning_tokens,
            reasoning_end=settings.reasoning_end,
            reasoning_cut=settings.reasoning_cut,
            reasoning_kept=self._asking.written,
            reasoning_temperature=settings.reasoning_temperature,
        )

    def _environment(self) -> dict[str, str]:
        """Return the environment of its processes: this one's, and what vLLM needs here."""
        ours = {
            # It tells nobody how it is used, and listens on this machine alone.
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_HOST_IP": "127.0.0.1",
        }
        threads = {"OMP_NUM_THREADS": str(self._threads)}
        if self._threads == 1:
            threads["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        quiet = {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING")}
        # What points Python to our libraries would mislead that of vLLM.
        inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return inherited | ours | threads | quiet | self._settings.environment

    def _load(self) -> wire.Load:
        return wire.Load(
            engine_args=self._engine_args(),
            render_processes=self._settings.render_processes,
            cpu_threads=self._threads,
            can_sleep=self._settings.idle_after is not None,
        )

    def _top_logprobs(self) -> int:
        settings = self._settings
        speculates = settings.speculative_config is not None and not settings.top_logprobs
        return _SPECULATIVE_TOP if speculates else settings.top_logprobs

    def _engine_args(self) -> dict[str, Any]:
        settings = self._settings
        side = -(-isqrt(self._asking.limits.largest) // settings.multiple) * settings.multiple
        pictures = {"count": settings.frames + 1, "width": side, "height": side}
        optional = {name: getattr(settings, name) for name in _OPTIONAL}
        return {
            "model": str(self._source),
            "limit_mm_per_prompt": settings.limit_mm_per_prompt or {"image": pictures, "video": 0},
            "max_logprobs": max(20, self._top_logprobs()),
            **{name: getattr(settings, name) for name in _GIVEN},
            **{name: value for name, value in optional.items() if value not in (None, {})},
            **settings.engine_args,
        }


# Settings that are arguments of ``AsyncEngineArgs`` by the same name …
_GIVEN = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "mm_processor_cache_gb",
    "mm_encoder_tp_mode",
    "tensor_parallel_size",
    "dtype",
    "kv_cache_dtype",
    "enforce_eager",
    "enable_prefix_caching",
    "seed",
    "trust_remote_code",
)
# … and those that are left to vLLM where they are not given.
_OPTIONAL = (
    "max_model_len",
    "mm_processor_kwargs",
    "quantization",
    "kv_cache_memory_bytes",
    "gpu_memory_utilization",
    "speculative_config",
    "revision",
)


def _shown(pixels: Pixels) -> wire.Shown:
    height, width = pixels.shape[:2]
    return wire.Shown(width, height, pixels.reshape(-1).data)


def _ask(process: EngineProcess, how: wire.How, question: Question) -> Pending:
    if question.patience is not None and question.patience <= 0:
        return None
    shown = [_shown(pixels) for pixels in question.pictures]
    return process.ask(how, question.text, shown, question.patience)
