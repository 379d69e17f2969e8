"""Write words with a stroke font of this project's own."""

from numpy.random import Generator

from training.drawn.canvas import Canvas, Colour

# Strokes through a grid of three by three points, numbered by rows from the upper left.
_LETTERS = {
    "A": "618 35", "B": "02860 35", "C": "2068", "D": "015760", "E": "2068 34", "F": "206 34",
    "G": "206854", "H": "06 28 35", "I": "17", "J": "2576", "K": "06 23 38", "L": "068",
    "M": "60428", "N": "6082", "O": "02860", "P": "60253", "Q": "02860 48", "R": "60253 48",
    "S": "203586", "T": "02 17", "U": "0682", "V": "072", "W": "06482", "X": "08 26",
    "Y": "042 47", "Z": "0268", "0": "02860", "1": "317", "2": "025368", "3": "0286 35",
    "4": "035 28", "5": "203586", "6": "206853", "7": "027", "8": "02860 35", "9": "53028",
}  # fmt: skip
_WORKS = (
    "ROAD WORK AHEAD", "ROAD WORK AHEAD", "ROAD CLOSED", "DETOUR", "END ROAD WORK", "SLOW",
    "LANE CLOSED AHEAD", "UTILITY WORK AHEAD", "WORKERS", "ONE LANE ROAD", "PREPARE TO STOP",
    "SIDEWALK CLOSED", "ROADWORKS", "DIVERSION", "BAUSTELLE", "UMLEITUNG", "DEVIATION",
    "ROUTE BARREE", "TRAVAUX", "DESVIO", "OBRAS", "HOMBRES EN OBRA", "SHOULDER WORK", "BUMP",
)  # fmt: skip
_ORDINARY = (
    "CENTRE", "PARKING", "EXIT 24", "HOTEL", "PIZZA", "STOP", "ONE WAY", "NORTH", "SALE",
    "BANK", "CITY", "AIRPORT", "OPEN", "CAR WASH", "CAFE", "A 8", "HOSPITAL", "NO PARKING",
)  # fmt: skip


def works_text(rng: Generator) -> str:
    """Draw what a sign of road works says."""
    return _WORKS[int(rng.integers(len(_WORKS)))]


def ordinary_text(rng: Generator) -> str:
    """Draw what any other sign says."""
    return _ORDINARY[int(rng.integers(len(_ORDINARY)))]


def write(
    canvas: Canvas, face: tuple[float, float, float, float], text: str, ink: Colour,
    glow: float = 0.0,
) -> None:  # fmt: skip
    """Write each word of a text on a line of its own, as large as the face allows."""
    (x0, y0, x1, y1), words = face, text.split()
    row, weight = (y1 - y0) / len(words), canvas.rng.uniform(0.12, 0.2)
    for i, word in enumerate(words):
        height = min(0.75 * row, (x1 - x0) / (0.8 * len(word)))
        bottom = y1 - (i + 0.5) * row - height / 2
        for j, letter in enumerate(word):
            left = (x0 + x1) / 2 + (j - len(word) / 2 + 0.12) * 0.8 * height
            for path in _LETTERS[letter].split():
                points = [
                    (left + spot % 3 * 0.28 * height, bottom + (1 - spot // 3 / 2) * height)
                    for spot in map(int, path)
                ]
                canvas.stroke(points, weight * height, ink, glow)
