"""Small objects and holes taken out of predictions, in testing and in prediction alike."""

from collections.abc import Mapping

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.errors import ConfigError
from metaseg_monai.transforms.clean_up import check_sizes, clean_up

SIZES = ("object_px", "hole_px")
EXPECTED = (
    f'expected {" and ".join(SIZES)}, as {{"object_px": 30, "hole_px": 30}}, or null for none'
)


def clean_logits(logits: Tensor, object_px: int, hole_px: int) -> Tensor:
    """Change logits so that their best classes are the cleaned mask.

    Where the mask is changed, the new class takes the highest logit of the pixel and all others
    lie at least 1 below; every other pixel keeps its logits. Masks that are resized afterwards are
    therefore cleaned too, while probabilities of changed pixels no longer mean anything.

    Args:
        logits: (B, K, *S).
        object_px: see `metaseg_monai.transforms.clean_up.clean_up`; likewise `hole_px`.
        hole_px: see `object_px`.

    Returns:
        float32 (B, K, *S), on the device of the logits.

    >>> logits = torch.zeros(1, 2, 3, 3)
    >>> logits[0, 1, 1, 1] = 5.0  # a speck of one pixel
    >>> clean_logits(logits, object_px=2, hole_px=0)[0, :, 1, 1].tolist()
    [5.0, 4.0]
    """
    logits = logits.float()  # below 1 apart, bfloat16 cannot tell large logits
    best = logits.argmax(1)
    masks = [clean_up(mask.cpu().numpy(), object_px, hole_px) for mask in best]
    cleaned = torch.stack([torch.from_numpy(mask) for mask in masks]).to(best.device)
    changed = (cleaned != best).unsqueeze(1)
    highest = logits.amax(1, keepdim=True)
    classes = torch.arange(logits.shape[1], device=logits.device)
    new = classes.view(1, -1, *[1] * (logits.ndim - 2)) == cleaned.unsqueeze(1)
    return torch.where(
        changed, torch.where(new, highest, torch.minimum(logits, highest - 1)), logits
    )


class CleanUpPredictions:
    """Evaluator handler that removes small objects and fills small holes of predictions.

    Handlers that are listed later (counts, samples, masks) see the cleaned prediction. What reads
    probabilities, such as `CalibrationBins` or a watershed of the probability map, belongs before
    it in the list. Sizes are in pixels of the network's image, after any resampling.

    Args:
        sizes: {"object_px": smallest object kept, "hole_px": smallest hole kept}, see
            `metaseg_monai.transforms.clean_up.clean_up`; one that is absent is off. None: all is
            off.

    Raises:
        ConfigError: no mapping, an unknown key, or a size that is no whole number from 0.
    """

    def __init__(self, sizes: Mapping[str, int] | None) -> None:
        if sizes is not None and not isinstance(sizes, Mapping):
            raise ConfigError(f"clean_up is {sizes!r}; {EXPECTED}")
        unknown = sorted(map(str, set(sizes or {}) - set(SIZES)))
        if unknown:
            raise ConfigError(f"clean_up: unknown key {unknown[0]!r}; {EXPECTED}")
        self.object_px, self.hole_px = ((sizes or {}).get(name, 0) for name in SIZES)
        check_sizes(self.object_px, self.hole_px)

    def attach(self, engine: Engine) -> None:
        """Clean after every batch, unless all sizes are 0."""
        if max(self.object_px, self.hole_px) > 1:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Replace the logits of the batch by cleaned ones."""
        output = engine.state.output
        output["pred"] = clean_logits(output["pred"], self.object_px, self.hole_px)
