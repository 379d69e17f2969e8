"""Prompts of vision-language models: TOML files with a version of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from roadstream.schemas.cascade.structure import Reader, decode_toml
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.named_files import NONE_READ, read_named

Text = Annotated[str, Meta(min_length=1, max_length=20_000)]
Word = Annotated[str, Meta(pattern=r"^\S{1,32}$")]
Version = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]


class Prompt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a vision-language model is asked.

    Attributes:
        version: Changes with every change of a word; shown in every vote.
        text: The question, for one picture.
        sequence: The question for several pictures, of which the last counts; ``{frames}`` stands
            for their number. Without it, ``text`` is asked of them too.
        system: What the model is told before; nothing if empty.
        order: Whether the text stands before the pictures or after them. What is the same for all
            pictures is computed once if it stands first.
        yes: Words that mean roadwork, in any case.
        no: Words that mean none.
        name: Filled on loading: the file's name without its suffix.
    """

    version: Version
    text: Text
    sequence: str = ""
    system: str = ""
    order: Literal["text_first", "images_first"] = "text_first"
    yes: Annotated[list[Word], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["yes"])
    no: Annotated[list[Word], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["no"])
    name: str = ""

    @property
    def tag(self) -> str:
        """Name and version, as votes show them."""
        return f"{self.name}@{self.version}"

    def question(self, frames: int) -> str:
        """Return what is asked of so many pictures."""
        asked = self.sequence if frames > 1 and self.sequence else self.text
        return asked.strip().replace("{frames}", str(frames))

    def in_one_turn(self) -> "Prompt":
        """Return it with what the model is told before put before each of its questions."""
        text, sequence = (
            f"{self.system}\n\n{asked.strip()}" if self.system and asked else asked
            for asked in (self.text, self.sequence)
        )
        return msgspec.structs.replace(self, text=text, sequence=sequence, system="")


def load_prompt(
    name: str, folder: str | Path, where: str, files: Mapping[str, bytes] = NONE_READ
) -> Prompt:
    """Load a prompt by the name of a shipped one, or by path.

    Args:
        name: As the member's settings say.
        folder: What a path is relative to: the cascade file's folder.
        where: The setting, for errors.
        files: What was read already, by its name; it is not read again.

    Raises:
        ConfigError: It is not there, is not TOML, or does not say what a prompt says.
    """
    data, path = read_named("prompts", name, folder, where, files)
    prompt, mistakes = read_prompt(data, path)
    if mistakes:
        raise mistakes[0]
    return prompt


def read_prompt(data: bytes, path: Path) -> tuple[Prompt, list[ConfigError]]:
    """Return what a prompt file says, and all that is wrong with it.

    Args:
        data: Its bytes.
        path: Where it lies.

    Raises:
        ConfigError: It is no TOML.
    """
    reader = Reader(str(path), "prompt")
    prompt: Prompt = reader.read(decode_toml(data, str(path)), Prompt)
    if reader.mistakes:
        return prompt, reader.mistakes
    both = {word.casefold() for word in prompt.yes} & {word.casefold() for word in prompt.no}
    told = ", ".join(sorted(both))
    wrong = [ConfigError(f"{path}: no", "words that are not among yes", told)] if both else []
    return msgspec.structs.replace(prompt, name=path.stem), wrong
