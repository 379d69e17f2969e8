"""A model that answers when a file is there, and says when a request was cancelled."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton


def say(line: str) -> None:
    """Write a line to the server's own log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class TritonPythonModel:
    """Waits for the file ``gate`` in its version's folder; tells when it begins and gives up."""

    def initialize(self, args: dict[str, str]) -> None:
        self._folder = Path(args["model_repository"], args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = triton.get_input_tensor_by_name(request, "images").as_numpy()
        say("gated: begun")
        while not (self._folder / "gate").exists():
            if request.is_cancelled():
                say("gated: cancelled")
                error = triton.TritonError("cancelled", triton.TritonError.CANCELLED)
                return triton.InferenceResponse(error=error)
            time.sleep(0.005)
        logits = np.full((len(images), 1), 3.0, np.float32)
        return triton.InferenceResponse([triton.Tensor("logit", logits)])
