"""What is wrong with the files of a case, and of a whole table before any training."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from metaseg_monai.errors import ConfigError, DataError, MetasegError, listing
from metaseg_monai.images.geometry import AxialVolume, Axis, axial_volume, same_grid, voxels_apart
from metaseg_monai.images.identity import image_digest
from metaseg_monai.images.image import (
    Channels,
    Image,
    Meaning,
    convert_channels,
    image_attributes,
    refuse_values_beyond,
    row_blocks,
    value_counts,
    whole_numbers,
)
from metaseg_monai.images.lazy import LARGE_PIXELS, LazyTensor, Place
from metaseg_monai.images.read import is_volume_file, read_image, read_label
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.columns import SPLITS, Columns, LabelValues
from metaseg_monai.tables.select import dealt_folds, fold_cases, folds_of
from metaseg_monai.tables.table import CaseTable, scan_table

SHOWN = 5
MOST_FOLDS = 10  # that are told
FEWEST_VALUES = 3  # of an image that is to be predicted; a mask saved by mistake has fewer
Target = Literal["mask", "image"]


class LoadedCase(NamedTuple):
    """A case as a network can take it.

    Attributes:
        image: (C, *S) float32, finite, channels as asked for; a `LazyTensor` of a large image where
            that was allowed.
        label: (1, *S) classes, uint8 (int64 beyond 256 classes), or an image that is to be
            predicted, (C, *S) float32, finite, as stored; None where there is none.
        attributes: of the image file, see `Image`, with `stored`, the type of its pixels there,
            and `twofold`, why its label can be read in two ways (see `read_label`), if it can;
            for a plane of a volume also `plane`, while `spacing_mm` is (z, y, x) and `affine`,
            which a plane alone does not have, is None.
        remarks: what is allowed but seldom meant, in words.
        mask: classes (1, *S) beside a label that is an image, as of a label; None where there are
            none.
    """

    image: Any
    label: np.ndarray | None
    attributes: dict[str, Any]
    remarks: tuple[str, ...]
    mask: np.ndarray | None = None


class TableCheck(NamedTuple):
    """What a deep check found.

    Attributes:
        problems: what training would fail on or be wrong with; empty where all is right.
        warnings: what is allowed but seldom meant.
        summary: splits, shapes, pixel types and classes, in a few lines.
        splits: that have rows.
    """

    problems: list[str]
    warnings: list[str]
    summary: str
    splits: tuple[str, ...]


def check_table(
    path: str | Path,
    schema: MetadataSchema | None = None,
    columns: Columns = None,
    classes: int = 2,
    channels: Channels = "stored",
    spatial_dims: int | None = None,
    target: Target = "mask",
    several: bool = True,
) -> TableCheck:
    """Read every file of a table and compare contents across splits.

    Args:
        path: the table, or the folder that holds it.
        schema: of the metadata; None reads no metadata.
        columns: see `read_table`.
        classes: number of classes, background included.
        channels: see `convert_channels`.
        spatial_dims: see `load_case`.
        target: see `load_case`.
        several: whether validation may take several images at once, which must be of one size.

    Raises:
        DataError: the table is missing or unreadable, or lacks columns.
        ConfigError: the column map is wrong.
    """
    table, wrong = scan_table(path, schema, columns)
    problems: list[str] = [*wrong]
    remarks = list(table.remarks)
    content: dict[str, tuple[str, str]] = {}  # image: digest of its pixels, split
    cases, volumes = [], VolumeCache()
    for item in tqdm(table.rows, desc="check", unit="case", disable=None):
        if schema is not None:
            remarks += schema.flags(item["metadata"], item["case"])
        try:
            loaded = load_case(
                item, channels, classes, spatial_dims, volumes=volumes, target=target
            )
        except DataError as error:
            problems.append(str(error))
            continue
        if str(item["image"]) not in content:
            content[str(item["image"])] = _content(item, loaded, volumes), item["split"]
        remarks += loaded.remarks
        cases.append(_tally(item["case"], loaded, classes, target))
    copies = pd.DataFrame(list(content.values()), list(content), ["digest", "split"])
    copies = copies[copies["digest"] != ""]
    for _, same in copies[copies.duplicated("digest", keep=False)].groupby("digest", sort=False):
        if same["split"].nunique() > 1:
            told = ", ".join(f"{image} ({split})" for image, split in same["split"].items())
            problems.append(f"the same image content in several splits: {told}; keep one")
        else:
            remarks.append(f"the same image content under several paths: {', '.join(same.index)}")
    summary = [table.summary(), *_folds_told(table, remarks)]
    if cases:
        found = pd.DataFrame(cases)
        problems += _problems_of(found)
        remarks += _remarks_on(found, spatial_dims, several)
        summary += _summary_of(found)
    else:
        summary.append("  no case could be read")
    lacking = [split for split in SPLITS if split not in table.splits]
    remarks += [
        f"no rows of the split {split!r}: training needs train and val, evaluation test"
        for split in lacking
    ]
    return TableCheck(problems, remarks, "\n".join(summary), table.splits)


def _folds_told(table: CaseTable, remarks: list[str]) -> list[str]:
    """A line on the folds that a table deals, which the splits above it do not tell."""
    try:
        folds = dealt_folds(table)
        if not folds:
            return []
        fold_cases(table, folds[0])
    except MetasegError as error:
        remarks.append(f"no training takes --fold: {error}")
        return []
    of_group = folds_of(table)
    tested = Counter(of_group.get(row["group"]) for row in table.rows)
    told = listing([f"{fold} tests {tested[fold]}" for fold in folds], MOST_FOLDS, str)
    return [f"  cases by fold: {told}; the splits above are those without --fold"]


def _content(item: Mapping[str, Any], loaded: LoadedCase, volumes: "VolumeCache") -> str:
    """The digest of an item's image, of a plane that of its volume."""
    if "plane" not in loaded.attributes:
        return image_digest(Image(loaded.image, loaded.attributes))
    return volumes.digest(item["image"])


