"""Fused boxes on their way: from a tier's members into votes, answers, files and the report."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.cascade.model import Cascade, Fusion, Tier
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.records.votes import Box, VotesPack
from roadstream.sinks.consensus.answer import Answerer, TierVotes
from roadstream.sinks.files.readers import read_answers
from roadstream.sinks.report.page import ReportOptions, write_report
from roadstream.sinks.sink import FORMATS, open_writer
from roadstream.stages.inference import Abstained, Engine, Pictures, Score
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import MemoryRecord
from roadstream.workers.demo.render import write_drive
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.records import Item, RecordDecoder
from tests.kits.builders import cascade, member
from tests.kits.command import roadstream
from tests.kits.fake_engine import picture
from tests.kits.tier_bench import judged as run

pytestmark = pytest.mark.usefixtures("compiled_fusion")
TP = TopicPartition("images.archive", 0)
LEFT, RIGHT = Box(0.0, 0.0, 0.25, 0.5, 0.75, "cone"), Box(0.5, 0.0, 0.75, 0.5, 0.5, "cone")


class Detector(Engine):
    """Finds the same in every picture; abstains where that is ``None``, or breaks."""

    def __init__(self, boxes: Sequence[Box] | None, *, broken: bool = False) -> None:
        self._boxes, self._broken = boxes, broken

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[Score | Abstained]:
        """Return the same for each."""
        if self._broken:
            raise RuntimeError("broken")
        if self._boxes is None:
            return [Abstained("too dark")] * len(batch)
        return [Score(1.0, list(self._boxes))] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""


def items(count: int) -> list[Item]:
    images = [Image(Head(image_id=str(i)), Inline(picture(100))) for i in range(count)]
    records = [MemoryRecord(i, b"k", codec.encode(one), 0) for i, one in enumerate(images)]
    return RecordDecoder("one", first=True).decode({TP: records}, 0.0).items


def tier_of(fusion: Fusion | None, **weights: float) -> Tier:
    members = [member(name, weight) for name, weight in weights.items()]
    return Tier(name="one", members=members, fusion=fusion)


def judged(chosen: Cascade, engines: dict[str, Engine], count: int = 2) -> VotesPack:
    judgement = run(Judge(chosen, "one", engines), items(count))
    return VotesPack(
        tier="one",
        cascade="test",
        cascade_hash="0",
        sent_at=0.0,
        runs=judgement.runs,
        images=judgement.votes,
    )


def test_the_votes_of_a_tier_carry_the_fused_boxes_of_its_members_of_weight() -> None:
    chosen = cascade(tier_of(Fusion(), a=1.0, b=3.0, shade=0.0))
    engines: dict[str, Engine] = {
        "a": Detector([LEFT]),
        "b": Detector([LEFT, RIGHT]),
        "shade": Detector([Box(0.8, 0.8, 0.9, 0.9, 1.0, "cone")]),
    }

    pack = judged(chosen, engines)

    for said in pack.images:
        assert said.fused == [LEFT, Box(0.5, 0.0, 0.75, 0.5, 0.375, "cone")]
        assert said.boxes is not None
        assert list(map(len, said.boxes)) == [1, 2, 1]


def test_a_member_without_a_score_did_not_look_and_lowers_no_confidence() -> None:
    chosen = cascade(tier_of(Fusion(), a=1.0, mute=1.0, broken=1.0, blind=2.0))
    engines: dict[str, Engine] = {
        "a": Detector([LEFT]),
        "mute": Detector(None),
        "broken": Detector([], broken=True),
        "blind": Detector([]),
    }

    pack = judged(chosen, engines)

    assert [said.fused for said in pack.images] == [
        [Box(LEFT.x1, LEFT.y1, LEFT.x2, LEFT.y2, 0.25, "cone")]
    ] * 2


def test_where_no_detector_looked_there_is_nothing_fused_not_an_empty_scene() -> None:
    chosen = cascade(tier_of(Fusion(members=["mute"]), mute=1.0, a=1.0))

    pack = judged(chosen, {"mute": Detector(None), "a": Detector([LEFT])})

    assert [said.fused for said in pack.images] == [None, None]
    empty = judged(cascade(tier_of(Fusion(), a=1.0)), {"a": Detector([])})
    assert [said.fused for said in empty.images] == [[], []]


def test_a_tier_that_does_not_ask_fuses_nothing() -> None:
    pack = judged(cascade(tier_of(None, a=1.0)), {"a": Detector([LEFT])})

    assert [said.fused for said in pack.images] == [None, None]


@pytest.mark.parametrize("suffix", FORMATS)
def test_answers_files_and_report_show_the_fused_boxes(suffix: str, tmp_path: Path) -> None:
    chosen = cascade(tier_of(Fusion(labels={"cone": "traffic cone"}), a=1.0, b=1.0))
    pack = judged(chosen, {"a": Detector([LEFT]), "b": Detector([LEFT])}, count=1)
    decoded = codec.decode_votes(codec.encode(pack))
    answer = Answerer(chosen, vote_math(chosen)).answer(
        [TierVotes(decoded, decoded.images[0])], first_at=0.0, now=1.0
    )
    path = tmp_path / f"answers{suffix}"

    with open_writer(path) as writer:
        writer.write([codec.decode_answer(codec.encode(answer))])
    (row,) = read_answers(path)
    shown = ReportOptions(load_image=lambda _: np.zeros((90, 160, 3), np.uint8))
    write_report(path, tmp_path / "r.html", shown)

    assert row["boxes"] == [
        {"x1": 0.0, "y1": 0.0, "x2": 0.25, "y2": 0.5, "confidence": 0.75,
         "label": "traffic cone", "tier": "one"}
    ]  # fmt: skip
    assert [len(vote["boxes"]) for vote in row["votes"]] == [1, 1]
    drawn = re.findall('<g class="box"><title>(.*?)</title>', (tmp_path / "r.html").read_text())
    assert drawn == ["traffic cone 0.75 · one"]


CASCADE = """
name = "two-rules"
[[tiers]]
name = "detect"
fusion = { iou = 0.5, confidence = "box_and_model_avg" }
members = [
    { name = "near", engine = "cones", width = 512, height = 352 },
    { name = "far", engine = "cones", width = 640, height = 352 },
]
"""


def test_a_cascade_with_fusion_scores_a_folder(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CASCADE)
    write_drive(tmp_path / "in", 12, width=640, height=360)

    done = roadstream("score", "in", "--out", "a.jsonl", "--cascade", "c.toml", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    rows = list(read_answers(tmp_path / "a.jsonl"))
    assert any(row["boxes"] for row in rows)
    for row in rows:
        found = sum(len(vote["boxes"]) for vote in row["votes"])
        assert (len(row["boxes"]) > 0) == any(
            box["confidence"] >= 0.05 for vote in row["votes"] for box in vote["boxes"]
        )
        assert len(row["boxes"]) <= found


UNKNOWN_MEMBER = "expected a member of this tier of weight above 0 (near, far), got nobody"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{ members = ["nobody"] }', f"tiers[0].fusion.members[0]: {UNKNOWN_MEMBER}"),
        ("{ iou = 1.5 }", "tiers[0].fusion.iou: expected `float` <= 1"),
        ('{ method = "nms" }', "tiers[0].fusion.method: expected a known value"),
        ("{ IOU = 0.5 }", "tiers[0].fusion: expected a known key"),
    ],
)
def test_a_wrong_setting_is_named_with_its_key(line: str, problem: str) -> None:
    wrong = CASCADE.replace('{ iou = 0.5, confidence = "box_and_model_avg" }', line)

    with pytest.raises(ConfigError, match=re.escape(problem)):
        parse_cascade(wrong.encode(), "c.toml")


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.workers.service.loading import load_engines
from roadstream.workers.commands import score, serve
cascade = load_cascade(sys.argv[1])
try:
    load_engines(cascade, cascade.tier_names, 1)
    print("loaded")
except Exception as error:
    print(type(error).__name__, error)
"""


MISSING = (
    "ConfigError two-rules: tiers[0].fusion: "
    "expected numba to be installed (pip install 'roadstream[fusion]')"
)


@pytest.mark.parametrize(("fusion", "said"), [("", "loaded"), ("fusion = {}", MISSING)])
def test_numba_is_needed_only_by_a_cascade_that_fuses(
    fusion: str, said: str, tmp_path: Path
) -> None:
    plain = CASCADE.replace('fusion = { iou = 0.5, confidence = "box_and_model_avg" }', fusion)
    (tmp_path / "c.toml").write_text(plain)

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMBA, str(tmp_path / "c.toml")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith(said), done.stdout
