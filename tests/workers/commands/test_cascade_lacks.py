"""What a machine lacks for a cascade, with what stands in: told without loading any of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.workers.commands.cascade.lacks import gpus, lacks, served
from tests.kits.command import roadstream

NEEDY = """
name = "needy"
[[tiers]]
name = "first"
members = [{ name = "here", engine = "noop" }]
[[tiers]]
name = "t"
members = [
    { name = "cached", engine = "torch", model = "org/cached", gated = true },
    { name = "part", engine = "torch", model = "org/part", settings = { revision = "v1" } },
    { name = "gated", engine = "torch", model = "org/no", gated = true, stand_in = "org/free" },
    { name = "gpu", engine = "torch", model = "org/cached", settings = { device = "cuda:1" } },
    { name = "graphs", engine = "torch", model = "org/cached", settings = { cuda_graphs = true } },
    { name = "large", engine = "vllm", model = "org/cached", settings = { python = "nowhere" } },
]
[[tiers]]
name = "away"
[[tiers.members]]
name = "asked"
engine = "openai"
model = "gpt"
settings = { base_url = "http://user:secret@h/v1", api_key_env = "ROADSTREAM_NO_KEY" }
"""


def cached(folder: Path, model: str, revision: str, *files: str) -> None:
    """Put a model into a hub's cache as the hub's library does."""
    kept = folder / f"models--{model.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / revision).write_text("0123abcd")
    (kept / "snapshots" / "0123abcd").mkdir(parents=True)
    for name in files:
        (kept / "snapshots" / "0123abcd" / name).write_text(
            '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a GPU, a token and the network, and the cascade file."""
    cached(tmp_path / "hub", "org/cached", "main", "config.json", "model.safetensors")
    cached(tmp_path / "hub", "org/part", "v1", "model.safetensors.index.json", "1.safetensors")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    (tmp_path / "c.toml").write_text(NEEDY)
    return tmp_path / "c.toml"


def told(file: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for one in lacks(load_cascade(str(file))):
        if "pip install" not in one.what:  # as this environment has it
            found.setdefault(one.member, []).append((one.what, one.instead))
    return found


def test_what_is_not_here_is_named_with_what_stands_in(machine: Path) -> None:
    found, elsewhere = told(machine), "the engine openai, with a server elsewhere"

    assert list(found) == ["part", "gated", "gpu", "graphs", "large", "asked"]
    (what, instead), *_ = found["part"]
    assert what.startswith(f"the checkpoint org/part in {machine.parent / 'hub'}; `hf download")
    assert instead == "a folder with it beside the file"
    assert [instead for _, instead in found["gated"]] == ["org/free"] * 2
    assert "accepted the licence at https://huggingface.co/org/no" in found["gated"][1][0]
    assert found["gpu"] == [
        ('a CUDA device (device = "cuda:1")', 'device = "auto", slower on a CPU')
    ]
    assert found["graphs"][0][0] == "a CUDA device (cuda_graphs = true)"
    assert [instead for _, instead in found["large"]] == [elsewhere] * 2
    assert "an interpreter that can be run, got nowhere" in found["large"][0][0]
    assert found["asked"] == [
        ("the key of its server, in the environment variable ROADSTREAM_NO_KEY", "")
    ]


def test_with_a_token_only_the_checkpoint_is_lacking(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.parent / "token").write_text("t")
    assert len(told(machine)["gated"]) == 1


def test_a_model_on_a_server_cannot_be_checked_and_its_password_is_not_shown(
    machine: Path,
) -> None:
    assert list(served(load_cascade(str(machine)))) == [
        ("asked", "gpt on the server at http://h/v1")
    ]


def test_devices_are_counted_as_far_as_they_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(tmp_path) == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    assert gpus(tmp_path) == 2
    for visible, count in (("0", 1), ("", 0), ("-1", 0), ("0,1,2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpus(tmp_path) == count


def test_the_command_says_how_to_go_on_without_what_is_not_here(machine: Path) -> None:
    check = ("cascade", "check", "c.toml")
    done = roadstream(*check, folder=machine.parent)
    line = next(one for one in done.stdout.splitlines() if one.startswith("to go on without: "))
    rest = roadstream(*check, *line.partition(": ")[2].split(), folder=machine.parent)

    assert (done.returncode, rest.returncode) == (0, 0)
    assert "lacks: gpu: a CUDA device" in done.stdout
    assert "not checked: asked: gpt on the server at http://h/v1" in done.stdout
    assert rest.stdout.endswith("this machine has all that it needs\n")


def test_a_first_tier_that_cannot_run_here_is_said(machine: Path) -> None:
    member = '{ name = "here", engine = "noop" }'
    other = '{ name = "here", engine = "torch", model = "org/none" }'
    machine.write_text(NEEDY.replace(member, other))

    done = roadstream("cascade", "check", "c.toml", folder=machine.parent)

    assert "it cannot go on without here: the first tier has no other vote" in done.stdout


def test_no_library_of_an_engine_is_imported_for_it(machine: Path) -> None:
    code = (
        "import sys; from roadstream.workers.cli import run; run(sys.argv[1:]);"
        "print([n for n in ('torch', 'transformers', 'vllm', 'httpx', 'tritonclient', 'numba')"
        " if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "cascade", "check", str(machine)],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    assert done.stderr == "[]\n"
