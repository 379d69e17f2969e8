"""The ``roadstream`` command: finds the subcommand, and turns every known error into one line."""

import roadstream.workers.observe.safe_path  # before all that could be found there

# isort: split
import roadstream.workers.observe.plain_structlog  # noqa: F401 (before any other imports it)

# isort: split
import errno
import faulthandler
import os
import sys

from cyclopts import App, CycloptsError

from roadstream.schemas.errors import RoadstreamError, UsageError
from roadstream.workers.observe.logging import identify, log_strays
from roadstream.workers.observe.terminal import STANDARD_ERROR, console, open_streams, screen
from roadstream.workers.service.lifecycle import end_process, supervised

# What a disk may say of a file that is open already, without its name.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

app = App(
    name="roadstream",
    help="Decide for every dashcam or phone picture whether there is roadwork in it.\n\n"
    "On a laptop: `roadstream score photos/`. On Kafka: `roadstream broker`, then "
    "`roadstream up --log kafka://127.0.0.1:9092`, `roadstream produce`, `roadstream answers`.",
    help_epilogue="Exit status: 0 all went well, 1 something failed, 2 wrong usage, "
    "65 weights are not those that the cascade was loaded with, 75 the log does not answer, "
    "78 another process has taken the member name, 130 stopped by Ctrl-C before it was done.",
    version_flags=["--version"],
)
_COMMANDS = {
    "score": ("score", "Score pictures and videos; write one answer per picture."),
    "evaluate": ("evaluate", "Compare answers with labels."),
    "report": ("evaluate", "Write an HTML report of answers."),
    "render": ("render", "Render a synthetic drive with labels, to try things with."),
    "topics": ("topics", "Make the topics that a cascade needs."),
    "produce": ("produce", "Send pictures to a log, to be scored by the workers there."),
    "work": ("serve", "Work for one or more tiers: judge images, publish votes, escalate."),
    "consensus": ("serve", "Join the votes of each image into its one answer."),
    "answers": ("answers", "Show answers as they come, or write them to a file."),
    "votes": ("answers", "Show the votes of the tiers as they come."),
    "dead-letters": ("dead_letters", "Show what could not be worked on, and send it again."),
    "up": ("serve", "Run topics, workers and consensus under one supervisor."),
    "verify": ("verify", "Prove that nothing was lost or doubled; name what was."),
    "broker": ("broker", "Run a real Apache Kafka on this machine, for development."),
    "cascade": ("cascade", "List, show and check cascades; roll one into a running system."),
    "export": ("export", "Write what a Triton server needs to run a cascade's models."),
    "schema": ("schema", "Print the JSON Schema of a record or of the cascade file."),
}
for _name, (_module, _help) in _COMMANDS.items():
    # The list of commands takes the one-liner; `score --help` shows all that its module says.
    app.command(
        f"roadstream.workers.commands.{_module}:{_name.replace('-', '_')}",
        name=_name,
        help=None if _name in sys.argv[1:2] else _help,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    open_streams()
    # A crash of native code leaves a line, and where it was.
    faulthandler.enable(STANDARD_ERROR, all_threads=False)
    log_strays()
    # Python's children of any kind: none may import what lies in the user's folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    end_process(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line; return its exit status.

    Errors that Roadstream raises on purpose become one line on standard error.
    """
    if arguments and arguments[0] in _COMMANDS:
        identify(service=arguments[0])
    try:
        _check_working_folder()
        status: int = app(
            arguments,
            exit_on_error=False,
            console=screen(),
            error_console=console(),
            result_action="return_int_as_exit_code_else_zero",
        )
        sys.stdout.flush()
    except CycloptsError:
        return 2  # cyclopts has printed what was expected
    except (RoadstreamError, KeyboardInterrupt, OSError, BaseExceptionGroup) as error:
        return _print_error(error)
    return status


def _check_working_folder() -> None:
    """Check that there is a working folder; a child of a supervisor needs none.

    Raises:
        UsageError: It was removed.
    """
    try:
        os.getcwd()  # noqa: PTH109 (whether it works is all that matters)
    except OSError as error:
        if not supervised():
            raise UsageError(
                f"the working folder is not there any more ({error.strerror}); go to another"
            ) from error


def _print_error(error: BaseException) -> int:
    cause = _first(error)
    if isinstance(cause, RoadstreamError):
        print(f"roadstream: {cause}", file=sys.stderr)  # noqa: T201 (this is the command line)
        return cause.exit_status
    if isinstance(cause, KeyboardInterrupt):
        return 130
    if isinstance(cause, BrokenPipeError):
        return 1  # the reader of our output has gone, as `head` does
    if isinstance(cause, OSError) and (cause.filename is not None or cause.errno in _DISK):
        where = "" if cause.filename is None else f"{cause.filename}: "
        print(f"roadstream: {where}{cause.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    raise error


def _first(error: BaseException) -> BaseException:
    """Return the error behind a group of errors: one of ours if there is one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_first(part) for part in error.exceptions]
    return next((cause for cause in causes if isinstance(cause, RoadstreamError)), causes[0])


if __name__ == "__main__":
    main()
