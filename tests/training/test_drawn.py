import numpy as np
import pytest

from training.drawn import DRAWINGS, KINDS, Drawing, draw, draw_lookalike, lookalikes
from training.drawn.canvas import Canvas

EVERY_DRAWING = sorted(
    {*lookalikes.DRAWINGS, *(drawing for group in DRAWINGS.values() for drawing in group)},
    key=lambda drawing: drawing.__qualname__ + drawing.__module__,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("night", [False, True])
def test_a_cut_out_is_tight_and_of_the_promised_size(kind: str, night: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(12):
        image = draw(kind, rng, night=night)
        alpha = image[..., 3]
        assert image.dtype == np.uint8
        assert image.shape[2] == 4
        assert 158 <= max(alpha.shape) <= 241
        assert all(side.any() for side in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))
        assert (alpha == 255).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_bytes(kind: str) -> None:
    first, second = (draw(kind, np.random.default_rng(7)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_draws_are_equal(kind: str) -> None:
    rng = np.random.default_rng(3)
    assert len({draw(kind, rng).tobytes() for _ in range(20)}) == 20


def test_lookalikes_vary_and_follow_their_seed() -> None:
    rng = np.random.default_rng(5)
    drawn = [draw_lookalike(rng) for _ in range(40)]
    assert len({image.tobytes() for image in drawn}) == 40
    assert drawn[0].tobytes() == draw_lookalike(np.random.default_rng(5)).tobytes()


def test_edges_are_smooth_and_keep_their_colour() -> None:
    canvas = Canvas(np.random.default_rng(2), 1.0, 1.0)
    canvas.disc((0.0, 0.5), (0.4, 0.4), (200.0, 200.0, 200.0))
    image = canvas.finish(night=False).astype(float)
    edge = image[(image[..., 3] > 40) & (image[..., 3] < 200), :3]
    inside = image[image[..., 3] == 255, :3]
    assert len(edge) > 50
    assert edge.mean() == pytest.approx(inside.mean(), rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_night_is_darker_than_day(kind: str) -> None:
    def light(night: bool) -> float:
        drawn = [draw(kind, np.random.default_rng(seed), night=night) for seed in range(8)]
        return float(np.mean([np.median(image[image[..., 3] > 0, :3]) for image in drawn]))

    assert light(True) < light(False)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a kind out of cone, drum, .*, got 'boat'"):
        draw("boat", np.random.default_rng(0))


@pytest.mark.parametrize("drawing", EVERY_DRAWING)
def test_nothing_is_cut_off_at_the_border_of_its_canvas(drawing: Drawing) -> None:
    rng = np.random.default_rng(11)
    for _ in range(25):
        painted = drawing(rng).colour[..., 3]
        assert painted.any()
        assert not any(side.any() for side in (painted[0], painted[-1]))
        assert not any(side.any() for side in (painted[:, 0], painted[:, -1]))
