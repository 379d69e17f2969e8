"""The training set: balanced over source and label, with pasted objects and box-aware labels."""

from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from augment import Area, crop, disturb, random_area, touched, visible
from corpus import Box, Picture, Pixels, stretch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

PASTE_CHANCE = 0.35  # an ordinary road gets roadwork objects and becomes a positive
DECOY_CHANCE = 0.25  # an ordinary road gets pieces of other ordinary roads and stays a negative
PASTED_KINDS = ("cone", "drum", "barrier", "work_sign")
BESIDE_AREA = (0.08, 0.45)
UNSEEN_LABEL = 0.05  # such a crop may still show what nobody boxed
SMALLEST_UNBOXED = 0.5  # crops of roadwork without boxes keep at least this share of the picture


@dataclass(frozen=True)
class Recipe:
    """How a training stage looks at pictures.

    `size` is (width, height), `smallest` and `largest` bound the crop's share of the area, and
    `beside` is the chance that a boxed roadwork picture is cropped beside all its boxes and
    becomes ordinary: this takes away what tells sources, not roads, apart.
    """

    size: tuple[int, int]
    smallest: float
    largest: float
    beside: float = 0.3


def sampling_weights(pictures: list[Picture]) -> Tensor:
    """Weigh pictures so that labels are even and sources count by the root of their size."""
    cells = Counter((picture.family, picture.label) for picture in pictures)
    labels = {
        label: sum(count**0.5 for (_, other), count in cells.items() if other == label)
        for label in (0, 1)
    }
    share = {0: 0.55, 1: 0.45}  # pasting and crops beside the boxes turn some into the other
    return torch.tensor(
        [share[p.label] / labels[p.label] / cells[p.family, p.label] ** 0.5 for p in pictures]
    )


def soft_mask(height: int, width: int, kind: str) -> np.ndarray:
    """Draw the outline of an object as float [height, width, 1] in 0..1 with a soft edge."""
    mask = np.zeros((height, width), np.float32)
    if kind == "cone":
        points = [(0.36, 0.02), (0.64, 0.02), (0.82, 0.82), (0.98, 0.86), (0.98, 0.98)]
        points += [(0.02, 0.98), (0.02, 0.86), (0.18, 0.82)]
        corners = np.array([(x * width, y * height) for x, y in points], np.int32)
        cv2.fillPoly(mask, [corners], 1.0)
    else:
        margin = max(1, min(height, width) // 16)
        mask[margin : height - margin, margin : width - margin] = 1.0
    return cv2.GaussianBlur(mask, (0, 0), max(0.6, min(height, width) / 30))[..., None]


class Views(Dataset[tuple[Tensor, Tensor]]):
    """Random views of training pictures; item = uint8 [3, height, width] and a label in 0..1.

    `images` is the cache (uint8 RGB [count, H, W, 3]) in the order of `pictures`.
    """

    def __init__(self, pictures: list[Picture], images: Pixels, recipe: Recipe, seed: int) -> None:
        self.pictures = pictures
        self.images = images
        self.recipe = recipe
        self.seed = seed
        self.drawn = 0
        self.negatives = [i for i, p in enumerate(pictures) if p.label == 0]
        self.objects = [
            (i, box)
            for i, picture in enumerate(pictures)
            for box in picture.boxes
            if box.kind in PASTED_KINDS and box.x2 - box.x1 > 0.025 and box.y2 - box.y1 > 0.04
        ]

    def __len__(self) -> int:
        """Count the pictures; views of each are without end."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Make the next random view of a picture."""
        worker = torch.utils.data.get_worker_info()
        self.drawn += 1
        rng = np.random.default_rng((self.seed, worker.id if worker else 0, self.drawn, index))
        image, label = self.view(index, rng)
        image = disturb(image, rng)
        return torch.from_numpy(image).permute(2, 0, 1), torch.tensor(label, dtype=torch.float32)

    def view(self, index: int, rng: Generator) -> tuple[Pixels, float]:
        """Crop a picture, paste into ordinary roads, and say what label the view deserves."""
        picture, recipe = self.pictures[index], self.recipe
        if picture.label:
            area, label = self.positive_area(picture, rng)
            return crop(self.images[index], area, recipe.size, rng), label
        area = random_area(rng, recipe.smallest, recipe.largest)
        image = crop(self.images[index], area, recipe.size, rng)
        draw = rng.random()
        if draw < PASTE_CHANCE and self.objects:
            return self.paste(image, rng, real=True), 1.0
        if draw < PASTE_CHANCE + DECOY_CHANCE:
            return self.paste(image, rng, real=False), 0.0
        return image, 0.0

    def positive_area(self, picture: Picture, rng: Generator) -> tuple[Area, float]:
        """Choose a crop of a roadwork picture: mostly one that shows a box, if boxes are known."""
        recipe = self.recipe
        if picture.fully_boxed and rng.random() < recipe.beside:
            for _ in range(12):
                area = random_area(rng, *BESIDE_AREA)
                if not touched(picture.boxes, area):
                    return area, UNSEEN_LABEL
        if not picture.boxes:
            smallest = max(recipe.smallest, SMALLEST_UNBOXED)
            return random_area(rng, smallest, max(recipe.largest, smallest + 0.2)), 1.0
        for _ in range(8):
            area = random_area(rng, recipe.smallest, recipe.largest)
            if visible(picture.boxes, area):
                return area, 1.0
        return (0.0, 0.0, 1.0, 1.0), 1.0

    def paste(self, image: Pixels, rng: Generator, real: bool) -> Pixels:
        """Paste one to four objects (or pieces of other roads, when not `real`) near the road."""
        height, width = image.shape[:2]
        canvas = image.astype(np.float32)
        base = np.exp(rng.uniform(np.log(0.04), np.log(0.35)))
        source = self.objects[rng.integers(len(self.objects))]
        for _ in range(int(rng.integers(1, 5))):
            if rng.random() < 0.3:
                source = self.objects[rng.integers(len(self.objects))]
            box = source[1]
            piece = self.piece(source, rng, real)
            tall = int(np.clip(base * np.exp(rng.normal(0, 0.25)), 0.05, 0.5) * height)
            aspect = (box.x2 - box.x1) / (box.y2 - box.y1) * np.exp(rng.normal(0, 0.15))
            wide = int(np.clip(tall * aspect * width / height, 5, width * 0.6))
            tall = max(tall, 6)
            left = int(rng.uniform(0, width - wide))
            top = int(np.clip(height * rng.uniform(0.45, 0.95) - tall * 0.6, 0, height - tall))
            piece = stretch(piece, (wide, tall))
            mask = soft_mask(tall, wide, box.kind)
            spot = canvas[top : top + tall, left : left + wide]
            spot[:] = spot * (1 - mask) + piece * mask
        return canvas.astype(np.uint8)

    def piece(self, source: tuple[int, Box], rng: Generator, real: bool) -> Pixels:
        """Cut the object of `source`, or the same frame out of a random ordinary road."""
        index, box = source
        if not real:
            index = self.negatives[rng.integers(len(self.negatives))]
        height, width = self.images.shape[1:3]
        x1, x2 = int(box.x1 * width), int(box.x2 * width)
        y1, y2 = int(box.y1 * height), int(box.y2 * height)
        cut = np.asarray(self.images[index, y1:y2, x1:x2])
        return np.ascontiguousarray(cut[:, ::-1]) if rng.random() < 0.5 else cut