def _tally(case: str, loaded: LoadedCase, classes: int, target: Target) -> dict[str, Any]:
    image, given = loaded.image, loaded.label
    label, shown = (loaded.mask, given) if target == "image" else (given, None)
    pixels = np.zeros(classes, np.int64)
    for value, count in value_counts(label).items() if label is not None else ():
        pixels[value] = count  # bincount would take 8 bytes a pixel
    return {
        "case": case,
        "channels": image.shape[0],
        "shape": "x".join(map(str, image.shape[1:])),
        "lowest": float(image.min()),
        "highest": float(image.max()),
        "labelled": label is not None,
        "turned": loaded.attributes["turned"],
        "twofold": loaded.attributes["twofold"] or "",
        "empty": label is not None and not pixels[1:].any(),
        "pixels": pixels,
        "label channels": 0 if shown is None else len(shown),
        "label lowest": np.nan if shown is None else float(shown.min()),
        "label highest": np.nan if shown is None else float(shown.max()),
        "like a mask": shown is not None and len(np.unique(shown)) < FEWEST_VALUES,
    }


def _problems_of(cases: pd.DataFrame) -> list[str]:
    axes = cases["shape"].str.count("x") + 1
    if axes.nunique() > 1:
        told = ", ".join(f"{n} axes (case {cases['case'][axes == n].iloc[0]!r})" for n in (2, 3))
        return [f"the images are planes and volumes: {told}; no network takes both"]
    found = []
    for column, what, step in (
        ("channels", "images", 'set channels="grey" or channels="rgb"'),
        ("label channels", "labels", "name the rows of one image as label_channels in the columns"),
    ):
        first = cases.drop_duplicates(column)
        if len(first) > 1:
            pairs = zip(first[column], first["case"], strict=True)
            told = ", ".join(f"{number} (case {case!r})" for number, case in pairs)
            found.append(f"the {what} have different numbers of channels: {told}; {step}")
    return found


