"""``roadstream dead-letters``: shows what could not be worked on, and sends it again."""

import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.table import Table

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError, UsageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterReason, DeadLetterSettled
from roadstream.schemas.topics import DEAD_LETTERS
from roadstream.sinks.dead_letters import (
    Choice,
    LetterPosition,
    Letters,
    Listed,
    contents,
    is_whole,
    parse_position,
    picture,
    votes_of,
)
from roadstream.sinks.dead_letters import replay as replayed
from roadstream.sinks.files.atomic import atomic_file
from roadstream.streams.log import Log, Output
from roadstream.workers.commands.common import DEFAULT_KAFKA, LogLevel, LogUrl, Namespace, run_async
from roadstream.workers.observe.terminal import console, screen
from roadstream.workers.service.access.connect import address, open_log
from roadstream.workers.service.access.rights import to_read, to_settle

READ_RECORDS = 256
READ_PATIENCE = 5.0
# Columns of a table that no terminal shows: no line of it is folded.
WIDE = 2000

dead_letters = App(
    name="dead-letters",
    help="Show what could not be worked on, and send it again.\n\n"
    "A dead letter holds a record whole, with the error and the place where it stood. "
    "`list` shows those that nobody has dealt with; `show` prints one; after a repair, `replay` "
    "sends it again; `discard` says that nobody needs it. Pictures that cannot be decoded are no "
    "dead letters: they have a failed answer that says why.",
)

Reason = Annotated[
    DeadLetterReason | None, Parameter(name="--reason", help="Only letters of this kind.")
]
Tier = Annotated[str | None, Parameter(name="--tier", help="Only letters of this tier.")]
ImageId = Annotated[str | None, Parameter(name="--image", help="Only letters of this image id.")]
Places = Annotated[
    str,
    Parameter(name="PLACE", help=f"As `list` shows them: {DEAD_LETTERS}[3]@17, or 3@17 for short."),
]
All = Annotated[
    bool, Parameter(name="--all", negative="", help="All that wait, as far as the filters go.")
]


@dead_letters.command(name="list")
def list_(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    everything: Annotated[
        bool, Parameter(name="--all", negative="", help="Those dealt with as well.")
    ] = False,
    reason: Reason = None,
    tier: Tier = None,
    image: ImageId = None,
    json: Annotated[bool, Parameter(negative="", help="One JSON object a line.")] = False,
    log_level: LogLevel = "warning",
) -> None:
    """List the dead letters that wait for somebody."""
    where = address(log, namespace)
    letters = run_async(log_level, _read, where)
    choice = Choice(reason=reason, tier=tier, image_id=image)
    found = [
        one
        for one in letters.all()
        if (everything or one.settled is None) and choice.takes(one.letter)
    ]
    if json:
        for one in found:
            sys.stdout.buffer.write(codec.encode_json(_plain(one)) + b"\n")
        return
    if found:
        width = None if sys.stdout.isatty() else WIDE
        screen(width).print(_table(found))
    console().print(f"{len(found):,} dead letters")


