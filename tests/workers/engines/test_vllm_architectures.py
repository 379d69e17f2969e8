"""A real vLLM on tiny models of other architectures, as far as each differs in what is asked.

`python -m tests.kits.vlm_trial` runs all of them through `roadstream score`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vllm.engine import VllmEngine
from tests.kits.checkpoints import vlms
from tests.kits.checkpoints.ovis2 import write_ovis2
from tests.kits.vllm_kit import Reference, asked_by, pictures, pixels, raws, vllm_member

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    # transformers copies the ids of GLM as numpy 1 did.
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
Write = Callable[[Path], Path]
# transformers has none of Ovis2's own format.
KNOWN: dict[str, Write] = {"glm-4.6v": vlms.glm4v, "llama-4": vlms.llama4}
COUNT = 4


@contextmanager
def asked(model: Path, **settings: Any) -> Iterator[VllmEngine]:
    # Pictures of the kit's size are multiples of 4, so that the model's own preprocessing alone
    # resizes them, as it does for transformers.
    member = vllm_member("vlm", model, multiple=4, **settings)
    engine = VllmEngine(asked_by(member), member, EngineOptions())
    engine.load()
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("name", KNOWN)
def test_the_score_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    model = KNOWN[name](tmp_path / name)

    with asked(model) as engine:
        found = raws(engine.infer(pictures(COUNT)))

    reference = Reference(model)
    assert found == pytest.approx([reference.raw(one) for one in pixels(COUNT)], abs=1e-3)
    assert max(found) - min(found) > 0.01


def test_a_template_of_text_alone_shows_the_picture_first(tmp_path: Path) -> None:
    with asked(write_ovis2(tmp_path / "ovis-2")) as engine:
        found = raws(engine.infer(pictures(COUNT)))
        alone = [raws(engine.infer(pictures(COUNT)[i : i + 1]))[0] for i in range(COUNT)]

    assert found == pytest.approx(alone, abs=1e-4)
    assert max(found) - min(found) > 0.01
