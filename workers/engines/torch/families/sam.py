"""SAM 3: whether what a text names is in a picture, and where (Carion et al. 2025, 2511.16719).

Texts are embedded once, on loading, and the text tower is dropped. A picture goes through the
vision tower once, whatever the number of texts. Masks are not made: a vote carries boxes.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Score
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.places import config_of
from roadstream.workers.engines.torch.families.processors import refuse_fixed, tokenizer_of
from roadstream.workers.engines.torch.family import Family, Outputs
from roadstream.workers.engines.torch.placement import Placement
from roadstream.workers.engines.torch.scoring import Floats, log_odds


class Sam(Family):
    """Log-odds of the likeliest object of any prompt: ``σ(object) · σ(presence)``.

    Presence is the model's own estimate that what the prompt names is in the picture at all.
    """

    takes_concepts = True
    takes_others = False

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        if not settings.prompts:
            raise checkpoint.problem("prompts", "texts that mean roadwork", "nothing")
        if settings.other_prompts:
            expected = "nothing, as SAM 3 tells by itself whether a text fits"
            raise checkpoint.problem("other_prompts", expected, settings.other_prompts[0])
        refuse_fixed(checkpoint, settings, "its position encodings are made on the host")
        width, height = size
        if width != height:
            raise checkpoint.damaged("width and height to be equal", f"{width} × {height}")

    def identity(self) -> Hashable:
        """What is found depends on the prompts."""
        return tuple(self.settings.prompts)

    def load(self) -> nn.Module:
        """Return the image model without text tower and masks."""
        from transformers import Sam3Model

        module: Any = pretrained(
            Sam3Model, self.checkpoint, self.settings, config=self._configuration()
        )
        self._embed(module)
        module.text_encoder = None
        module.mask_decoder = _NoMasks()
        found: nn.Module = module
        return found

    def _configuration(self) -> Any:
        """Return the configuration for pictures of the member's size.

        Raises:
            ConfigError: It is damaged, or the size does not fit.
        """
        config = config_of(self.checkpoint, self.settings)
        try:
            # The position encodings are computed from it; no weight depends on it.
            config.image_size = self.size[0]
            detector = getattr(config, "detector_config", config)
            patch = int(detector.vision_config.backbone_config.patch_size)
        except (AttributeError, TypeError) as error:
            raise self.checkpoint.damaged("a config.json of SAM 3", error) from error
        if self.size[0] % patch:
            width, height = self.size
            raise self.checkpoint.damaged(
                f"width and height in steps of {patch}", f"{width} × {height}"
            )
        return config

    def _embed(self, module: Any) -> None:
        """Keep the prompts' embeddings [texts, tokens, width] and which tokens are theirs.

        Raises:
            ConfigError: There is no tokenizer, or a text is too long.
        """
        tokenizer = tokenizer_of(self.checkpoint, self.settings)
        longest = module.config.text_config.max_position_embeddings
        for text, ids in zip(
            self.settings.prompts, tokenizer(self.settings.prompts).input_ids, strict=True
        ):
            if len(ids) > longest:
                got = f"{len(ids)} in {text!r}"
                raise self.checkpoint.problem("prompts", f"at most {longest} tokens each", got)
        tokens = tokenizer(
            self.settings.prompts, padding="max_length", max_length=longest, return_tensors="pt"
        )
        with torch.inference_mode():
            embedded = module.get_text_features(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
            )
        self._texts, self._masks = embedded.pooler_output.clone(), tokens.attention_mask.bool()

    def settle(self, place: Placement) -> None:
        """Put the texts on the device."""
        super().settle(place)
        self._texts = self._texts.to(place.device, place.dtype)
        self._masks = self._masks.to(place.device)

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return per text: presence [N, texts], objects [N, texts, queries] and their boxes."""
        network: Any = module
        seen = network.get_vision_features(self.normalised(images))
        per_text = [
            self._held_against(network, seen, i, len(images)) for i in range(len(self._texts))
        ]
        return {
            "presence": torch.stack([one.presence_logits[:, 0] for one in per_text], 1),
            "objects": torch.stack([one.pred_logits for one in per_text], 1),
            "boxes": torch.stack([one.pred_boxes for one in per_text], 1),
        }

    def _held_against(self, network: Any, seen: Any, text: int, count: int) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        features = self._texts[text : text + 1].expand(count, -1, -1)
        return network(
            vision_embeds=seen,
            text_embeds=BaseModelOutputWithPooling(pooler_output=features),
            attention_mask=self._masks[text : text + 1].expand(count, -1),
        )

    def scores(self, outputs: Outputs) -> Sequence[Score]:
        """Return the log-odds of roadwork, and the objects' boxes."""
        found = _sigmoid(outputs["objects"]) * _sigmoid(outputs["presence"])[:, :, None]
        raws = log_odds(found.max(axis=(1, 2)))
        return [
            Score(raw, self._boxes(likely, boxes))
            for raw, likely, boxes in zip(raws, found, outputs["boxes"], strict=True)
        ]

    def _boxes(self, likely: NDArray[np.float64], boxes: NDArray[np.float32]) -> list[Box]:
        """Return the strongest boxes of a picture.

        Args:
            likely: [texts, queries].
            boxes: [texts, queries, 4], corners as shares of the picture's sides.
        """
        order = np.argsort(-likely, axis=None)[: self.settings.max_boxes]
        texts, queries = np.unravel_index(order, likely.shape)
        corners = np.clip(boxes[texts, queries], 0.0, 1.0).tolist()
        return [
            Box(x1, y1, x2, y2, confidence, self.settings.prompts[text])
            for (x1, y1, x2, y2), confidence, text in zip(
                corners, likely[texts, queries].tolist(), texts, strict=True
            )
            if confidence >= self.settings.min_confidence
        ]


class _NoMasks(nn.Module):
    """Stands where masks are made, at 1/4 of the picture's size for each query of each text."""

    def forward(self, **given: Any) -> Any:
        """Return none."""
        from transformers.models.sam3.modeling_sam3 import Sam3MaskDecoderOutput

        del given
        return Sam3MaskDecoderOutput()


def _sigmoid(logits: Floats) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64)))
    return found
