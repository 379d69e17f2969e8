"""The fault campaign: its plan, its saboteurs, what it finds, and a short run on each log."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import msgspec
import pytest

from roadstream.bench.faults.chaos.answers import Anomaly, Answers
from roadstream.bench.faults.chaos.controls import ControlPanel, Controls, SharedClock
from roadstream.bench.faults.chaos.engine import FIRST_SHADE, ChaosEngine
from roadstream.bench.faults.chaos.expected import expected_verdicts
from roadstream.bench.faults.chaos.mixtures import Mixtures
from roadstream.bench.faults.chaos.pictures import CASCADE, Catalogue, Namer, class_of
from roadstream.bench.faults.chaos.variants import BASE, SOUND, UNSOUND, new_version, variants
from roadstream.bench.faults.epilogue import EPILOGUES
from roadstream.bench.faults.plan import KINDS, chosen, draw_plan
from roadstream.bench.faults.report import Result
from roadstream.bench.faults.run import Options, run_campaign
from roadstream.bench.faults.scenarios import SCENARIOS
from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import ImageVotes, VotesPack
from roadstream.schemas.topics import ANSWERS, CARRIED, VOTES
from roadstream.stages.decoding.decode import decode
from roadstream.stages.inference import Picture, Pictures
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog

# What the speed of this machine decides, and not the product.
TIMING = {"slow recovery", "slow answer", "stood still", "not carried out", "bad end"}


def picture(catalogue: Catalogue, kind: str) -> Picture:
    return Picture(decode(catalogue.data(kind), min_width=8, min_height=8))


def test_the_same_seed_draws_the_same_plan() -> None:
    kinds = chosen("kafka")

    assert draw_plan(7, kinds, 600) == draw_plan(7, kinds, 600)
    assert draw_plan(7, kinds, 600) != draw_plan(8, kinds, 600)


def test_every_kind_and_every_point_comes_before_any_comes_too_often() -> None:
    kinds = chosen("embedded")

    plan = draw_plan(1, kinds, 3600)

    counts = Counter(fault.kind for fault in plan)
    drawn = [kind for kind in kinds if not kind.last]
    assert counts.keys() == {kind.name for kind in drawn}
    assert {f.kind for f in plan[: len(drawn)]} == counts.keys()
    for kind in drawn:
        points = {fault.point for fault in plan if fault.kind == kind.name}
        assert points == set(kind.points) or counts[kind.name] < len(kind.points)
        assert kind.limit == 0 or counts[kind.name] <= kind.limit


def test_faults_that_stand_alone_never_overlap() -> None:
    plan = draw_plan(3, chosen("embedded"), 3600)

    assert not any(fault.overlap for fault in plan if KINDS[fault.kind].alone)
    assert any(fault.overlap for fault in plan)


def test_each_log_has_its_own_kinds_and_unknown_ones_are_named() -> None:
    assert {"disk-full", "locked"} <= {kind.name for kind in chosen("embedded")}
    assert {"kill-broker", "kill-controller"} <= {kind.name for kind in chosen("kafka")}
    assert [kind.name for kind in chosen("kafka", ["storm"])] == ["storm"]
    with pytest.raises(ValueError, match="got flood"):
        chosen("kafka", ["flood", "storm"])


def test_there_is_a_scenario_for_every_kind() -> None:
    assert SCENARIOS.keys() | EPILOGUES.keys() == KINDS.keys()


def test_an_order_to_die_is_obeyed_once(tmp_path: Path) -> None:
    panel = ControlPanel(tmp_path)
    panel.give("worker", "die in-model")
    program = (
        "import sys; from pathlib import Path\n"
        "from roadstream.bench.faults.chaos.controls import Controls\n"
        "controls = Controls(Path(sys.argv[1]), 'worker')\n"
        "controls.point('after-model')\nprint('alive', flush=True)\ncontrols.point('in-model')"
    )

    ends = [
        subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, check=False)
        for _ in range(2)
    ]

    assert [end.returncode for end in ends] == [-9, 0]
    assert [end.stdout for end in ends] == [b"alive\n", b"alive\n"]
    assert not panel.pending("worker")


def test_orders_are_read_again_when_they_change(tmp_path: Path) -> None:
    panel, controls = ControlPanel(tmp_path), Controls(tmp_path, "sink")

    seen = [controls.number("slow-publish")]
    for order in ("slow-publish 0.5", "slow-model 2"):
        panel.give("sink", order)
        seen.append(controls.number("slow-publish"))
    panel.clear("sink")

    assert seen == [0.0, 0.5, 0.0]
    assert controls.order() == ("", "")


def test_one_step_moves_the_clock_of_every_process(tmp_path: Path) -> None:
    ours, theirs = SharedClock(tmp_path / "clock"), SharedClock(tmp_path / "clock")

    ours.step(-3600.0)

    assert theirs.error == -3600.0


@pytest.mark.parametrize("kind", ["raises", "out-of-memory", "batch-too-large"])
def test_poison_harms_the_batch_it_is_in(kind: str) -> None:
    catalogue = Catalogue(Path("nowhere"))
    engine = ChaosEngine(Member(name="m", engine="cones"), Controls(None))
    batch = Pictures([picture(catalogue, one) for one in ("s200", kind, "s60", "s61")])

    with pytest.raises((RuntimeError, MemoryError)):
        engine.infer(batch)


def test_a_shade_is_scored_by_its_grey_alone() -> None:
    catalogue = Catalogue(Path("nowhere"))
    engine = ChaosEngine(Member(name="m", engine="cones"), Controls(None))
    batch = Pictures([picture(catalogue, one) for one in ("s144", "b144", "s128")])

    assert [score.raw for score in engine.infer(batch)] == [1.0, 1.0, 0.0]


def test_only_a_picture_of_one_grey_can_be_poison() -> None:
    engine = ChaosEngine(Member(name="m", engine="cones"), Controls(None))
    pixels = picture(Catalogue(Path("nowhere")), "raises").pixels.copy()
    pixels[-8:, -8:] = 255

    (score,) = engine.infer(Pictures([Picture(pixels)]))

    assert score.raw == (FIRST_SHADE - 128) / 16


async def test_planted_wrong_answers_are_found() -> None:
    catalogue, cascade = Catalogue(Path("nowhere")), parse_cascade(CASCADE.encode(), "chaos.toml")
    expected = await expected_verdicts(cascade, catalogue)
    log = MemoryLog()
    await log.create_topics([ANSWERS], 1)
    fault = Answer(Head(image_id="7-1-nan"), status="failed", error="model_failed: not a number")
    said = [
        fault,
        msgspec.structs.replace(fault, head=Head(image_id="7-2-s200"), error="damaged: x"),
        fault,
        msgspec.structs.replace(fault, error="expired: late"),
        msgspec.structs.replace(fault, head=Head(image_id="8-1-s99", uri="/else/where")),
    ]
    async with log.producer() as producer:
        await producer.publish([Output(ANSWERS, None, codec.encode(one), 0) for one in said])
    answers = Answers(log, {BASE: expected}, "7-", Path("/here"))
    answers.expect("", BASE)

    with anyio.move_on_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answers.follow)
            while len(answers.anomalies) < 3:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    found = [(anomaly.name, anomaly.what) for anomaly in answers.anomalies]
    assert found == [("changed", "7-2-s200"), ("doubled", "7-1-nan"), ("divergent", "7-1-nan")]
    assert answers.verdicts.keys() == {"7-1-nan", "7-2-s200"}


def test_every_variant_of_the_cascade_is_another_version_each_time(tmp_path: Path) -> None:
    made = [new_version(name, i, tmp_path) for i, name in enumerate((*SOUND, *UNSOUND, *SOUND))]

    hashes = [one.cascade.hash for one in made]

    assert len(set(hashes)) == len(made)
    said = [msgspec.structs.replace(one, hash="", snapshot=None) for one in variants().values()]
    assert all(one != other for i, one in enumerate(said) for other in said[:i])


async def test_an_answer_whose_votes_are_of_another_version_is_found() -> None:
    log = MemoryLog()
    await log.create_topics([ANSWERS, VOTES, CARRIED], 1)
    head, tiers = Head(image_id="7-1-s200"), [AnswerTier("first", [], [], [])]
    images = [ImageVotes(head, [], [])]
    packs = [
        VotesPack(tier=tier, cascade="c", cascade_hash=version, sent_at=0.0, runs=[], images=images)
        for tier, version in (("first", "old"), ("second", "new"))
    ]
    answers = [
        Answer(head, status="answered", tiers=tiers, cascade_hash=version)
        for version in ("old", "new")
    ]
    async with log.producer() as producer:
        await producer.publish([Output(VOTES, None, codec.encode(one), 0) for one in packs])
        await producer.publish([Output(ANSWERS, None, codec.encode(one), 0) for one in answers])
    found = Mixtures("7-")

    await found.look(log)

    assert [one.name for one in found.anomalies] == ["two versions", "mixed versions"]
    assert found.answers == {"old": 1, "new": 1}
    assert found.begun_twice == 1


def test_ids_name_their_class_and_come_once() -> None:
    namer = Namer(Catalogue(Path("nowhere")), 3)

    ids = [*namer.ordinary(500), namer.name("odd.half.png")]

    assert len(set(ids)) == 501
    assert class_of(ids[-1]) == "odd.half.png"
    assert Namer(Catalogue(Path("nowhere")), 3).ordinary(500) == ids[:500]


def campaign(folder: Path, bootstrap: str | None, *kinds: str) -> Result:
    options = Options(
        seed=5,
        minutes=0.1,
        log="embedded" if bootstrap is None else "kafka",
        kinds=list(kinds),
        rate=60.0,
        folder=folder,
        bootstrap=bootstrap,
        processes=1,
    )
    return anyio.run(run_campaign, options, print)


def wrong(result: Result) -> list[Anomaly]:
    return [found for found in result.anomalies if found.name not in TIMING]


@pytest.mark.timeout(180)
def test_a_short_campaign_on_the_embedded_log_loses_and_doubles_nothing(tmp_path: Path) -> None:
    result = campaign(
        tmp_path, None, "kill-worker-at", "kill-consensus-at", "poison", "same-id-other-bytes"
    )

    assert wrong(result) == []
    assert {fault.kind for fault in result.happened} >= {"kill-worker-at", "poison"}
    assert result.images.answered == result.images.acknowledged > 60
    assert result.restarts > 0


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_a_short_campaign_on_kafka_loses_and_doubles_nothing(
    own_kafka: str, tmp_path: Path
) -> None:
    result = campaign(tmp_path, own_kafka, "kill-worker-at", "kill-consensus-at", "odd-files")

    assert wrong(result) == []
    assert result.images.answered == result.images.acknowledged > 60
    assert result.restarts > 0
