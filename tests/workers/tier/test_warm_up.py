"""The sweep at warm-up: α and β of a member, within its budget, whatever the engine does."""

import pytest

from roadstream.schemas.cascade.model import Member
from roadstream.stages.batching.shapes import Size
from roadstream.stages.inference import Engine, EngineResult, Pictures, Score
from roadstream.workers.tier.warm_up import learn

MEMBER = Member(name="a", engine="noop", width=16, height=8, sizes=[(8, 16)])


class Timed(Engine):
    """Takes ``alpha`` per picture and ``beta`` per batch of a clock that it moves itself."""

    def __init__(self, alpha: float, beta: float, fits: int = 1 << 30) -> None:
        self.alpha, self.beta, self.fits = alpha, beta, fits
        self.now = 0.0
        self.batches: list[tuple[int, Size]] = []

    def timer(self) -> float:
        return self.now

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[EngineResult]:
        self.batches.append((len(batch), batch.size_for(MEMBER)))
        assert batch.stack(*batch.size_for(MEMBER)).shape[0] == len(batch)
        if len(batch) > self.fits:
            raise MemoryError
        self.now += self.alpha * len(batch) + self.beta
        return [Score(0.0, [])] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""


def test_alpha_and_beta_are_learnt_for_every_size_of_the_pictures() -> None:
    engine = Timed(0.001, 0.005)

    found = learn(engine, MEMBER, 12, timer=engine.timer)

    assert list(found) == [("a", (16, 8)), ("a", (8, 16))]
    for service in found.values():
        assert service.alpha == pytest.approx(0.001)
        assert service.beta == pytest.approx(0.005)
    sizes = [1, 1, 2, 2, 4, 4, 8, 8, 12, 12]
    assert engine.batches == [(n, (16, 8)) for n in sizes] + [(n, (8, 16)) for n in sizes]


def test_a_slow_member_is_not_swept_for_longer_than_its_budget() -> None:
    engine = Timed(0.1, 0.1)

    (service, _) = learn(engine, MEMBER, 64, budget=2.0, timer=engine.timer).values()

    assert max(count for count, _ in engine.batches) == 4  # 2·0.2 + 2·0.3 + 2·0.5 s
    assert service.predict(10) == pytest.approx(1.1)


def test_what_does_not_fit_ends_the_sweep_and_is_nobodys_fault() -> None:
    engine = Timed(0.001, 0.005, fits=4)

    (service, _) = learn(engine, MEMBER, 64, timer=engine.timer).values()

    assert service.predict(4) == pytest.approx(0.009)
    assert learn(Timed(1.0, 1.0, fits=0), MEMBER, 4, timer=engine.timer) == {}


def test_what_runs_elsewhere_is_not_asked() -> None:
    engine = Timed(0.1, 0.1)
    engine.device = "vllm:a"

    assert learn(engine, MEMBER, 8, timer=engine.timer) == {}
    assert engine.batches == []
