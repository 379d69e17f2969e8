"""Run the training: ``python -m training --help``."""

import sys

from roadstream.schemas.errors import RoadstreamError
from training.pipeline import app

if __name__ == "__main__":
    try:
        app()
    except RoadstreamError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
