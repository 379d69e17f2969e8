"""A Triton backend named ``onnxruntime``, for servers that come without the one of that name.

It runs in the server's own Python, on the package onnxruntime. A model repository that names the
backend ``onnxruntime`` runs on either, unchanged.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the server makes per model instance."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        name = config["default_model_filename"] or "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._inputs = [one["name"] for one in config["input"]]
        self._outputs = {one["name"]: one for one in config["output"]}
        self._session = onnxruntime.InferenceSession(
            str(Path(args["model_repository"], args["model_version"], name)), options
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = {
            name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs
        }
        wanted = list(request.requested_output_names())
        found = self._session.run(wanted, given)
        tensors = [
            triton.Tensor(name, np.asarray(values))
            for name, values in zip(wanted, found, strict=True)
        ]
        return triton.InferenceResponse(tensors)
