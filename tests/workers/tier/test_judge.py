"""The judge: deadlines, limits, and what is said of pictures that it cannot show to its members."""

import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image as Pillow

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.cascade.without import leave_out
from roadstream.schemas.records.image import Head, Image, Inline, Payload, Reference
from roadstream.stages.breaker import MemberPolicy
from roadstream.stages.decoding.decode import decode
from roadstream.stages.inference import Pictures, Score
from roadstream.streams.clock import ManualClock
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import MemoryRecord
from roadstream.workers.tier.batch import outputs_of
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.judge import Judge, JudgeOptions
from roadstream.workers.tier.records import Item, RecordDecoder
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import POISON, GreyEngine, picture
from tests.kits.tier_bench import judged

CASCADE = cascade(tier("one", member("a")))
TP = TopicPartition("images.archive", 0)
LATE = "expired: the deadline passed in the queue"


def items(*payloads: Payload, deadline_at: float | None = None) -> list[Item]:
    """Return items as they come off the log."""
    records = [
        MemoryRecord(i, b"k", codec.encode(Image(Head(image_id=f"{i}", deadline_at=at), one)), 0)
        for i, one in enumerate(payloads)
        for at in [deadline_at]
    ]
    return RecordDecoder("one", first=True).decode({TP: records}, 0.0).items


def grey(*levels: int, deadline_at: float | None = None) -> list[Item]:
    return items(*[Inline(picture(level)) for level in levels], deadline_at=deadline_at)