@dead_letters.command
def show(
    place: Places,
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    save: Annotated[
        Path | None, Parameter(help="File for the bytes of the original picture.")
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """Print everything about one dead letter, as JSON, and save the picture that it holds."""
    where = address(log, namespace)
    one, letter = run_async(log_level, _read_one, where, parse_position(place))
    sys.stdout.buffer.write(msgspec.json.format(codec.encode_json(_plain(one, letter))) + b"\n")
    if save is not None:
        data = picture(letter)
        with atomic_file(save) as file:
            file.write(data)
        _say(f"{len(data):,} bytes: {save}")


@dead_letters.command
def replay(
    *places: Places,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    everything: All = False,
    reason: Reason = None,
    tier: Tier = None,
    image: ImageId = None,
    log_level: LogLevel = "warning",
) -> None:
    """Send the record of dead letters again, to where it stood, and mark them as dealt with.

    An image that failed has its answer, and keeps it: its picture is sent as a new image,
    `ID~replay-NUMBER`, and begins at the first tier, without its deadline. Votes of a refused
    duplicate go together, likewise under a new id. A record that could not be read goes out as it
    was. To do it twice, as after a crash, does no harm.
    """
    where = address(log, namespace)
    choice = Choice(reason=reason, tier=tier, image_id=image)
    run_async(log_level, _replay, where, _parsed(places, everything, choice), choice)


@dead_letters.command
def discard(
    *places: Places,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    everything: All = False,
    reason: Reason = None,
    tier: Tier = None,
    image: ImageId = None,
    log_level: LogLevel = "warning",
) -> None:
    """Mark dead letters as dealt with, without sending anything. The log keeps them."""
    where = address(log, namespace)
    choice = Choice(reason=reason, tier=tier, image_id=image)
    run_async(log_level, _discard, where, _parsed(places, everything, choice), choice)


def _parsed(
    places: tuple[str, ...], everything: bool, choice: Choice
) -> list[LetterPosition] | None:
    """Return the places that were named, or ``None`` for all.

    Raises:
        UsageError: Both or neither were given.
    """
    if everything == bool(places):
        raise UsageError("dead-letters: expected either PLACEs or --all (see --help)")
    if places and choice != Choice():
        raise UsageError("dead-letters: --reason, --tier and --image go with --all")
    return None if everything else [parse_position(place) for place in places]


async def _read(url: str) -> Letters:
    async with open_log(url) as log:
        return await _letters(log)


async def _letters(log: Log) -> Letters:
    """Read the topic from its beginning to its end; their bytes are not kept."""
    await log.check_rights(to_read(DEAD_LETTERS))
    if not await log.partition_counts([DEAD_LETTERS]):
        missing = log.real_name(DEAD_LETTERS)
        raise UsageError(f"there is no topic {missing} (see roadstream topics create)")
    letters = Letters()
    async with log.reader(DEAD_LETTERS, "beginning") as reader:
        ends = await reader.ends()
        while any(reader.positions[p] < end for p, end in ends.items()):
            polled = await reader.poll(max_records=READ_RECORDS, timeout=READ_PATIENCE)
            if not polled:
                break  # the rest was trimmed or is no data record
            for tp, records in polled.items():
                for record in records:
                    letters.add(LetterPosition(tp.partition, record.offset), record.value)
    for place in letters.unreadable:
        console().print(f"{place}: is no dead letter", style="yellow")
    return letters


async def _read_one(url: str, place: LetterPosition) -> tuple[Listed, DeadLetter]:
    async with open_log(url) as log:
        one = (await _letters(log)).at(place)
        return one, (await _whole(log, [one.place]))[one.place]


async def _whole(log: Log, places: Collection[LetterPosition]) -> dict[LetterPosition, DeadLetter]:
    """Read letters of one partition with their bytes.

    Raises:
        UsageError: One has gone since.
    """
    found: dict[LetterPosition, DeadLetter] = {}
    first, last = min(places), max(places)
    async with log.reader(DEAD_LETTERS, "end") as reader:
        start = dict(await reader.ends()) | {first.partition: first.offset}
    async with log.reader(DEAD_LETTERS, start) as reader:
        while reader.positions[first.partition] <= last.offset:
            polled = await reader.poll(max_records=READ_RECORDS, timeout=READ_PATIENCE)
            if not polled:
                break
            for tp, records in polled.items():
                for record in records:
                    place = LetterPosition(tp.partition, record.offset)
                    if place in places:
                        found[place] = codec.decode(
                            codec.decode_dead_letter, record.value, DEAD_LETTERS, *place
                        )
    for place in places:
        if place not in found:
            raise UsageError(f"{place}: has gone from the log meanwhile")
    return found


async def _replay(url: str, places: list[LetterPosition] | None, choice: Choice) -> None:
    async with open_log(url) as log:
        await log.check_rights(to_settle())
        letters = await _letters(log)
        chosen = letters.waiting(choice) if places is None else letters.unsettled(places)
        chosen = letters.with_companions(chosen)
        sent = 0
        for group in letters.together(chosen):
            sent += await _send_again(log, letters, group)
    console().print(f"{sent:,} of {len(chosen):,} dead letters replayed")


async def _send_again(log: Log, letters: Letters, group: list[Listed]) -> int:
    """Send letters that belong together; return how many were sent."""
    whole = await _whole(log, [one.place for one in group])
    if group[0].content is not None and not is_whole(map(votes_of, whole.values())):
        places = ", ".join(str(one.place) for one in group)
        _say(f"{places}: left as they are: a later tier has still to vote on this picture")
        return 0
    now = time.time()
    outputs: list[Output] = []
    marks: list[Output] = []
    for one in group:
        try:
            again = replayed(whole[one.place], letters.number(one), now)
        except RecordError as error:
            _say(f"{one.place}: left as it is: {error}")
            continue
        outputs.append(again.output)
        settled = DeadLetterSettled(one.place.offset, "replayed", now, again.image_id)
        marks.append(_mark(one.place, settled))
        _say(f"{one.place}: sent again to {again.output.topic} {again.image_id or 'as it was'}")
    async with log.producer() as producer:
        # In this order: a crash between the two sends it again, under the same id.
        await producer.publish(outputs)
        await producer.publish(marks)
    return len(marks)


def _say(line: str) -> None:
    console().print(line, soft_wrap=True)


def _mark(place: LetterPosition, settled: DeadLetterSettled) -> Output:
    return Output(DEAD_LETTERS, None, codec.encode(settled), place.partition, headers.SETTLED)


async def _discard(url: str, places: list[LetterPosition] | None, choice: Choice) -> None:
    now = time.time()
    async with open_log(url) as log:
        await log.check_rights(to_settle())
        letters = await _letters(log)
        chosen = letters.waiting(choice) if places is None else letters.unsettled(places)
        async with log.producer() as producer:
            await producer.publish(
                [
                    _mark(one.place, DeadLetterSettled(one.place.offset, "discarded", now))
                    for one in chosen
                ]
            )
    console().print(f"{len(chosen):,} dead letters discarded")


def _plain(one: Listed, letter: DeadLetter | None = None) -> dict[str, Any]:
    """Return a letter as JSON shows it; with its head if the whole letter is at hand."""
    said, settled = one.letter, one.settled
    plain: dict[str, Any] = {
        "place": str(one.place),
        "reason": said.reason,
        "image_id": said.image_id,
        "tier": said.tier,
        "member": said.member,
        "error": said.error,
        "failed_at": said.failed_at,
        "attempts": said.attempts,
        "group": said.group,
        "record": f"{said.topic}[{said.partition}]@{said.offset}",
        "bytes": one.size,
        "settled": None,
    }
    if settled is not None:
        plain["settled"] = {
            "action": settled.action,
            "at": settled.at,
            "image_id": settled.image_id,
        }
    if letter is not None:
        plain["key"] = (letter.key or b"").decode(errors="replace")
        plain["headers"] = [
            [name, None if value is None else value.decode(errors="replace")]
            for name, value in letter.headers or ()
        ]
        plain["holds"] = contents(letter)
    return plain


def _table(found: list[Listed]) -> Table:
    table = Table(box=None)
    for name in ("place", "when", "reason", "image", "tier", "tries"):
        table.add_column(name, no_wrap=name in {"place", "when"}, overflow="fold")
    table.add_column("error", overflow="fold")
    for one in found:
        letter = one.letter
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.failed_at))
        done = f"{one.settled.action}: " if one.settled else ""
        words = [str(one.place), when, letter.reason, letter.image_id or "", letter.tier or ""]
        table.add_row(*words, str(letter.attempts), done + letter.error)
    return table
