"""Comparing answers: two of one image, and one with that of a clean run. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import MemberRun
from roadstream.sinks.columns import AnswerRow, VoteRow, row
from roadstream.sinks.verification.findings import Kind

TIMINGS: dict[type[msgspec.Struct], frozenset[str]] = {
    Answer: frozenset({"answered_at", "took", "joining"}),
    Head: frozenset({"submitted_at"}),
    AnswerTier: frozenset({"queued", "decoding", "inferring"}),
    MemberRun: frozenset({"latency", "batch_size"}),
}
"""What may differ between two answers that are the same: when it was done, and in what company."""


def compare(first: Answer, later: Answer) -> tuple[Kind, str]:
    """Say what a second answer to an image is, and how it differs; ``TIMINGS`` are no difference.

    Every other field is compared, to the last bit, whatever fields there will be.
    """
    one, two = dict(_contents(first)), dict(_contents(later))
    if one == two:
        return "doubled", f"the same answer twice: {_said(first)}"
    before, after = ({tier.tier for tier in answer.tiers} for answer in (first, later))
    if before < after:
        more = ", ".join(sorted(after - before))
        return "late vote changed an answer", f"{_said(first)}, then with {more}: {_said(later)}"
    if _said(first) == _said(later):
        what = next(name for name in one | two if one.get(name) != two.get(name))
        return "divergent", (
            f"both {_said(first)}, but their {what} differ: "
            f"{_short(one.get(what))}, then {_short(two.get(what))}"
        )
    return "divergent", f"{_said(first)}, then {_said(later)}"


def _contents(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every field that is no timing, down to the leaves, by its place in the answer."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if name not in TIMINGS.get(type(value), ()):
                yield from _contents(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        yield f"{path} (number)", str(len(value))
        for i, one in enumerate(value):
            yield from _contents(one, f"{path}[{i}]")
    else:
        yield path, repr(value)  # exact for floats, and tells −0 from 0, but not NaN from NaN


def _short(text: str | None) -> str:
    return "nothing" if text is None else text if len(text) <= 60 else text[:60] + "…"


def _said(answer: Answer) -> str:
    if answer.probability is None:
        return f"{answer.status} ({answer.error or 'no error'})"
    return f"{answer.status} {answer.label} {answer.probability!r}"


class _Decision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an answer decides, as far as a picture's neighbours must not change it."""

    status: str
    label: str | None
    probability: float | None
    error: str | None
    whole: bool
    votes: dict[str, float | None]


_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(_Decision).decode


class Baseline:
    """The answers of a clean run, a few hundred bytes each.

    Args:
        rows: Its answers. They are found again by id, else by URI.

    Attributes:
        compared: Answers compared so far.
        in_part: Those of them that lack votes here or there, as a deadline or a member that was
            down leaves them: only the votes that both have were compared.
        unknown: Answers that the clean run has not.
    """

    def __init__(self, rows: Iterable[AnswerRow]) -> None:
        self._by_id: dict[str, bytes] = {}
        self._by_uri: dict[str, bytes] = {}
        self.compared = self.in_part = self.unknown = 0
        for answer in rows:
            decided = _encode(_decision(answer))
            self._by_id[answer["image_id"]] = decided
            if answer["uri"]:
                self._by_uri[answer["uri"]] = decided

    def differs(self, answer: Answer) -> str | None:
        """Say how an answer differs from the clean run's, bit for bit; ``None`` if it does not."""
        here = _decision(row(answer))
        kept = self._by_id.get(answer.head.image_id) or self._by_uri.get(answer.head.uri)
        if kept is None:
            self.unknown += 1
            return None
        self.compared += 1
        if kept == _encode(here):
            return None
        there = _decode(kept)
        if there.status == "failed" or (here.error or "").startswith("expired"):
            self.in_part += 1
            return None
        if here.status == "failed":
            return f"failed here ({here.error}), {there.status} in the clean run"
        other = _other_votes(here, there)
        if other is None and here.whole and there.whole:
            return _other_verdict(here, there)
        self.in_part += other is None
        return other


def _other_verdict(here: _Decision, there: _Decision) -> str | None:
    if here.votes.keys() != there.votes.keys():
        return f"votes of {_names(here)} here, of {_names(there)} in the clean run"
    if (here.label, here.probability) != (there.label, there.probability):
        return (
            f"{here.label} {here.probability!r} here, "
            f"{there.label} {there.probability!r} in the clean run"
        )
    return None


def _other_votes(here: _Decision, there: _Decision) -> str | None:
    for name in here.votes.keys() & there.votes.keys():
        if _encode(here.votes[name]) != _encode(there.votes[name]):
            return f"{name} voted {here.votes[name]!r} here, {there.votes[name]!r} in the clean run"
    return None


def _names(decided: _Decision) -> str:
    return ", ".join(sorted(decided.votes)) or "nobody"


def _decision(answer: AnswerRow) -> _Decision:
    votes: list[VoteRow] = [*answer["votes"], *answer["shadow_votes"]]
    return _Decision(
        answer["status"],
        answer["label"],
        answer["probability"],
        answer["error"],
        answer["status"] == "answered" and not answer["missing"],
        {f"{vote['tier']}/{vote['member']}": vote["probability"] for vote in votes},
    )
