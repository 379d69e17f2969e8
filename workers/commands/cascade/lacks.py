"""What a machine lacks for a cascade, and what may stand in.

No engine is imported for it, and nothing goes over the network.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

from roadstream.schemas.cascade.model import Cascade, Member, is_hub_id
from roadstream.schemas.engines import EngineEntry, engine_named
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.openai import OpenAISettings
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.schemas.settings.vllm import VllmSettings
from roadstream.workers.engines.vllm.process import find_interpreter

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".npz"}


class Lack(NamedTuple):
    """Something that a member needs and this machine has not.

    Attributes:
        member: Name of the member.
        what: What is not there, and how it can be had.
        instead: What may stand in, if something may.
    """

    member: str
    what: str
    instead: str = ""


def lacks(cascade: Cascade) -> list[Lack]:
    """Return what this machine lacks for a cascade's members."""
    found: list[Lack] = []
    for tier in cascade.tiers:
        if tier.fusion is not None and not _installed("numba"):
            what = "numba, which fuses boxes (pip install 'roadstream[fusion]')"
            found += [Lack(member.name, what, "no fusion in the tier") for member in tier.fused]
        for member in tier.members:
            found += [_of(member, *one) for one in _of_member(cascade, member)]
    return found


def served(cascade: Cascade) -> Iterator[tuple[str, str]]:
    """Yield members that run on servers, and where: nobody can tell from here what those have."""
    for tier in cascade.tiers:
        for member in tier.members:
            settings = member.settings
            url = getattr(settings, "base_url", None) or getattr(settings, "url", None)
            if engine_named(member.engine).model == "server":
                at = "" if url is None else f" at {re.sub('//[^/@]*@', '//', str(url))}"
                yield member.name, f"{member.model} on the server{at}"


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


def _of(member: Member, what: str, instead: str) -> Lack:
    return Lack(member.name, what, member.stand_in or instead)


def _of_member(cascade: Cascade, member: Member) -> Iterator[tuple[str, str]]:
    """Yield what a member lacks, and what stands in unless its file knows better."""
    engine, settings = engine_named(member.engine), member.settings
    yield from _modules(engine)
    if isinstance(settings, TorchSettings):
        yield from _of_torch(settings)
    elif isinstance(settings, VllmSettings):
        yield from _of_vllm(settings)
    elif isinstance(settings, OpenAISettings):
        key = settings.api_key_env
        if key is not None and not os.environ.get(key):
            yield f"the key of its server, in the environment variable {key}", ""
    elif isinstance(settings, TritonSettings):
        yield from _files(cascade, [settings.ca, settings.certificate, settings.key])
    if is_hub_id(member) and not Path(cascade.folder, member.model or "").exists():
        yield from _checkpoint(member, getattr(settings, "revision", None) or "main")


def _modules(engine: EngineEntry) -> Iterator[tuple[str, str]]:
    missing = [one for one in engine.modules if not _installed(one.partition(".")[0])]
    if missing:
        yield f"{', '.join(missing)} (pip install 'roadstream[{engine.extra}]')", ""


def _of_torch(settings: TorchSettings) -> Iterator[tuple[str, str]]:
    count = gpus()
    if settings.family == "ultralytics" and not _installed("ultralytics"):
        yield "ultralytics (pip install 'roadstream[ultralytics]')", ""
    _, _, number = settings.device.partition(":")
    if settings.device.startswith("cuda") and count <= int(number or 0):
        yield f'a CUDA device (device = "{settings.device}")', 'device = "auto", slower on a CPU'
    elif settings.cuda_graphs and not count:
        yield "a CUDA device (cuda_graphs = true)", "cuda_graphs = false, slower on a CPU"


def _of_vllm(settings: VllmSettings) -> Iterator[tuple[str, str]]:
    elsewhere = "the engine openai, with a server elsewhere"
    try:
        find_interpreter(settings.python, "settings")
    except ConfigError as error:
        said = (
            f"vLLM ({error})" if settings.python else "vLLM (docs/guide/vllm.md says how to get it)"
        )
        yield said, elsewhere
    count, wanted = gpus(), settings.tensor_parallel_size
    if count < wanted and settings.cpu_threads is None:
        kind = "a CUDA device" if wanted == 1 else f"{wanted} CUDA devices (there are {count})"
        yield f"{kind}, unless its vLLM is one for CPUs", elsewhere


def _files(cascade: Cascade, names: list[str | None]) -> Iterator[tuple[str, str]]:
    for name in filter(None, names):
        if not Path(cascade.folder, name).is_file():
            yield f"the file {name}", ""


def _checkpoint(member: Member, revision: str) -> Iterator[tuple[str, str]]:
    model, cache = member.model or "", hub_cache()
    if _is_cached(cache / f"models--{model.replace('/', '--')}", revision):
        return
    fetched = f"`hf download {model}` or the first start fetches it"
    yield f"the checkpoint {model} in {cache}; {fetched}", "a folder with it beside the file"
    if member.gated and not _has_token():
        accepted = f"whose owner has accepted the licence at https://huggingface.co/{model}"
        yield f"a token of the hub (HF_TOKEN, or `hf auth login`) {accepted}", ""


def _is_cached(folder: Path, revision: str) -> bool:
    """Tell whether a checkpoint is in the hub's cache, all parts of its weights included."""
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        commit = revision
    snapshot = folder / "snapshots" / commit
    files = [path for path in snapshot.rglob("*") if path.exists()]
    parts: set[str] = set()
    for index in snapshot.glob("*.safetensors.index.json"):
        try:
            listed = msgspec.json.decode(index.read_bytes())
            parts |= set(listed["weight_map"].values())
        except (OSError, msgspec.DecodeError, TypeError, KeyError, AttributeError):
            return False
    there = {path.name for path in files}
    return parts <= there and any(path.suffix in _WEIGHTS for path in files)


def hub_cache() -> Path:
    """Return where the hub's libraries keep what they have fetched."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if at := os.environ.get(name):
            return Path(at).expanduser()
    return _hub_home() / "hub"


def _hub_home() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or Path(home, "huggingface")).expanduser()


def _has_token() -> bool:
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    return Path(os.environ.get("HF_TOKEN_PATH") or _hub_home() / "token").expanduser().is_file()


def gpus(devices: Path = Path("/dev")) -> int:
    """Return how many devices for CUDA or ROCm this process may use, by what the system shows.

    Args:
        devices: Folder of the system's devices.
    """
    found = len(list(devices.glob("nvidia[0-9]*")))
    if not found:  # those of AMD, and of Windows' subsystem for Linux, are behind one file
        found = int(any((devices / name).exists() for name in ("kfd", "dxg")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    chosen = [one for one in visible.split(",") if one.strip() not in ("", "-1")]
    return min(found, len(chosen))