def _remarks_on(cases: pd.DataFrame, spatial_dims: int | None, several: bool) -> list[str]:
    found = []
    if spatial_dims != 3 and (cases["shape"].str.count("x") == 2).all():
        found.append(
            "the images are volumes: they need a network of three dimensions, or, for one of "
            "planes, a row a plane (columns volume, plane and planes, as prepare writes them)"
        )
    if several and (sizes := cases["shape"].nunique()) > 1:
        found.append(
            f"the images have {sizes} sizes: validation and tests see whole images and need "
            "val_batch_size 1; training crops them (roi_size)"
        )
    labelled, empty = cases["labelled"].sum(), cases["case"][cases["empty"]]
    if labelled:
        absent = np.flatnonzero(np.sum(cases["pixels"].tolist(), axis=0) == 0)
        found += [f"class {number} is in no label" for number in absent]
    if len(masks := cases["case"][cases["like a mask"]]):
        found.append(
            f"{len(masks)} of {len(cases)} labels that are to be images have fewer than "
            f"{FEWEST_VALUES} values (constant, or a mask?): {listing(masks, SHOWN, str)}"
        )
    if len(empty):
        found.append(f"{len(empty)} of {labelled} masks are empty: {listing(empty, SHOWN, str)}")
    if len(turned := cases["case"][cases["turned"]]):
        found.append(
            f"{len(turned)} images or masks are turned upright as their orientation tag says "
            f"(EXIF, TIFF 274): {listing(turned, SHOWN, str)}; see that image and mask were drawn "
            "in one frame"
        )
    two = cases[cases["twofold"] != ""]
    if len(two):
        told = listing([f"{row.case} {row.twofold}" for row in two.itertuples()], SHOWN, str)
        found.append(f"{len(two)} of {labelled} masks are read as mask_values says: {told}")
    full = cases["case"][[pixels[1:].sum() > pixels[0] for pixels in cases["pixels"]]]
    if len(full):
        found.append(
            f"{len(full)} of {labelled} masks have more foreground than background (inverted?): "
            f"{listing(full, SHOWN, str)}"
        )
    return found


def _summary_of(cases: pd.DataFrame) -> list[str]:
    counts = cases["shape"].value_counts()
    shapes = ", ".join(f"{shape} ({count})" for shape, count in counts[:3].items())
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    pixels = np.sum(cases["pixels"].tolist(), axis=0)
    parts = pixels / max(1, int(pixels.sum()))
    told = ", ".join(f"{number}: {part:.2%}" for number, part in enumerate(parts))
    channels = ", ".join(map(str, cases["channels"].unique()))
    lines = [
        f"  image shapes: {shapes}{more}; channels: {channels}; "
        f"values {cases['lowest'].min():g} to {cases['highest'].max():g}"
    ]
    if (images := cases[cases["label channels"] > 0]).size:
        channels = ", ".join(map(str, images["label channels"].unique()))
        low, high = images["label lowest"].min(), images["label highest"].max()
        lines.append(f"  labels are images; channels: {channels}; values {low:g} to {high:g}")
    if images.empty or cases["labelled"].any():
        lines.append(f"  pixels of each class: {told}; empty masks: {cases['empty'].sum()}")
    return lines


# One case: image and label, read and checked against each other.


