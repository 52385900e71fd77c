"""From logits to the mask of the image's file, to objects, and masks without specks and holes."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from skimage.measure import label as connected_components
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.geometry import resize_image
from metaseg_monai.images.image import row_blocks
from metaseg_monai.images.lazy import at_hand
from metaseg_monai.metrics.objects import Objects, ObjectSettings, number_objects
from metaseg_monai.transforms.load import ORIGINAL_AFFINE, VIEW
from metaseg_monai.transforms.preprocessing import ScaleIntensityBy

PIXELS_AT_ONCE = 1 << 20  # of which classes are found; a block of them stays in the cache
Mask = npt.NDArray[Any]


def background_shift(threshold: float) -> float:
    """What is added to the background's logits so that classes are told by a threshold.

    Args:
        threshold: a pixel is background where the best other class, of these two alone, is less
            probable than this; 0.5 is the most probable class.

    Raises:
        ConfigError: the threshold is not between 0 and 1.

    >>> [round(background_shift(threshold), 3) for threshold in (0.2, 0.5, 0.8)]
    [-1.386, 0.0, 1.386]
    """
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 < threshold < 1:
        raise ConfigError(f"threshold={threshold!r}: expected a number between 0 and 1")
    return math.log(threshold / (1 - threshold))


class AsMaskd(MapTransform):
    """Turn the logits `pred` of an item into its mask, on the grid of the image's file.

    Where the preprocessing resampled the image, the logits are resized to its stored grid before
    the classes are told; the planes of a whole volume are put back into its stored order of axes.

    Args:
        threshold: see `background_shift`.

    Raises:
        ConfigError: the threshold is not between 0 and 1.

    >>> logits = torch.tensor([[0.0, 0.0], [-1.0, 1.0]])[..., None]  # (K, H, W)
    >>> [AsMaskd(limit)({"pred": logits})["pred"].flatten().tolist() for limit in (0.5, 0.2, 0.8)]
    [[0, 1], [1, 1], [0, 0]]
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__("pred")
        self.background = background_shift(threshold)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with `pred` (1, *S), class numbers.

        Args:
            data: with `pred`, logits (K, *S), or classes (1, *S) as `classes` gives them;
                `native_shape` where they are to be resized, (H, W)
                of an image and of each plane of a volume, (H, W, D) of a volume as a whole; and
                `image` and `axial_view` as `LoadCased` leaves them.
        """
        mask = class_map(_native(data), self.background)
        if VIEW in data:
            mask = data[VIEW].restore(np.moveaxis(mask, -1, 0))
        plain = torch.from_numpy(np.ascontiguousarray(mask))[None]
        meta = getattr(data.get("image"), "meta", None)
        if meta is None:
            return {**data, "pred": plain}
        affine = meta.get(ORIGINAL_AFFINE)
        known = {"filename_or_obj": meta.get("filename_or_obj")}
        return {**data, "pred": MetaTensor(plain, affine=affine, meta=known)}

    def classes(self, logits: Tensor, shift: float = 0.0) -> Tensor:
        """The classes (B, 1, *S) of logits (B, K, *S), of images that need not be resized.

        Args:
            logits: of the images.
            shift: added to those of the background, beside the threshold's own.
        """
        maps = [torch.from_numpy(class_map(one, self.background + shift)) for one in logits]
        return torch.stack(maps)[:, None]


class AsImaged(MapTransform):
    """Turn an answer `pred` of 0 to 1 into the image that it stands for, in the values of files.

    It is resized to the grid of the image's file where the preprocessing resampled that, scaled
    back, and in types of whole numbers rounded and cut to what the type holds.

    Args:
        scaling: which scaled the labels of the training; None takes the answer as it is.
        kind: type of the values, such as "uint16" or "float32".
        channels: how many of the answer's are images, the first ones: 1 of `NucleiLupiUnet`, behind
            which logits stand. None for all.
        clip: cut answers to 0..1 first, the range of the training's labels; needs `scaling`.

    Raises:
        ConfigError: there is no such type, or number of channels, or nothing tells the range.

    >>> answer = torch.tensor([[[0.25, -2.0]]])
    >>> AsImaged(kind="uint8")({"pred": 200 * answer})["pred"]
    tensor([[[50,  0]]], dtype=torch.uint8)
    """

    def __init__(
        self,
        scaling: ScaleIntensityBy | None = None,
        kind: str = "uint16",
        channels: int | None = None,
        clip: bool = False,
    ) -> None:
        super().__init__("pred")
        if clip and scaling is None:
            raise ConfigError("clip without a scaling, which tells the range; give it, or no clip")
        self.clip = clip
        if channels is not None and (not isinstance(channels, int) or channels < 1):
            raise ConfigError(f"channels={channels!r}: expected a whole number from 1, or null")
        self.channels = channels
        if kind not in ("uint8", "uint16", "float32"):
            raise ConfigError(f"kind={kind!r}: expected uint8, uint16 or float32")
        self.scaling = scaling
        self.kind = getattr(torch, kind)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with `pred` (K, *S).

        Raises:
            DataError: the item does not say of which group it is, or of one that is not known.
        """
        image = at_hand(_native(data)).detach().cpu()[: self.channels]
        if self.scaling is not None:
            image = self.scaling.back(data, image.clamp(0, 1) if self.clip else image)
        if not self.kind.is_floating_point:
            ends = torch.iinfo(self.kind)
            image = image.round().clamp(ends.min, ends.max)
        return {**data, "pred": image.to(self.kind)}


