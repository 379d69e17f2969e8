"""How the `tiles` net cuts a picture and joins what the tiles say."""

import numpy as np
import torch
from corpus import INPUT_SIZES
from network import Lite0
from torch import Tensor

WIDTH, HEIGHT = INPUT_SIZES["tiles"]
TILE_WIDTH, TILE_HEIGHT = INPUT_SIZES["lite0"]
# (left, top) of the four overlapping tiles: upper left, upper right, lower left, lower right.
CORNERS = [(x, y) for y in (0, HEIGHT - TILE_HEIGHT) for x in (0, WIDTH - TILE_WIDTH)]


def pool(logits: Tensor) -> Tensor:
    """Join tile log-odds [tiles, N] to [N]: the log of the mean odds, between mean and maximum."""
    return torch.logsumexp(logits, 0) - float(np.log(len(CORNERS)))


def tiles_logits(net: Lite0, images: Tensor) -> Tensor:
    """Score full pictures, RGB float [N, 3, HEIGHT, WIDTH] in 0..255, by their tiles: [N]."""
    cut = [images[:, :, y : y + TILE_HEIGHT, x : x + TILE_WIDTH] for x, y in CORNERS]
    logits: Tensor = net(torch.cat(cut))
    return pool(logits.reshape(len(CORNERS), -1))
