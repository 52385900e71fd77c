"""The losses of the adipocyte report (3.3, 4): of an image that a network gives for another."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.losses.cross_entropy import checked

SMALL = 1e-8  # epsilon of equation 3
LEAST_MEDIAN = 1e-3  # of images in [0, 1]; simulated nuclei have medians from 0.003


class LogSquaredLoss(nn.Module):
    """LsL, mean of log((y + eps) / (x + eps)) squared: small values count as much as large ones.

    Report, equation 3. In float32, whatever the network computes in.

    Args:
        eps: 1e-8 in the report.

    Raises:
        ConfigError: `eps` is not above 0.

    >>> loss = LogSquaredLoss()
    >>> loss(torch.tensor([[[[0.2, 0.4]]]]), torch.tensor([[[[0.4, 0.4]]]]))  # log(2) ** 2 / 2
    tensor(0.2402)
    """

    def __init__(self, eps: float = SMALL) -> None:
        super().__init__()
        self.eps = _above_0("eps", eps)

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: images (B, C, *S), none below 0, as `ScaledTanh` gives them.
            label: what they are to be (B, C, *S), none below 0.

        Raises:
            ValueError: the shapes differ, or a value of `pred` is below 0.
            DataError: a value of `label` is below 0.
        """
        x, y = _images(pred, label)
        if bool((y < 0).any()):
            raise DataError(
                f"a label has values down to {float(y.min()):g}, and their logarithm is taken: "
                "scale labels to [0, 1]"
            )
        if bool((x < 0).any()):
            raise ValueError(
                f"the network answers down to {float(x.min()):g}, and the logarithm is taken: "
                "let it end with ScaledTanh, as DenseUnetGenerator does, or take another loss"
            )
        return (torch.log(y + self.eps) - torch.log(x + self.eps)).square().mean()


class MedianMeanAbsoluteLoss(nn.Module):
    """medMAE, the mean of |x - y| divided by the median of y: the challenge's own measure.

    Report, equation 4. The median is that of each image and channel, so that a batch may mix
    stains and magnifications; of an even number of pixels it is the lower one in the middle.

    Args:
        floor: a smaller median, such as the 0 of a crop without cells, counts as this.

    Raises:
        ConfigError: `floor` is not above 0.

    >>> loss = MedianMeanAbsoluteLoss()
    >>> loss(torch.tensor([[[0.5, 0.5, 0.5]]]), torch.tensor([[[0.1, 0.5, 0.9]]]))  # 0.8 / 3 / 0.5
    tensor(0.5333)
    """

    def __init__(self, floor: float = LEAST_MEDIAN) -> None:
        super().__init__()
        self.floor = _above_0("floor", floor)

    def forward(self, pred: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar: the mean over images and channels.

        Args:
            pred: images (B, C, *S).
            label: what they are to be (B, C, *S).
            weight: of each pixel's error (B, 1, *S); None for 1. The mean is not divided by it.

        Raises:
            ValueError: the shapes differ.
        """
        x, y = _images(pred, label)
        median = y.flatten(2).median(dim=2).values.clamp(min=self.floor)
        error = (x - y).abs()
        if weight is not None:
            error = error * weight
        return (error.flatten(2).mean(dim=2) / median).mean()


class GradientLoss(nn.Module):
    """Mean of |dx - dy| along each axis, added up: edges where edges are (report, equation 5).

    Args:
        absolute: compare the steepness |d| alone, whichever way it goes, which the equation may
            also be read as.

    >>> loss = GradientLoss()
    >>> loss(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]]))
    tensor(2.)
    """

    def __init__(self, absolute: bool = False) -> None:
        super().__init__()
        if not isinstance(absolute, bool):
            raise ConfigError(f"absolute must be true or false, got {absolute!r}")
        self.absolute = absolute

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: images (B, C, *S).
            label: what they are to be (B, C, *S).

        Raises:
            ValueError: the shapes differ.
        """
        x, y = _images(pred, label)
        total = x.sum() * 0  # an axis of one pixel has no gradient
        for axis in range(2, x.dim()):
            if x.shape[axis] > 1:
                steps = [one.diff(dim=axis) for one in (x, y)]
                if self.absolute:
                    steps = [step.abs() for step in steps]
                total = total + (steps[0] - steps[1]).abs().mean()
        return total