def image_files(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The files of an item's image: one, or one a plane; a tuple that tells rows of one image.

    >>> image_files({"image": "a.png"})
    ('a.png',)
    """
    image = item["image"]
    return (str(image),) if isinstance(image, (str, Path)) else tuple(map(str, image))


class VolumeCache:
    """The last volume read in each role, seen as planes, so that its file is read once.

    So it is of images that several rows have in turn (tasks, objects), unless they are large.
    Copies, also those in worker processes, start empty.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, AxialVolume]] = {}
        self._digest: tuple[str, str] | None = None
        self._images: dict[str, tuple[Any, Image]] = {}

    def image(self, role: str, given: Any, how: Any, read: Callable[[], Image]) -> Image:
        """An image of its own, from its files only where they are not the last ones read so.

        Args:
            role: of what is read, of each of which one image is kept.
            given: path or paths; an array is nothing that is kept.
            how: what else decides what is read.
            read: the file.
        """
        paths = given if isinstance(given, (list, tuple)) else [given]
        if not all(isinstance(path, (str, Path)) for path in paths):
            return read()
        key = (*map(str, paths), how, *map(_state, paths))
        if role not in self._images or self._images[role][0] != key:
            self._images.pop(role, None)
            found = read()
            small = math.prod(found.array.shape[1:]) <= LARGE_PIXELS
            if not small or not isinstance(found.array, np.ndarray):
                return found
            self._images[role] = key, found
        kept = self._images[role][1]
        return Image(kept.array.copy(), dict(kept.attributes))

    def holds(self, role: str, path: str | Path) -> bool:
        """Whether `read` would not touch the disk."""
        return role in self._last and self._last[role][0] == str(path)

    def read(
        self,
        role: str,
        path: str | Path,
        values: Meaning | None = None,
        axis: Axis | None = None,
    ) -> AxialVolume:
        """The volume of a path; the one before it in that role is let go first.

        Args:
            role: "image", "label" or "mask", of each of which one volume is kept; the latter two
                are read as labels, any other as an image.
            path: a file that `read_image` takes.
            values: of a label, see `read_label`.
            axis: that the planes are across; None takes a volume as it is kept, else as axial ones.

        Raises:
            DataError: as `read_image` and `axial_volume`.
        """
        kept = self.holds(role, path) and axis in (None, self._last[role][1].axis)
        if not kept:
            self._last.pop(role, None)
            if role in ("label", "mask"):
                image = read_label(path, spatial_dims=3, values=values)
            else:
                image = read_image(path, spatial_dims=3)
            self._last[role] = (str(path), axial_volume(image, axis or "axial"))
        return self._last[role][1]

    def digest(self, path: str | Path) -> str:
        """`image_digest` of the image of a path, made once."""
        if self._digest is None or self._digest[0] != str(path):
            planes = self.read("image", path).planes
            self._digest = str(path), image_digest(Image(planes[None], {}))
        return self._digest[1]

    def __reduce__(self) -> tuple[type["VolumeCache"], tuple[()]]:
        return VolumeCache, ()


def _state(path: str | Path) -> tuple[int, int] | None:
    """By which a file is seen to have changed; None where it cannot be read."""
    try:
        told = Path(path).stat()
    except OSError:  # which reading it tells
        return None
    return told.st_mtime_ns, told.st_size


