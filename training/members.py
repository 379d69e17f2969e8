"""The members of `lite`: what each sees of a picture, and the whole way from pixels to its vote."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.fit import pool_scene
from training.network import STRIDE, Eyes, Found, Scene

MOST_BOXES = 8
LEAST, MOST = -6.0, 6.0  # bounds of what one map can say


@dataclass(frozen=True)
class Sight:
    """How a member sees a picture: stretched to a size, and of that the rows from top to bottom.

    Attributes:
        name: Of the member.
        tier: Where it votes.
        finds: Whether it looks for objects; else it judges the whole.
        width: Of the whole picture, pixels.
        height: Of the whole picture, pixels.
        rows: The first row that is looked at, and the one after the last.
    """

    name: str
    tier: str
    finds: bool
    width: int
    height: int
    rows: tuple[int, int]


# `closer` looks at the band in which roads lie.
SIGHTS = (
    Sight("glance", "glance", False, 256, 160, (0, 160)),
    Sight("objects", "look", True, 672, 384, (0, 384)),
    Sight("closer", "closer", True, 1312, 768, (208, 656)),
)


def evidence(found: Found) -> Tensor:
    """Sum a picture up: the strongest place of every kind, and the scene: [N, kinds + 1].

    A kind of which nothing is seen gives about 0, and more the surer the net is.
    """
    strongest = found.heat.flatten(2).amax(2).clamp(LEAST, MOST)
    scene = pool_scene(found.scene).clamp(LEAST, MOST)
    return torch.cat([functional.softplus(strongest + 2.0), scene[:, None]], 1)


def as_net_input(images: Tensor, sight: Sight) -> Tensor:
    """Turn pictures uint8 [N, H, W, 3] into what the trunk takes: float [N, 3, rows, W]."""
    top, bottom = sight.rows
    seen = images if (top, bottom) == (0, sight.height) else images[:, top:bottom]
    return seen.permute(0, 3, 1, 2).float()


class Watcher(nn.Module):
    """A member that judges the whole picture, as it is shipped: log-odds out."""

    def __init__(self, scene: Scene, sight: Sight) -> None:
        super().__init__()
        self.scene, self.sight = scene, sight

    def forward(self, images: Tensor) -> Tensor:
        """Judge pictures uint8 RGB [N, height, width, 3]: log-odds float32 [N]."""
        logit: Tensor = self.scene(as_net_input(images, self.sight))
        return logit


class Looker(nn.Module):
    """A member that looks for objects, as it is shipped: log-odds and boxes out.

    Args:
        eyes: The net.
        sight: What it sees.
        weights: Of the evidence, [kinds + 1].
        bias: Added to the weighted evidence.
    """

    def __init__(self, eyes: Eyes, sight: Sight, weights: Tensor, bias: float) -> None:
        super().__init__()
        self.eyes, self.sight = eyes, sight
        self.weights: Tensor
        self.register_buffer("weights", weights.float())
        self.bias = bias

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Judge pictures.

        Args:
            images: uint8 RGB [N, height, width, 3].

        Returns:
            logit float32 [N]: log-odds of roadwork.
            boxes float32 [N, 8, 4]: x1, y1, x2, y2 in [0, 1] of the whole picture.
            scores float32 [N, 8]: in [0, 1], strongest first.
            kinds int64 [N, 8]: indices of `corpus.KINDS`.
        """
        found = self.eyes(as_net_input(images, self.sight))
        logit = (evidence(found) * self.weights).sum(1) + self.bias
        return logit, *self.places(found)

    def places(self, found: Found) -> tuple[Tensor, Tensor, Tensor]:
        """Return the strongest places that no neighbour beats, as boxes: see `forward`."""
        height, width = found.heat.shape[2:]
        chance = torch.sigmoid(found.heat)
        peak = functional.max_pool2d(chance, 3, 1, 1) == chance
        scores, at = (chance * peak).flatten(1).topk(MOST_BOXES)
        place = at % (height * width)
        sides = found.sides.flatten(2).gather(2, place[:, None].expand(-1, 4, -1))
        x = (place % width + 0.5) * STRIDE
        y = (place // width + 0.5) * STRIDE + self.sight.rows[0]
        corners = torch.stack(
            [x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]], 2
        )
        size = torch.tensor([self.sight.width, self.sight.height] * 2, dtype=corners.dtype)
        return (corners / size).clamp(0, 1), scores, at // (height * width)
