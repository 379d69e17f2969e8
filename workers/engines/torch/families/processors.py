"""Tokenizers and processors that lie beside a checkpoint, loaded locally."""

from typing import Any

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.checkpoint import Checkpoint

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def tokenizer_of(checkpoint: Checkpoint, settings: TorchSettings) -> Any:
    """Return the tokenizer.

    Raises:
        ConfigError: There is none, or it is damaged.
    """
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, "a folder with a tokenizer", checkpoint, settings)


def processor_of(checkpoint: Checkpoint, settings: TorchSettings) -> Any:
    """Return what turns pictures and text into a network's inputs.

    Raises:
        ConfigError: There is none, it is damaged, or a library that it needs is not installed.
    """
    from transformers import AutoProcessor

    return _loaded(AutoProcessor, "a folder with a processor", checkpoint, settings)


def _loaded(kind: Any, expected: str, checkpoint: Checkpoint, settings: TorchSettings) -> Any:
    # Without one of these, transformers makes a tokenizer that knows no word, and says nothing.
    if not any((checkpoint.source / name).is_file() for name in _VOCABULARIES):
        raise checkpoint.damaged(expected, "none of " + ", ".join(_VOCABULARIES))
    try:
        return kind.from_pretrained(
            checkpoint.source,
            local_files_only=True,
            trust_remote_code=settings.trust_remote_code,
        )
    except Exception as error:  # transformers and tokenizers share no base of errors
        raise checkpoint.damaged(expected, error) from error


def refuse_fixed(checkpoint: Checkpoint, settings: TorchSettings, why: str) -> None:
    """Refuse what needs a network whose shapes are fixed by the batch size.

    Raises:
        ConfigError: The settings ask for it.
    """
    for key, asked in (("compile", settings.compile), ("cuda_graphs", settings.cuda_graphs)):
        if asked:
            raise checkpoint.problem(key, f"false, as {why}", "true")