def load_case(
    item: Mapping[str, Any],
    channels: Channels = "stored",
    classes: int = 2,
    spatial_dims: int | None = None,
    axes: str | None = None,
    volumes: VolumeCache | None = None,
    identify: bool = False,
    lazily: bool = False,
    target: Target = "mask",
) -> LoadedCase:
    """Read the image of an item, and its label where it has one.

    An item with `plane` whose image is a NIfTI volume or DICOM series gives that plane (1, H, W)
    across its `axis` (axial without), and of its label volume the same; with a 2D image `plane`
    changes nothing.

    Args:
        item: with `image`, a path, plane paths, or an array (C, *S), or (H, W), maybe `label` of
            the same kinds, `case` for messages, and maybe `label_values`: the pixel values that
            become class 1 while all others become 0, lists of those of class 1, 2 and so on, or
            "instances": all above 0. Without, the label's values are the classes. `mask_values` is
            the `values` of `read_label`. A MetaTensor of three axes brings its affine,
            and `spatial_shape` in its `meta` tells whether it has a channel. Of labels that are
            images a list has a file for each channel, and `mask` may stand beside them, of which
            the same entries tell the classes.
        channels: see `convert_channels`.
        classes: number of classes, background included; labels lie in 0..classes-1.
        spatial_dims: see `read_image`.
        axes: see `read_image`; for the image only.
        volumes: where the volumes of the planes stay, so that those to come need no reading.
        identify: put into the attributes `pixels`, the `image_digest` of the image, and behind a
            space that of the volume that it is a plane of.
        lazily: keep the pixels of a large image as they are stored, and make float32 of a part when
            it is asked for.
        target: what labels are: a "mask" of classes, or an "image" of any values and channels.

    Raises:
        DataError: a file cannot be read, pixels are not finite, or the label's shape, affine or
            values do not fit; names case and file.
        ConfigError: `target` is none of these.
    """
    if target not in get_args(Target):
        raise ConfigError(f"target={target!r}: expected {' or '.join(get_args(Target))}")
    if classes < 2:
        raise DataError(f"classes={classes}: expected 2 or more, background included")
    case = str(item.get("case", ""))
    volumes = volumes or VolumeCache()
    path = item["image"]
    try:
        remarks: list[str] = []
        is_file = isinstance(path, (str, Path))
        planar = "plane" in item and spatial_dims != 3 and is_file
        roles = _roles(item, target)
        stored: dict[str, Image] = {}
        if planar and (volumes.holds("image", path) or is_volume_file(path)):
            image, stored = _read_plane(item, volumes, remarks, roles)
        else:
            how = spatial_dims, axes, lazily
            image = volumes.image("image", path, how, lambda: _read(path, *how))
            remarks += _grid_remarks(image)
            if spatial_dims != 3 and is_file and image.array.shape[3:] == (1,):
                image, stored = _read_plane({**item, "plane": 0}, volumes, remarks, roles)
                image = _as_picture(image)  # as `slice_items` gives it to a prediction
            else:
                stored = {
                    key: _read_label(item[key], image, item.get("mask_values"), role, volumes)
                    for key, role in roles.items()
                }
        where = image.attributes["path"]
        if "plane" in image.attributes:
            where += f", plane {image.attributes['plane']}"
        of_planes = len(image.array.shape) == 3 or spatial_dims == 3
        large = math.prod(image.array.shape[1:]) > LARGE_PIXELS
        pixels: Any
        if lazily and of_planes and large:
            pixels = _lazily(image.array, channels, where)
        else:
            pixels = _finite_float32(convert_channels(image.array, channels), where)
        made: dict[str, np.ndarray] = {}
        for key, one in stored.items():
            if roles[key] == "target":
                made[key] = _finite_float32(one.array, one.attributes["path"])
            else:
                made[key] = _classes_of(one, classes, item.get("label_values"))
    except DataError as error:
        raise DataError(f"case {case!r}: {error}" if case else str(error)) from error
    if "plane" not in image.attributes and pixels.min() == pixels.max():
        remarks.append(
            f"{where}: every pixel is {float(pixels.min()):g}; "
            "an image without contrast; remove the row if that is not meant"
        )
    told = tuple(f"case {case!r}: {remark}" for remark in remarks)
    attributes = {**image.attributes, "stored": str(image.array.dtype)}
    if identify:
        found = [image_digest(image)]
        found += [volumes.digest(path)] if "plane" in image.attributes else []
        attributes["pixels"] = " ".join(found)
    turned = any("orientation" in one.attributes for one in stored.values())
    attributes["turned"] = turned or "orientation" in attributes
    twofold = [one.attributes.get("twofold") for one in stored.values()]
    attributes["twofold"] = next(filter(None, twofold), None)
    if "label" in stored:
        attributes["label_stored"] = str(stored["label"].array.dtype)
    return LoadedCase(pixels, made.get("label"), attributes, told, made.get("mask"))


def _roles(item: Mapping[str, Any], target: Target) -> dict[str, str]:
    """What is read of an item beside its image, and as what: see `VolumeCache.read`."""
    if target == "mask":
        return {"label": "label"} if "label" in item else {}
    asked = {"label": "target", "mask": "mask"}
    return {key: role for key, role in asked.items() if key in item}


def _read(
    given: Any, spatial_dims: int | None, axes: str | None = None, lazily: bool = False
) -> Image:
    """An image from its file, or as it is given."""
    if not isinstance(given, (np.ndarray, torch.Tensor)):
        return read_image(given, spatial_dims, axes, lazily=lazily)
    array = np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given)
    array = array[None] if array.ndim == 2 or _is_bare(given, array) else array
    if array.ndim not in (3, 4) or spatial_dims not in (None, array.ndim - 1) or not array.size:
        raise DataError(
            f"an array of shape {array.shape}, expected (C, H, W), (H, W) or, of a volume, "
            "(C, H, W, D)"
        )
    affine = None
    if isinstance(given, MetaTensor) and array.ndim == 4:
        affine = np.asarray(given.affine, dtype=np.float64)
    return Image(array, image_attributes("array", "array", "", array.shape[1:], affine))


