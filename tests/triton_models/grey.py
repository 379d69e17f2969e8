"""A model on the server that decodes JPEG files itself; its score is that of ``GreyEngine``."""

import io
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from PIL import Image


class TritonPythonModel:
    """Gives log-odds of ``(level − 128) / 16``; a file that is no picture fails its request."""

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        files = triton.get_input_tensor_by_name(request, "images").as_numpy().reshape(-1)
        try:
            levels = [np.asarray(Image.open(io.BytesIO(one)).convert("L")).mean() for one in files]
        except OSError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error)))
        logits = ((np.array(levels) - 128) / 16).astype(np.float32)
        return triton.InferenceResponse([triton.Tensor("logit", logits.reshape(-1, 1))])
