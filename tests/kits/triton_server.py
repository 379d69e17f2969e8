"""A real Triton server of nvidia-pytriton, from an environment of its own."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.workers.engines.triton.export import (
    REPOSITORY,
    Wanted,
    claim_folder,
    export_members,
)

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient

ROOT = Path(__file__).parents[2]
MODELS = Path(__file__).parents[1] / "triton_models"
PYTHON = Path(os.environ.get("ROADSTREAM_TRITON_PYTHON", ROOT / ".environments/triton/bin/python"))
STARTED = "Started GRPCInferenceService"


class TritonServer:
    """A server process.

    Args:
        folder: Empty; gets the model repository and the backends.
        options: Further options of ``tritonserver``.

    Attributes:
        repository: The model repository.
        url: Where it listens.
        said: Its lines so far.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.repository = folder / "repository"
        self.repository.mkdir()
        self._backends, self._options = folder / "backends", options
        self._package = next(PYTHON.parents[1].glob("lib/python3.*/site-packages/pytriton"))
        self._prepare()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"127.0.0.1:{self._port}"
        self.said: list[str] = []
        self._heard = threading.Condition()
        self._process: subprocess.Popen[str] | None = None

    def start(self, *models: str) -> None:
        """Start it, with these models loaded; return when it answers."""
        server = self._package / "tritonserver/bin/tritonserver"
        command = [
            str(server), f"--model-repository={self.repository}",
            f"--backend-directory={self._backends}", "--grpc-address=127.0.0.1",
            f"--grpc-port={self._port}", "--allow-http=false", "--allow-metrics=false",
            "--model-control-mode=explicit", "--exit-timeout-secs=1",
            *[f"--load-model={name}" for name in models], *self._options,
        ]  # fmt: skip
        environment = os.environ | {
            "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(self._package.parent / "nvidia_pytriton.libs"),
        }
        self._process = process = subprocess.Popen(
            command, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            self.said.append(line)
            if STARTED in line:
                threading.Thread(target=self._listen, args=[process], daemon=True).start()
                return
        self.kill()
        pytest.fail("the Triton server did not start:\n" + "".join(self.said))

    def says(self, words: str, after: int = 0) -> bool:
        """Wait for words in its log, from line ``after`` on; tell whether they came."""
        with self._heard:
            return self._heard.wait_for(
                lambda: any(words in line for line in self.said[after:]), timeout=20
            )

    def load(self, *models: str) -> None:
        """Have it load these models anew from the repository."""
        with self._client() as client:
            for name in models:
                client.load_model(name, client_timeout=60)

    def has(self, model: str) -> bool:
        """Tell whether a model is loaded."""
        with self._client() as client:
            return bool(client.is_model_ready(model))

    def regions(self) -> list[str]:
        """Return the names of the shared memory that it has mapped."""
        with self._client() as client:
            return sorted(client.get_system_shared_memory_status().regions)

    def _client(self) -> "InferenceServerClient":
        from tritonclient.grpc import InferenceServerClient  # this module is a plugin of all tests

        return InferenceServerClient(self.url)

    def kill(self) -> None:
        """Kill it with all its model processes, as a machine that fails does."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def add(self, name: str, config: str, model: str) -> Path:
        """Put a model of ``triton_models`` into the repository; return its version's folder."""
        version = self.repository / name / "1"
        version.mkdir(parents=True)
        shutil.copy(MODELS / f"{model}.py", version / "model.py")
        (version.parent / "config.pbtxt").write_text(f'backend: "python"\n{config}')
        return version

    def _prepare(self) -> None:
        """Lay out the backends: Python's with its stub, and that for ONNX, which runs on it."""
        server = self._package / "tritonserver"
        python = shutil.copytree(server / "backends/python", self._backends / "python")
        kind = self._package.parents[1].name.removeprefix("python")
        stub = f"python_backend_stubs/{kind}/triton_python_backend_stub"
        shutil.copy(server / stub, python)
        onnx = self._backends / "onnxruntime"
        onnx.mkdir()
        shutil.copy(MODELS / "onnxruntime_backend.py", onnx / "model.py")

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._heard:
                    self.said.append(line)
                    self._heard.notify_all()


GREY = """
max_batch_size: 8
input { name: "images" data_type: TYPE_STRING dims: 1 }
output { name: "logit" data_type: TYPE_FP32 dims: 1 }
dynamic_batching { }
instance_group { kind: KIND_CPU }
"""
GATED = """
max_batch_size: 4
input { name: "images" data_type: TYPE_UINT8 dims: [ 8, 8, 3 ] }
output { name: "logit" data_type: TYPE_FP32 dims: 1 }
instance_group { kind: KIND_CPU }
"""


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server for the whole session, without models; tests load what they put into it."""
    server = TritonServer(tmp_path_factory.mktemp("triton"))
    server.start()
    yield server
    server.kill()


def two_tiers() -> Cascade:
    """Return the first two tiers of ``lite``; the third takes too long for a test."""
    lite = load_cascade("lite")
    return replace(lite, tiers=[replace(each, max_batch=4) for each in lite.tiers[:2]])


@pytest.fixture(scope="session")
def triton_lite(triton: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those tiers, exported and loaded on the server: the cascade file."""
    folder = tmp_path_factory.mktemp("exported")
    claim_folder(folder, force=False)
    wanted = Wanted(url=triton.url, kind="KIND_CPU")
    path = export_members(two_tiers(), wanted, folder, print)
    shutil.copytree(folder / REPOSITORY, triton.repository, dirs_exist_ok=True)
    triton.load("glance", "objects")
    return path
