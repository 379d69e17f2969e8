"""``roadstream schema``: what the records and files look like, as JSON Schema."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from schemas.codec import json_schema


def schema(
    name: Annotated[
        Literal[
            "image",
            "escalation",
            "votes",
            "answer",
            "dead-letter",
            "cascade",
            "onnx-settings",
            "torch-settings",
            "vllm-settings",
            "openai-settings",
            "triton-settings",
            "cones-settings",
            "noop-settings",
        ],
        Parameter(help="Which record, file, or engine's settings in a cascade file."),
    ],
) -> None:
    """Print the JSON Schema of a record, of the cascade file, or of an engine's settings in it."""
    sys.stdout.buffer.write(json_schema(name) + b"\n")
