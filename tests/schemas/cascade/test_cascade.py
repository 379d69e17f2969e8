"""Cascade files: what is accepted, and that each message names the file, the key and the fault."""

import hashlib
import shutil
from pathlib import Path

import pytest

from roadstream.schemas.cascade import weights
from roadstream.schemas.cascade.loading import (
    cascade_of,
    load_cascade,
    parse_cascade,
    shipped_cascades,
)
from roadstream.schemas.cascade.model import Isotonic, Platt, Pool
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.errors import ChangedError, ConfigError
from roadstream.schemas.settings.local import NoSettings, OnnxSettings
from roadstream.schemas.settings.prompts import load_prompt

WHOLE = """
name = "whole"
threshold = 0.6
description = "all there is"

[pool]
method = "log"
prior = 0.3
effective_voters = 1.5

[[tiers]]
name = "one"
max_batch = 8

[[tiers.members]]
name = "tiny"
engine = "onnx"
model = "tiny.onnx"
model_version = "7"
weight = 1.5
width = 256
height = 160
calibration = { method = "platt", slope = 0.5, intercept = -0.25 }
settings = { boxes = false }

[[tiers.members]]
name = "shadow"
engine = "noop"
weight = 0.0
calibration = { method = "isotonic", raw = [-1.0, 1.0], probability = [0.1, 0.9] }

[[tiers.routes]]
min_confidence = 0.9
max_disagreement = 2.0
to = "exit"
reason = "sure"

[[tiers]]
name = "two"
members = [{ name = "rule", engine = "cones" }]
"""


def with_line(old: str, new: str) -> bytes:
    assert WHOLE.count(old) >= 1
    return WHOLE.replace(old, new, 1).encode()


def test_a_whole_file_is_read_as_it_stands() -> None:
    cascade = parse_cascade(WHOLE.encode(), "f.toml")

    assert cascade.tier_names == ["one", "two"]
    assert cascade.threshold == 0.6
    assert cascade.pool == Pool(method="log", prior=0.3, effective_voters=1.5)
    tiny, shadow = cascade.tier("one").members
    assert (tiny.model, tiny.weight, tiny.calibration) == ("tiny.onnx", 1.5, Platt(0.5, -0.25))
    assert shadow.calibration == Isotonic([-1.0, 1.0], [0.1, 0.9])
    assert (tiny.settings, shadow.settings) == (OnnxSettings(boxes=False), NoSettings())
    assert cascade.tier("one").routes == [
        Route(to="exit", min_confidence=0.9, max_disagreement=2.0, reason="sure")
    ]


def test_what_a_file_leaves_out_has_its_documented_default() -> None:
    small = b'name = "s"\n[[tiers]]\nname = "t"\nmembers = [{ name = "m", engine = "noop" }]'
    cascade = parse_cascade(small, "f.toml")

    assert (cascade.threshold, cascade.pool) == (0.65, Pool())
    assert (cascade.pool.method, cascade.pool.prior) == ("log", 0.5)
    (member,) = cascade.tiers[0].members
    assert (member.weight, member.calibration, member.settings) == (1.0, None, NoSettings())