class WeightedSum(nn.Module):
    """The sum of losses of the same answer, each with its weight (report, equation 9).

    Args:
        losses: called with answer and label.
        weights: of each, 0 or more.

    Raises:
        ConfigError: there are not as many weights as losses, or one is no such number.

    >>> loss = WeightedSum([GradientLoss(), MedianMeanAbsoluteLoss()], [10, 1])
    >>> loss(torch.tensor([[[0.5, 0.6]]]), torch.tensor([[[0.5, 0.5]]]))  # 10 * 0.1 + 0.05 / 0.5
    tensor(1.1000)
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise ConfigError(
                f"expected a weight for each loss, got {len(weights)} for {len(losses)} losses"
            )
        self.losses = nn.ModuleList(losses)
        self.weights = [_from_0("weights", weight) for weight in weights]

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar, of whatever the losses take."""
        parts = [
            weight * loss(pred, label)
            for weight, loss in zip(self.weights, self.losses, strict=True)
        ]
        return torch.stack(parts).sum()


class LupiLoss(nn.Module):
    """The nuclei model's loss: fluorescence and mask, harder where the mask is wrong (equation 6).

    Every pixel that the segmentation decoder misclassifies weighs `misclassified` instead of 1
    (equations 7 and 8), as it is likely hard for the regression decoder too. With this map w

        module_weight * (sum over levels of medMAE(w))
        + median_weight * (medMAE + medMAE(w)) + entropy_weight * (CE + CE(w))

    The levels below are compared with the fluorescence averaged to their size, and w's nearest
    pixel. The report gives no weights, and prints that of medMAE before the cross-entropy too; the
    defaults are those of the team's code. Sums over pixels are taken as means. An answer of
    evaluation, without lower levels, has no modules.

    Args:
        module_weight: of the loss-weight modules; 0 leaves them out.
        median_weight: of medMAE.
        entropy_weight: of the cross-entropy, of two classes the binary one.
        misclassified: weight of such a pixel.
        floor: as of `MedianMeanAbsoluteLoss`.

    Raises:
        ConfigError: a weight is below 0.
    """

    def __init__(
        self,
        module_weight: float = 0.1,
        median_weight: float = 0.5,
        entropy_weight: float = 1.0,
        misclassified: float = 2.0,
        floor: float = LEAST_MEDIAN,
    ) -> None:
        super().__init__()
        self.module_weight = _from_0("module_weight", module_weight)
        self.median_weight = _from_0("median_weight", median_weight)
        self.entropy_weight = _from_0("entropy_weight", entropy_weight)
        self.misclassified = _from_0("misclassified", misclassified)
        self.median_error = MedianMeanAbsoluteLoss(floor)

    def forward(self, pred: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: of `NucleiLupiUnet`: fluorescence and logits side by side (B, 3, *S), or a list of
                these and the fluorescence of lower levels (B, 1, ...).
            label: the fluorescence in [0, 1] and the mask of 0 and 1 side by side (B, 2, *S).

        Raises:
            ValueError: the shapes do not fit each other.
            DataError: the mask holds other values than 0 and 1.
        """
        if label.dim() < 3 or label.shape[1] != 2:
            raise ValueError(
                "expected labels of fluorescence and mask side by side (B, 2, *S), got "
                f"{tuple(label.shape)}: join them (ConcatItemsd), and give the mask in the table"
            )
        fluorescence, mask = label[:, :1], label[:, 1:]
        joined, *lower = [pred] if isinstance(pred, Tensor) else pred
        if joined.dim() < 3 or joined.shape[1] != 3:
            raise ValueError(
                "expected fluorescence and two logits side by side (B, 3, *S), as NucleiLupiUnet "
                f"gives them, got {tuple(joined.shape)}"
            )
        logits, truth = checked(joined[:, 1:], mask)
        wrong = logits.argmax(dim=1, keepdim=True) != truth
        weight = torch.where(wrong, self.misclassified, 1.0)
        of_pixels = F.cross_entropy(logits, truth[:, 0], reduction="none")[:, None]
        loss = self.entropy_weight * (of_pixels.mean() + (weight * of_pixels).mean())
        given = joined[:, :1]
        loss = loss + self.median_weight * (
            self.median_error(given, fluorescence) + self.median_error(given, fluorescence, weight)
        )
        for answer in lower:
            size = answer.shape[2:]
            smaller = F.interpolate(fluorescence.as_subclass(Tensor).float(), size, mode="area")
            nearest = F.interpolate(weight, size, mode="nearest-exact")
            loss = loss + self.module_weight * self.median_error(answer, smaller, nearest)
        return loss


class RelativisticAverageLeastSquares(nn.Module):
    """raLS: is a real patch more real than generated ones on average, and these less than real?

    The discriminator is to give real r and generated f scores one apart, and the generator to turn
    that round (Jolicoeur-Martineau 2018; report, 3.3):

        D: [mean (r - mean f - 1)^2 + mean (f - mean r + 1)^2] / 2
        G: [mean (r - mean f + 1)^2 + mean (f - mean r - 1)^2] / 2

    The means are over all patches of the batch; with a pool, over those of the images in it.

    Args:
        of: whose loss, "discriminator" or "generator".
        pool: of earlier scores, which both losses share; that of the discriminator fills it. None
            takes the batch alone.

    Raises:
        ConfigError: `of` is neither.

    >>> real, fake = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])
    >>> RelativisticAverageLeastSquares("discriminator")(real, fake)
    tensor(0.2500)
    >>> RelativisticAverageLeastSquares("generator")(real, fake)
    tensor(4.2500)
    """

    def __init__(
        self, of: Literal["discriminator", "generator"], pool: "ScorePool | None" = None
    ) -> None:
        super().__init__()
        if of not in ("discriminator", "generator"):
            raise ConfigError(f"of must be 'discriminator' or 'generator', got {of!r}")
        self.of = of
        self.apart = 1.0 if of == "discriminator" else -1.0
        self.pool = pool

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            real: scores of real images (B, ...).
            fake: scores of generated ones (B, ...).
        """
        r, f = (scores.as_subclass(Tensor).float() for scores in (real, fake))
        mean_real, mean_fake = r.mean(), f.mean()
        if self.pool is not None:
            if self.of == "discriminator":
                self.pool.add(r, f)
            if len(self.pool):
                mean_real, mean_fake = self.pool.means()
        of_real = (r - mean_fake - self.apart).square().mean()
        of_fake = (f - mean_real + self.apart).square().mean()
        return (of_real + of_fake) / 2


