"""A chat server over HTTP: one request, sent again while the server is busy and there is time."""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.request import getproxies_environment

import httpx
import msgspec

from roadstream.schemas.backoff import Backoff
from roadstream.schemas.errors import ConfigError, EngineDownError
from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.workers.engines.nearby import on_this_machine

# Too many requests, and a server that is not ready: both pass.
_BUSY = (429, 503)
# Answers of a gateway in front of a server that is away.
_AWAY = (500, 502, 504)
_LONGEST_PAUSE = 30.0


class Refusal(NamedTuple):
    """The server will not answer this request, however often it is sent."""

    problem: str


class Late(NamedTuple):
    """The deadline passed first."""


Reply = dict[str, Any] | Refusal | Late


class ChatClient:
    """Sends chat requests to one server. Threads may share it.

    The key goes into a header alone: it stands in no error and no log, even if the server repeats
    it. Nor does a password in an address.

    Args:
        settings: Address, key and patience.
        where: Of the settings, for errors.
        pause: Waits so many seconds.

    Raises:
        ConfigError: There is no key, or a proxy that cannot be used.
    """

    def __init__(
        self, settings: OpenAISettings, where: str, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._settings, self._pause = settings, pause
        self._key = _key(settings, where)
        self._url = _address(settings, where)
        self._shown = str(self._url.copy_with(userinfo=b""))
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._http = self._client(headers, where)

    def _client(self, headers: dict[str, str], where: str) -> httpx.Client:
        """Return the client; a server on this machine is reached without a proxy.

        Raises:
            ConfigError: The proxy that the environment names cannot be used.
        """
        settings = self._settings
        try:
            return httpx.Client(
                headers=headers,
                timeout=httpx.Timeout(settings.request_timeout, connect=settings.connect_timeout),
                trust_env=not on_this_machine(self._url.host),
                verify=httpx.create_ssl_context(),  # heeds SSL_CERT_FILE in any case
                limits=httpx.Limits(
                    max_connections=settings.concurrency,
                    max_keepalive_connections=settings.concurrency,
                ),
            )
        except (ImportError, ValueError, httpx.InvalidURL):
            # Of the reason only this: httpx repeats what it read, and a password may be in it.
            raise ConfigError(
                f"{where}: HTTP_PROXY, HTTPS_PROXY or ALL_PROXY",
                "an HTTP proxy such as http://host:port",
                _proxy_schemes(),
            ) from None

    def models(self) -> list[str]:
        """Return the names of the models that the server has.

        Raises:
            EngineDownError: It does not answer.
        """
        answer = self._sent("GET", "/models", None, self._settings.request_timeout)
        if answer.status_code != 200:
            raise EngineDownError(self._problem(answer))
        found = msgspec.json.decode(answer.content)
        return [str(one.get("id")) for one in found.get("data", [])]

    def chat(self, body: dict[str, Any], patience: float | None) -> Reply:
        """Return the server's answer to one chat request.

        Args:
            body: The request.
            patience: Seconds that an answer is worth something; ``None`` for ever.

        Raises:
            EngineDownError: The server is away, or stays too busy.
        """
        settings = self._settings
        ends_at = None if patience is None else time.monotonic() + patience
        content, backoff = msgspec.json.encode(body), Backoff(settings.backoff, _LONGEST_PAUSE)
        for attempt in range(settings.retries + 1):
            left = settings.request_timeout
            if ends_at is not None:
                left = min(left, ends_at - time.monotonic())
            if left <= 0:
                return Late()
            try:
                answer = self._sent("POST", "/chat/completions", content, left)
            except httpx.TimeoutException:
                if ends_at is not None and time.monotonic() >= ends_at:
                    return Late()
                raise EngineDownError(f"{self._shown}: no answer in {left:g} s") from None
            if answer.status_code not in _BUSY:
                return self._read(answer)
            wait = _wait(answer, backoff.next())
            if ends_at is not None and time.monotonic() + wait >= ends_at:
                return Late()
            if attempt < settings.retries:
                self._pause(wait)
        raise EngineDownError(f"busy after {settings.retries + 1} tries: {self._problem(answer)}")

    def close(self) -> None:
        """Give back its connections."""
        self._http.close()

    def _sent(
        self, method: str, path: str, content: bytes | None, timeout: float
    ) -> httpx.Response:
        """Send one request.

        Raises:
            EngineDownError: The server cannot be reached.
            httpx.TimeoutException: It was reached, and does not answer in time.
        """
        times = httpx.Timeout(timeout, connect=min(timeout, self._settings.connect_timeout))
        headers = {"Content-Type": "application/json"}
        url = f"{self._url}{path}"
        try:
            return self._http.request(method, url, content=content, headers=headers, timeout=times)
        except httpx.ConnectTimeout:
            raise EngineDownError(f"{self._shown} cannot be reached in time") from None
        except httpx.TimeoutException:
            raise
        except httpx.HTTPError as error:
            problem = self._without_key(f"{type(error).__name__}: {error}")
            raise EngineDownError(f"{self._shown} cannot be reached: {problem}") from None

    def _read(self, answer: httpx.Response) -> Reply:
        if answer.status_code == 200:
            try:
                found: dict[str, Any] = msgspec.json.decode(answer.content, type=dict[str, Any])
            except msgspec.MsgspecError as error:
                raise EngineDownError(f"{self._shown}: no chat answer: {error}") from None
            return found
        if answer.status_code in _AWAY or answer.status_code in (401, 403, 404):
            # A wrong key or name concerns every picture: none of them is at fault.
            raise EngineDownError(self._problem(answer))
        return Refusal(self._problem(answer))

    def _problem(self, answer: httpx.Response) -> str:
        said = " ".join(answer.text[:2000].split())[:300]
        return self._without_key(f"{self._shown}: {answer.status_code} {said}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _key(settings: OpenAISettings, where: str) -> str:
    name = settings.api_key_env
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"{where}.api_key_env", f"a key in the environment variable {name}", "nothing"
        )
    return key


def _proxy_schemes() -> str:
    """Say what proxies the environment names, without what may be secret in their addresses."""
    found = getproxies_environment()
    return ", ".join(
        f"{name.upper()}_PROXY={_scheme(found[name])}…"
        for name in ("http", "https", "all")
        if name in found
    )


def _scheme(address: str) -> str:
    """Return what an address begins with; without a scheme, that may be a user and a password."""
    scheme, separator, _ = address.partition("://")
    return scheme + separator if separator and scheme.isalnum() else ""


def _address(settings: OpenAISettings, where: str) -> httpx.URL:
    try:
        return httpx.URL(settings.base_url.rstrip("/"))
    except httpx.InvalidURL:  # it is not repeated, as a password may be in it
        raise ConfigError(
            f"{where}.base_url", "an address such as http://host:port/v1", "one that is none"
        ) from None


def _wait(answer: httpx.Response, otherwise: float) -> float:
    """Return the seconds that the server asks for, or else the given ones."""
    try:
        asked = float(answer.headers.get("retry-after", ""))
    except ValueError:
        return otherwise
    return min(max(asked, 0.0), _LONGEST_PAUSE)
