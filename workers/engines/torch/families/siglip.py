"""SigLIP and SigLIP 2 without training: pictures held against texts (Zhai et al. 2023, 2502.14786).

Texts are embedded once, on loading; only the image tower runs on pictures, and members with other
texts share it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from roadstream.schemas.cascade.structure import joined
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import EngineResult
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.classifier import interpolation
from roadstream.workers.engines.torch.families.processors import tokenizer_of
from roadstream.workers.engines.torch.family import Family, Outputs
from roadstream.workers.engines.torch.scoring import Floats, clipped, mean_odds, shares
from roadstream.workers.engines.torch.tagging import Tagging


class Siglip(Family):
    """Log-odds that a picture and a text belong together, as the model was trained to give them.

    The score is the logarithm of the mean odds over ``prompts``; less that over ``other_prompts``,
    if there are any. How likely a value of a tag is, is its share of the mean odds over its texts
    among those of all values. Texts are put in lower case, as in training.
    """

    takes_concepts = True
    gives_tags = True

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        self._check_texts()
        self._tagging = Tagging.of(settings)
        self._flexible = checkpoint.model_type == "siglip2"
        vision = checkpoint.config.get("vision_config") or {}
        self._patch = int(vision.get("patch_size", 16))
        width, height = size
        if self._flexible and (width % self._patch or height % self._patch):
            raise checkpoint.damaged(
                f"width and height in steps of {self._patch}", f"{width} × {height}"
            )

    def _check_texts(self) -> None:
        settings, problem = self.settings, self.checkpoint.problem
        if not settings.prompts and (settings.other_prompts or not settings.tags):
            raise problem("prompts", "texts that mean roadwork", "nothing")
        for tag, values in settings.tags.items():
            if len(values) < 2:
                raise problem(joined("tags", tag), "several values, of which one is told", *values)

    def identity(self) -> str:
        """All that members ask of the network is the pictures' embeddings."""
        return "embeddings"

    def load(self) -> nn.Module:
        """Return the image tower."""
        from transformers import Siglip2VisionModel, SiglipVisionModel

        kind = Siglip2VisionModel if self._flexible else SiglipVisionModel
        module: nn.Module = pretrained(kind, self.checkpoint, self.settings)
        self._extra = {} if self._flexible else interpolation(module, self.size)
        return module

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return embeddings of length 1 [N, width]."""
        pixels = self.normalised(images)
        network: Any = module
        if self._flexible:
            found = network(self._patches(pixels), None, self._shapes(len(images)))
        else:
            found = network(pixel_values=pixels, **self._extra)
        return {"embedding": functional.normalize(found.pooler_output.float(), dim=1)}

    def _patches(self, pixels: Tensor) -> Tensor:
        """Return patches row by row [N, patches, pixels of a patch, channels innermost]."""
        side = self._patch
        n, channels, height, width = pixels.shape
        cut = pixels.reshape(n, channels, height // side, side, width // side, side)
        patches = cut.permute(0, 2, 4, 3, 5, 1)
        return patches.reshape(n, (height // side) * (width // side), side * side * channels)

    def _shapes(self, count: int) -> Tensor:
        # On the CPU: the network reads the numbers on the host, and must not wait for the device.
        width, height = self.size
        return torch.tensor([[height // self._patch, width // self._patch]] * count)

    def load_head(self) -> nn.Module:
        """Return the texts' embeddings, from the text tower, which is not kept."""
        from transformers import Siglip2Model, SiglipModel

        model: Any = pretrained(
            Siglip2Model if self._flexible else SiglipModel, self.checkpoint, self.settings
        )
        texts = [text for group in self._groups() for text in group]
        ids = self._tokens(texts, model.config.text_config.max_position_embeddings)
        with torch.inference_mode():
            embedded = model.get_text_features(input_ids=ids).pooler_output.float()
        return _Texts(
            functional.normalize(embedded, dim=1).clone(),
            model.logit_scale.detach().exp(),
            model.logit_bias.detach(),
        )

    def _groups(self) -> list[list[str]]:
        """Return the texts that are held against pictures: of both sides, and of tags' values."""
        tags = self.settings.tags.values()
        told = [texts for values in tags for texts in values.values()]
        return [self.settings.prompts, self.settings.other_prompts, *told]

    def _tokens(self, texts: Sequence[str], longest: int) -> Tensor:
        """Return token ids [texts, longest], padded as in training.

        Raises:
            ConfigError: There is no tokenizer, or a text is too long.
        """
        tokenizer = tokenizer_of(self.checkpoint, self.settings)
        lowered = [text.lower() for text in texts]
        ids: list[list[int]] = tokenizer(
            lowered, padding="max_length", max_length=longest
        ).input_ids
        for text, one in zip(texts, ids, strict=True):
            if len(one) > longest:
                got = f"{len(one)} in {text!r}"
                raise self.checkpoint.problem(
                    self._key_of(text), f"at most {longest} tokens each", got
                )
        return torch.tensor(ids)

    def _key_of(self, text: str) -> str:
        """Return the setting that a text stands in."""
        if text in self.settings.prompts:
            return "prompts"
        return "other_prompts" if text in self.settings.other_prompts else "tags"

    def finish(self, head: nn.Module, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return log-odds per text [N, texts]."""
        return {"logits": head(features["embedding"])}

    def scores(self, outputs: Outputs) -> Sequence[EngineResult]:
        """Return the log-odds of roadwork, and the tags."""
        groups = self._groups()
        ends = np.cumsum([len(group) for group in groups])
        prompts, others, *values = np.split(outputs["logits"], ends[:-1], axis=1)
        told = [_shares([values.pop(0) for _ in tag]) for tag in self.settings.tags.values()]
        return self._tagging.findings(told, _raws(prompts, others))


def _raws(prompts: Floats, others: Floats) -> list[float] | None:
    """Return scores of log-odds per text [N, texts]; ``None`` without texts."""
    if not prompts.shape[1]:
        return None
    raws = mean_odds(prompts)
    return clipped(raws - mean_odds(others) if others.shape[1] else raws)


def _shares(values: Sequence[Floats]) -> Floats:
    """Return the shares of a tag's values [N, values], of log-odds per text of each."""
    odds: NDArray[np.float64] = np.stack([mean_odds(texts) for texts in values], 1)
    return shares(odds, [[column] for column in range(len(values))])


class _Texts(nn.Module):
    """Holds pictures against texts.

    Args:
        embeddings: Of length 1 [texts, width].
        scale: What a cosine is multiplied with.
        bias: What is added then.
    """

    def __init__(self, embeddings: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("embeddings", embeddings * scale)
        self.register_buffer("bias", bias)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return log-odds [N, texts] for pictures' embeddings [N, width]."""
        return functional.linear(pictures, self.get_buffer("embeddings")) + self.get_buffer("bias")
