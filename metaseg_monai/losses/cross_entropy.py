"""Cross-entropy over the pixels, which refuses labels that are no classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError, DataError, listing


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
        logits, target = checked(pred, label)
        return F.cross_entropy(logits, target[:, 0])


class HeadsCrossEntropy(nn.Module):
    """Sum over the heads of `PixelCrossEntropy`, each on the images that have its label.

    For the parallel training of several heads (thesis 4.7); unweighted, and a head without any
    label in a batch adds nothing.

    Args:
        of_head: another loss of a head, such as `DiceCrossEntropy`.

    >>> loss = HeadsCrossEntropy()
    >>> label, valid = torch.ones(1, 2, 4, 4), torch.tensor([[True, True]])
    >>> loss(torch.zeros(1, 4, 4, 4), (label, valid))
    tensor(1.3863)
    """

    def __init__(self, of_head: nn.Module | None = None) -> None:
        super().__init__()
        self.of_head = PixelCrossEntropy() if of_head is None else of_head

    def forward(self, pred: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: logits of T heads side by side (B, T * K, *S), as `MultiHeadUnet3` gives them.
            target: the labels (B, T, *S), and which of them there are (B, T).

        Raises:
            ValueError: the shapes do not fit each other.
            DataError: a label holds other values than the classes.
        """
        label, valid = target
        heads = label.shape[1]
        if valid.shape != label.shape[:2] or pred.shape[1] % heads:
            raise ValueError(
                f"expected logits of {heads} heads side by side and a validity mask of shape "
                f"{tuple(label.shape[:2])} for labels {tuple(label.shape)}, got logits "
                f"{tuple(pred.shape)} and a mask {tuple(valid.shape)}"
            )
        total = pred.as_subclass(Tensor).sum() * 0  # a batch without any label has a gradient of 0
        for head, logits in enumerate(pred.chunk(heads, dim=1)):
            rows = valid[:, head].bool()
            if bool(rows.any()):
                total = total + self.of_head(logits[rows], label[rows, head : head + 1])
        return total


def checked(pred: Tensor, label: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the logits in float32 (B, K, *S) and the label as int64 (B, 1, *S), once both fit.

    Args:
        pred: logits (B, K, *S) with K >= 2.
        label: classes 0 to K - 1 (B, 1, *S), of any integer or float type.
        valid: of which pixels (B, 1, *S) the label counts; the others become class 0. None for all.

    Raises:
        ConfigError: the network answers at several depths.
        ValueError: the shapes do not fit each other.
        DataError: the label holds other values than the classes; the message lists them.
    """
    stacked = isinstance(pred, Tensor) and label.dim() > 3 and pred.shape[3:] == label.shape[2:]
    if not isinstance(pred, Tensor) or (stacked and pred.dim() == label.dim() + 1):
        raise ConfigError(
            "the network answers at several depths (deep supervision), and this loss takes one "
            'answer: put it into {"_target_": "metaseg_monai.losses.DeepSupervision", "loss": ...}'
        )
    if pred.dim() < 3 or pred.shape[1] < 2:
        raise ValueError(f"expected logits (B, K, *S) with K >= 2 classes, got {tuple(pred.shape)}")
    if label.shape != (pred.shape[0], 1, *pred.shape[2:]):
        raise ValueError(
            f"expected a label of shape {(pred.shape[0], 1, *pred.shape[2:])} for logits "
            f"{tuple(pred.shape)}, got {tuple(label.shape)}"
        )
    given = label.as_subclass(Tensor)  # a MetaTensor's history is of no use here
    if valid is not None:
        given = given.where(valid, 0)
    classes = pred.shape[1]
    target = given.long()
    wrong = (target != given) | (target < 0) | (target >= classes)
    if wrong.any():
        values = listing(torch.unique(given[wrong]).tolist(), 8, "{:g}".format)
        raise DataError(
            f"the label holds {values}, but the classes are 0 to {classes - 1}: correct the "
            "label, name the values that count as foreground, or raise the number of classes"
        )
    return pred.as_subclass(Tensor).float(), target
