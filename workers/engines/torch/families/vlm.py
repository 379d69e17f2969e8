"""Vision-language models asked for YES or NO, where they are small enough to need no vLLM.

One forward pass per picture: the answer is read from the probabilities of the next token. All that
transformers loads as a model for pictures and text can be asked, if its chat template is there.
"""

from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from roadstream.schemas.errors import EngineError
from roadstream.schemas.settings.prompts import Prompt, load_prompt
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Abstained, Score
from roadstream.stages.rules.yes_no import (
    AnswerTokens,
    AnswerWords,
    answer_tokens,
    decided,
    read_tokens,
)
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.processors import processor_of, refuse_fixed
from roadstream.workers.engines.torch.family import Family, Outputs
from roadstream.workers.engines.torch.placement import Placement


class Vlm(Family):
    """Log-odds of YES over NO; it abstains where too much of the probability is on neither.

    The prompts and the arithmetic are those of the ``vllm`` engine. A model that reasons before it
    answers cannot be asked here.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        refuse_fixed(checkpoint, settings, "its shapes follow the picture's on the host")
        where = f"{checkpoint.where}: settings.prompt"
        if settings.prompt is None:
            raise checkpoint.problem("prompt", "a prompt, such as active-roadwork", "nothing")
        cascade = checkpoint.cascade
        files = cascade.snapshot.files
        self._prompt = load_prompt(settings.prompt, cascade.folder, where, files)

    def identity(self) -> Hashable:
        """The answer depends on the question; members differ in what they let pass."""
        return msgspec.json.encode((self._prompt, self.settings.template))

    @cached_property
    def _processor(self) -> Any:
        return processor_of(self.checkpoint, self.settings)

    @cached_property
    def _answers(self) -> AnswerTokens:
        words = AnswerWords(
            tuple(word.casefold() for word in self._prompt.yes),
            tuple(word.casefold() for word in self._prompt.no),
        )
        try:
            return answer_tokens(self._processor.tokenizer.get_vocab(), words)
        except EngineError as error:
            raise self.checkpoint.damaged("a tokenizer that can answer", error) from error

    def load(self) -> nn.Module:
        """Return the network, with the question as tokens."""
        from transformers import AutoModelForImageTextToText

        module: nn.Module = pretrained(AutoModelForImageTextToText, self.checkpoint, self.settings)
        self._ask()
        return module

    def _ask(self) -> None:
        """Keep the question's tokens: pictures of one size take the same ones, whatever they show.

        Raises:
            ConfigError: There is no chat template, or the processor does not take what it makes.
        """
        width, height = self.size
        blank = [[torch.zeros((3, height, width), dtype=torch.uint8)]]
        try:
            text = self._processor.apply_chat_template(
                messages(self._prompt),
                tokenize=False,
                add_generation_prompt=True,
                **self.settings.template,
            )
            inputs = self._processor(text=[text], images=blank, return_tensors="pt")
            pictures = self._processor.image_processor(images=blank, return_tensors="pt")
        except Exception as error:  # templates and processors share no base of errors
            raise self.checkpoint.damaged("a processor with a chat template", error) from error
        self._question: dict[str, Tensor] = {
            key: value for key, value in inputs.items() if key not in pictures
        }
        self._seen = [key for key in inputs if key in pictures]

    def settle(self, place: Placement) -> None:
        """Put the question on the device."""
        super().settle(place)
        self._question = {key: value.to(place.device) for key, value in self._question.items()}
        self._ids = torch.tensor(self._answers.ids, device=place.device)

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return log-probabilities of the tokens that spell an answer [N, tokens]."""
        found = module(
            **{key: self._repeated(value, len(images)) for key, value in self._question.items()},
            **self._pictures(images),
            use_cache=False,
            logits_to_keep=1,
        )
        logprobs = found.logits[:, -1].float().log_softmax(-1)
        return {"logprobs": logprobs[:, self._ids]}

    def _pictures(self, images: Tensor) -> dict[str, Tensor]:
        """Return pictures as the model's own processor makes them, on the device."""
        planes = images.permute(0, 3, 1, 2)
        made = self._processor.image_processor(
            images=[[one] for one in planes], return_tensors="pt", device=images.device
        )
        dtype = self.place.dtype
        return {
            key: made[key].to(images.device, dtype if made[key].is_floating_point() else None)
            for key in self._seen
        }

    @staticmethod
    def _repeated(value: Tensor, count: int) -> Tensor:
        return value.expand(count, *value.shape[1:])

    def scores(self, outputs: Outputs) -> Sequence[Score | Abstained]:
        """Return the log-odds of roadwork."""
        ids = self._answers.ids
        return [
            decided(
                read_tokens(dict(zip(ids, row, strict=True)), self._answers), self.settings.max_leak
            )
            for row in outputs["logprobs"].tolist()
        ]


def messages(prompt: Prompt) -> list[dict[str, Any]]:
    """Return the question about one picture, as chat templates take it."""
    text: dict[str, str] = {"type": "text", "text": prompt.question(1)}
    parts = [text, {"type": "image"}]
    if prompt.order == "images_first":
        parts.reverse()
    asked: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if prompt.system:
        told = [{"type": "text", "text": prompt.system}]
        asked.insert(0, {"role": "system", "content": told})
    return asked
