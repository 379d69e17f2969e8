"""The client of a chat server: tries again while it is busy, keeps to deadlines and to the key."""

import base64
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from msgspec import convert
from msgspec.structs import replace

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError, EngineDownError, ImageError
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box, Evidence
from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.stages.inference import Abstained, Picture, Pictures, Score
from roadstream.streams.clock import SystemClock
from roadstream.workers.engines.nearby import on_this_machine
from roadstream.workers.engines.openai.client import ChatClient, Late, Refusal
from roadstream.workers.engines.openai.engine import OpenAIEngine
from roadstream.workers.engines.openai.messages import Choice, answer_token, jpeg_of
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vlm.drawing import drawn
from roadstream.workers.engines.vlm.fitting import Limits
from roadstream.workers.engines.vlm.telling import HEADING
from tests.kits.builders import cascade, tier

KEY = "sk-very-secret"
VARIABLE = "ROADSTREAM_TEST_KEY"


def completion(*tokens: str, content: str = "", reasoning: str | None = None) -> dict[str, Any]:
    """Return a server's answer whose last token is Yes with 0.6 against No with 0.3."""
    top = [{"token": "Yes", "logprob": -0.5108}, {"token": "No", "logprob": -1.204}]
    said = [{"token": token, "logprob": 0.0, "top_logprobs": top} for token in tokens]
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {"choices": [{"message": message, "logprobs": {"content": said}, "index": 0}]}