def _native(data: Mapping[Any, Any]) -> Tensor:
    """Logits (K, *S) of an item on the pixels of its image's file; classes as they are."""
    logits = torch.as_tensor(data["pred"])
    if "native_shape" not in data or not logits.is_floating_point():
        return logits
    native = [int(size) for size in data["native_shape"]]
    if logits.ndim - 1 > len(native):  # planes as channels, which lie beside each other in memory
        return resize_image(logits.movedim(-1, 1), native).movedim(1, -1)
    return resize_image(logits[None], native)[0]


def probabilities_of(data: Mapping[Any, Any]) -> np.ndarray:
    """Probabilities (K, *S), float32, of an item's classes on the grid of its mask (`AsMaskd`).

    Args:
        data: as `AsMaskd` takes it, with logits.

    >>> probabilities_of({"pred": torch.tensor([[0.0], [0.0]])[..., None]}).tolist()
    [[[0.5]], [[0.5]]]
    """
    told = torch.softmax(at_hand(_native(data)).float(), 0).cpu().numpy()
    if VIEW not in data:
        return told
    return np.stack([data[VIEW].restore(np.moveaxis(one, -1, 0)) for one in told])


def class_map(logits: Tensor, background: float = 0.0) -> np.ndarray:
    """The class (*S) of the highest of logits (K, *S), the lower one where two are equal.

    Blocks and a loop over the classes are on a CPU 15 times as fast as argmax.

    Args:
        logits: of the classes, background first; or whole numbers (1, *S), which are classes.
        background: added to the background's logits, see `background_shift`: of several classes,
            one takes a pixel where it is more probable than the background by exp(background).
    """
    if not logits.is_floating_point():
        return np.asarray(logits[0].cpu().numpy())
    kind = torch.uint8 if len(logits) <= 256 else torch.int32
    classes = torch.zeros(logits.shape[1:], dtype=kind, device=logits.device)
    for rows in row_blocks((1, *classes.shape), PIXELS_AT_ONCE):
        part, found = at_hand(logits[:, rows]), classes[rows]
        best = part[0] + background if background else part[0]
        for number in range(1, len(part)):
            found.masked_fill_(part[number] > best, number)
            best = torch.maximum(best, part[number])
    return np.asarray(classes.cpu().numpy())


