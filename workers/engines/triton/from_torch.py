"""A torch member as an ONNX file: uint8 pictures in, log-odds of roadwork out."""

import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.workers.engines.torch.classes import Verdict
from roadstream.workers.engines.torch.concepts import concepts_of
from roadstream.workers.engines.torch.family import Family
from roadstream.workers.engines.torch.model import open_family
from roadstream.workers.engines.torch.placement import Placement
from roadstream.workers.engines.torch.scoring import LIMIT
from roadstream.workers.engines.triton.repository import CannotExportError

# Scores of the file and of the network may differ by so much: 1e-4 is asked of the whole way.
TOLERANCE = 1e-4
_OPSET = 20
_HOST = Placement(torch.device("cpu"), torch.float32, channels_last=False)


class Graph(nn.Module):
    """A family's network, its head, and what its outputs mean, as one module.

    Args:
        family: Of the member.
        score: From the family's outputs to log-odds [N].
    """

    def __init__(self, family: Family, score: Callable[[dict[str, Tensor]], Tensor]) -> None:
        super().__init__()
        self._family, self._score = family, score
        self.network = family.put(family.load(), _HOST)
        family.settle(_HOST)
        self.head = family.load_head()
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return log-odds [N] of uint8 RGB [N, height, width, 3]."""
        outputs = self._family.forward(self.network, images)
        if self.head is not None:
            outputs = self._family.finish(self.head, outputs)
        return self._score(outputs).clamp(-LIMIT, LIMIT)


def write_onnx(cascade: Cascade, member: Member, file: Path) -> None:
    """Write a torch member's network to ``file``, in float32 whatever the member's precision.

    Raises:
        ConfigError: Its family cannot be exported, or what was exported gives other scores.
    """
    where = f"{cascade.name}: member {member.name}"
    size = (member.width, member.height)
    family = open_family(cascade, member, size, concepts_of(cascade, member))
    if tags := family.settings.tags:
        expected = "a member without tags, which a model on a server cannot give"
        raise CannotExportError(f"{where}: settings", expected, ", ".join(tags))
    graph = Graph(family, _score_of(family, where))
    shape = (member.height, member.width, 3)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8))
    try:
        _export(graph, images, file)
    except Exception as error:  # whatever the exporter meets in a network
        said = str(error).strip().splitlines() or [type(error).__name__]
        expected = "a network that torch.onnx can export"
        raise CannotExportError(where, expected, said[0][:300]) from error
    _compare(graph, file, shape, where)


def _score_of(family: Family, where: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return a family's ``scores`` as a part of the graph.

    Raises:
        ConfigError: It has none: its scores are made of boxes, masks or text.
    """
    from roadstream.workers.engines.torch.families.siglip import Siglip

    if isinstance(family, Siglip):
        meant = len(family.settings.prompts)
        return lambda outputs: _against(outputs["logits"][:, :meant], outputs["logits"][:, meant:])
    verdict = getattr(family, "verdict", None)
    if isinstance(verdict, Verdict):
        return lambda outputs: log_odds_of(verdict, outputs["logits"])
    kind = type(family).__name__
    got = f"{kind}, whose scores are made on the host, from boxes, masks or text"
    expected = "a classifier, a backbone with a head, or SigLIP"
    raise CannotExportError(f"{where}: family", expected, got)


def _against(meant: Tensor, others: Tensor) -> Tensor:
    """Return what `Siglip.scores` does, of tensors: mean odds of texts against those of others."""
    score = meant.logsumexp(dim=1) - math.log(meant.shape[1])
    if others.shape[1]:
        score = score - (others.logsumexp(dim=1) - math.log(others.shape[1]))
    return score


def log_odds_of(verdict: Verdict, logits: Tensor) -> Tensor:
    """Return what `Verdict.raws` does, as tensors: log-odds [N] of logits [N, classes]."""
    if not verdict.columns:
        return logits[:, 0]
    chosen = logits[:, verdict.columns]
    if verdict.several:
        return chosen.amax(dim=1)
    rest = [c for c in range(logits.shape[1]) if c not in set(verdict.columns)]
    return chosen.logsumexp(dim=1) - logits[:, rest].logsumexp(dim=1)


def _export(graph: Graph, images: Tensor, file: Path) -> None:
    # What the exporter says of its own insides helps nobody here.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["logit"],
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            verbose=False,
        )
        program.save(str(file))


def _compare(graph: Graph, file: Path, shape: tuple[int, ...], where: str) -> None:
    """Check that the file scores as the network does, in batches of other sizes too."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).integers(0, 256, (3, *shape), np.uint8)
    with torch.inference_mode():
        expected = graph(torch.from_numpy(images)).numpy()
    for size in (1, 3):
        (found,) = session.run(["logit"], {"images": images[:size]})
        apart = float(np.abs(found.reshape(-1) - expected[:size]).max())
        if not apart <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            got = f"scores {apart:.2g} apart in a batch of {size}"
            raise CannotExportError(where, "an ONNX file that scores as the network", got)
