"""Florence-2 as a reader of signs (Xiao et al. 2024, 2311.06242): what they say, and what it means.

The model writes text token by token, so that a batch takes as many steps as its longest text.
"""

import re
from collections.abc import Hashable, Sequence
from functools import cached_property
from math import exp
from typing import Any

import torch
from torch import Tensor, nn

from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Abstained, Score
from roadstream.stages.rules.signs import Region, SignRules
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.places import config_of
from roadstream.workers.engines.torch.families.processors import processor_of, refuse_fixed
from roadstream.workers.engines.torch.family import Family, Outputs
from roadstream.workers.engines.torch.placement import Placement

TASK = "<OCR_WITH_REGION>"
# Places are told as one of so many steps along a side: across and down for each of four corners.
_STEPS, _CORNERS = 1000, 8
_PLACE = re.compile(r"<loc_(\d{1,3})>")
_OTHERS = re.compile(r"</?(?:s|pad|unk|mask)>|<image>")


class Florence(Family):
    """Log-odds of what the signs in a picture say; it abstains where they say nothing of roadwork.

    The confidence of its boxes is the probability of the text that was read.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        refuse_fixed(checkpoint, settings, "text is written token by token")
        self._rules = SignRules(settings.signs_for, settings.signs_against, settings.sign_odds)

    def identity(self) -> Hashable:
        """What is read depends on how long it may be; members differ in what it means."""
        return self.settings.max_tokens

    @cached_property
    def _processor(self) -> Any:
        return processor_of(self.checkpoint, self.settings)

    @cached_property
    def _text(self) -> Any:
        return config_of(self.checkpoint, self.settings).text_config

    def load(self) -> nn.Module:
        """Return the network, with the question as tokens."""
        from transformers import Florence2ForConditionalGeneration

        module: Any = pretrained(Florence2ForConditionalGeneration, self.checkpoint, self.settings)
        self._ids = self._question()
        found: nn.Module = module
        return found

    def _question(self) -> Tensor:
        """Return the tokens of the question [1, tokens], with a place for each visual token.

        Raises:
            ConfigError: The processor does not know the task, or is made for another size.
        """
        width, height = self.size
        # It has places for the visual tokens of one size; transformers itself is told not to look.
        made = self.checkpoint.preprocessor.get("size")
        if made != {"height": height, "width": width}:
            raise self.checkpoint.damaged(f"width and height of {made}", f"{width} × {height}")
        blank = torch.zeros((3, height, width), dtype=torch.uint8)
        try:
            inputs = self._processor(text=[TASK], images=[blank], return_tensors="pt")
            ids: Tensor = inputs.input_ids
        except Exception as error:  # whatever a processor raises on what it does not know
            raise self.checkpoint.damaged("a processor of Florence-2", error) from error
        return ids

    def settle(self, place: Placement) -> None:
        """Put the question on the device."""
        super().settle(place)
        self._ids = self._ids.to(place.device)

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return tokens [N, settings.max_tokens] and the logarithms of their probabilities."""
        from transformers import LogitsProcessorList

        network: Any = module
        sureness = _Sureness()
        ids = self._ids.expand(len(images), -1)
        written = network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=self.normalised(images),
            max_new_tokens=self.settings.max_tokens,
            num_beams=1,
            do_sample=False,
            early_stopping=False,
            logits_processor=LogitsProcessorList([sureness]),
        )
        # The first token only starts the decoder; it was not written.
        tokens, logprobs = written[:, 1:], torch.stack(sureness.told, 1)
        missing = self.settings.max_tokens - tokens.shape[1]
        return {
            "tokens": nn.functional.pad(tokens, (0, missing), value=self._text.pad_token_id),
            "logprobs": nn.functional.pad(logprobs, (0, missing)),
        }

    def scores(self, outputs: Outputs) -> Sequence[Score | Abstained]:
        """Return what the texts mean."""
        rows = zip(outputs["tokens"], outputs["logprobs"], strict=True)
        return [self._judged([int(t) for t in tokens], told.tolist()) for tokens, told in rows]

    def _judged(self, tokens: Sequence[int], logprobs: Sequence[float]) -> Score | Abstained:
        # Tokens end with the first end, once something was written; what follows only fills up.
        ends = [i for i, token in enumerate(tokens) if token == self._text.eos_token_id]
        length = ends[0] if ends else len(tokens)
        text = self._processor.tokenizer.decode(tokens[:length], skip_special_tokens=False)
        # What the model was made to begin with was not read.
        written = [
            told
            for token, told in zip(tokens[:length], logprobs, strict=False)
            if token != self._text.bos_token_id
        ]
        sureness = exp(sum(written) / max(1, len(written)))
        return self._rules.judge(regions(text, sureness), sureness)


def regions(text: str, sureness: float) -> list[Region]:
    """Return the texts that the model wrote, each with the box around its four corners if told.

    Args:
        text: As decoded, with the tokens of places, and others that are dropped.
        sureness: Confidence of the boxes.
    """
    found: list[Region] = []
    said, steps = "", list[int]()
    # Texts at even positions, steps at odd ones.
    for i, part in enumerate(_PLACE.split(_OTHERS.sub("", text))):
        if i % 2:
            steps.append(int(part))
        elif part.strip():
            found += _region(said, steps, sureness)
            said, steps = part.strip(), []
    return found + _region(said, steps, sureness)


def _region(said: str, steps: Sequence[int], sureness: float) -> list[Region]:
    if not said:
        return []
    if len(steps) < _CORNERS:
        return [Region(said)]
    across, down = ([step / (_STEPS - 1) for step in steps[i:_CORNERS:2]] for i in (0, 1))
    return [Region(said, Box(min(across), min(down), max(across), max(down), sureness, said))]


class _Sureness:
    """Keeps the probability of each token that is written, without keeping all that might be.

    A logits processor: it is shown the final logits of each step, of which the largest is taken.

    Attributes:
        told: Logarithms of the probabilities [N], per step.
    """

    def __init__(self) -> None:
        self.told: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits as they are."""
        del input_ids
        self.told.append(scores.float().log_softmax(-1).amax(-1))
        return scores
