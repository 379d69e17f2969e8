"""``roadstream schema``: what the records and files look like, as JSON Schema."""

import sys
from typing import Annotated

from cyclopts import Parameter

from roadstream.schemas.codec import SCHEMAS, json_schema


def schema(
    name: Annotated[
        str,
        Parameter(
            help="Which record, file, or engine's settings in a cascade file: "
            f"{', '.join(SCHEMAS)}; or ENGINE-settings of an engine of another distribution."
        ),
    ],
) -> None:
    """Print the JSON Schema of a record, a cascade or prompt file, or an engine's settings."""
    sys.stdout.buffer.write(json_schema(name) + b"\n")
