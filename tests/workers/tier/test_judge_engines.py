"""What a judge gives its engines, and what it makes of what they give back."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from structlog.contextvars import bound_contextvars, get_contextvars

from roadstream.schemas.errors import EngineDownError, ImageError
from roadstream.schemas.records.image import Head, Inline
from roadstream.stages.breaker import MemberPolicy
from roadstream.stages.inference import Abstained, Engine, EngineResult, Pictures, Score
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.judge import Judge, JudgeOptions
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine, picture
from tests.kits.tier_bench import judged
from tests.workers.tier.test_judge import items

CASCADE = cascade(tier("one", member("a"), member("b", 2.0)), tier("two"))


class Noted(Devices, AbstractContextManager[None]):
    """Notes when the device is held."""

    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self._diary = diary

    def hold(self, device: str, rank: int) -> AbstractContextManager[object]:
        self._diary.append(f"hold {device}")
        return self

    def __exit__(self, *_: object) -> None:
        self._diary.append("release")


class Speaker(Engine):
    """Says what it is told to, and notes what it is given."""

    needs_pixels = False

    def __init__(
        self, says: Callable[[Pictures], Sequence[EngineResult]], diary: list[str]
    ) -> None:
        self._says, self._diary = says, diary
        self.seen: list[tuple[bytes | None, Head | None]] = []

    def load(self) -> None:
        """Nothing to load."""

    def prepare(self, batch: Pictures) -> None:
        batch.share("copied", lambda: self._diary.append("copy"))

    def infer(self, batch: Pictures) -> list[EngineResult]:
        batch.share("copied", lambda: self._diary.append("copied late"))
        self._diary.append("infer")
        self.seen += [(None if p.encoded is None else bytes(p.encoded), p.head) for p in batch]
        return list(self._says(batch))

    def close(self) -> None:
        """Nothing to give back."""


def says(score: float) -> Callable[[Pictures], Sequence[EngineResult]]:
    return lambda batch: [Score(score, [])] * len(batch)


def state(judge: Judge) -> str:
    return judge.breakers["a"].state


def test_engines_prepare_before_the_device_is_held_and_share_what_they_made() -> None:
    diary: list[str] = []
    engines: dict[str, Engine] = {name: Speaker(says(1.0), diary) for name in "ab"}
    judge = Judge(CASCADE, "one", engines, devices=Noted(diary))

    judged(judge, items(Inline(picture(1))))

    assert diary == ["copy", "hold cpu", "infer", "infer", "release"]


def test_an_engine_that_cannot_prepare_still_gets_its_batch() -> None:
    class Clumsy(Speaker):
        def prepare(self, batch: Pictures) -> None:
            raise MemoryError

    diary: list[str] = []
    judge = Judge(CASCADE, "one", {"a": Clumsy(says(1.0), diary), "b": Clumsy(says(2.0), diary)})

    (said,) = judged(judge, items(Inline(picture(1)))).votes

    assert said.raw == [1.0, 2.0]


def test_an_engine_sees_who_a_picture_is_and_its_file_if_it_asks_for_it() -> None:
    diary: list[str] = []
    modest, curious = Speaker(says(1.0), diary), Speaker(says(1.0), diary)
    judge = Judge(CASCADE, "one", {"a": modest, "b": modest})
    judged(judge, items(Inline(picture(7))))
    curious.needs_encoded = True
    asking = Judge(CASCADE, "one", {"a": modest, "b": curious})

    judged(asking, items(Inline(picture(7))))

    assert [data for data, _ in curious.seen] == [picture(7)]
    assert [data for data, _ in modest.seen[:2]] == [None, None]
    assert [head.image_id for _, head in modest.seen if head is not None] == ["0", "0", "0"]


def test_a_member_that_abstains_is_left_out_and_at_nobodys_fault() -> None:
    engines: dict[str, Engine] = {
        "a": Speaker(lambda batch: [Abstained("nothing to read")] * len(batch), []),
        "b": Speaker(lambda batch: [Score(2.0, [], "ROAD WORK")] * len(batch), []),
    }
    judge = Judge(CASCADE, "one", engines, options=JudgeOptions(breaker=MemberPolicy(pictures=1)))

    for _ in range(5):
        judgement = judged(judge, items(Inline(picture(1))))

    (said,) = judgement.votes
    assert (said.raw, said.error, said.texts) == (
        [None, 2.0],
        None,
        ["nothing to read", "ROAD WORK"],
    )
    assert judgement.failures == []
    assert judge.breakers["a"].state == "closed"
    assert judge.members[0].stats.abstained == 5


def test_when_all_abstain_the_votes_say_so_and_the_image_goes_on() -> None:
    silent: dict[str, Engine] = {
        name: Speaker(lambda batch: [Abstained("too dark")] * len(batch), []) for name in "ab"
    }
    judgement = judged(Judge(CASCADE, "one", silent), items(Inline(picture(1))))

    (said,) = judgement.votes
    assert (said.error, said.next_tier) == ("model_abstained: too dark", "two")
    assert judgement.failures == []


def test_a_member_whose_engine_is_away_is_out_at_once_and_comes_back() -> None:
    now, away = 0.0, True

    def fickle(batch: Pictures) -> list[EngineResult]:
        if away:
            raise EngineDownError("the server does not answer")
        return [Score(1.0, [])] * len(batch)

    diary: list[str] = []
    engines: dict[str, Engine] = {"a": Speaker(fickle, diary), "b": Speaker(says(2.0), diary)}
    judge = Judge(CASCADE, "one", engines, options=JudgeOptions(timer=lambda: now))
    batch = items(*[Inline(picture(level)) for level in range(20, 28)])

    judgement = judged(judge, batch)

    assert [said.raw for said in judgement.votes] == [[None, 2.0]] * 8
    assert state(judge) == "open"
    assert diary.count("infer") == 2
    assert judge.members[0].stats.away == 8
    assert judgement.failures == []

    judged(judge, batch)
    assert diary.count("infer") == 3
    now, away = judge.breakers["a"].retry_at, False
    assert [said.raw for said in judged(judge, batch).votes] == [[1.0, 2.0]] * 8
    assert state(judge) == "closed"


def test_a_member_too_slow_for_live_images_stays_in_service() -> None:
    late = ImageError("expired", "the deadline passed at the server")
    engines: dict[str, Engine] = {
        "a": Speaker(lambda batch: [late] * len(batch), []),
        "b": Speaker(says(2.0), []),
    }
    policy = MemberPolicy(pictures=1, batches=1)
    judge = Judge(CASCADE, "one", engines, options=JudgeOptions(breaker=policy))

    judgement = judged(judge, items(Inline(picture(1))))

    assert [said.raw for said in judgement.votes] == [[None, 2.0]]
    assert judgement.failures == []
    assert state(judge) == "closed"
    assert (judge.members[0].stats.late, judge.members[0].stats.failures) == (1, 0)


class Sized(GreyEngine):
    """Notes the pixels that it could see beside those of its own size."""

    only_at_size = True

    def __init__(self) -> None:
        super().__init__()
        self.rest: list[tuple[int, ...]] = []

    def infer(self, batch: Pictures) -> list[Score]:
        self.rest += [one.pixels.shape for one in batch]
        return super().infer(batch)


def test_a_picture_is_kept_whole_only_for_members_that_look_at_more_than_their_size() -> None:
    sized, whole = Sized(), Sized()
    whole.only_at_size = False
    alone = cascade(tier("one", member("a")))

    found = [
        judged(Judge(alone, "one", {"a": engine}), items(Inline(picture(90)))).votes[0].raw
        for engine in (sized, whole)
    ]

    assert sized.rest[0][:2] == (0, 0)
    assert whole.rest[0][:2] != (0, 0)
    assert found[0] == found[1]


class Gated(Speaker):
    """Somewhere else, where two batches may be at once; a batch waits there until it is let go."""

    device = "elsewhere"

    def __init__(self, says: Callable[[Pictures], Sequence[EngineResult]]) -> None:
        super().__init__(says, [])
        self.came, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def infer(self, batch: Pictures) -> list[EngineResult]:
        self.came.release()
        assert self.go.acquire(timeout=30)
        return super().infer(batch)


def test_a_member_on_trial_gets_one_batch_and_the_others_do_without_it() -> None:
    now, broken = [0.0], [True]

    def behave(batch: Pictures) -> Sequence[EngineResult]:
        if broken[0]:
            raise RuntimeError("gone")
        return [Score(1.0, [])] * len(batch)

    engine = Gated(behave)
    policy = MemberPolicy(pictures=1, batches=1)
    options = JudgeOptions(breaker=policy, timer=lambda: now[0])
    judge = Judge(cascade(tier("one", member("a"))), "one", {"a": engine}, options=options)
    one = items(Inline(picture(1)))
    engine.go.release()
    judged(judge, one)
    assert state(judge) == "open"
    now[0], broken[0] = 1000.0, False

    with ThreadPoolExecutor(1) as threads:
        assert engine.came.acquire(timeout=30)
        trial = threads.submit(judged, judge, one)
        assert engine.came.acquire(timeout=30)
        beside = judged(judge, one)
        engine.go.release()

    assert beside.votes[0].raw == [None]
    assert trial.result().votes[0].raw == [1.0]
    assert state(judge) == "closed"


def test_what_members_say_tells_the_tier_also_from_the_threads_of_other_devices() -> None:
    told: list[dict[str, object]] = []

    def says(batch: Pictures) -> Sequence[EngineResult]:
        told.append(dict(get_contextvars()))
        return [Score(1.0, [])] * len(batch)

    engines: dict[str, Engine] = {"a": Speaker(says, []), "b": Speaker(says, [])}
    engines["b"].device = "elsewhere"
    judge = Judge(CASCADE, "one", engines)
    with bound_contextvars(tier="one"):
        judged(judge, items(Inline(picture(1))))

    assert told == [{"tier": "one"}] * 2


def test_tags_stand_in_the_votes_of_those_who_gave_them() -> None:
    engines: dict[str, Engine] = {
        "a": Speaker(lambda batch: [Abstained(tags={"weather": "rain"})] * len(batch), []),
        "b": Speaker(lambda batch: [Score(2.0, [], "", {"light": "night"})] * len(batch), []),
    }
    judge = Judge(CASCADE, "one", engines)

    (said,) = judged(judge, items(Inline(picture(1)))).votes

    assert (said.raw, said.tags) == ([None, 2.0], [{"weather": "rain"}, {"light": "night"}])
    assert (said.texts, said.error) == (None, None)


def test_a_tier_whose_members_give_only_tags_is_none_that_failed() -> None:
    tagging: dict[str, Engine] = {
        name: Speaker(lambda batch: [Abstained(tags={"weather": "fog"})] * len(batch), [])
        for name in "ab"
    }
    judgement = judged(Judge(CASCADE, "one", tagging), items(Inline(picture(1))))

    (said,) = judgement.votes
    assert (said.error, said.next_tier, judgement.failures) == (None, "two", [])


def test_a_member_that_fails_beside_one_that_gives_tags_is_told() -> None:
    engines: dict[str, Engine] = {
        "a": Speaker(lambda batch: [Abstained(tags={"weather": "fog"})] * len(batch), []),
        "b": Speaker(lambda batch: [ImageError("model_failed", "broken")] * len(batch), []),
    }
    (said,) = judged(Judge(CASCADE, "one", engines), items(Inline(picture(1)))).votes

    assert said.error == "model_failed: broken"
