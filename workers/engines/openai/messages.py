"""Chat requests with pictures, and what their answers say in log-probabilities."""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.schemas.settings.prompts import Prompt
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.stages.decoding.jpeg import read_header
from roadstream.stages.inference import Picture, Pixels
from roadstream.workers.engines.vlm.fitting import Limits


class LikelyToken(msgspec.Struct, frozen=True):
    """A token that the model might have said."""

    token: str
    logprob: float


class TokenLogprobs(msgspec.Struct, frozen=True):
    """A token that the model said, and what it might have said instead."""

    token: str
    top_logprobs: list[LikelyToken] = []


class Logprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of a choice."""

    content: list[TokenLogprobs] | None = None


class Message(msgspec.Struct, frozen=True):
    """What the model said; servers differ in what they call its reasoning."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct, frozen=True):
    """One completion."""

    message: Message
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, frozen=True):
    """A server's answer, as far as it is read."""

    choices: list[Choice]


class AnswerToken(NamedTuple):
    """Where the answer stands.

    Attributes:
        top: The likeliest tokens there; empty if the reasoning did not end.
        reasoning: What came before.
    """

    top: list[tuple[str, float]]
    reasoning: str


def jpeg_of(picture: Picture, pixels: Pixels, limits: Limits, quality: int) -> bytes:
    """Return a picture as JPEG: its own file if that is one, upright, of a right size.

    Args:
        picture: For the file's bytes.
        pixels: What is encoded otherwise: uint8 RGB [h, w, 3].
        limits: What a right size is.
        quality: Of the encoding.
    """
    if picture.encoded is not None:
        data = bytes(picture.encoded)
        if data.startswith(b"\xff\xd8"):
            header = read_header(data)
            fits = limits.smallest <= header.width * header.height <= limits.largest
            if fits and header.orientation == 1:
                return data
    return encode_jpeg(pixels, quality)


def request(
    model: str, prompt: Prompt, question: str, jpegs: Sequence[bytes], settings: OpenAISettings
) -> dict[str, Any]:
    """Return the chat request that asks a question about pictures, of which the last one counts."""
    shown = [_image(data) for data in jpegs]
    text = [{"type": "text", "text": question}]
    content = [*text, *shown] if prompt.order == "text_first" else [*shown, *text]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    reasons = settings.reasoning_tokens > 0
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        # After the reasoning come its end, an empty line and the answer.
        "max_tokens": settings.reasoning_tokens + 8 if reasons else 1,
        "temperature": settings.reasoning_temperature if reasons else 0.0,
        "logprobs": True,
        "top_logprobs": settings.top_logprobs,
    }
    if settings.template:
        body["chat_template_kwargs"] = settings.template
    return body | settings.body


def _image(data: bytes) -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return {"type": "image_url", "image_url": {"url": url}}


def answer_token(choice: Choice, settings: OpenAISettings) -> AnswerToken:
    """Find the token that answers: the first, or the first word after the reasoning."""
    said = (choice.logprobs.content if choice.logprobs else None) or []
    if not settings.reasoning_tokens:
        return AnswerToken(_top(said[0]) if said else [], "")
    text = "".join(one.token for one in said)
    end = settings.reasoning_end
    content = (choice.message.content or "").strip()
    apart = choice.message.reasoning_content or choice.message.reasoning
    if end in text:
        begin = text.index(end) + len(end)
        reasoning = text[: begin - len(end)]
    elif apart and content and content in text:
        # The server has taken the reasoning out of the text, and its end with it.
        begin, reasoning = text.rindex(content), apart
    else:
        return AnswerToken([], apart or text)
    return AnswerToken(_first_word(said, begin), " ".join(reasoning.split()))


def _first_word(said: Sequence[TokenLogprobs], begin: int) -> list[tuple[str, float]]:
    at = 0
    for one in said:
        if at >= begin and one.token.strip():
            return _top(one)
        at += len(one.token)
    return []


def _top(said: TokenLogprobs) -> list[tuple[str, float]]:
    return [(one.token, one.logprob) for one in said.top_logprobs]
