"""``roadstream schema``: what the records and files look like, as JSON Schema."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from schemas.codec import json_schema


def schema(
    name: Annotated[
        Literal["image", "escalation", "votes", "answer", "dead-letter", "cascade"],
        Parameter(help="Which record or file."),
    ],
) -> None:
    """Print the JSON Schema of a record on the log, or of the cascade file."""
    sys.stdout.buffer.write(json_schema(name) + b"\n")
