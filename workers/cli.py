"""The ``roadstream`` command: finds the subcommand, and turns every known error into one line."""

import os
import sys

from cyclopts import App, CycloptsError

from schemas.errors import RoadstreamError

app = App(
    name="roadstream",
    help="Decide for every dashcam or phone picture whether there is roadwork in it.\n\n"
    "On a laptop: `roadstream score photos/`. On Kafka: `roadstream broker`, then "
    "`roadstream up --log kafka://127.0.0.1:9092`, `roadstream produce`, `roadstream answers`.",
    help_epilogue="Exit status: 0 all went well, 1 something failed, 2 wrong usage, "
    "130 stopped by Ctrl-C.",
    version_flags=["--version"],
)
app.command("workers.commands.score:score")
app.command("workers.commands.evaluate:evaluate")
app.command("workers.commands.evaluate:report")
app.command("workers.commands.render:render")
app.command("workers.commands.topics:topics")
app.command("workers.commands.produce:produce")
app.command("workers.commands.serve:work")
app.command("workers.commands.serve:consensus")
app.command("workers.commands.answers:answers")
app.command("workers.commands.serve:up")
app.command("workers.commands.broker:broker")
app.command("workers.commands.schema:schema")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line; return its exit status.

    Errors that Roadstream raises on purpose become one line on standard error.
    """
    try:
        status = app(arguments, exit_on_error=False)
    except CycloptsError:
        return 2  # cyclopts has printed what was expected
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RoadstreamError, BaseExceptionGroup) as error:
        return _complain(error)
    return status if isinstance(status, int) else 0


def _complain(error: BaseException) -> int:
    cause = _first(error)
    if isinstance(cause, RoadstreamError):
        print(f"roadstream: {cause}", file=sys.stderr)  # noqa: T201 (this is the command line)
        return cause.exit_status
    if isinstance(cause, KeyboardInterrupt):
        return 130
    raise error


def _first(error: BaseException) -> BaseException:
    """Return the error behind a group of errors: one of ours if there is one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_first(part) for part in error.exceptions]
    return next((cause for cause in causes if isinstance(cause, RoadstreamError)), causes[0])


if __name__ == "__main__":
    main()
