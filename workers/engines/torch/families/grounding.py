"""Grounding DINO (2303.05499) and MM Grounding DINO (2401.02361): boxes for texts.

Texts and picture are fused from the first layer of the encoder on, so that runs for each picture.
The text encoder (BERT) does not see the picture: it runs once, on loading, and is not kept.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.places import Finder, check_length, held_against
from roadstream.workers.engines.torch.families.processors import tokenizer_of

# Between what phrases are, in the texts that it was trained on.
_MARKS = (".", "?")
_TYPES = ("grounding-dino", "mm-grounding-dino")


class Phrases(NamedTuple):
    """Texts as the network reads them.

    Attributes:
        tokens: Token ids [T].
        spans: First token of each text, and the one after its last.
        seen: Which tokens see which [T, T]: those of one text, its mark included, each other.
        positions: Of each token in its text [T].
    """

    tokens: list[int]
    spans: list[tuple[int, int]]
    seen: list[list[bool]]
    positions: list[int]

    @classmethod
    def of(cls, tokens: list[int], marks: set[int]) -> "Phrases":
        """Return the texts between marks; the first and the last token are the tokenizer's own.

        Transformers 5.19 and 5.23 count a mark as the first token of its text, and round what they
        make of positions to whole numbers (its issue 47674); this is what the networks were trained
        with.
        """
        count = len(tokens)
        seen = [[i == j for j in range(count)] for i in range(count)]
        positions, spans, begin = [0] * count, [], 1
        for mark in range(1, count - 1):
            if tokens[mark] not in marks:
                continue
            for i in range(begin, mark + 1):
                positions[i] = i - begin
                seen[i][begin : mark + 1] = [True] * (mark + 1 - begin)
            if mark > begin:
                spans.append((begin, mark))
            begin = mark + 1
        return cls(tokens, spans, seen, positions)


class Grounder(nn.Module):
    """The network without its text encoder, for one list of texts.

    It does what ``GroundingDinoForObjectDetection`` of transformers does, part by part with that
    class's own parts, but neither encodes the texts again nor waits for the device.

    Args:
        model: The whole network; it is taken apart.
        tokens: Token ids [1, T].
        seen: Which tokens see which, bool [1, T, T].
        positions: Of tokens in their texts [1, T].
    """

    def __init__(self, model: Any, tokens: Tensor, seen: Tensor, positions: Tensor) -> None:
        super().__init__()
        core = model.model
        with torch.no_grad():
            read = core.text_backbone(
                tokens, seen[:, None], torch.zeros_like(tokens), positions.long()
            )
            text = core.text_projection(read.last_hidden_state)
        del core.text_backbone, core.text_projection
        self.core, self.classes, self.boxes = core, model.class_embed[-1], model.bbox_embed[-1]
        self.text: Tensor
        self.unseen: Tensor
        self.positions: Tensor
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("unseen", ~seen, persistent=False)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-odds [N, queries, T] of each token, and boxes [N, queries, 4].

        Args:
            pixels: Normalised, [N, 3, height, width].
        """
        maps = self._maps(pixels)
        state = self._encoded(*maps)
        text, there = state["text_encoder_hidden_states"], ~state["text_encoder_attention_mask"]
        found = self.core.decoder(**state, **self._queries(state, text, there), return_dict=True)
        hidden = found.intermediate_hidden_states[:, -1]
        before = found.intermediate_reference_points[:, -2]
        boxes = (self.boxes(hidden) + torch.logit(before, eps=1e-5)).sigmoid()
        return self.classes(hidden, text, there)[..., : text.shape[1]], boxes

    def _maps(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return feature maps of all levels, and the embeddings of their places."""
        core, count = self.core, len(pixels)
        whole = torch.ones(count, *pixels.shape[2:], dtype=torch.long, device=pixels.device)
        features, places = core.backbone(pixels, whole)
        maps = [core.input_proj_vision[i](source) for i, (source, _) in enumerate(features)]
        for i in range(len(maps), core.config.num_feature_levels):
            maps.append(
                core.input_proj_vision[i](features[-1][0] if i == len(features) else maps[-1])
            )
            all_of_it = maps[-1].new_ones(count, *maps[-1].shape[2:], dtype=torch.bool)
            places.append(core.backbone.position_embedding(maps[-1], all_of_it))
        return maps, places

    def _encoded(self, maps: list[Tensor], places: list[Tensor]) -> dict[str, Any]:
        """Return what the decoder is given of the picture and the texts, fused."""
        core, count, device = self.core, len(maps[0]), maps[0].device
        listed = [(one.shape[2], one.shape[3]) for one in maps]
        shapes = torch.empty(len(maps), 2, dtype=torch.long, device=device)
        for i, (height, width) in enumerate(listed):
            shapes[i, 0], shapes[i, 1] = height, width
        area = shapes.prod(1)
        flat = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], 1)
        where = [
            one.flatten(2).transpose(1, 2) + core.level_embed[i] for i, one in enumerate(places)
        ]
        text = self.text.expand(count, -1, -1)
        blank = torch.zeros(flat.shape[:2], dtype=torch.bool, device=device)
        absent = torch.zeros(text.shape[:2], dtype=torch.bool, device=device)
        levels: dict[str, Any] = {
            "spatial_shapes": shapes,
            "spatial_shapes_list": listed,
            "level_start_index": area.cumsum(0) - area,
            "valid_ratios": torch.ones(count, len(maps), 2, device=device),
        }
        fused = core.encoder(
            vision_features=flat,
            vision_attention_mask=blank,
            vision_position_embedding=torch.cat(where, 1),
            text_features=text,
            text_attention_mask=absent,
            text_self_attention_masks=self.unseen.expand(count, -1, -1),
            text_position_ids=self.positions.expand(count, -1),
            return_dict=True,
            **levels,
        )
        return {
            **levels,
            "vision_encoder_hidden_states": fused.last_hidden_state_vision,
            "vision_encoder_attention_mask": ~blank,
            "text_encoder_hidden_states": fused.last_hidden_state_text,
            "text_encoder_attention_mask": absent,
        }

    def _queries(self, state: dict[str, Any], text: Tensor, there: Tensor) -> dict[str, Tensor]:
        """Return the places of the picture that suit the texts best, which the decoder looks at."""
        core = self.core
        vision, whole = (
            state["vision_encoder_hidden_states"],
            state["vision_encoder_attention_mask"],
        )
        found, proposals = core.generate_encoder_output_proposals(
            vision, ~whole, state["spatial_shapes_list"]
        )
        likely = core.encoder_output_class_embed(found, text, there).amax(2)
        best = likely.topk(core.config.num_queries, dim=1).indices
        boxes = core.encoder_output_bbox_embed(found) + proposals
        start = boxes.gather(1, best.unsqueeze(2).expand(-1, -1, 4)).sigmoid()
        asked = core.query_position_embeddings.weight
        return {"inputs_embeds": asked.expand(len(vision), -1, -1), "reference_points": start}


class Grounding(Finder):
    """A detector of what is told in words.

    A text's log-odds at a place are those of its likeliest token. The score is that of the
    likeliest of ``prompts`` at the likeliest place. Where one of ``other_prompts`` suits a place
    better, it counts by so much less, and no box is told. Texts are put in lower case, as in
    training.
    """

    exclusive = True
    takes_concepts = True

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        if self.config.model_type not in _TYPES:
            raise checkpoint.damaged(f"a model_type of {', '.join(_TYPES)}", self.config.model_type)
        if not settings.prompts:
            raise checkpoint.problem("prompts", "texts that mean roadwork", "nothing")
        self._names = [*settings.prompts, *settings.other_prompts]
        self._phrases = self._read()

    def _read(self) -> Phrases:
        for key in ("prompts", "other_prompts"):
            for one in getattr(self.settings, key):
                if any(mark in one for mark in _MARKS) or not one.strip():
                    raise self.checkpoint.problem(key, "texts without '.' and '?'", repr(one))
        tokenizer = tokenizer_of(self.checkpoint, self.settings)
        text = ". ".join(one.strip().lower() for one in self._names) + "."
        tokens = list(tokenizer(text)["input_ids"])
        check_length(self.checkpoint, "prompts", tokens, self.config.max_text_len, text)
        marks = set(tokenizer.convert_tokens_to_ids(list(_MARKS)))
        phrases = Phrases.of(tokens, marks)
        if len(phrases.spans) != len(self._names):
            raise self.checkpoint.damaged(
                f"a tokenizer that finds {len(self._names)} texts in {text!r}",
                f"{len(phrases.spans)} texts",
            )
        return phrases

    @property
    def names(self) -> Sequence[str]:
        """All texts."""
        return self._names

    @property
    def chosen(self) -> Sequence[int]:
        """Those that mean roadwork."""
        return range(len(self.settings.prompts))

    def identity(self) -> tuple[int, tuple[str, ...]]:
        """What is where depends on the texts, which are fused with the picture."""
        return len(self.settings.prompts), tuple(self._names)

    def load(self) -> nn.Module:
        """Return the network, the texts read."""
        from transformers import AutoModelForZeroShotObjectDetection

        model = pretrained(AutoModelForZeroShotObjectDetection, self.checkpoint, self.settings)
        tokens, _, seen, positions = self._phrases
        return Grounder(
            model, torch.tensor([tokens]), torch.tensor([seen]), torch.tensor([positions]).float()
        ).eval()

    def found(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return log-odds of each text and box of each query."""
        tokens, boxes = module(self.normalised(images))
        texts = torch.stack([tokens[..., a:b].amax(2) for a, b in self._phrases.spans], 2)
        texts = held_against(texts.float(), len(self.settings.prompts))
        return {"logits": texts, "boxes": boxes}
