"""``roadstream.score``: what the command does, for programs: answers as they come."""

import contextlib
import os
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, TypeAlias, TypedDict, Unpack

import anyio
import msgspec
from anyio import to_thread
from rich.console import Console

from roadstream.schemas import codec
from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.answer import Answer
from roadstream.sinks.consensus.worker import Consensus
from roadstream.sinks.sink import scheme_of, target_of
from roadstream.streams.log import Start
from roadstream.streams.sources.identity import native
from roadstream.workers.api.loop_thread import LoopThread
from roadstream.workers.job.prepare import ScoreOptions, check, prepared
from roadstream.workers.job.progress import Progress
from roadstream.workers.job.run import STOP_BUDGET, ScoringRun
from roadstream.workers.observe.logging import read_event, tell_library
from roadstream.workers.service.supervision.supervisor import Supervisor

# Answers that may wait to be taken; then the run waits too.
MOST_WAITING = 4096
FULL_FOR = 0.05
# The output that nobody wants.
NOWHERE = str(Path(gettempdir(), "answers.jsonl"))


class ScoreRun:
    """A run of scoring in a thread of its own.

    Args:
        options: What it does.
    """

    def __init__(self, options: ScoreOptions) -> None:
        self._options = options
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        # At the end all answers come once more, for those of earlier runs.
        self._taken: set[str] = set()
        self._thread = LoopThread(self._main)
        # Also where the program ends before the loop does: later, the thread could not write.
        self._close = weakref.finalize(self, self._thread.stop, STOP_BUDGET)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def next(self) -> Answer | None:
        """Return an answer that was not returned before, when there is one; ``None`` at the end.

        Raises:
            RoadstreamError: The run has failed; what was answered is kept.
        """
        while (value := self._waiting.get()) is not None:
            answer = codec.decode_answer(value)
            if answer.head.image_id not in self._taken:
                self._taken.add(answer.head.image_id)
                return answer
        self._waiting.put(None)  # for whoever asks again
        self.close()
        if self._thread.failure is not None:
            raise self._thread.failure
        return None

    def close(self) -> None:
        """End it as Ctrl-C ends the command: the same call goes on from there. Fine if ended."""
        self._close()

    async def _main(self, ready: Callable[[], object], stopping: anyio.Event) -> None:
        async def run(
            scoring: ScoringRun,
            supervisor: Supervisor,
            consensus: Consensus | None,
            progress: Progress,
        ) -> bool:
            await scoring.run(supervisor, consensus, progress, stopping)
            return not stopping.is_set()

        async def heard(answers: Sequence[bytes]) -> None:
            for answer in answers:
                self._waiting.put(answer)
            # It is a thread that takes them.
            while (  # noqa: ASYNC110
                self._waiting.qsize() > MOST_WAITING and not stopping.is_set()
            ):
                await anyio.sleep(FULL_FOR)

        ready()
        try:
            with prepared(self._options) as job:
                await job.run(run, Console(quiet=True), _tell, heard)
        finally:
            self._waiting.put(None)


def _tell(child: str, pid: int | None, line: str) -> None:
    """Log what a worker process has logged."""
    tell_library({**(read_event(line) or {"event": line, "level": "warning"}), "child": child})


class _Options(TypedDict, total=False):
    """Those of ``ScoreOptions`` that ``score`` takes by name."""

    cascade: str | os.PathLike[str]
    without: list[str]
    log: str
    namespace: str | None
    workers: int | None
    fps: float | None
    stream: int | str | None
    sort: bool
    restart: bool
    start: Start | None
    hang_timeout: float
    ledger: str | os.PathLike[str] | None
    decode_memory: int
    batch_policy: str | None


Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def score(
    paths: Paths, out: str | os.PathLike[str] | None = None, **options: Unpack[_Options]
) -> Generator[Answer, None, None]:
    """Score pictures and videos as ``roadstream score`` does; yield their answers.

    Each picture has one answer: those of this run as they come, not in input order, then those of
    an earlier run of the same output. The output is written at the end. To leave the loop early
    stops the run, as Ctrl-C stops the command; it writes what was answered, and the same call goes
    on from there. Worker processes do the work; it begins when the first answer is asked for.

    Args:
        paths: A folder, picture file, glob or video, or several.
        out: The output file: .parquet, .jsonl or .csv; or ``SCHEME://…`` of a sink of your own.
            Without one nothing is written, and nothing can be resumed.
        **options: By name, those of the command: ``cascade``, ``without``, ``log``, ``namespace``,
            ``workers``, ``fps``, ``stream``, ``sort``, ``restart``, ``start`` (its ``--from``),
            ``hang_timeout``, ``ledger``, ``decode_memory``, ``batch_policy``.

    Raises:
        UsageError: An option is not what it should be, or the output holds another run.
        RunError: The run has failed; what was answered is kept. While answers are taken.
    """
    return _answers(_options(paths, out, options))


def _answers(options: ScoreOptions) -> Generator[Answer, None, None]:
    with _started(options) as run:
        while (answer := run.next()) is not None:
            yield answer


@contextlib.contextmanager
def _started(options: ScoreOptions) -> Iterator[ScoreRun]:
    """Run it, in a folder that is deleted after it if nobody wants its output."""
    with contextlib.ExitStack() as held:
        if options.out == NOWHERE:
            folder = held.enter_context(TemporaryDirectory(prefix="roadstream-"))
            out = str(Path(folder, Path(NOWHERE).name))
            options = msgspec.structs.replace(options, out=out, kept=False)
        run = held.enter_context(contextlib.closing(ScoreRun(options)))
        run.start()
        yield run


def ascore(
    paths: Paths, out: str | os.PathLike[str] | None = None, **options: Unpack[_Options]
) -> AsyncGenerator[Answer, None]:
    """Score as ``score`` does, for coroutines of any event loop, which it never blocks.

    Use ``contextlib.aclosing`` around it where the loop may be left early.

    Raises:
        UsageError: As ``score`` does.
        RunError: As ``score`` does.
    """
    return _answers_async(_options(paths, out, options))


async def _answers_async(options: ScoreOptions) -> AsyncGenerator[Answer, None]:
    held = _started(options)
    run = held.__enter__()
    try:
        while True:
            answer = await to_thread.run_sync(run.next, abandon_on_cancel=True)
            if answer is None:
                return
            yield answer
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(held.__exit__, None, None, None)


def _options(paths: Paths, out: str | os.PathLike[str] | None, given: _Options) -> ScoreOptions:
    """Return what is asked for.

    Raises:
        UsageError: There is an option of a name that is none, or of another type.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    wanted: dict[str, Any] = {
        **given,
        "paths": [native(path) for path in several],
        "out": NOWHERE if out is None else _target(out),
    }
    if "-" in wanted["paths"]:
        raise UsageError("score: expected paths, got - (give the paths of the list themselves)")
    for name in ("cascade", "stream"):
        if isinstance(value := wanted.get(name), int | os.PathLike):
            wanted[name] = str(value)
    if isinstance(ledger := wanted.get("ledger"), str | os.PathLike):
        wanted["ledger"] = Path(ledger).absolute()
    unknown = sorted(set(given) - set(_Options.__annotations__))
    if unknown:
        raise UsageError(f"score: there is no option {unknown[0]}")
    try:
        options = msgspec.convert(wanted, ScoreOptions)
    except msgspec.ValidationError as error:
        raise UsageError(f"score: {error}") from None
    check(options)
    return options


def _target(out: str | os.PathLike[str]) -> str:
    target = target_of(out)
    return target if scheme_of(target) else str(Path(target).absolute())
