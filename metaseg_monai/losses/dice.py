"""Dice + cross-entropy, and a loss at every depth of a network: what strong baselines train by."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss, DiceLoss
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.losses.cross_entropy import checked


class DiceCrossEntropy(nn.Module):
    """MONAI's Dice loss of the foreground plus the cross-entropy, in float32 (nnU-Net's sum).

    It is `monai.losses.DiceCELoss` (softmax, no background) behind the door of
    `PixelCrossEntropy`, which refuses labels that are no classes, with pixels that count in neither
    part.

    Args:
        ignored: value in labels of pixels that are not annotated; None for none.
        batch: the Dice of all images of a batch together, as nnU-Net does for patches, of which
            many hold no foreground; False for one of each image.
        background: the background's Dice counts, too.

    Raises:
        ConfigError: `ignored` is no whole number.

    >>> import torch
    >>> loss = DiceCrossEntropy()
    >>> logits = torch.tensor([-20.0, 20.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    >>> f"{loss(logits, torch.ones(1, 1, 4, 4)):.4f}"
    '0.0000'
    """

    def __init__(
        self, ignored: int | None = None, batch: bool = True, background: bool = False
    ) -> None:
        super().__init__()
        if ignored is not None and (isinstance(ignored, bool) or not isinstance(ignored, int)):
            raise ConfigError(
                f"ignored must be the whole number of pixels that are not annotated, or null, got "
                f"{ignored!r}"
            )
        self.ignored = ignored
        self.dice = DiceLoss(include_background=background, batch=batch)

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: logits (B, K, *S) with K >= 2.
            label: classes 0 to K - 1, or `ignored`, (B, 1, *S), of any integer or float type.

        Raises:
            ValueError: the shapes do not fit each other.
            DataError: the label holds other values than the classes; the message lists them.
        """
        valid = None if self.ignored is None else label.as_subclass(Tensor) != self.ignored
        logits, target = checked(pred, label, valid)
        one_hot = F.one_hot(target[:, 0], pred.shape[1]).movedim(-1, 1).to(logits.dtype)
        chances = logits.softmax(dim=1)
        if valid is None:
            return F.cross_entropy(logits, target[:, 0]) + self.dice(chances, one_hot)
        of_pixels = F.cross_entropy(logits, target[:, 0], reduction="none")[:, None]
        mean = (of_pixels * valid).sum() / valid.sum().clamp(min=1)
        dice: Tensor = self.dice(chances * valid, one_hot * valid)
        return mean + dice


class DeepSupervision(nn.Module):
    """A loss at every depth at which a network answers, each weighing half of the one above it.

    The weights sum to 1, so that the loss of a network that answers once, as every one does in
    validation, is on the same scale. MONAI's `DeepSupervisionLoss` resizes the labels to the lower
    answers by their nearest pixel.

    Args:
        loss: of one answer, `PixelCrossEntropy` or `DiceCrossEntropy`.

    >>> import torch
    >>> from metaseg_monai.losses import PixelCrossEntropy
    >>> loss, label = DeepSupervision(PixelCrossEntropy()), torch.ones(1, 1, 8, 8)
    >>> loss([torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)], label)
    tensor(0.6931)
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.of_answers = DeepSupervisionLoss(loss)

    def forward(self, pred: Any, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: logits (B, K, *S); or of several depths, the finest first: a list of them, as of
                MONAI's SegResNetDS, or stacked (B, depths, K, *S), as of its DynUNet.
            label: classes (B, 1, *S) of the finest.

        Raises:
            ValueError: the shapes do not fit each other.
            DataError: the label holds other values than the classes.
        """
        answers = list(pred) if isinstance(pred, Sequence) else [pred]
        if isinstance(pred, Tensor) and pred.dim() == label.dim() + 1:
            answers = list(pred.unbind(1))
        weights = [0.5**depth for depth in range(len(answers))]
        self.of_answers.weights = [weight / sum(weights) for weight in weights]
        plain = [answer.as_subclass(Tensor) for answer in answers]
        loss: Tensor = self.of_answers(plain, label.as_subclass(Tensor).float())
        return loss
