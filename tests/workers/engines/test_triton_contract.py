"""What a served model must look like, and what a server's refusals mean. No server needed."""

import pytest
from tritonclient.utils import InferenceServerException

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.workers.engines.triton.contract import Contract, Served, Tensor, agree
from roadstream.workers.engines.triton.faults import fault_of
from roadstream.workers.engines.triton.memory import is_local

IMAGES = Tensor("images", "UINT8", (-1, 4, 6, 3))
LOGIT = Tensor("logit", "FP32", (-1, 1))
HEAT = Tensor("heat", "FP32", (-1, 2, 3))
BOXES = Tensor("boxes", "FP32", (-1, -1, 4))
SCORES = Tensor("scores", "FP32", (-1, 8))
KINDS = Tensor("kinds", "INT64", (-1, 8))


def served(*outputs: Tensor, inputs: tuple[Tensor, ...] = (IMAGES,), most: int = 8) -> Served:
    return Served(inputs, outputs or (LOGIT,), most, None)


def agreed(model: Served, **settings: object) -> Contract:
    return agree(model, TritonSettings(**settings), (6, 4), "here")  # type: ignore[arg-type]


def test_a_model_of_the_contract_is_asked_for_its_score_and_its_evidence() -> None:
    assert agreed(served(LOGIT, HEAT)) == Contract(8, ("logit", "heat"), (4, 6, 3))
    assert agreed(served(LOGIT, HEAT), boxes=False).outputs == ("logit",)
    assert agreed(served(LOGIT)).outputs == ("logit",)


def test_a_detector_is_asked_for_its_boxes_where_its_kinds_have_names() -> None:
    detector = served(LOGIT, KINDS, BOXES, SCORES)
    assert agreed(detector, kinds=["cone"]).outputs == ("logit", "boxes", "scores", "kinds")
    assert agreed(detector, kinds=["cone"], boxes=False).outputs == ("logit",)
    assert agreed(detector).outputs == ("logit",)


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        ((), "none"),
        ((BOXES, SCORES), r"boxes FP32 \[-1, -1, 4\], scores"),
        ((BOXES, SCORES, Tensor("kinds", "FP32", (-1, 8))), ".*kinds FP32"),
        ((BOXES, SCORES, Tensor("kinds", "INT64", (-1, 7))), r".*kinds INT64 \[-1, 7\]"),
        ((Tensor("boxes", "FP32", (-1, 8, 5)), SCORES, KINDS), r"boxes FP32 \[-1, 8, 5\]"),
    ],
)
def test_a_detector_of_other_outputs_is_refused(outputs: tuple[Tensor, ...], got: str) -> None:
    expected = r"^here: expected outputs boxes FP32 \[-1, K, 4\], scores .*, got "
    with pytest.raises(ConfigError, match=expected + got):
        agreed(served(LOGIT, *outputs), kinds=["cone"])


def test_a_model_that_batches_by_itself_takes_any_number() -> None:
    assert agreed(served(most=0)).max_batch is None


def test_sizes_that_the_model_leaves_open_fit() -> None:
    open_ = Tensor("images", "UINT8", (-1, -1, -1, 3))
    assert agreed(served(inputs=(open_,))).per_picture == (4, 6, 3)


@pytest.mark.parametrize(("shape", "per_picture"), [((-1, 1), (1,)), ((-1,), ()), ((-1, -1), (1,))])
def test_jpeg_files_come_with_or_without_a_dimension(
    shape: tuple[int, ...], per_picture: tuple[int, ...]
) -> None:
    model = served(inputs=(Tensor("images", "BYTES", shape),))
    assert agreed(model, input="jpeg").per_picture == per_picture


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (served(inputs=()), "none"),
        (served(inputs=(IMAGES, LOGIT)), "images UINT8 .*, logit FP32"),
        (served(inputs=(Tensor("x", "UINT8", IMAGES.shape),)), "x UINT8"),
        (served(inputs=(Tensor("images", "FP32", IMAGES.shape),)), "images FP32"),
        (served(inputs=(Tensor("images", "UINT8", (8, 4, 6, 3)),)), r"images UINT8 \[8, 4"),
        (served(inputs=(Tensor("images", "UINT8", (-1, 3, 4, 6)),)), r"images UINT8 \[-1, 3"),
    ],
)
def test_another_input_is_refused(model: Served, got: str) -> None:
    expected = r"^here: expected one input, images UINT8 \[-1, 4, 6, 3\], got "
    with pytest.raises(ConfigError, match=expected + got):
        agreed(model)


@pytest.mark.parametrize(
    "output",
    [HEAT, Tensor("logit", "INT64", (-1, 1)), Tensor("logit", "FP32", (-1, 2)),
     Tensor("logit", "FP32", (1,))],
)  # fmt: skip
def test_another_score_is_refused(output: Tensor) -> None:
    with pytest.raises(
        ConfigError, match=r"expected an output logit FP32 \[-1\] or \[-1, 1\], got"
    ):
        agreed(served(output))


def test_evidence_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected evidence heat FP32 \[-1, h, w\], got heat"):
        agreed(served(LOGIT, Tensor("heat", "FP32", (-1, 2))))


@pytest.mark.parametrize(
    ("status", "said", "fault"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses", "away"),
        ("UNAVAILABLE", "Request timeout expired", "late"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "late"),
        ("CANCELLED", "", "late"),
        ("NOT_FOUND", "Request for unknown model: 'x' is not found", "away"),
        ("NOT_FOUND", "Unable to find shared memory region: 'x'", "region"),
        ("RESOURCE_EXHAUSTED", "Sent message larger than max", "memory"),
        ("INTERNAL", "onnx runtime error 6: bad allocation: std::bad_alloc", "memory"),
        ("INTERNAL", "cannot identify image file", "refused"),
        ("INVALID_ARGUMENT", "unexpected shape for input", "refused"),
    ],
)
def test_a_refusal_is_told_by_its_status_and_words(status: str, said: str, fault: str) -> None:
    assert fault_of(InferenceServerException(said, f"StatusCode.{status}")) == fault


@pytest.mark.parametrize(
    ("url", "local"),
    [("127.0.0.1:8001", True), ("localhost:1", True), ("[::1]:1", True), ("unix:/run/t", True),
     ("10.0.0.1:8001", False), ("triton:8001", False), ("127.example.org:1", False)],
)  # fmt: skip
def test_a_url_of_this_machine_is_known_by_its_form(url: str, local: bool) -> None:
    assert is_local(url) is local
