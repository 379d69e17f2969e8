"""SAM 3: whether what a text names is in a picture, and where (Carion et al. 2025, 2511.16719).

Texts are embedded once, on loading, and the text tower is dropped. A picture goes through the
vision tower once, whatever the number of texts. Masks are not made: a vote carries boxes.

Boxes that earlier tiers found can stand behind a text as examples of what it means.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.base import EvidenceKind
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Pictures, Score
from roadstream.stages.rules.signs import letters
from roadstream.stages.voting.evidence import strongest
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.places import config_of
from roadstream.workers.engines.torch.families.processors import refuse_fixed, tokenizer_of
from roadstream.workers.engines.torch.family import Family, Inputs, Outputs
from roadstream.workers.engines.torch.placement import Placement
from roadstream.workers.engines.torch.scoring import Floats, log_odds


class Sam(Family):
    """Log-odds of the likeliest object of any prompt: ``σ(object) · σ(presence)``.

    Presence is the model's own estimate that what the prompt names is in the picture at all.
    """

    takes_concepts = True
    takes_others = False
    takes_evidence: tuple[EvidenceKind, ...] = ("boxes",)

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        if not settings.prompts:
            raise checkpoint.problem("prompts", "texts that mean roadwork", "nothing")
        if settings.other_prompts:
            expected = "nothing, as SAM 3 tells by itself whether a text fits"
            raise checkpoint.problem("other_prompts", expected, settings.other_prompts[0])
        self._meant = [_words(text) for text in settings.prompts]
        refuse_fixed(checkpoint, settings, "its position encodings are made on the host")
        width, height = size
        if width != height:
            raise checkpoint.damaged("width and height to be equal", f"{width} × {height}")

    def identity(self) -> Hashable:
        """What is found depends on the prompts, and on the examples that are given."""
        settings = self.settings
        chosen = (settings.max_exemplars, settings.min_exemplar_confidence)
        return tuple(settings.prompts), chosen if settings.evidence else None

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

    def inputs(self, batch: Pictures) -> Inputs:
        """Return the examples of each text: boxes [N, texts, most, 4] and how many [N, texts].

        A box is its centre, width and height as shares of the picture's sides.
        """
        if not self.settings.evidence:
            return {}
        texts, most = len(self.settings.prompts), self.settings.max_exemplars
        boxes = np.zeros((len(batch), texts, most, 4), np.float32)
        counts = np.zeros((len(batch), texts), np.int64)
        for i, picture in enumerate(batch):
            for box in self._sure(picture.evidence.boxes):
                said = _words(box.label)
                for j, meant in enumerate(self._meant):
                    # SAM 3 was trained with examples of what the text means, and of nothing else.
                    if counts[i, j] < most and (said <= meant or meant <= said):
                        boxes[i, j, counts[i, j]] = _centred(box)
                        counts[i, j] += 1
        return {"examples": boxes, "counts": counts}

    def _sure(self, boxes: Sequence[Box]) -> list[Box]:
        """Return the boxes that may be examples, the strongest first."""
        least = self.settings.min_exemplar_confidence
        return [box for box in strongest(boxes) if box.confidence >= least]

    def forward(
        self,
        module: nn.Module,
        images: Tensor,
        examples: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return per text: presence [N, texts], objects [N, texts, queries] and their boxes."""
        network: Any = module
        seen = network.get_vision_features(self.normalised(images))
        per_text = []
        for i in range(len(self._texts)):
            asked = self._text(i, len(images))
            if examples is not None and counts is not None:
                asked = self._with_examples(asked, network, seen, examples[:, i], counts[:, i])
            per_text.append(_held_against(network, seen, asked))
        return {
            "presence": torch.stack([one.presence_logits[:, 0] for one in per_text], 1),
            "objects": torch.stack([one.pred_logits for one in per_text], 1),
            "boxes": torch.stack([one.pred_boxes for one in per_text], 1),
        }

    def _text(self, text: int, count: int) -> "_Asked":
        features = self._texts[text : text + 1].expand(count, -1, -1)
        return _Asked(features, self._masks[text : text + 1].expand(count, -1))

    def _with_examples(
        self, asked: "_Asked", network: Any, seen: Any, boxes: Tensor, counts: Tensor
    ) -> "_Asked":
        """Return a text with examples behind it, as the model itself does it.

        Args:
            asked: The text, once per picture.
            network: For its encoder of boxes.
            seen: What its vision tower saw.
            boxes: [N, most, 4], the first of each picture real.
            counts: [N], how many of them are.
        """
        real = torch.arange(boxes.shape[1], device=counts.device) < counts[:, None]
        encoded = network.geometry_encoder(
            box_embeddings=boxes.to(self.place.dtype),
            box_mask=real,
            box_labels=real.long(),  # 1: of what is looked for
            img_feats=seen.fpn_hidden_states[:-1],
            img_pos_embeds=seen.fpn_position_encoding[:-1],
        )
        # Behind the boxes stands a token of the encoder's own, which nobody who gives no box sees.
        given = encoded.attention_mask & (counts > 0)[:, None]
        return _Asked(
            torch.cat([asked.features, encoded.last_hidden_state], 1),
            torch.cat([asked.mask, given], 1),
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


class _Asked(NamedTuple):
    """What a picture is held against: features [N, tokens, width], and a mask of those that are."""

    features: Tensor
    mask: Tensor


def _held_against(network: Any, seen: Any, asked: _Asked) -> Any:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return network(
        vision_embeds=seen,
        text_embeds=BaseModelOutputWithPooling(pooler_output=asked.features),
        attention_mask=asked.mask,
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(letters(text).split())


def _centred(box: Box) -> tuple[float, float, float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.x2 - box.x1, box.y2 - box.y1


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