def _is_bare(given: Any, array: np.ndarray) -> bool:
    """Whether a MetaTensor says that all of its axes are of space (a series in MONAI Deploy)."""
    told = getattr(given, "meta", {}).get("spatial_shape", ())
    return array.ndim == 3 and tuple(int(size) for size in told) == array.shape


def _finite_float32(array: np.ndarray, path: str) -> np.ndarray:
    pixels = _float32(array)
    _check_finite(path, int(pixels.size - np.count_nonzero(np.isfinite(pixels))), pixels.size)
    return pixels


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32's range becomes inf, which is refused
        return np.ascontiguousarray(array, dtype=np.float32)


def _check_finite(path: str, broken: int, pixels: int) -> None:
    if broken:
        raise DataError(
            f"{path}: {broken} of {pixels} pixels are not finite numbers; mend the image or "
            "remove the row"
        )


def _lazily(array: Any, channels: Channels, path: str) -> LazyTensor:
    """Pixels of which a part is read, converted and made float32 when it is asked for."""
    if channels != "stored" and array.shape[0] not in (1, 3):
        array = convert_channels(array[tuple(slice(0, size) for size in array.shape)], channels)
        channels = "stored"  # whether alpha is opaque is told by all of it

    def part(at: Place) -> torch.Tensor:
        every = (slice(0, array.shape[0]), *at[1:])
        return torch.from_numpy(_float32(convert_channels(array[every], channels)[at[0]]))

    many = {"stored": array.shape[0], "grey": 1, "rgb": 3}[channels]
    shape = (many, *array.shape[1:])
    ends, broken = [], 0
    for rows in row_blocks(shape):
        pixels = part((slice(0, many), rows, *(slice(0, size) for size in shape[2:]))).numpy()
        broken += int(pixels.size - np.count_nonzero(np.isfinite(pixels)))
        ends += [float(pixels.min()), float(pixels.max())]
    _check_finite(path, broken, math.prod(shape))
    return LazyTensor(part, shape, ends=(min(ends), max(ends)))


def _grid_remarks(image: Image) -> list[str]:
    """What is told of a whole volume's place and size, before any plane of it is used."""
    affine = image.attributes["affine"]
    if affine is None or len(image.array.shape) != 4 or len(image.array) != 1:
        return []
    return [f"{image.attributes['path']}: {told}" for told in axial_volume(image).remarks]


def _read_label(
    given: Any, image: Image, values: Meaning | None, role: str, volumes: VolumeCache
) -> Image:
    spatial_dims = len(image.array.shape) - 1
    of_classes = role != "target"
    is_array = isinstance(given, (np.ndarray, torch.Tensor))
    if of_classes and isinstance(given, (list, tuple)):
        raise DataError(f"{given[0]}: one of {len(given)} files of a mask; save it as one")
    as_classes = of_classes and not is_array

    def read() -> Image:
        return read_label(given, spatial_dims, values) if as_classes else _read(given, spatial_dims)

    label = volumes.image(role, given, (spatial_dims, values), read)
    path, affine = label.attributes["path"], label.attributes["affine"]
    turn = image.attributes.get("orientation")
    tag = "" if turn is None else f", which its orientation tag {turn} turns upright"
    fits = label.array.shape[1:] == image.array.shape[1:]
    if not fits or (of_classes and len(label.array) != 1):
        expected = "one channel and " if of_classes else ""
        step = "save the classes as one channel" if of_classes else "save it"
        raise DataError(
            f"{path}: label of {label.array.shape[0]} channel(s) and shape "
            f"{label.array.shape[1:]}, expected {expected}{image.array.shape[1:]} as its "
            f"image{tag}; {step} on the image's grid"
        )
    if spatial_dims == 3 and affine is None and image.attributes["affine"] is not None:
        raise DataError(
            f"{path}: the label has no affine (of a NIfTI file, sform_code and qform_code are 0), "
            f"its image has one ({image.attributes['path']}), so where the label lies is unknown; "
            "save it as NIfTI with its true affine"
        )
    grid = image.attributes["affine"]
    _check_grid(path, affine, image.attributes["path"], grid, image.array.shape[1:])
    return label