class ScorePool(nn.Module):
    """The scores of the last images, real and generated, that a discriminator has seen.

    The discriminator learns from new and older images, which steadies its loss (report 4.2). Of
    each image the mean over its patches is kept, of crops of one size all that the mean over the
    pool needs; the oldest make room. No gradient goes through them.

    Args:
        size: images of each kind, 50 in the report.

    Raises:
        ConfigError: `size` is no whole number from 1.

    >>> pool = ScorePool(size=2)
    >>> for score in (1.0, 2.0, 3.0):
    ...     pool.add(torch.full((1, 1, 2, 2), score), torch.zeros(1, 1, 2, 2))
    >>> [float(mean) for mean in pool.means()]
    [2.5, 0.0]
    """

    scores: Tensor  # (2, up to `size`): real, generated

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"size must be a whole number from 1, got {size!r}")
        self.size = size
        self.register_buffer("scores", torch.zeros(2, 0))

    def __len__(self) -> int:
        return self.scores.shape[1]

    def add(self, real: Tensor, fake: Tensor) -> None:
        """Take up the scores (B, ...) of as many real as generated images."""
        new = torch.stack([one.detach().flatten(1).mean(dim=1) for one in (real, fake)])
        self.scores = torch.cat([self.scores.to(new), new], dim=1)[:, -self.size :]

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the mean scores of real and of generated images."""
        real, fake = self.scores.mean(dim=1)
        return real, fake

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take up as many scores as there are."""
        self.scores = self.scores.new_zeros(state_dict[f"{prefix}scores"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _images(pred: Tensor | Sequence[Tensor], label: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float32, once their shapes are equal: nothing is broadcast."""
    if not isinstance(pred, Tensor):
        raise ConfigError(
            f"the network gives {len(pred)} answers in training, and this loss takes one image; "
            "take the network's own loss (LupiLoss), or merge the configuration that sets it last, "
            "as in train_gan,train_nuclei"
        )
    if pred.shape != label.shape or pred.dim() < 3:
        raise ValueError(
            f"expected images (B, C, *S) and labels of one shape, got {tuple(pred.shape)} and "
            f"{tuple(label.shape)}: a network gives as many channels as its labels have"
        )
    return pred.as_subclass(Tensor).float(), label.as_subclass(Tensor).float()


def _from_0(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ConfigError(f"{name} must be a number from 0, got {value!r}")
    return float(value)


def _above_0(name: str, value: float) -> float:
    if not _from_0(name, value):
        raise ConfigError(f"{name} must be above 0, got {value!r}")
    return float(value)
