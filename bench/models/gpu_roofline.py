"""What a GPU could do at best, and what a profile says that it did. Needs no GPU."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """How close a measured rate is to what the arithmetic alone allows.

    Attributes:
        flops: Floating-point operations per image, a multiply-add counted as two.
        dense: Operations per second that a large matrix product reaches on the device.
        bound: Images per second if it did nothing else.
        share: Of that bound, what was measured.
    """

    flops: float
    dense: float
    bound: float
    share: float


def roofline(flops: float, dense: float, images_per_second: float) -> Roofline:
    """Return the bound and the share of it that was reached."""
    bound = dense / flops
    return Roofline(flops=flops, dense=dense, bound=bound, share=images_per_second / bound)


def flops_per_image(build: Callable[[], Any], side: int, device: str = "meta") -> float:
    """Count the operations of one image through a network, a multiply-add as two.

    Matrix products, convolutions and attention count; what is done per element does not.

    Args:
        build: Makes the network on the default device.
        side: Height and width of the image.
        device: ``meta`` computes nothing; a network that looks at its numbers needs ``cpu``.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device(device):
        module = build().eval()
        image = torch.zeros(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(image)
    return float(counter.get_total_flops())


def busy_share(intervals: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """Return the share of the time from ``begin`` to ``end`` that some interval covers.

    Args:
        intervals: Beginnings and ends, in any order; they may overlap.
        begin: Of the time looked at.
        end: Of it, after ``begin``.
    """
    covered, reached = 0.0, begin
    for first, last in sorted(intervals):
        fresh = min(last, end) - max(first, reached)
        if fresh > 0:
            covered += fresh
            reached = min(last, end)
    return covered / (end - begin)