def find_objects(logits: Tensor, settings: ObjectSettings, background: float = 0.0) -> Objects:
    """The objects of every foreground class of an image, those of lower classes first.

    Args:
        logits: (K, H, W) of K classes, class 0 the background; each pixel is of its highest.
        settings: how they are made.
        background: added to the background's logits, see `class_map`.

    Raises:
        DataError: the logits are not those of an image.
    """
    if logits.ndim != 3 or len(logits) < 2:
        raise DataError(
            f"class scores of shape {tuple(logits.shape)}; objects are made of (classes, rows, "
            "columns) with two classes or more: switch objects off for volumes"
        )
    return number_objects(class_map(logits, background), len(logits), settings)


def clean_up(
    mask: Mask,
    object_px: int | Mapping[int, int] = 0,
    hole_px: int = 0,
    largest: Sequence[int] = (),
) -> Mask:
    """Remove small objects of each class, then fill small holes (thesis 4.2, after prediction).

    An object is a connected part of one class, pixels that touch at their corners included; it
    becomes background. A hole is a part of the background, connected by sides, that does not reach
    the border of the mask; it becomes the class that most of its neighbours have (the lower number
    where two are as frequent). Objects are removed first, so a speck inside a hole, or a hole
    inside a speck, goes with it.

    Args:
        mask: (*S) classes, 0 = background; 2D or 3D.
        object_px: objects of fewer pixels are removed; 0 or 1 keeps all. A mapping gives it by
            class, of which those that are absent keep all.
        hole_px: holes of fewer pixels are filled; 0 or 1 keeps all.
        largest: classes of which only the largest object stays, if that is not too small.

    Returns:
        (*S) of the same type.

    Raises:
        ConfigError: a size is no whole number from 0.
        DataError: the mask is not of whole numbers, or not 2D or 3D.

    >>> mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1]])
    >>> clean_up(mask, object_px=2, hole_px=2)
    array([[1, 1, 1, 0, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 1, 0, 0]])
    """
    check_sizes(object_px, hole_px)
    if mask.dtype.kind not in "bui" or mask.ndim not in (2, 3) or mask.size == 0:
        raise DataError(
            f"mask of shape {mask.shape} and type {mask.dtype}: expected whole numbers (H, W) or "
            "(H, W, D), the classes"
        )
    cleaned = mask.copy()
    limits = object_px if isinstance(object_px, Mapping) else {}
    if largest or any(limit > 1 for limit in limits.values()):
        parts, of, sizes = objects_of(mask)
        removed = sizes < np.array([limits.get(int(number), 0) for number in of])
        for number in largest:
            own = np.flatnonzero(of == number)
            removed[own[own != own[sizes[own].argmax()]] if own.size else own] = True
        removed[0] = False
        cleaned[removed[parts]] = 0
    elif not isinstance(object_px, Mapping) and object_px > 1:
        cleaned[_small_parts(mask, mask.ndim, object_px) > 0] = 0
    if hole_px > 1:
        _fill(cleaned, hole_px)
    return cleaned


def objects_of(mask: Mask) -> tuple[Mask, Mask, Mask]:
    """Number the connected parts of each class of a mask.

    Args:
        mask: (*S) classes, 0 = background.

    Returns:
        The number of each pixel's part (*S), 0 in the background; of each number (N,) its class,
        and its size in pixels.
    """
    parts = connected_components(mask, connectivity=mask.ndim, background=0)
    sizes = np.bincount(parts.ravel())
    of = np.zeros(len(sizes), mask.dtype)
    of[parts.ravel()] = mask.ravel()
    return parts, of, sizes


def check_sizes(object_px: int | Mapping[int, int], hole_px: int) -> None:
    """Refuse sizes that are no whole numbers of pixels from 0.

    Raises:
        ConfigError: names the size.
    """
    by_class = object_px if isinstance(object_px, Mapping) else {"": object_px}
    sizes = {f"object_px {number}".strip(): size for number, size in by_class.items()}
    for name, size in {**sizes, "hole_px": hole_px}.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ConfigError(f"{name}={size!r}: expected a whole number of pixels from 0 (off)")