def _check_grid(
    label: str,
    affine: np.ndarray | None,
    image: str,
    of_image: np.ndarray | None,
    shape: tuple[int, ...],
) -> None:
    if affine is not None and of_image is not None and not same_grid(affine, of_image, shape):
        apart = voxels_apart(affine, of_image, shape)
        raise DataError(
            f"{label}: the label's affine differs from its image's ({image}), by up to {apart:.3g} "
            "voxels; resample the label onto the image's grid"
        )


def _read_plane(
    item: Mapping[str, Any], volumes: VolumeCache, remarks: list[str], roles: Mapping[str, str]
) -> tuple[Image, dict[str, Image]]:
    """One plane of an image volume and of its label volumes; remarks on the whole volume."""
    path, plane, axis = item["image"], item["plane"], item.get("axis", "axial")
    volume = volumes.read("image", path, axis=axis)
    if not 0 <= plane < len(volume.planes):
        raise DataError(
            f"{path}: has {len(volume.planes)} planes, so no plane {plane}; the table or list of "
            "slices was made from another volume"
        )
    if plane == 0 and "label" in item:  # a prediction has told them of the whole volume
        remarks += [f"{path}: {remark}" for remark in volume.remarks]
    if plane == 0 and volume.planes.min() == volume.planes.max():  # said once a volume
        remarks.append(
            f"{path}: every voxel is {volume.planes.flat[0]:g}; an image without contrast"
        )
    found: dict[str, Image] = {}
    for key, role in roles.items():
        target = volumes.read(role, item[key], item.get("mask_values"), axis)
        if target.planes.shape != volume.planes.shape:
            raise DataError(
                f"{item[key]}: label of shape (planes, rows, columns) "
                f"{target.planes.shape}, expected {volume.planes.shape} as its image; save it "
                "on the image's grid"
            )
        _check_grid(item[key], target.affine, path, volume.affine, volume.planes.shape)
        found[key] = _plane_image(target, item[key], plane)
    return _plane_image(volume, path, plane), found


def _as_picture(image: Image) -> Image:
    """A plane of a volume as an image of its own."""
    known = {key: value for key, value in image.attributes.items() if key != "plane"}
    return Image(image.array, {**known, "spacing_mm": known["spacing_mm"][1:]})


def _plane_image(volume: AxialVolume, path: str, plane: int) -> Image:
    array = volume.planes[plane][None]
    attributes = image_attributes(
        str(path), "nifti", "ij", array.shape[1:], spacing_mm=volume.spacing_mm
    )
    return Image(array, {**attributes, "plane": plane})


def classes_of_values(array: np.ndarray, values: list[int] | list[list[int]]) -> np.ndarray:
    """Make class 1 of the pixel values that are listed, or class k of the k-th list; else 0.

    Args:
        array: (1, *S) whole numbers.
        values: of foreground; or of each class from 1, no value twice.

    Returns:
        (1, *S), uint8 up to 255 classes.
    """
    several: list[Any] = [one for one in values if isinstance(one, list)] or [values]
    classes = np.zeros(array.shape, np.min_scalar_type(len(several)))
    for number, listed in enumerate(several, 1):
        classes[np.isin(array, listed)] = number
    return classes


def _classes_of(label: Image, classes: int, foreground: LabelValues | None) -> np.ndarray:
    """Stored label values as classes."""
    path = label.attributes["path"]
    array = whole_numbers(label.array, path)
    counts = value_counts(array)
    if foreground == "instances" and min(counts) >= 0:
        return np.ascontiguousarray(array > 0, dtype=np.uint8)
    if isinstance(foreground, list):
        if foreground and isinstance(foreground[0], list) and len(foreground) >= classes:
            raise DataError(
                f"{path}: label_values of the column map make {len(foreground)} classes beside the "
                f"background; set classes to {len(foreground) + 1}"
            )
        return np.ascontiguousarray(classes_of_values(array, foreground))
    step = (
        "set classes, or list the values that are foreground as label_values in the column map; "
        "labels that are images to be predicted need a bundle, or --target, of images"
    )
    refuse_values_beyond(counts, classes, path, step)
    return np.ascontiguousarray(array, dtype=np.uint8 if classes <= 256 else np.int64)
