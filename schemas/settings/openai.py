"""Settings of the ``openai`` engine: a server elsewhere that speaks OpenAI's protocol."""

from typing import Annotated, Any

from msgspec import Meta

from roadstream.schemas.settings.vlm import Seconds, VlmSettings


class OpenAISettings(VlmSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ``openai`` engine.

    Attributes:
        base_url: The server's address up to and with its version, such as
            ``http://127.0.0.1:8000/v1``.
        api_key_env: Environment variable with the key; absent: none is sent. The key itself stands
            in no file, log or error.
        concurrency: Requests under way at once.
        connect_timeout: Seconds to reach the server.
        retries: Times that a request is sent again that the server was too busy for (429, 503), as
            long as the picture's deadline allows.
        backoff: Seconds before the first retry; doubled each time, unless the server says when.
        top_logprobs: The answer is read among so many likeliest tokens.
        jpeg_quality: Of pictures that are encoded here, as they are no JPEG or too large.
        body: Any other field of a request.
    """

    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$")]
    api_key_env: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=1024)] = 16
    connect_timeout: Seconds = 5.0
    retries: Annotated[int, Meta(ge=0, le=20)] = 4
    backoff: Seconds = 0.5
    top_logprobs: Annotated[int, Meta(ge=1, le=20)] = 20
    jpeg_quality: Annotated[int, Meta(ge=30, le=100)] = 92
    body: dict[str, Any] = {}
