"""OWLv2 (2306.09683): boxes for texts, and for what looks like an example picture.

Texts and examples are embedded once, on loading; only the image tower runs on pictures, and members
with other texts share it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadstream.schemas.errors import ConfigError, ImageError
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.decoding.decode import decode, resize
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.places import (
    Finder,
    Strongest,
    check_length,
    held_against,
)
from roadstream.workers.engines.torch.families.processors import tokenizer_of


class Asked(nn.Module):
    """What a member asks of the places that the image tower has found.

    Args:
        queries: Embeddings of length 1 [queries, width]: those that mean roadwork first.
        strongest: Picks the places that are told.
        meant: Number of queries that mean roadwork.
    """

    def __init__(self, queries: Tensor, strongest: Strongest, meant: int) -> None:
        super().__init__()
        self._strongest, self._meant = strongest, meant
        self.queries: Tensor
        self.register_buffer("queries", queries, persistent=False)

    def forward(
        self, seen: Tensor, shift: Tensor, scale: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        """Return what `Strongest` does, from embeddings and boxes of places."""
        logits = (seen @ self.queries.T + shift) * scale
        found: dict[str, Tensor] = self._strongest(held_against(logits, self._meant), boxes)
        return found


class Owl(Finder):
    """A detector of what is told in words or shown by example.

    The score is the log-odds of the likeliest of ``prompts`` and ``examples`` at the likeliest
    place. Where one of ``other_prompts`` suits a place better, it counts by so much less, and no
    box is told.

    A picture is put into the upper left corner of a black square, as in training: the member's
    width or height, whichever is larger, is the square's side.
    """

    exclusive = True
    takes_concepts = True

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        if not settings.prompts and not settings.examples:
            raise checkpoint.problem("prompts", "texts that mean roadwork, or examples", "nothing")
        self._side = max(size)
        patch = int(self.config.vision_config.patch_size)
        if self._side % patch:
            raise self.bad_size(f"the larger of them as a multiple of {patch}")
        shown = [Path(one).stem for one in settings.examples]
        self._meant = len(settings.prompts) + len(shown)
        self._names = [*settings.prompts, *shown, *settings.other_prompts]

    @property
    def names(self) -> Sequence[str]:
        """All texts, and the examples' file names."""
        return self._names

    @property
    def chosen(self) -> Sequence[int]:
        """Those that mean roadwork."""
        return range(self._meant)

    def identity(self) -> str:
        """All that members ask of the network is what is where."""
        return "places"

    def load(self) -> nn.Module:
        """Return the network without its text tower."""
        model = self._whole()
        del model.owlv2.text_model, model.owlv2.text_projection
        module: nn.Module = model
        return module

    def _whole(self) -> Any:
        """Return the network, its position embeddings fitted to the square."""
        from transformers import Owlv2ForObjectDetection

        model = pretrained(Owlv2ForObjectDetection, self.checkpoint, self.settings)
        vision = model.owlv2.vision_model.embeddings
        count = self._side // vision.patch_size
        if count != model.num_patches_height:
            blank = torch.zeros(1, count * count + 1, vision.embed_dim)
            with torch.no_grad():
                fitted = vision.interpolate_pos_encoding(blank, self._side, self._side)[0]
            vision.position_embedding = nn.Embedding(len(fitted), vision.embed_dim, _weight=fitted)
            vision.position_ids = torch.arange(len(fitted))[None]
            model.num_patches_height = model.num_patches_width = count
            model.box_bias = model.compute_box_bias(count, count)
        return model

    def found(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return embeddings of places, how their likeness becomes log-odds, and boxes."""
        network: Any = module
        width, height = self.size
        square = functional.pad(images, (0, 0, 0, self._side - width, 0, self._side - height))
        places = network.image_embedder(self.normalised(square))[0].flatten(1, 2)
        steps = network.box_head(places)
        with torch.autocast(images.device.type, enabled=False):
            places, boxes = places.float(), (steps.float() + network.box_bias).sigmoid()
            head = network.class_head
            seen = head.dense0(places)
            shift, scale = head.logit_shift(places), functional.elu(head.logit_scale(places)) + 1
            across, down = self._side / width, self._side / height
            x, y, w, h = boxes.unbind(2)
            boxes = torch.stack([x * across, y * down, w * across, h * down], 2)
        return {"seen": _of_length_1(seen), "shift": shift, "scale": scale, "boxes": boxes}

    def load_head(self) -> nn.Module:
        """Return the texts and examples, embedded."""
        model, settings = self._whole(), self.settings
        with torch.no_grad():
            queries = [
                self._told(model, "prompts", settings.prompts),
                *(self._shown(model, one) for one in settings.examples),
                self._told(model, "other_prompts", settings.other_prompts),
            ]
        strongest = Strongest(self.chosen, settings.max_boxes, exclusive=True)
        return Asked(_of_length_1(torch.cat(queries)), strongest, self._meant)

    def _told(self, model: Any, key: str, prompts: Sequence[str]) -> Tensor:
        """Return the texts' embeddings [texts, width].

        Raises:
            ConfigError: One is too long.
        """
        text = self.config.text_config
        if not prompts:
            return torch.empty(0, text.hidden_size)
        tokenizer, most = tokenizer_of(self.checkpoint, self.settings), text.max_position_embeddings
        for one in prompts:
            check_length(self.checkpoint, key, tokenizer(one)["input_ids"], most, one)
        tokens = tokenizer(
            list(prompts), padding="max_length", max_length=most, return_tensors="pt"
        )
        read = model.owlv2.text_model(tokens["input_ids"], tokens["attention_mask"])
        told: Tensor = model.owlv2.text_projection(read.pooler_output)
        return told

    def _shown(self, model: Any, name: str) -> Tensor:
        """Return the embedding of what fills an example picture best [1, width].

        Raises:
            ConfigError: There is no such picture, or it cannot be read.
        """
        try:
            data = self.checkpoint.cascade.read(name)
            pixels = decode(data, min_width=self._side, min_height=self._side)
        except (OSError, ImageError) as error:
            where = f"{self.checkpoint.where}: settings.examples"
            raise ConfigError(where, "pictures", f"{name}: {error}") from None
        height, width = pixels.shape[:2]
        factor = self._side / max(width, height)
        fitted = resize(pixels, max(1, round(width * factor)), max(1, round(height * factor)))
        square = torch.zeros(self._side, self._side, 3)
        square[: len(fitted), : fitted.shape[1]] = torch.from_numpy(fitted)
        scale, shift, bgr = self.statistics()
        square = (square.flip(2) if bgr else square) * torch.tensor(scale) + torch.tensor(shift)
        places = model.image_embedder(square.permute(2, 0, 1)[None])[0].flatten(1, 2)
        shown: Tensor = model.embed_image_query(places, places)[0]
        return shown[0]


def _of_length_1(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings, dim=-1)
