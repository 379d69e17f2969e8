"""vLLM's own OpenAI server on the tiny Qwen3-VL: the same scores over HTTP as from within."""

import io
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pytest
from msgspec import convert
from msgspec.structs import replace
from PIL import Image

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import EngineDownError, ImageError
from roadstream.schemas.records.image import Head
from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.stages.inference import Abstained, Picture, Pictures, Pixels, Score
from roadstream.streams.clock import SystemClock
from roadstream.workers.engines.openai.engine import OpenAIEngine
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vllm.process import find_interpreter
from tests.kits.builders import cascade, tier
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.vllm_kit import SIZE, Reference, pixels, raws

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
SCRIPT = Path(__file__).parents[2] / "kits" / "vllm_server.py"
KEY, VARIABLE = "sk-of-the-server", "ROADSTREAM_TEST_SERVER_KEY"
ARGUMENTS = [
    "--host=127.0.0.1",
    "--served-model-name=tiny",
    "--dtype=float32",
    "--enforce-eager",
    "--max-model-len=4096",
    "--max-num-batched-tokens=4096",
    "--kv-cache-memory-bytes=67108864",
    "--mm-processor-cache-gb=0",
    "--distributed-executor-backend=uni",
    "--disable-log-stats",
]
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_API_KEY": KEY,
}


class Server(NamedTuple):
    """A running server, and the model that it has."""

    url: str
    process: subprocess.Popen[str]
    model: Path

    def engine(self, **given: Any) -> OpenAIEngine:
        """Return an engine that asks it."""
        width, height = SIZE
        asked = {"base_url": self.url, "api_key_env": VARIABLE, **given}
        settings = convert(asked, OpenAISettings)
        member = Member(
            name="far", engine="openai", model="tiny", width=width, height=height, settings=settings
        )
        chosen = replace(cascade(tier("one", member)), folder="/")
        engine = OpenAIEngine(chosen, member, EngineOptions())
        engine.load()
        return engine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = write_qwen3_vl(tmp_path_factory.mktemp("served"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    interpreter = find_interpreter(None, "here")
    process = subprocess.Popen(
        [interpreter, str(SCRIPT), "--model", str(model), "--port", str(port), *ARGUMENTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | ENVIRONMENT,
        process_group=0,
    )
    assert process.stdout is not None
    said = _until(process.stdout, "Application startup complete")
    assert process.poll() is None, said
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        yield Server(f"http://127.0.0.1:{port}/v1", process, model)
    _end(process)


def _until(said: IO[str], line: str) -> str:
    """Read what a process says until it says ``line``, or ends."""
    found = []
    for one in said:
        found.append(one)
        if line in one:
            break
    return "".join(found[-40:])


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def reference(server: Server) -> Reference:
    return Reference(server.model)


def jpegs(count: int) -> list[bytes]:
    return [encode_jpeg(one, 95) for one in pixels(count)]


def shown(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


def batch(count: int, head: Head | None = None) -> Pictures:
    return Pictures([Picture(shown(data), data, head) for data in jpegs(count)])


def test_the_score_is_that_of_transformers(server: Server, reference: Reference) -> None:
    engine = server.engine()

    found = raws(engine.infer(batch(6)))

    assert found == pytest.approx([reference.raw(shown(one)) for one in jpegs(6)], abs=1e-2)
    assert max(found) - min(found) > 0.1
    engine.close()


def test_it_abstains_where_the_answer_is_neither(server: Server) -> None:
    engine = server.engine(template={"mode": "mumble"}, max_leak=0.3)

    found = engine.infer(batch(2))

    assert all(isinstance(one, Abstained) and "neither yes nor no" in one.reason for one in found)
    engine.close()


def test_reasoning_is_kept_and_the_answer_read_behind_it(
    server: Server, reference: Reference
) -> None:
    # The checkpoint ends its reasoning and answers; its own words come without an empty line.
    engine = server.engine(template={"mode": "reason"}, reasoning_tokens=16)

    found = engine.infer(batch(2))

    said = "cones ahead</think>"
    expected = [reference.raw(shown(one), said=said, mode="reason") for one in jpegs(2)]
    # Rare spellings are not among the twenty likeliest tokens.
    assert raws(found) == pytest.approx(expected, abs=0.1)
    assert {one.text for one in found if isinstance(one, Score)} == {"cones ahead"}
    engine.close()


def test_earlier_frames_are_shown_before_a_picture(server: Server, reference: Reference) -> None:
    engine = server.engine(frames=1, jpeg_quality=100)
    frames = [
        Picture(one, None, Head(image_id=f"{i}", session_id="drive", frame_index=i))
        for i, one in enumerate(pixels(2))
    ]

    found = raws(engine.infer(Pictures(frames)))

    sent = [shown(encode_jpeg(one, 100)) for one in pixels(2)]
    expected = [reference.raw(sent[0]), reference.raw(*sent)]
    assert found == pytest.approx(expected, abs=1e-2)
    engine.close()


def test_what_is_late_is_given_up(server: Server) -> None:
    engine = server.engine(template={"mode": "brood"}, reasoning_tokens=3000)
    head = Head(image_id="a", deadline_at=SystemClock().now() + 0.3)

    found = engine.infer(batch(2, head))

    assert [one.fault for one in found if isinstance(one, ImageError)] == ["expired"] * 2
    engine.close()


def test_a_request_that_the_server_refuses_fails_its_picture(server: Server) -> None:
    engine = server.engine(body={"max_tokens": 100_000})

    (found,) = engine.infer(batch(1))

    assert isinstance(found, ImageError)
    assert found.fault == "model_failed"
    assert "400" in found.problem
    engine.close()


def test_a_wrong_key_is_the_engine_down(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sk-wrong")
    engine = server.engine()

    with pytest.raises(EngineDownError, match="401") as error:
        engine.infer(batch(1))

    assert "sk-wrong" not in str(error.value)
    engine.close()


def test_a_server_that_is_killed_is_the_engine_down(server: Server) -> None:
    engine = server.engine()  # the last test here: the others have no server after it
    _end(server.process)

    with pytest.raises(EngineDownError, match="cannot be reached"):
        engine.infer(batch(2))
    engine.close()
