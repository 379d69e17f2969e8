"""Decides for every dashcam or phone picture whether there is roadwork in it.

::

    import roadstream

    with roadstream.open("lite") as judge:
        answer = judge("photo.jpg")
        print(answer.label, answer.probability, answer.votes)

    for answer in roadstream.score(["drive/", "clip.mp4"], out="answers.parquet"):
        ...

Everything is imported when it is first used: each process of a system imports this module.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roadstream.schemas.errors import ConfigError, RoadstreamError, RunError, UsageError
    from roadstream.schemas.records.answer import Answer, Vote
    from roadstream.schemas.records.votes import Box
    from roadstream.workers.api.classifier import AsyncClassifier, Classifier, Picture
    from roadstream.workers.api.classifier import aopen_classifier as aopen
    from roadstream.workers.api.classifier import open_classifier as open  # noqa: A004
    from roadstream.workers.api.score_run import ascore, score

_HOMES = {
    "roadstream.schemas.errors": ("ConfigError", "RoadstreamError", "RunError", "UsageError"),
    "roadstream.schemas.records.answer": ("Answer", "Vote"),
    "roadstream.schemas.records.votes": ("Box",),
    "roadstream.workers.api.classifier": ("AsyncClassifier", "Classifier", "Picture"),
    "roadstream.workers.api.score_run": ("ascore", "score"),
}
_PUBLIC = {name: (module, name) for module, names in _HOMES.items() for name in names} | {
    "aopen": ("roadstream.workers.api.classifier", "aopen_classifier"),
    "open": ("roadstream.workers.api.classifier", "open_classifier"),
}
__all__ = [
    "Answer",
    "AsyncClassifier",
    "Box",
    "Classifier",
    "ConfigError",
    "Picture",
    "RoadstreamError",
    "RunError",
    "UsageError",
    "Vote",
    "aopen",
    "ascore",
    "open",
    "score",
]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
