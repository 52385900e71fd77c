"""Cross-entropy over the pixels, which refuses labels that are no classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaseg_monai.errors import DataError, listing


class PixelCrossEntropy(nn.Module):
    """Mean over the pixels of the cross-entropy, in float32 (thesis equation 3.1).

    >>> loss = PixelCrossEntropy()
    >>> loss(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))
    tensor(0.6931)
    """

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: logits (B, K, *S) with K >= 2.
            label: classes 0 to K - 1 (B, 1, *S), of any integer or float type.

        Raises:
            ValueError: the shapes do not fit each other.
            DataError: the label holds other values than the classes; the message lists them.
        """
        if pred.dim() < 3 or pred.shape[1] < 2:
            raise ValueError(
                f"expected logits (B, K, *S) with K >= 2 classes, got {tuple(pred.shape)}"
            )
        if label.shape != (pred.shape[0], 1, *pred.shape[2:]):
            raise ValueError(
                f"expected a label of shape {(pred.shape[0], 1, *pred.shape[2:])} for logits "
                f"{tuple(pred.shape)}, got {tuple(label.shape)}"
            )
        logits = pred.as_subclass(Tensor).float()  # a MetaTensor's history is of no use here
        target = _classes(label.as_subclass(Tensor), pred.shape[1])
        return F.cross_entropy(logits, target[:, 0])


def _classes(label: Tensor, classes: int) -> Tensor:
    """Return the label as int64, once all its values are whole and in 0 to classes - 1."""
    target = label.long()
    wrong = (target != label) | (target < 0) | (target >= classes)
    if wrong.any():
        values = listing(torch.unique(label[wrong]).tolist(), 8, "{:g}".format)
        raise DataError(
            f"the label holds {values}, but the classes are 0 to {classes - 1}: correct the "
            "label, name the values that count as foreground, or raise the number of classes"
        )
    return target
