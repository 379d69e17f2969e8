"""What is published instead of a record that its topic refuses as too large. Pure.

An image goes on to a tier without what earlier ones found in it, or else leaves with the votes it
has; a picture that does not fit is sent as one that could not be read; votes go in smaller packs,
then without boxes, texts and tags; answers and dead letters shrink likewise. So every image still
ends in one answer, and its neighbours go on.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.errors import ForbiddenError, ImageError, Refusal
from roadstream.schemas.records.answer import AnswerTier
from roadstream.schemas.records.bounds import MOST_TEXT
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.records.image import Image, Unreadable
from roadstream.schemas.records.votes import NO_EVIDENCE, ImageVotes, VotesPack
from roadstream.schemas.topics import ANSWERS, CARRIED, DEAD_LETTERS, VOTES
from roadstream.streams.log import Output


def instead(outputs: Sequence[Output], refused: Sequence[Refusal]) -> list[Output]:
    """Return what to publish instead of the refused ones of some outputs.

    Args:
        outputs: All outputs of the call.
        refused: Those that the log refuses.

    Raises:
        ForbiddenError: Nothing smaller says the same: the topic's limit must be raised.
    """
    # A refusal names the topic as its log does, perhaps with a namespace before it.
    goes_on = [refusal for refusal in refused if _goes_on(outputs[refusal.row].topic)]
    lighter = {one.row: found for one in goes_on if (found := _lighter(outputs[one.row], one))}
    leaving = dict(_leaving(outputs, one) for one in goes_on if one.row not in lighter)
    rows = {refusal.row for refusal in refused}
    smaller = [*lighter.values()] + [
        one
        for refusal in refused
        if refusal not in goes_on
        for one in _smaller(outputs[refusal.row], refusal, leaving)
    ]
    whole = [
        output for row, output in enumerate(outputs) if output.topic == VOTES and row not in rows
    ]
    exits = [one for output in whole if leaving for one in _exits(output, leaving)]
    if leaving:  # neither in a pack that was taken nor in one that is split
        refusal, _ = next(iter(leaving.values()))
        raise ForbiddenError(f"{refusal}; raise max.message.bytes of the topic")
    return smaller + exits


# For what a log puts around a record. What is refused once more has no votes beside it.
_ROOM = 1024
_Leaving = dict[str, tuple[Refusal, ImageError]]
"""Images that cannot go on, by id; those whose exit has been written are taken out."""


def _goes_on(topic: str) -> bool:
    return topic.startswith("tier.")


def _lighter(output: Output, refusal: Refusal) -> Output | None:
    """Return an escalation without what was found in its image, if its topic then takes it."""
    escalation = codec.decode_escalation(output.value)
    if escalation.evidence is NO_EVIDENCE:
        return None
    bare = msgspec.structs.replace(escalation, evidence=NO_EVIDENCE)
    lighter = output._replace(value=codec.encode(bare))
    fits = refusal.limit is not None and _size(lighter) + _ROOM <= refusal.limit
    return lighter if fits else None


def _leaving(outputs: Sequence[Output], refusal: Refusal) -> tuple[str, tuple[Refusal, ImageError]]:
    escalation = codec.decode_escalation(outputs[refusal.row].value)
    return escalation.head.image_id, (refusal, _fault(refusal))


def _smaller(output: Output, refusal: Refusal, leaving: _Leaving) -> list[Output]:
    if output.topic in {VOTES, CARRIED}:
        smaller = _packs(output, leaving)
    elif output.topic == ANSWERS:
        smaller = _answer(output, refusal)
    elif output.topic == DEAD_LETTERS:
        smaller = _letter(output)
    elif output.topic.startswith("images."):
        smaller = _image(output, refusal)
    else:
        smaller = []
    if not smaller or any(_size(one) >= refusal.size for one in smaller):
        raise ForbiddenError(f"{refusal}; raise max.message.bytes of the topic")
    return smaller


def _size(output: Output) -> int:
    return len(output.value) + len(output.key or b"")


def _fault(refusal: Refusal) -> ImageError:
    return ImageError("too_large", str(refusal))


def _image(output: Output, refusal: Refusal) -> list[Output]:
    """Return an image whose picture could not be sent; it gets its answer, a failed one."""
    image = codec.decode_image(output.value)
    fault = _fault(refusal)
    sent = Image(image.head, Unreadable(fault.fault, fault.problem))
    return [output._replace(value=codec.encode(sent))]


def _exits(output: Output, leaving: _Leaving) -> list[Output]:
    """Return a pack of those images of a pack that cannot go on, as they leave: it comes later,
    and so it counts.
    """
    pack = codec.decode_votes(output.value)
    left = [now for was in pack.images if (now := _exit(was, leaving)) is not was]
    return [_pack(output, pack, left)] if left else []


def _exit(votes: ImageVotes, leaving: _Leaving) -> ImageVotes:
    """Return votes by which an image leaves at the tier that could not send it on."""
    if votes.next_tier is None or votes.head.image_id not in leaving:
        return votes
    _, fault = leaving.pop(votes.head.image_id)
    error = votes.error or str(fault)
    return msgspec.structs.replace(votes, next_tier=None, reason="", error=error)


_BARE: dict[str, None] = {"boxes": None, "texts": None, "fused": None, "tags": None}


def _pack(output: Output, pack: VotesPack, images: list[ImageVotes]) -> Output:
    return output._replace(value=codec.encode(msgspec.structs.replace(pack, images=images)))


def _packs(output: Output, leaving: _Leaving) -> list[Output]:
    """Return two packs of half the images; of one image, its votes without boxes, texts, tags."""
    pack = codec.decode_votes(output.value)
    images = [_exit(votes, leaving) for votes in pack.images]
    if len(images) > 1:
        half = len(images) // 2
        return [_pack(output, pack, images[:half]), _pack(output, pack, images[half:])]
    return [_pack(output, pack, [msgspec.structs.replace(one, **_BARE) for one in images])]


def _answer(output: Output, refusal: Refusal) -> list[Output]:
    """Return an answer without boxes, texts and tags, then without its tiers; it says so."""
    answer = codec.decode_answer(output.value)
    bare = [msgspec.structs.replace(tier, **_BARE) for tier in answer.tiers]
    tiers: list[AnswerTier] = bare if bare != answer.tiers else []
    error = answer.error or f"{_fault(refusal)}; what does not fit is left out"
    less = msgspec.structs.replace(answer, tiers=tiers, error=error)
    return [output._replace(value=codec.encode(less))]


def _letter(output: Output) -> list[Output]:
    """Return a dead letter that tells its record's size and hash in place of the bytes; then one
    without the record's key and headers.
    """
    letter = codec.decode_dead_letter_or_settled(output.value)
    if not isinstance(letter, DeadLetter) or not (letter.value or letter.key or letter.headers):
        return []
    if letter.value:
        digest = hashlib.sha256(letter.value).hexdigest()
        told = f" ({len(letter.value):,} bytes, SHA-256 {digest}, left out)"
        error = letter.error[: MOST_TEXT - len(told)] + told
        short = msgspec.structs.replace(letter, value=b"", error=error)
    else:
        short = msgspec.structs.replace(letter, key=None, headers=msgspec.UNSET)
    return [output._replace(key=None, value=codec.encode(short))]
