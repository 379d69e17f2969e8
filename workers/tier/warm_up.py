"""What members take, learnt at warm-up from a short sweep of batch sizes on blank pictures."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import structlog

from roadstream.schemas.cascade.model import Member
from roadstream.stages.batching.latency_model import AffineLatency
from roadstream.stages.batching.shapes import Size, sizes_of
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.stages.inference import Engine, Picture, Pictures, is_out_of_memory
from roadstream.workers.tier.devices import is_local

logger = structlog.get_logger()

# Seconds that a member's sweep may take at each size of its pictures.
BUDGET = 1.0


def learn(
    engine: Engine,
    member: Member,
    max_batch: int,
    *,
    budget: float = BUDGET,
    timer: Callable[[], float] = time.perf_counter,
) -> dict[tuple[str, Size], AffineLatency]:
    """Return what batches of a member take, by its name and the size of the pictures.

    What runs elsewhere is not asked: its time is learnt from the batches that come.

    Each doubling of the batch size is run twice, largest last, as long as the next is expected to
    stay within the budget; the first of each is not counted, as it may allocate. A size that fails
    ends the sweep: nothing is known of it, and nothing else is wrong.
    """
    found: dict[tuple[str, Size], AffineLatency] = {}
    if not is_local(engine.device):
        return found
    for size in sizes_of(member):
        service = AffineLatency()
        if _sweep(service, engine, member, size, (max_batch, budget, timer)):
            found[member.name, size] = service
            logger.info(
                "service_time",
                member=member.name,
                device=engine.device,
                size=f"{size[0]}x{size[1]}",
                alpha_ms=round(service.alpha * 1e3, 3),
                beta_ms=round(service.beta * 1e3, 3),
            )
    return found


def _sweep(
    service: AffineLatency,
    engine: Engine,
    member: Member,
    size: Size,
    limits: tuple[int, float, Callable[[], float]],
) -> int:
    """Observe batches of growing size; return how many."""
    max_batch, budget, timer = limits
    observed, began_at = 0, timer()
    for count in _doublings(max_batch):
        left = budget - (timer() - began_at)
        if observed and 2 * service.predict(count) > left:
            break
        try:
            for again in (False, True):
                batch = blank(engine, member, size, count)
                engine.prepare(batch)
                t = timer()
                engine.infer(batch)
                if again:
                    service.observe(count, timer() - t)
                    observed += 1
        except Exception as error:
            crowded = is_out_of_memory(error)
            logger.warning(
                "sweep_ended", member=member.name, images=count, out_of_memory=crowded,
                error=str(error),
            )  # fmt: skip
            break
    return observed


def _doublings(limit: int) -> Iterator[int]:
    """Yield 1, 2, 4, … and the limit itself."""
    count = 1
    while count < limit:
        yield count
        count *= 2
    yield limit


def blank(engine: Engine, member: Member, size: Size, count: int) -> Pictures:
    """Return a batch of grey pictures of a size, as the engine wants them."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    encoded = encode_jpeg(pixels) if engine.needs_encoded else None
    return Pictures([Picture(pixels, encoded) for _ in range(count)], {member.name: size})