class Busy(Devices):
    """A device for which one waits: something happens meanwhile."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def hold(self, device: str, rank: int) -> "Busy":
        return self

    def __enter__(self) -> None:
        self.meanwhile()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def test_a_deadline_that_passes_while_the_batch_waits_for_the_device_is_kept() -> None:
    clock, engine = ManualClock(100.0), GreyEngine()
    judge = Judge(
        CASCADE,
        "one",
        {"a": engine},
        devices=Busy(lambda: clock.advance(5.0)),
        options=JudgeOptions(clock=clock),
    )
    batch = grey(200, deadline_at=104.0) + grey(190) + grey(180, deadline_at=106.0)

    said = judged(judge, batch).votes

    assert [one.error for one in said] == [LATE, None, None]
    assert engine.batches == [[190, 180]]
    assert judge.stats.expired == 1


def test_an_image_that_is_late_already_is_not_even_read() -> None:
    clock = ManualClock(100.0)
    judge = Judge(CASCADE, "one", {"a": GreyEngine()},
                  options=JudgeOptions(clock=clock))  # fmt: skip
    gone = Reference(path="/nowhere", size=1)

    (said,) = judged(judge, items(gone, deadline_at=100.0)).votes

    assert said.error == LATE
    assert said.raw == [None]


def bomb(path: Path) -> Path:
    """Write a PNG whose header tells a billion pixels."""
    Pillow.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (32_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def test_bytes_and_pixels_are_limited(tmp_path: Path) -> None:
    options = JudgeOptions(max_bytes=10_000, max_pixels=50, roots=[tmp_path])
    judge = Judge(CASCADE, "one", {"a": GreyEngine()}, options=options)
    path = bomb(tmp_path / "bomb.png")
    batch = items(
        Inline(picture(200)),
        Inline(bytes(10_001)),
        Reference(path=str(path), size=path.stat().st_size),
        Reference(path="/etc/hostname", size=1),
        Reference(path="https://example.org/a.jpg", size=1),
    )

    found = [(one.error or "").partition(":")[0] for one in judged(judge, batch).votes]

    assert found == ["too_many_pixels", "too_large", "too_many_pixels", "refused", "refused"]
    assert judge.stats.bad_pictures == 5
    roomy = Judge(CASCADE, "one", {"a": GreyEngine()},
                  options=replace(options, max_pixels=64))  # fmt: skip
    assert judged(roomy, batch).votes[0].error is None


def test_a_picture_for_which_there_is_no_memory_harms_no_neighbour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scarce(data: bytes, **wanted: object) -> object:
        if data == picture(1):
            raise MemoryError
        return decode(data, **wanted)  # type: ignore[arg-type]

    monkeypatch.setattr("roadstream.workers.tier.judge.decode", scarce)
    judge = Judge(CASCADE, "one", {"a": GreyEngine()})

    said = judged(judge, grey(200, 1, 190)).votes

    assert [one.error for one in said] == [
        None,
        "too_large: the picture does not fit into memory",
        None,
    ]


def test_storage_that_fails_is_waited_for_once_per_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture(200))
    waited: list[float] = []

    def stale(*_: object) -> int:
        raise OSError(116, "Stale file handle")

    judge = Judge(CASCADE, "one", {"a": GreyEngine()},
                  options=JudgeOptions(pause=waited.append))  # fmt: skip
    batch = items(*[Reference(path=str(path), size=path.stat().st_size)] * 100)
    with monkeypatch.context() as patch:
        patch.setattr("os.open", stale)
        said = judged(judge, batch).votes

    assert {one.error for one in said[:3]} == {"unreadable: Stale file handle (tried 4 times)"}
    assert 0.5 < sum(waited) <= 2.0
    assert not any(one.error for one in judged(judge, batch).votes)


def test_dead_letters_are_asked_for_only_by_members_that_count() -> None:
    chosen: Cascade = cascade(tier("one", member("a"), member("shade", 0.0)))
    calm, touchy = GreyEngine(), GreyEngine()
    judge = Judge(chosen, "one", {"a": calm, "shade": touchy})
    touchy.broken = True

    assert judged(judge, grey(200, 190)).failures == []
    (failure,) = judged(judge, grey(200, POISON)).failures
    assert (failure.row, failure.member, failure.final) == (1, "a", True)


def test_what_fails_in_a_trial_is_no_fault_of_the_images() -> None:
    now = 0.0
    two = cascade(tier("one", member("a")), tier("two"))
    engine = GreyEngine()
    engine.broken = True
    judge = Judge(
        two,
        "one",
        {"a": engine},
        options=JudgeOptions(breaker=MemberPolicy(pictures=2, batches=1), timer=lambda: now),
    )
    assert len(judged(judge, grey(200, 190)).failures) == 2
    now = judge.breakers["a"].retry_at

    trial = judged(judge, grey(200, 190))

    assert trial.failures == []
    assert [one.next_tier for one in trial.votes] == ["two", "two"]
    assert trial.votes[0].error == "model_failed: a is out of service, as it kept failing"
    assert judge.breakers["a"].opened == 2
    assert judge.members[0].stats.batches == 2


@pytest.mark.parametrize("path", ["\0" * 32_768, "/" + "\0" * 32_000, "s3://" + "\x01" * 32_000])
def test_votes_on_a_path_that_is_long_to_tell_decode(path: str) -> None:
    judge = Judge(CASCADE, "one", {"a": GreyEngine()})
    judgement = judged(judge, items(Reference(path=path, size=1), Inline(picture(200))))

    for output in outputs_of(judgement, CASCADE.name, CASCADE.hash, "one", 0.0):
        pack = codec.decode_votes(output.value or b"")
        assert pack.images[0].error
        assert pack.images[0].error.startswith("refused: ")
        assert pack.images[1].error is None


def test_no_pixels_are_kept_once_a_batch_is_judged() -> None:
    """It may wait long to be published, and others are decoded meanwhile."""

    class Watching(GreyEngine):
        def infer(self, batch: Pictures) -> list[Score]:
            pixels.extend(weakref.ref(one.pixels) for one in batch)
            return super().infer(batch)

    pixels: list[weakref.ref[object]] = []
    judge = Judge(CASCADE, "one", {"a": Watching()})

    batch = judged(judge, grey(200, 190))

    assert len(batch.votes) == 2
    assert [one() for one in pixels] == [None, None]


def test_a_member_that_is_left_out_has_a_run_without_pictures_and_no_votes() -> None:
    whole = cascade(tier("one", member("a"), member("b", 2.0), member("c")))
    judge = Judge(leave_out(whole, ["b"]), "one", {"a": GreyEngine(), "c": GreyEngine()})

    batch = judged(judge, [*grey(10, 20), *items(Inline(b"no picture"))])

    assert [(run.member, run.weight, run.batch_size) for run in batch.runs] == [
        ("a", 1.0, 2), ("c", 1.0, 2), ("b", 2.0, 0),
    ]  # fmt: skip
    assert [said.raw[2] for said in batch.votes] == [None] * 3
    assert [said.probability[2] for said in batch.votes] == [None] * 3
    assert all(said.raw[0] is not None for said in batch.votes[:2])
    assert [said.error is None for said in batch.votes] == [True, True, False]
    assert batch.failures == []