AT = "tiers[0].members[0]"
WRONG = {
    "unknown key at the top": (
        ('description = "all there is"', 'descripton = "x"'),
        (
            "top level: expected a known key (see `roadstream schema cascade`), "
            "got the unknown key descripton"
        ),
    ),
    "unknown key of a member": (
        ('model_version = "7"', 'modelversion = "7"'),
        (
            f"{AT}: expected a known key (see `roadstream schema cascade`), "
            "got the unknown key modelversion"
        ),
    ),
    "unknown key of a calibration": (
        ("intercept = -0.25", "bias = -0.25"),
        (
            f"{AT}.calibration: expected a known key (see `roadstream schema cascade`), "
            "got the unknown key bias"
        ),
    ),
    "unknown key of the pool": (
        ("prior = 0.3", "piror = 0.3"),
        "pool: expected a known key (see `roadstream schema cascade`), got the unknown key piror",
    ),
    "wrong type": (
        ("weight = 1.5", 'weight = "heavy"'),
        f"{AT}.weight: expected `float`, got `str`",
    ),
    "negative weight": (
        ("weight = 1.5", "weight = -1"),
        f"{AT}.weight: expected `float` >= 0.0, got -1",
    ),
    "infinite weight": (
        ("weight = 1.5", "weight = inf"),
        f"{AT}.weight: expected `float` <= 1000000000.0, got inf",
    ),
    "weight that is no number": (
        ("weight = 1.5", "weight = nan"),
        f"{AT}.weight: expected `float` >= 0.0, got nan",
    ),
    "slope that is no number": (
        ("slope = 0.5", "slope = nan"),
        f"{AT}.calibration.slope: expected `float` >= -1000000000.0, got nan",
    ),
    "width of nothing": (("width = 256", "width = 0"), f"{AT}.width: expected `int` >= 1, got 0"),
    "prior of certainty": (
        ("prior = 0.3", "prior = 1.0"),
        "pool.prior: expected `float` < 1.0, got 1.0",
    ),
    "unknown pool": (
        ('method = "log"', 'method = "lin"'),
        "pool.method: expected a known value (see `roadstream schema cascade`), got 'lin'",
    ),
    "unknown engine": (
        ('engine = "onnx"', 'engine = "onxx"'),
        (
            f"{AT}.engine: expected one of onnx, torch, vllm, openai, triton, cones, noop, "
            "got 'onxx' (did you mean onnx?)"
        ),
    ),
    "unknown calibration": (
        ('method = "platt"', 'method = "plat"'),
        (
            f"{AT}.calibration.method: expected a known value (see `roadstream schema cascade`), "
            "got 'plat'"
        ),
    ),
    "no name": (
        ('name = "tiny"\n', ""),
        f"{AT}.name: expected a value, got nothing",
    ),
    "no name of the cascade": (('name = "whole"\n', ""), "name: expected a value, got nothing"),
    "name with a blank": (
        ('name = "tiny"', 'name = "ti ny"'),
        (
            f"{AT}.name: expected `str` matching regex '^[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}$', "
            "got 'ti ny'"
        ),
    ),
    "evidence for an engine that cannot use it": (
        ("settings = { boxes = false }", 'settings = { evidence = ["boxes", "tags"] }'),
        (
            f"{AT}.settings.evidence: expected none for the engine onnx, which can make no use "
            "of it, got boxes, tags"
        ),
    ),
    "route to nowhere": (
        ('to = "exit"', 'to = "tow"'),
        "tiers[0].routes[0].to: expected one of exit, two, got tow",
    ),
    "route to itself": (
        ('to = "exit"', 'to = "one"'),
        "tiers[0].routes[0].to: expected one of exit, two, got one",
    ),
    "route backwards": (
        ('members = [{ name = "rule"', 'routes = [{ to = "one" }]\nmembers = [{ name = "rule"'),
        "tiers[1].routes[0].to: expected one of exit, got one",
    ),
    "tier twice": (
        ('name = "two"', 'name = "one"'),
        ("tiers[1].name: expected tier names to be unique, got one twice"),
    ),
    "member twice": (
        ('name = "rule"', 'name = "tiny"'),
        ("tiers[1].members[0].name: expected member names to be unique, got tiny twice"),
    ),
    "tier called exit": (
        ('name = "two"', 'name = "exit"'),
        ("tiers[1].name: expected tier names other than 'exit', got exit"),
    ),
    "no tiers": (
        (WHOLE[WHOLE.index("[pool]") :], "tiers = []"),
        "tiers: expected `array` of length >= 1, got []",
    ),
    "no members": (
        ('members = [{ name = "rule", engine = "cones" }]', "members = []"),
        "tiers[1].members: expected `array` of length >= 1, got []",
    ),
    "only shadow members": (
        ('engine = "cones"', 'engine = "cones", weight = 0'),
        "tiers[1].members: expected a member of weight above 0, got only shadow members",
    ),
    "model without weights": (
        ('model = "tiny.onnx"\n', ""),
        f"{AT}.model: expected a weight file, got nothing",
    ),
    "knots that do not increase": (
        ("raw = [-1.0, 1.0]", "raw = [1.0, 1.0]"),
        (
            "tiers[0].members[1].calibration: expected as many probabilities as raw scores, "
            "at least 2, raw increasing, got raw=[1.0, 1.0], probability=[0.1, 0.9]"
        ),
    ),
    "knots without probability": (
        ("raw = [-1.0, 1.0]", "raw = [-1.0, 0.0, 1.0]"),
        (
            "tiers[0].members[1].calibration: expected as many probabilities as raw scores, "
            "at least 2, raw increasing, got raw=[-1.0, 0.0, 1.0], probability=[0.1, 0.9]"
        ),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_names_the_file_the_key_and_what_was_expected(case: str) -> None:
    (old, new), message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        parse_cascade(with_line(old, new), "my/f.toml")
    assert str(caught.value) == f"my/f.toml: {message}"
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    "data", [b"name =", b"\xff\xfe", b"name = 'a'\nname = 'b'"], ids=["syntax", "bytes", "twice"]
)
def test_a_file_that_is_not_toml_is_named(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^f\.toml: expected a TOML file, got "):
        parse_cascade(data, "f.toml")


def written(folder: Path, text: str = WHOLE) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    (folder / "tiny.onnx").write_bytes(b"weights")
    return path


def test_a_missing_weight_file_is_named_with_its_key(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "tiny.onnx").unlink()
    with pytest.raises(ConfigError) as caught:
        load_cascade(str(path))
    assert str(caught.value) == (
        f"{path}: tiers[0].members[0].model: expected a weight file, "
        f"got {tmp_path}/tiny.onnx, which does not exist"
    )


def test_a_folder_is_no_weight_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "tiny.onnx").unlink()
    (tmp_path / "tiny.onnx").mkdir()
    with pytest.raises(ConfigError, match=r"members\[0\]\.model: .* cannot be read \(Is a"):
        load_cascade(str(path))


def test_a_missing_cascade_file_is_named_with_what_could_be_given(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"--cascade: expected a cascade file or one of .*lite.*, got .*none\.toml",
    ):
        load_cascade(str(tmp_path / "none.toml"))


def test_the_hash_tells_files_and_weights_apart(tmp_path: Path) -> None:
    path = written(tmp_path)
    first = load_cascade(str(path)).hash
    assert load_cascade(str(path)).hash == first

    (tmp_path / "tiny.onnx").write_bytes(b"other weights")
    other_weights = load_cascade(str(path)).hash
    written(tmp_path, WHOLE.replace("threshold = 0.6", "threshold = 0.7"))
    other_file = load_cascade(str(path)).hash

    assert len({first, other_weights, other_file}) == 3


def test_the_hash_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    path = written(tmp_path)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("mine.toml", "tiny.onnx"):
        shutil.copy(tmp_path / name, copy / name)

    assert load_cascade(str(path)).hash == load_cascade(str(copy / "mine.toml")).hash


ASKED = WHOLE.replace(
    'engine = "noop"',
    'engine = "openai"\nmodel = "m"\n'
    'settings = { base_url = "http://127.0.0.1:1/v1", prompt = "asks/own.toml" }',
)


def with_prompt(folder: Path) -> Path:
    """Write a cascade with weights and a prompt of its own."""
    (folder / "asks").mkdir()
    (folder / "asks" / "own.toml").write_text('version = "1"\ntext = "Roadwork?"\n')
    return written(folder, ASKED)


def test_from_a_snapshot_the_same_cascade_is_made_when_all_its_files_are_gone(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    loaded = load_cascade(str(with_prompt(tmp_path / "in")))
    shutil.rmtree(tmp_path / "in")

    assert cascade_of(loaded.snapshot) == loaded


def test_a_prompt_is_what_it_was_on_loading_whatever_became_of_its_file(tmp_path: Path) -> None:
    path = with_prompt(tmp_path)
    loaded = load_cascade(str(path))
    own = tmp_path / "asks" / "own.toml"
    before = own.read_bytes()
    own.write_text('version = "2"\ntext = "Is there roadwork?"\n')

    assert loaded.read("asks/own.toml") == before
    found = load_prompt("asks/own.toml", loaded.folder, "here", loaded.snapshot.files)
    assert found.text == "Roadwork?"
    assert load_cascade(str(path)).hash != loaded.hash


def test_weights_that_changed_since_loading_are_named_with_both_digests(tmp_path: Path) -> None:
    loaded = load_cascade(str(written(tmp_path)))
    tiny, shadow = loaded.tier("one").members
    file = tmp_path.resolve() / "tiny.onnx"
    was = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    loaded.check_weights(tiny)
    loaded.check_weights(shadow)

    file.write_bytes(b"other weights")
    got = hashlib.sha256(b"other weights").hexdigest()[:16]
    where = f"whole: member tiny: model: {file}: changed since the cascade was loaded"
    with pytest.raises(ChangedError, match=f"^{where}: expected {was}, got {got}$"):
        loaded.check_weights(tiny)
    file.unlink()
    with pytest.raises(ChangedError, match=r"got nothing \(No such file or directory\)$"):
        loaded.check_weights(tiny)


def test_bytes_have_the_digest_of_a_file_with_them_also_where_only_samples_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "WHOLE", 2 * weights.MIB)
    for size in (1000, 3 * weights.MIB):
        (tmp_path / "head").write_bytes(data := bytes(i % 251 for i in range(size)))
        assert weights.digest_of_bytes(data) == weights.digest_of(tmp_path / "head")


def test_what_is_found_on_loading_cannot_be_written_into_the_file() -> None:
    text = with_line('description = "all there is"', 'hash = "0123"')
    with pytest.raises(ConfigError, match="got the unknown key hash"):
        parse_cascade(text, "f.toml")


def test_weights_lie_relative_to_the_cascade_file(tmp_path: Path) -> None:
    cascade = load_cascade(str(written(tmp_path)))
    tiny, shadow = cascade.tier("one").members

    assert cascade.model_path(tiny) == tmp_path.resolve() / "tiny.onnx"
    with pytest.raises(ConfigError, match="member shadow: model: expected a weight file"):
        cascade.model_path(shadow)


def test_a_tier_that_does_not_exist_is_named_with_those_that_do() -> None:
    cascade = parse_cascade(WHOLE.encode(), "f.toml")
    with pytest.raises(ConfigError, match="cascade whole: expected a tier of one, two, got three"):
        cascade.tier("three")


def test_lite_ships() -> None:
    assert "lite" in shipped_cascades()
    assert shipped_cascades()["lite"].is_file()
