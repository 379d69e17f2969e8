"""Vision-language models on a server elsewhere that speaks OpenAI's chat protocol.

The same prompts and the same reading of an answer as for vLLM on this machine; log-probabilities
are those of the likeliest tokens, as the protocol tells no others.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import structlog

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.errors import ConfigError, EngineDownError, ImageError
from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.stages.inference import Abstained, Engine, EngineResult, Picture, Pictures
from roadstream.stages.rules.yes_no import read_words
from roadstream.workers.engines.openai.messages import Completion, answer_token, jpeg_of, request
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vlm.asking import LATE, Asking, Question

logger = structlog.get_logger()


class OpenAIEngine(Engine):
    """Runs one member on a server.

    Args:
        cascade: For where its prompt lies.
        member: With ``OpenAISettings``; its model is the name that the server knows it by.
        options: Unused.
    """

    needs_encoded = True

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        del options
        self._where = f"{cascade.name}: member {member.name}"
        self._name, self._model = member.name, member.model or ""
        assert isinstance(member.settings, OpenAISettings)
        self._settings = member.settings
        self._asking = Asking(cascade, member, self._settings)
        self._threads = ThreadPoolExecutor(self._settings.concurrency, f"ask {member.name}")
        self.device = f"openai:{member.name}"

    def load(self) -> None:
        """Read the prompt and see whether the server, if it answers, has the model.

        Raises:
            ConfigError: It has not, or the key is missing.
        """
        from roadstream.workers.engines.openai.client import ChatClient

        self.version = self._asking.load().tag
        self._client = ChatClient(self._settings, f"{self._where}: settings")
        try:
            known = self._client.models()
        except EngineDownError as error:
            # The other members need not wait for it: the breaker tries again and again.
            logger.warning("engine_away", member=self._name, error=str(error))
            return
        if known and self._model not in known:
            raise ConfigError(f"{self._where}: model", f"one of {', '.join(known)}", self._model)

    def warm_up(self, largest: int = 1) -> None:
        """Nothing to warm: the server is not ours."""

    def prepare(self, batch: Pictures) -> None:
        """Resize and encode the pictures."""
        self._asking.prepare(batch)

    def infer(self, batch: Pictures) -> list[EngineResult]:
        """Return the log-odds of yes per picture.

        Raises:
            EngineDownError: The server is away, or too busy.
        """
        questions = self._asking.questions(batch)
        began = time.monotonic()
        asked = [
            self._threads.submit(self._said, question, picture, began)
            for question, picture in zip(questions, batch, strict=True)
        ]
        try:
            return [one.result() for one in asked]
        finally:
            for one in asked:
                one.cancel()

    def close(self) -> None:
        """Give back threads and connections."""
        self._threads.shutdown(cancel_futures=True)
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    def _said(self, question: Question, picture: Picture, began: float) -> EngineResult:
        from roadstream.workers.engines.openai.client import Late, Refusal

        left = question.patience
        if left is not None:
            left -= time.monotonic() - began  # spent waiting for a thread
            if left <= 0:
                return LATE
        reply = self._client.chat(self._body(question, picture), left)
        if isinstance(reply, Late):
            return LATE
        if isinstance(reply, Refusal):
            return ImageError("model_failed", reply.problem)
        return self._read(reply, question)

    def _body(self, question: Question, picture: Picture) -> dict[str, Any]:
        *earlier, last = question.pictures
        limits, quality = self._asking.limits, self._settings.jpeg_quality
        jpegs = [jpeg_of(Picture(), pixels, limits, quality) for pixels in earlier]
        own = Picture() if question.drawn else picture  # the file shows it without boxes
        jpegs.append(jpeg_of(own, last, limits, quality))
        return request(self._model, self._asking.prompt, question.text, jpegs, self._settings)

    def _read(self, reply: dict[str, Any], question: Question) -> EngineResult:
        settings = self._settings
        try:
            completion = msgspec.convert(reply, Completion)
            found = answer_token(completion.choices[0], settings)
        except (msgspec.ValidationError, IndexError) as error:
            raise EngineDownError(f"{settings.base_url}: no chat answer: {error}") from None
        if not found.top:
            if settings.reasoning_tokens:
                return Abstained(f"no answer after {settings.reasoning_tokens} tokens")
            return ImageError("model_failed", "expected log-probabilities, got none")
        reading = read_words(found.top, self._asking.words)
        return self._asking.score(reading, question, found.reasoning)