class Script(BaseHTTPRequestHandler):
    """Answers as told: status, headers, body; the last for ever."""

    answers: ClassVar[list[tuple[int, dict[str, str], object]]]
    requests: ClassVar[list[dict[str, Any]]]
    keys: ClassVar[list[str | None]]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.requests.append(msgspec.json.decode(self.rfile.read(length)))
        self.keys.append(self.headers.get("Authorization"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self._say(*answer)

    def do_GET(self) -> None:
        self._say(200, {}, {"data": [{"id": "m"}]})

    def _say(self, status: int, headers: dict[str, str], body: object) -> None:
        data = msgspec.json.encode(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class
        """Say nothing."""


@pytest.fixture
def script() -> Iterator[type[Script]]:
    Script.answers, Script.requests, Script.keys = [], [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    Script.url = f"http://127.0.0.1:{server.server_port}/v1"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield Script
    server.shutdown()
    thread.join()
    server.server_close()


def settings(script: type[Script], **given: Any) -> OpenAISettings:
    return OpenAISettings(base_url=script.url, **given)  # type: ignore[attr-defined]


def test_a_busy_server_is_asked_again_after_what_it_says(script: type[Script]) -> None:
    script.answers = [(429, {"Retry-After": "7"}, "busy"), (503, {}, "busy"), (200, {}, {"a": 1})]
    waits: list[float] = []
    client = ChatClient(settings(script), "here", pause=waits.append)

    assert client.chat({"q": 1}, None) == {"a": 1}

    assert waits[0] == 7
    assert 0.5 <= waits[1] <= 1.0  # the second pause is one second, scattered
    assert script.requests == [{"q": 1}] * 3
    client.close()


def test_one_that_stays_busy_is_down(script: type[Script]) -> None:
    script.answers = [(503, {"Retry-After": "0"}, "loading")]
    client = ChatClient(settings(script, retries=2), "here", pause=lambda _: None)

    with pytest.raises(EngineDownError, match=r"busy after 3 tries: .*503"):
        client.chat({}, None)
    client.close()


def test_no_pause_outlasts_a_deadline(script: type[Script]) -> None:
    script.answers = [(429, {"Retry-After": "9"}, "busy")]
    waits: list[float] = []
    client = ChatClient(settings(script), "here", pause=waits.append)

    assert client.chat({}, 5.0) == Late()
    assert client.chat({}, 0.0) == Late()
    assert (waits, len(script.requests)) == ([], 1)
    client.close()


def test_a_request_that_is_refused_concerns_its_picture_alone(script: type[Script]) -> None:
    script.answers = [(400, {}, "prompt too long")]
    client = ChatClient(settings(script), "here")

    found = client.chat({}, None)

    assert isinstance(found, Refusal)
    assert "400" in found.problem
    assert "prompt too long" in found.problem
    client.close()


@pytest.mark.parametrize("status", [401, 404, 500, 502])
def test_what_concerns_every_picture_is_the_engine_down(script: type[Script], status: int) -> None:
    script.answers = [(status, {}, "no")]
    client = ChatClient(settings(script), "here")

    with pytest.raises(EngineDownError, match=str(status)):
        client.chat({}, None)
    client.close()


def test_a_server_that_is_not_there_is_down() -> None:
    client = ChatClient(OpenAISettings(base_url="http://127.0.0.1:9/v1"), "here")

    with pytest.raises(EngineDownError, match=r"127\.0\.0\.1:9/v1 cannot be reached"):
        client.chat({}, None)
    client.close()


def test_the_key_is_sent_and_told_nobody(
    script: type[Script], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(VARIABLE, KEY)
    script.answers = [(401, {}, f"bad key {KEY}"), (400, {}, f"bad key {KEY}")]
    client = ChatClient(settings(script, api_key_env=VARIABLE), "here")

    with pytest.raises(EngineDownError) as error:
        client.chat({}, None)
    refusal = client.chat({}, None)

    assert script.keys == [f"Bearer {KEY}"] * 2
    assert KEY not in f"{error.value}{refusal}{caplog.text}"
    assert "bad key ***" in str(error.value)
    client.close()


def test_a_key_that_is_missing_is_said(
    script: type[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    with pytest.raises(ConfigError, match=f"m.api_key_env: expected a key in .*{VARIABLE}"):
        ChatClient(settings(script, api_key_env=VARIABLE), "m")


def engine_of(script: type[Script], folder: Path, **given: Any) -> OpenAIEngine:
    asked = {"base_url": script.url, "multiple": 8} | given  # type: ignore[attr-defined]
    model = asked.pop("model", "m")
    settings = convert(asked, OpenAISettings)
    member = Member(
        name="far", engine="openai", model=model, width=64, height=48, settings=settings
    )
    chosen = replace(cascade(tier("one", member)), folder=str(folder))
    return OpenAIEngine(chosen, member, EngineOptions())


def test_a_picture_becomes_a_request_and_its_answer_a_score(
    script: type[Script], tmp_path: Path
) -> None:
    script.answers = [(200, {}, completion("Yes"))]
    engine = engine_of(script, tmp_path, body={"seed": 3}, template={"enable_thinking": False})
    engine.load()

    found = engine.infer(Pictures([Picture(np.zeros((48, 64, 3), np.uint8))] * 2))

    score = found[0]
    assert isinstance(score, Score)
    assert score.raw == pytest.approx(np.log(2), abs=1e-3)
    assert found == [score] * 2
    request = script.requests[0]
    assert {key: request[key] for key in ("model", "max_tokens", "logprobs", "seed")} == {
        "model": "m", "max_tokens": 1, "logprobs": True, "seed": 3,
    }  # fmt: skip
    assert request["chat_template_kwargs"] == {"enable_thinking": False}
    system, user = request["messages"]
    assert system["role"] == "system"
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    assert user["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    engine.close()


def test_a_member_is_told_of_evidence_what_its_settings_ask_for_and_by_default_nothing(
    script: type[Script], tmp_path: Path
) -> None:
    script.answers = [(200, {}, completion("Yes"))]
    found = Evidence(tags={"weather": "rain"}, texts={"signs": "ROAD WORK"})
    picture = Picture(np.zeros((48, 64, 3), np.uint8), evidence=found)
    unseen = Picture(np.zeros((48, 64, 3), np.uint8))

    for evidence in ([], ["tags", "boxes"]):
        engine = engine_of(script, tmp_path, evidence=evidence)
        engine.load()
        engine.infer(Pictures([unseen]))
        engine.infer(Pictures([picture]))
        engine.close()

    asked = [one["messages"][1]["content"][0]["text"] for one in script.requests]
    question = engine._asking.prompt.question(1)
    assert asked == [question] * 3 + [f'{question}\n\n{HEADING}\n- tags: weather "rain"']


def test_a_server_is_shown_the_picture_with_boxes_drawn_and_not_its_file(
    script: type[Script], tmp_path: Path
) -> None:
    script.answers = [(200, {}, completion("Yes"))]
    engine = engine_of(script, tmp_path, boxes="drawn", evidence=["boxes"], jpeg_quality=100)
    engine.load()
    pixels = np.full((48, 64, 3), 100, np.uint8)
    own = encode_jpeg(pixels)
    box = Box(0.25, 0.5, 0.75, 0.9, 0.9, "cone")

    engine.infer(Pictures([Picture(pixels, own)]))
    engine.infer(Pictures([Picture(pixels, own, evidence=Evidence([box]))]))
    engine.close()

    plain, shown = (_sent(one) for one in script.requests)
    assert plain == own
    assert shown == encode_jpeg(drawn(pixels, [box]), 100)


def _sent(request: dict[str, Any]) -> bytes:
    """Return the only picture of a request."""
    url = request["messages"][1]["content"][1]["image_url"]["url"]
    return base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))


def test_points_that_a_server_wrote_are_boxes_of_the_vote(
    script: type[Script], tmp_path: Path
) -> None:
    written = ['<point x="50" ', 'y="60">cone</point>', "\n", "Answer", ":", " Yes"]
    script.answers = [(200, {}, completion(*written))]
    engine = engine_of(
        script,
        tmp_path,
        prompt="point-out",
        points="percent",
        reasoning_tokens=50,
        reasoning_end="Answer:",
        reasoning_kept=0,
        evidence=["boxes"],
    )
    engine.load()
    seen = Evidence([Box(0.25, 0.5, 0.75, 0.9, 0.9, "cone")])

    (found,) = engine.infer(Pictures([Picture(np.zeros((48, 64, 3), np.uint8), evidence=seen)]))
    engine.close()

    assert isinstance(found, Score)
    assert (found.text, found.tags) == ("", {"points": "confirmed"})
    assert found.raw == pytest.approx(np.log(2), abs=1e-3)
    assert [box.label for box in found.boxes] == ["cone"]
    assert "left, top, right and bottom" in script.requests[0]["messages"][1]["content"][0]["text"]


def test_what_is_late_is_not_even_asked(script: type[Script], tmp_path: Path) -> None:
    engine = engine_of(script, tmp_path)
    engine.load()
    head = Head(image_id="a", deadline_at=SystemClock().now() - 1)

    (found,) = engine.infer(Pictures([Picture(np.zeros((48, 64, 3), np.uint8), head=head)]))

    assert isinstance(found, ImageError)
    assert found.fault == "expired"
    assert script.requests == []
    engine.close()


def test_answers_without_log_probabilities_are_a_fault(
    script: type[Script], tmp_path: Path
) -> None:
    script.answers = [(200, {}, completion())]
    engine = engine_of(script, tmp_path)
    engine.load()

    (found,) = engine.infer(Pictures([Picture(np.zeros((48, 64, 3), np.uint8))]))

    assert isinstance(found, ImageError)
    assert "expected log-probabilities" in found.problem
    engine.close()


def test_a_budget_spent_on_reasoning_abstains(script: type[Script], tmp_path: Path) -> None:
    script.answers = [(200, {}, completion("I", " think"))]
    engine = engine_of(script, tmp_path, reasoning_tokens=9)
    engine.load()

    found = engine.infer(Pictures([Picture(np.zeros((48, 64, 3), np.uint8))]))

    assert found == [Abstained("no answer after 9 tokens")]
    assert script.requests[0]["max_tokens"] == 17
    engine.close()


def test_a_model_that_the_server_lacks_is_said(script: type[Script], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="member far: model: expected one of m, got other"):
        engine_of(script, tmp_path, model="other").load()


def test_a_server_that_is_away_at_the_start_is_tried_later(
    script: type[Script], tmp_path: Path
) -> None:
    engine = engine_of(script, tmp_path, base_url="http://127.0.0.1:9/v1")
    engine.load()
    engine.warm_up(4)

    with pytest.raises(EngineDownError):
        engine.infer(Pictures([Picture(np.zeros((48, 64, 3), np.uint8))]))
    engine.close()


@pytest.mark.parametrize(
    ("choice", "reasoning"),
    [
        (completion("so", "</think>", "\n\n", "Yes")["choices"][0], "so"),
        (completion("so ", "it ", "Yes", content="Yes", reasoning="so it")["choices"][0], "so it"),
    ],
)
def test_the_answer_is_the_first_word_after_the_reasoning(
    choice: dict[str, Any], reasoning: str
) -> None:
    asked = OpenAISettings(base_url="http://x/v1", reasoning_tokens=5)

    found = answer_token(msgspec.convert(choice, Choice), asked)

    assert (found.reasoning, len(found.top)) == (reasoning, 2)


def test_a_file_is_sent_as_it_is_if_it_is_right() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    limits = Limits(1024, 64 * 48, 8)
    right = encode_jpeg(pixels)
    turned = right[:2] + bytes.fromhex(
        "ffe1002245786966000049492a00080000000100120103000100000006000000"
    ) + b"\0\0\0\0" + right[2:]  # fmt: skip

    assert jpeg_of(Picture(pixels, right), pixels, limits, 90) == right
    assert jpeg_of(Picture(pixels, memoryview(right)), pixels, limits, 90) == right
    for encoded in (turned, b"\x89PNG", encode_jpeg(np.zeros((96, 64, 3), np.uint8)), None):
        assert jpeg_of(Picture(pixels, encoded), pixels, limits, 90) == encode_jpeg(pixels, 90)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5h://127.0.0.1:9", "nonsense"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_reached_without_the_proxy(
    script: type[Script], monkeypatch: pytest.MonkeyPatch, proxy: str, host: str
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, proxy)
    script.answers = [(200, {}, {"a": 1})]
    url = settings(script).base_url.replace("127.0.0.1", host)
    client = ChatClient(OpenAISettings(base_url=url), "m.settings")

    assert client.chat({}, None) == {"a": 1}
    client.close()


def test_any_other_server_is_reached_by_the_proxy(
    script: type[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", settings(script).base_url.removesuffix("/v1"))
    script.answers = [(200, {}, {"from": "the proxy"})]
    client = ChatClient(OpenAISettings(base_url="http://models.invalid/v1"), "m.settings")

    assert client.chat({}, None) == {"from": "the proxy"}
    client.close()


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("gopher://user:hunter2@127.0.0.1:9", "ALL_PROXY=gopher://…"),
        ("http://user:hunter2/@127.0.0.1:9", "ALL_PROXY=http://…"),
        ("user:hunter2:x@127.0.0.1:x", "ALL_PROXY=…"),
        ("socks5://user:hunter2@127.0.0.1:9", "ALL_PROXY=socks5://…"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str, said: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match="ALL_PROXY: expected an HTTP proxy") as caught:
        ChatClient(OpenAISettings(base_url="http://models.invalid/v1"), "m.settings")

    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_address_that_is_none_is_not_blamed_on_a_proxy() -> None:
    with pytest.raises(ConfigError, match=r"m\.settings\.base_url: expected an address") as caught:
        ChatClient(OpenAISettings(base_url="http://user:hunter2@127.0.0.1:x/v1"), "m.settings")

    assert "hunter2" not in str(caught.value)


def test_a_password_in_the_address_stands_in_no_error() -> None:
    settings = OpenAISettings(base_url="http://user:hunter2@127.0.0.1:9/v1", connect_timeout=1)
    client = ChatClient(settings, "m.settings")
    with pytest.raises(
        EngineDownError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"
    ) as caught:
        client.models()
    client.close()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.53", True),
        ("::1", True),
        ("0.0.0.0", True),
        (socket.gethostname(), True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("models.invalid", False),
    ],
)
def test_what_is_on_this_machine(host: str, here: bool) -> None:
    assert on_this_machine(host) is here
