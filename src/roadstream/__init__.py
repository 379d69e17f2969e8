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
    from roadstream.schemas.records import Answer, Box, Vote
    from roadstream.workers.classifier import AsyncClassifier, Classifier, Picture
    from roadstream.workers.classifier import aopen_classifier as aopen
    from roadstream.workers.classifier import open_classifier as open  # noqa: A004
    from roadstream.workers.score_run import ascore, score

_HOMES = {
    "roadstream.schemas.errors": ("ConfigError", "RoadstreamError", "RunError", "UsageError"),
    "roadstream.schemas.records": ("Answer", "Box", "Vote"),
    "roadstream.workers.classifier": ("AsyncClassifier", "Classifier", "Picture"),
    "roadstream.workers.score_run": ("ascore", "score"),
}
_PUBLIC = {name: (module, name) for module, names in _HOMES.items() for name in names} | {
    "aopen": ("roadstream.workers.classifier", "aopen_classifier"),
    "open": ("roadstream.workers.classifier", "open_classifier"),
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
