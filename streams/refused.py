"""What is published instead of a record that its topic refuses as too large. Pure.

An image that cannot go on to a tier leaves with the votes it has; a picture that does not fit is
sent as one that could not be read; votes go in smaller packs, then without boxes and texts; answers
and dead letters shrink likewise. So every image still ends in one answer, and its neighbours go on.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from schemas import codec
from schemas.errors import ForbiddenError, ImageError, Refusal
from schemas.records import AnswerTier, Image, ImageVotes, Unreadable, VotesPack
from schemas.topics import ANSWERS, CARRIED, DEAD_LETTERS, VOTES
from streams.log import Output


def instead(outputs: Sequence[Output], refused: Sequence[Refusal]) -> list[Output]:
    """Return what to publish instead of the refused ones of some outputs.

    Args:
        outputs: All outputs of the call.
        refused: Those that the log refuses.

    Raises:
        ForbiddenError: Nothing smaller says the same: the topic's limit must be raised.
    """
    return [one for refusal in refused for one in _smaller(outputs, refusal)]


def _smaller(outputs: Sequence[Output], refusal: Refusal) -> list[Output]:
    output = outputs[refusal.row]
    if output.topic in {VOTES, CARRIED}:
        smaller = _packs(output)
    elif output.topic == ANSWERS:
        smaller = _answer(output)
    elif output.topic == DEAD_LETTERS:
        smaller = _letter(output)
    elif output.topic.startswith("images."):
        smaller = _image(output, refusal)
    else:
        smaller = _exit(outputs, refusal)
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


def _exit(outputs: Sequence[Output], refusal: Refusal) -> list[Output]:
    """Return votes by which an image leaves at the tier that could not send it on."""
    escalation = codec.decode_escalation(outputs[refusal.row].value)
    for output in outputs:
        if output.topic != VOTES:
            continue
        pack = codec.decode_votes(output.value)
        for votes in pack.images:
            if votes.head.image_id == escalation.head.image_id and votes.next_tier is not None:
                left = msgspec.structs.replace(
                    votes, next_tier=None, reason="", error=votes.error or str(_fault(refusal))
                )
                return [_pack(output, pack, [left])]
    return []


def _pack(output: Output, pack: VotesPack, images: list[ImageVotes]) -> Output:
    return output._replace(value=codec.encode(msgspec.structs.replace(pack, images=images)))


def _packs(output: Output) -> list[Output]:
    """Return two packs of half the images; of one image, its votes without boxes and texts."""
    pack = codec.decode_votes(output.value)
    images = pack.images
    if len(images) > 1:
        half = len(images) // 2
        return [_pack(output, pack, images[:half]), _pack(output, pack, images[half:])]
    return [
        _pack(
            output,
            pack,
            [msgspec.structs.replace(votes, boxes=None, texts=None, fused=None)],
        )
        for votes in images
    ]


def _answer(output: Output) -> list[Output]:
    """Return an answer without boxes and texts, then without its tiers."""
    answer = codec.decode_answer(output.value)
    bare = [msgspec.structs.replace(t, boxes=None, texts=None, fused=None) for t in answer.tiers]
    tiers: list[AnswerTier] = bare if bare != answer.tiers else []
    return [output._replace(value=codec.encode(msgspec.structs.replace(answer, tiers=tiers)))]


def _letter(output: Output) -> list[Output]:
    """Return a dead letter that tells its record's size and hash in place of the bytes."""
    letter = codec.decode_dead_letter_or_settled(output.value)
    value = getattr(letter, "value", b"")
    if not value:
        return []
    digest = hashlib.sha256(value).hexdigest()
    error = f"{getattr(letter, 'error', '')} ({len(value):,} bytes, SHA-256 {digest}, left out)"
    short = msgspec.structs.replace(letter, value=b"", error=error[-4096:])
    return [output._replace(key=None, value=codec.encode(short))]
