"""Fit the logistic rule of stages/cones.py on blobs of the boxed training pictures.

A blob that covers a box of equipment is an example, a blob in a picture of an ordinary road is a
counter-example, weighted so that each source counts alike. Prints the constants to paste.
"""

import argparse
import sys
from collections import Counter

import numpy as np
from corpus import CONES_SIZE, HERE, Picture, add_folder_options, load_pictures, stretch
from prepare import decode
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(HERE.parent))
from stages import cones

NAMES = (
    "log area",
    "log height/width",
    "distance from an upright shape",
    "fill",
    "bottom edge",
    "distance from the road's usual place",
    "taper",
    "saturation",
    "hue",
    "white stripes",
    "colour around",
    "too wide",
    "too solid",
)
LEAST_OVERLAP = 0.25


def overlap(frame: list[int], shape: tuple[int, int], picture: Picture) -> float:
    """Best intersection over union of a blob's frame with any boxed piece of equipment."""
    height, width = shape
    x1, y1 = frame[0] / width, frame[1] / height
    x2, y2 = x1 + frame[2] / width, y1 + frame[3] / height
    best = 0.0
    for box in picture.boxes:
        if box.kind in ("worker", "machine", "other"):
            continue
        wide = max(0.0, min(x2, box.x2) - max(x1, box.x1))
        tall = max(0.0, min(y2, box.y2) - max(y1, box.y1))
        both = (x2 - x1) * (y2 - y1) + (box.x2 - box.x1) * (box.y2 - box.y1) - wide * tall
        best = max(best, wide * tall / both)
    return best


def main() -> None:
    """Collect blobs, fit, and print the constants."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_options(parser)
    options = parser.parse_args()
    rows, labels, cells = [], [], []
    for picture in load_pictures(options.data):
        if picture.split != "train" or (picture.label and not picture.boxes):
            continue
        image = cones.shrink(stretch(decode(options.data / picture.file), CONES_SIZE))
        blobs = cones.find_blobs(image)
        for frame, measures in zip(blobs.frames.tolist(), blobs.measures, strict=True):
            hit = overlap(frame, image.shape[:2], picture) >= LEAST_OVERLAP
            if picture.label and not hit:
                continue
            rows.append(measures)
            labels.append(int(hit))
            cells.append((picture.family, int(hit)))
    data, answers = np.array(rows), np.array(labels)
    counts = Counter(cells)
    weights = np.array([1 / counts[cell] ** 0.5 for cell in cells])
    for label in (0, 1):
        weights[answers == label] *= len(answers) / 2 / weights[answers == label].sum()
    mean, spread = data.mean(0), data.std(0)
    scaled = np.clip((data - mean) / spread, -3, 3)
    model = LogisticRegression(C=0.3, max_iter=1000).fit(scaled, answers, sample_weight=weights)
    print(f"# {int(answers.sum())} examples, {int((1 - answers).sum())} counter-examples")
    print(f"BIAS = {model.intercept_[0]:.3f}")
    print("MEASURES = {")
    for name, *values in zip(NAMES, mean, spread, model.coef_[0], strict=True):
        print(f'    "{name}": ({values[0]:.3f}, {values[1]:.3f}, {values[2]:.3f}),')
    print("}")


if __name__ == "__main__":
    main()
