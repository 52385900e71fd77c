"""From file paths, arrays or whole volumes to checked tensors, also of values as trained on."""

import logging
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError, DataError, DataWarning
from metaseg_monai.images.geometry import AxialVolume, Axis, axial_volume
from metaseg_monai.images.image import Channels, Image
from metaseg_monai.images.lazy import LazyTensor, every_nth
from metaseg_monai.tables.check import Target, VolumeCache, load_case

logger = logging.getLogger(__name__)

STORED = "stored"  # in `meta`; the type of the pixels in the file, which are float32 here
LABEL_STORED = "label_stored"  # in `meta`; likewise of the pixels of the label
HAS_AFFINE = "has_affine"  # in `meta`; a MetaTensor itself takes the identity where there is none
ORIGINAL_AFFINE = "original_affine"  # in `meta`, as MONAI's: of the file, before any turn
MOMENTS = "moments"  # in `meta`: mean and deviation of each channel, of the whole volume
VIEW = "axial_view"  # in the item of a whole volume: how its planes lie in the stored array


def named(item: Mapping[Any, Any]) -> str:
    """What an item is called in messages.

    >>> named({"case": "a"})
    "case 'a'"
    """
    return f"case {item.get('case', '?')!r}"


class LoadCased(MapTransform):
    """Load the image of an item, and its label where it has one, checked against each other.

    The image becomes a float32 MetaTensor (C, *S), the label a MetaTensor (1, *S) of classes,
    uint8 (int64 beyond 256 classes). Their `meta` holds `filename_or_obj`, `format` and `axes`;
    the affine is the file's where it has one (NIfTI), else the identity; `has_affine` tells which,
    and `original_affine` stays that of the file.

    An item with `plane` whose image is a NIfTI volume or DICOM series gives that axial plane
    (1, H, W) and the file's own `spacing_mm` (z, y, x). The volume is read at its first plane and
    kept until another one is asked for; each worker process keeps its own. Without `plane` such a
    volume gives all its axial planes, (1, H, W, D), for an inferer that runs them one by one; how
    they lie in the file is kept under `axial_view`, so that a mask comes back into its place.

    Where labels are images that are to be predicted (`target`), a label becomes a float32
    MetaTensor (C, *S) of the values in its file, of any number of channels, and a `mask` beside it
    one of classes (1, *S); the `meta` of both tells the type of the pixels in the label's file as
    `label_stored`.

    Instead of a path an image, and a label, may be an array or tensor: (C, *S), or (H, W) of one
    channel; a MetaTensor of three axes is turned by its affine as a file is.

    Args:
        channels: "stored", "grey" or "rgb", see `metaseg_monai.images.convert_channels`.
        classes: number of classes, background included.
        spatial_dims: 2 for networks of planes; 3 leaves volumes as their file stores them.
        axes: see `metaseg_monai.images.read_image`; for the image only.
        in_channels: channels that the network takes; None takes any number.
        axis: that the planes of volumes are across; items with planes across another are refused.
        target: what labels are, "mask" or "image".
        moments: tell mean and deviation of each channel in the image's `meta`, of planes those of
            the whole volume, for `NormalizeVolumed`.

    Attributes:
        lazily: whether a large image becomes a `LazyTensor`, which keeps its pixels as they are
            stored; what comes after it in the list must take that.

    Raises:
        DataError: (when called) a file cannot be read, pixels are not finite, or the label does
            not fit; names case and file.

    Warns:
        DataWarning: (when called) an image is constant.
    """

    def __init__(
        self,
        channels: Channels = "stored",
        classes: int = 2,
        spatial_dims: int | None = None,
        axes: str | None = None,
        in_channels: int | None = None,
        axis: Axis = "axial",
        target: Target = "mask",
        moments: bool = False,
    ) -> None:
        super().__init__(["image", "label", "mask"], allow_missing_keys=True)
        if target not in get_args(Target):
            raise ConfigError(f"target={target!r}: expected {' or '.join(get_args(Target))}")
        self.target: Target = target
        self.channels = channels
        self.classes = classes
        self.spatial_dims = spatial_dims
        self.axes = axes
        self.in_channels = in_channels
        self.axis = axis
        self.volumes = VolumeCache()
        self.watch: Callable[[np.ndarray, str], object] | None = None
        self.expected: Mapping[str, Any] | None = None
        self.force = False
        self.identify = False  # put the digest of an image into its item, as `pixels`
        self._judged: dict[str, str | None] = {}
        self.lazily = False
        self.moments = moments
        self._moments: dict[str, list[list[float]]] = {}  # of the last volume

    def expect(self, intensity: Mapping[str, Any] | None, force: bool = False) -> None:
        """Refuse from now on images whose values are none of those that a network was trained on.

        Of a volume that comes plane by plane all voxels count, whatever planes are asked for.

        Args:
            intensity: of the training's images, as `intensity_of` gives it; None where nothing is
                known of them: then only constant images are refused.
            force: tell it in the log, and go on.
        """
        self.expected, self.force, self._judged = intensity or {}, force, {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the paths of an item by tensors; others are kept, but what reads its label.

        Lists of different lengths would not collate into a batch.
        """
        item = dict(data)
        loaded = load_case(
            {str(key): value for key, value in item.items()},
            self.channels,
            self.classes,
            self.spatial_dims,
            self.axes,
            volumes=self.volumes,
            identify=self.identify,
            lazily=self.lazily,
            target=self.target,
        )
        values = item.pop("mask_values", None)
        item.pop("label_values", None)
        if self.target == "mask":
            item.pop("mask", None)
        found = loaded.image.shape[0]
        if self.in_channels not in (None, found):
            to = {1: "grey", 3: "rgb"}.get(self.in_channels or 0) if found <= 4 else None
            made = f"--preprocessing#0#channels {to} or " if to else ""
            raise DataError(
                f"{named(item)}: {found} channels in {loaded.attributes['path']}, the network "
                f"takes {self.in_channels}; save the image with {self.in_channels}, or use a "
                f"network trained with {made}--in_channels {found}"
            )
        attributes = loaded.attributes
        if "plane" in attributes and item.get("axis", "axial") != self.axis:
            raise DataError(
                f"{named(item)}: {item.get('axis', 'axial')} planes of {attributes['path']}, the "
                f"network takes {self.axis} ones; give slices and LoadCased one axis"
            )
        remarks = loaded.remarks
        if attributes["twofold"]:
            remarks += (f"masks that can be read in two ways are taken as {values}",)
        for remark in remarks:
            warnings.warn(remark, DataWarning, stacklevel=2)
        if self.identify:
            item["pixels"] = attributes["pixels"]
        if self.watch is not None:
            self.watch(loaded.image, attributes[STORED])
        if self.expected is not None:
            self._judge(item, loaded.image, attributes)
        if self.moments:
            attributes[MOMENTS] = self._moments_of(item, loaded.image, attributes)
        arrays = {"image": loaded.image, "label": loaded.label, "mask": loaded.mask}
        attributes[ORIGINAL_AFFINE] = attributes["affine"]
        if "plane" in attributes:
            item["spacing_mm"] = attributes["spacing_mm"]
        elif self.spatial_dims != 3 and loaded.image.ndim == 4 and attributes["affine"] is not None:
            arrays = {
                key: _planes(item, array, attributes, self.axis) for key, array in arrays.items()
            }
            attributes = {**attributes, "affine": None}
        for key, array in arrays.items():
            if array is not None:
                item[key] = _tensor(array, item[key], attributes)
        return item

    def _moments_of(
        self, item: Mapping[Hashable, Any], image: np.ndarray, attributes: Mapping[str, Any]
    ) -> list[list[float]]:
        """Mean and deviation of each channel, of a plane those of its volume, counted once."""
        if "plane" not in attributes:
            return [_moments(channel) for channel in image]
        path = str(attributes["path"])
        if path not in self._moments:
            voxels = self.volumes.read("image", item["image"]).planes
            self._moments = {path: [_moments(voxels)]}
        found = self._moments[path]
        if not np.isfinite(found).all():
            raise DataError(
                f"{named(item)}: {path}: values that are not finite in other planes of the volume, "
                "by whose mean each is scaled; mend the file"
            )
        return found

    def _judge(
        self, item: Mapping[Hashable, Any], image: Any, attributes: Mapping[str, Any]
    ) -> None:
        """Refuse an image that does not fit what was trained on; a volume is judged once."""
        path, of_volume = attributes["path"], "plane" in attributes
        known = of_volume and path in self._judged
        if of_volume and not known:
            image = self.volumes.read("image", item["image"]).planes[None]
        apart = "plane" in item and not of_volume  # a slice with a file of its own may be empty
        expected, stored = self.expected or {}, attributes[STORED]
        why = self._judged.get(path) if known else misfit(image, expected, stored, not apart)
        if of_volume:
            self._judged[path] = why
        if why is None:
            return
        told = f"{named(item)}: {path}: {why}"
        if not self.force:
            raise DataError(f"{told}; give it as the training had it, or pass --force True")
        if not known:
            logger.warning("%s. Going on, as it is forced.", told)


def _planes(
    item: dict[Hashable, Any],
    volume: np.ndarray | None,
    attributes: Mapping[str, Any],
    axis: Axis,
) -> np.ndarray | None:
    """The planes (1, H, W, D) of a stored volume; the item learns how they lie in it."""
    if volume is None:
        return None
    try:
        view = axial_volume(Image(volume, dict(attributes)), axis)
    except DataError as error:
        raise DataError(f"{named(item)}: {error}") from error
    item |= {"spacing_mm": view.spacing_mm, VIEW: without_voxels(view)}
    return np.ascontiguousarray(np.moveaxis(view.planes, 0, -1))[None]


def _moments(voxels: np.ndarray) -> list[float]:
    """Mean and standard deviation of (N, *S), plane by plane, in little memory."""
    mean = float(np.mean(voxels, dtype=np.float64))
    square = sum(float(np.square(plane.astype(np.float64) - mean).sum()) for plane in voxels)
    return [mean, math.sqrt(square / voxels.size)]


def without_voxels(view: AxialVolume) -> AxialVolume:
    """How a volume lies, in no memory."""
    return replace(view, planes=np.broadcast_to(np.uint8(0), view.planes.shape))


def _tensor(array: Any, given: Any, attributes: Mapping[str, Any]) -> torch.Tensor:
    """A MetaTensor that says where it is from; of several planes the first file."""
    first = given[0] if isinstance(given, (list, tuple)) else given
    affine = attributes["affine"]
    meta = {
        "filename_or_obj": str(first) if isinstance(first, (str, Path)) else attributes["path"],
        "format": attributes["format"],
        "axes": attributes["axes"],
        STORED: attributes["stored"],
        HAS_AFFINE: affine is not None,
        ORIGINAL_AFFINE: attributes[ORIGINAL_AFFINE],
    }
    if MOMENTS in attributes:
        meta[MOMENTS] = attributes[MOMENTS]
    if LABEL_STORED in attributes:
        meta[LABEL_STORED] = attributes[LABEL_STORED]
    if isinstance(array, LazyTensor):
        return array.known(meta, array.ends)
    of_file = None if affine is None else torch.from_numpy(affine)
    return MetaTensor(torch.from_numpy(array), affine=of_file, meta=meta)


# Which values the images of a training have, and whether those of another one are of their kind.

PERCENTILES = (0.5, 50.0, 99.5)
PIXELS_OF_AN_IMAGE = 1 << 16  # looked at, on a grid of every n-th row and column
PIXELS_IN_ALL = 1 << 22
LEAST_SHARE = 0.01  # of voxels between the training's outer percentiles
LEAST_SPREAD = 0.01  # of that of the training's image with the least contrast
SHIFT = 0.5  # of the training's width, at both ends and to the same side


def on_grid(image: Any, pixels: int) -> np.ndarray:
    """Pixels (C, P) of an image (C, *S) on a grid of every n-th row, column and plane.

    >>> on_grid(np.arange(16).reshape(1, 4, 4), 4).tolist()
    [[0, 2, 8, 10]]
    """
    shape = tuple(image.shape)
    step = int(np.ceil((math.prod(shape[1:]) / pixels) ** (1 / (len(shape) - 1))))
    return every_nth(image, step).reshape(shape[0], -1)


def tally_intensity(image: np.ndarray, images: int) -> np.ndarray:
    """What `intensity_of` needs to know of one image.

    Args:
        image: (C, *S), as loaded, before any scaling.
        images: of the training, in all; the more, the fewer pixels of each are kept.

    Returns:
        (C, 2 + 3 + P) lowest and highest value, `PERCENTILES` and P pixels, by channel.
    """
    seen = on_grid(image, PIXELS_OF_AN_IMAGE).astype(np.float64)
    flat = image.reshape(len(image), -1)
    ends = np.stack([flat.min(1), flat.max(1)], axis=1)
    step = -(-seen.shape[1] // max(1 << 8, PIXELS_IN_ALL // images))
    dark_to_bright = np.percentile(seen, PERCENTILES, axis=1).T
    return np.concatenate([ends, dark_to_bright, seen[:, ::step]], axis=1)


def intensity_of(images: Sequence[np.ndarray], stored: Iterable[str]) -> dict[str, Any]:
    """The values of a training's images, before any scaling (contract 27).

    Every image counts with about the same number of pixels; the same images give the same numbers
    to the last digit, in whatever number of processes they were read.

    Args:
        images: of each what `tally_intensity` gives, all with the same channels.
        stored: types of the pixels in their files.

    Returns:
        `images`, their number, `stored`, each type once, and of each of `channels`: `lowest`,
        `highest`, `mean`, `std`, `percentiles` {"0.5", "50", "99.5"} of all pixels, `of_images`,
        the least and the greatest of each percentile over the images, and `least_spread`, between
        the outer two, over images that are not constant.
    """
    channels = []
    for parts in zip(*images, strict=True):
        pixels = np.concatenate([part[5:] for part in parts])
        heads = np.stack([part[:5] for part in parts])
        spread = heads[:, 4] - heads[:, 2]
        all_of = dict(zip(map(_name, PERCENTILES), np.percentile(pixels, PERCENTILES), strict=True))
        channels.append(
            {
                "lowest": heads[:, 0].min(),
                "highest": heads[:, 1].max(),
                "mean": pixels.mean(),
                "std": pixels.std(),
                "percentiles": all_of,
                "of_images": {
                    _name(one): [heads[:, at].min(), heads[:, at].max()]
                    for at, one in enumerate(PERCENTILES, 2)
                },
                "least_spread": min(spread[spread > 0], default=0.0),
            }
        )
    return {
        "images": len(images),
        "stored": sorted(set(stored)),
        "channels": _plain_numbers(channels),
    }


def _name(percentile: float) -> str:
    return f"{percentile:g}"


def _plain_numbers(value: Any) -> Any:
    """The same with numbers of nine digits, enough to tell float32."""
    if isinstance(value, dict):
        return {key: _plain_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(inner) for inner in value]
    return float(f"{value:.9g}")


def misfit(
    image: Any, trained: Mapping[str, Any], stored: str = "", whole: bool = True
) -> str | None:
    """Why the values of an image are none of those that a network was trained on, or None.

    It does not fit where a channel, not counting constant ones, has under 1 % of its voxels
    between the training's percentiles 0.5 and 99.5; where the image is constant, or nearly so:
    under 1 % of the spread of the training's image with the least; or where both its dark and its
    bright end lie beyond those of every training image, to the same side, by half the training's
    width: an offset. Nor does an image of 8 bits where those of the training had more.

    Args:
        image: (C, *S), as loaded.
        trained: of `intensity_of`; empty where nothing is known. Where it is `indifferent`, for
            the scaling takes an image's own values, only constant images do not fit.
        stored: type of the pixels in the file.
        whole: False for a slice of a volume, which may be empty.
    """
    low, high = (float(found) for found in (image.min(), image.max()))
    if low == high:
        return f"constant, every value is {low:g}" if whole else None
    if trained.get("indifferent") or not trained:
        return None
    channels = trained["channels"]
    if len(channels) != len(image):
        return f"{len(image)} channels, where the training had {len(channels)}"
    ends = [min(one["lowest"] for one in channels), max(one["highest"] for one in channels)]
    had_more = "uint8" not in trained["stored"] and not 0 <= ends[0] <= ends[1] <= 255
    if stored == "uint8" and had_more:
        kinds = ", ".join(trained["stored"])
        return f"8 bits, where the images of the training had {ends[0]:g} to {ends[1]:g} ({kinds})"
    for values, known in zip(on_grid(image, PIXELS_OF_AN_IMAGE), channels, strict=True):
        dark, _, bright = np.percentile(values, PERCENTILES)
        if values.min() == values.max():
            continue
        first, _, last = (known["percentiles"][_name(one)] for one in PERCENTILES)
        if first == last:  # under 1 % of the pixels are anything but background
            first, last = known["lowest"], known["highest"]
        within = float(np.mean((values >= first) & (values <= last)))
        ends = [known["of_images"][_name(one)] for one in PERCENTILES]
        margin = SHIFT * (last - first)
        above = dark > ends[0][1] + margin and bright > ends[2][1] + margin
        below = dark < ends[0][0] - margin and bright < ends[2][0] - margin
        narrow = whole and bright - dark < LEAST_SPREAD * known["least_spread"]
        if within >= LEAST_SHARE and not (above or below or narrow):
            continue
        told = (
            f"values from {dark:g} to {bright:g}, where the images of the training had {first:g} "
            f"to {last:g} (percentiles 0.5 and 99.5)"
        )
        if within < LEAST_SHARE:
            return f"{told}; {within:.1%} of its values lie there"
        if narrow:
            return f"{told}; to the network it is nearly constant"
        way = "brighter" if above else "darker"
        return f"{told}; all of it is {way}, as by an offset or another scale"
    return None