def _small_parts(values: Mask, connectivity: int, smallest_px: int) -> Mask:
    """Number the connected parts of one value above 0 that are small; 0 elsewhere."""
    parts = connected_components(values, connectivity=connectivity, background=0)
    sizes = np.bincount(parts.ravel())
    sizes[0] = smallest_px
    return np.where((sizes < smallest_px)[parts], parts, 0)


def _fill(mask: Mask, smallest_px: int) -> None:
    """Fill the small holes of a mask in place."""
    holes = _small_parts(mask == 0, 1, smallest_px)
    for axis in range(mask.ndim):
        for side in (0, -1):
            reached = np.unique(np.take(holes, side, axis=axis))
            holes[np.isin(holes, reached[reached > 0])] = 0
    numbers = np.unique(holes)
    numbers = numbers[numbers > 0]
    if not numbers.size:
        return
    classes = np.unique(mask)
    votes = np.zeros((len(numbers), len(classes)), dtype=np.int64)
    for axis in range(mask.ndim):
        for step in (1, -1):
            # No hole reaches the border, so what is rolled over it meets no hole.
            neighbour = np.roll(mask, step, axis=axis)
            beside = (holes > 0) & (neighbour != 0)
            which = np.searchsorted(numbers, holes[beside])
            np.add.at(votes, (which, np.searchsorted(classes, neighbour[beside])), 1)
    filled = holes > 0
    mask[filled] = classes[votes.argmax(axis=1)][np.searchsorted(numbers, holes[filled])]


# Small objects and holes taken out of predictions, in testing and in prediction alike.


def clean_logits(
    logits: Tensor,
    object_px: int | Mapping[int, int],
    hole_px: int,
    background: float = 0.0,
    largest: Sequence[int] = (),
) -> Tensor:
    """Change logits so that their best classes are the cleaned mask.

    Where the mask is changed, the new class takes the highest logit of the pixel and all others
    lie at least 1 below; every other pixel keeps its logits. Masks that are resized afterwards are
    therefore cleaned too, while probabilities of changed pixels no longer mean anything.

    Args:
        logits: (B, K, *S), or classes (B, 1, *S), which are cleaned as they are.
        object_px: see `clean_up`; likewise `hole_px`.
        hole_px: see `object_px`.
        background: what is added to the logits of class 0 when masks are made of them, see
            `background_shift`; the best classes, and the highest logits, are those after that.
        largest: see `clean_up`.

    Returns:
        float32 (B, K, *S), on the device of the logits.

    >>> logits = torch.zeros(1, 2, 3, 3)
    >>> logits[0, 1, 1, 1] = 5.0  # a speck of one pixel
    >>> clean_logits(logits, object_px=2, hole_px=0)[0, :, 1, 1].tolist()
    [5.0, 4.0]
    """
    if not logits.is_floating_point():
        maps = [clean_up(one[0].cpu().numpy(), object_px, hole_px, largest) for one in logits]
        return torch.from_numpy(np.stack(maps))[:, None]
    logits = logits.float()  # below 1 apart, bfloat16 cannot tell large logits
    shift = torch.zeros(logits.shape[1], device=logits.device)
    shift[0] = background
    shift = shift.view(1, -1, *[1] * (logits.ndim - 2))
    shifted = logits + shift if background else logits
    best = shifted.argmax(1)
    masks = [clean_up(mask.cpu().numpy(), object_px, hole_px, largest) for mask in best]
    cleaned = torch.stack([torch.from_numpy(mask) for mask in masks]).to(best.device)
    changed = (cleaned != best).unsqueeze(1)
    highest = shifted.amax(1, keepdim=True)
    classes = torch.arange(logits.shape[1], device=logits.device)
    new = classes.view_as(shift) == cleaned.unsqueeze(1)
    told = torch.where(new, highest, torch.minimum(shifted, highest - 1))
    return torch.where(changed, told - shift if background else told, logits)
