"""``roadstream schema``: what the records and files look like, as JSON Schema."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from roadstream.schemas.codec import json_schema


def schema(
    name: Annotated[
        Literal[
            "image",
            "escalation",
            "votes",
            "answer",
            "dead-letter",
            "cascade",
            "prompt",
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
    """Print the JSON Schema of a record, a cascade or prompt file, or an engine's settings."""
    sys.stdout.buffer.write(json_schema(name) + b"\n")
