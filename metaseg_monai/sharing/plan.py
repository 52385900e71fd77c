"""What a training needs to know of a data set, and what follows from it, each with its reason.

The rules are those of nnU-Net v2's planner (Isensee et al., Nature Methods 2021), for the networks
that bundles have: target spacing, patch, depth and pooling by the shapes and spacings of the
training files, as many patches in a batch as the memory holds, a window of the foreground's values
for CT and z-scores for what has no unit.
"""

import ctypes
import gc
import io
import json
import math
import re
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.networks.nets.segresnet_ds import scales_for_resolution
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from metaseg_monai.bundle.compose import shared_training
from metaseg_monai.errors import ConfigError, DataError, did_you_mean
from metaseg_monai.images.geometry import AxialVolume, axial_volume
from metaseg_monai.images.image import Channels, Image
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.tables.check import LoadedCase, load_case
from metaseg_monai.tables.table import CaseTable, refuse
from metaseg_monai.transforms.load import on_grid

Network = Literal["dynunet", "dynunet_res", "segresnet", "segresnet_ds", "unet3", "ppunet"]
NNUNET: tuple[Network, ...] = ("dynunet", "dynunet_res")  # each axis halved as nnU-Net does
Modality = Literal["CT", "MR", "RGB", "other"]  # MR has no unit, and is scaled as others are

MOST_CLASSES = 1 << 16  # while nothing is known of a label
VOXELS_OF_A_CASE = 1 << 14  # of the foreground, that tell its values
WINDOW = (0.5, 99.5)  # percentiles of the foreground that end a window of CT (nnU-Net)
ANISOTROPY = 3  # nnU-Net: of the spacings, and of the extents in voxels
LEAST_FEATURES = 4  # edge of the lowest features (nnU-Net)
LEAST_POOLINGS = 2  # MONAI's DynUNet has three levels at least
EDGE_2D, EDGE_3D = 512, 128  # of a patch before it is cut: nnU-Net's plans of 8 GB
MOST_FILTERS = {2: 512, 3: 320}  # nnU-Net
SHARE_OF_VOXELS = 0.05  # of the training in one batch at most (nnU-Net)
FOREGROUND_SHARE = 1 / 3  # of patches that are laid over foreground (nnU-Net)
MOST_BATCH = 64
GAPS = 1.3  # of the memory that tensors take: what a process takes, before it is measured
MISSED = 1.05  # how much smaller than measured the next try is
KEPT = ("network", "optimizer", "train#average")  # the large ones of a checkpoint
SPARED = 0.8  # of the free memory, that a measurement may take
EPOCHS, STEPS = 2, 5  # measured: after validating, steps take more memory than before
LONGEST = 10.0  # seconds of them; of longer steps there are fewer
STEP = "from metaseg_monai.sharing.plan import _tell_step; _tell_step()"
_LEVELS = {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
RESIDUALS = (
    1,
    2,
    2,
    4,
    4,
    4,
)  # blocks of SegResNetDS by level: MONAI's, and on as Auto3DSeg has it
TINY = {"_target_": "DynUNet", "in_channels": "@in_channels", "out_channels": "@classes", **_LEVELS}
HOUNSFIELD = (-200, 100)  # air lies below, bone and contrast above


class Step(NamedTuple):
    """What a training step takes: the most bytes, and seconds where nothing else is running."""

    bytes: int
    seconds: float


@dataclass(frozen=True)
class Values:
    """Of one channel.

    Attributes:
        lowest: of all voxels.
        highest: of all voxels.
        mean: of the foreground, as all that follows; of all voxels where there is none.
        std: standard deviation.
        window: `WINDOW`, the percentiles 0.5 and 99.5.
    """

    lowest: float
    highest: float
    mean: float
    std: float
    window: tuple[float, float]


@dataclass(frozen=True)
class Fingerprint:
    """What the training files of a table have in common.

    Attributes:
        spatial_dims: 2 or 3.
        shapes: of every case, (H, W) or (H, W, D): rows, columns, axial planes.
        spacings_mm: of every case along the same axes; None where a file does not say.
        values: of each channel.
        modality: as it is taken by values and header.
        why_modality: the reason, in words.
        stored: types of the pixels in the files.
        class_voxels: of every class, background included, its voxels in each case.
        class_pixels: the same in each axial plane of volumes, case after case; else nothing.
        planar: whether cases are planes of volumes.
    """

    spatial_dims: int
    shapes: tuple[tuple[int, ...], ...]
    spacings_mm: tuple[tuple[float, ...], ...] | None
    values: tuple[Values, ...]
    modality: Modality
    why_modality: str
    stored: tuple[str, ...]
    class_voxels: Mapping[int, tuple[int, ...]]
    class_pixels: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    planar: bool = False

    @property
    def classes(self) -> int:
        """Number of classes, background included, two at least."""
        return max(2, *(number + 1 for number in self.class_voxels))

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return len(self.values)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """The median spacing; 1 along each axis where it is not known, so that pixels count."""
        if self.spacings_mm is None:
            return (1.0,) * self.spatial_dims
        return tuple(float(one) for one in np.median(self.spacings_mm, axis=0))

    def to_dict(self) -> dict[str, Any]:
        """What is told of it beside a plan: medians and extremes instead of lists of cases."""
        sizes = np.array(self.shapes)
        whole = [sum(case) for case in zip(*self.class_voxels.values(), strict=True)]
        classes = {}
        for number, voxels in self.class_voxels.items():
            shares = [one / all_of for one, all_of in zip(voxels, whole, strict=True) if one]
            classes[str(number)] = {
                "cases": len(shares),
                "median_share": _short(np.median(shares)) if shares else 0.0,
            }
        known = self.spacings_mm is not None
        return {
            "cases": len(self.shapes),
            "shape": {
                "smallest": sizes.min(0).tolist(),
                "median": np.median(sizes, axis=0).tolist(),
                "largest": sizes.max(0).tolist(),
            },
            "spacing_mm": [_short(one) for one in self.spacing_mm] if known else None,
            "anisotropy": _short(max(self.spacing_mm) / min(self.spacing_mm)),
            "channels": [
                {
                    "lowest": one.lowest,
                    "highest": one.highest,
                    "foreground_mean": _short(one.mean),
                    "foreground_std": _short(one.std),
                    "foreground_window": [_short(end) for end in one.window],
                }
                for one in self.values
            ],
            "stored": list(self.stored),
            "classes": classes,
        }


class MixedChannelsError(DataError):
    """Images differ in their number of channels.

    Attributes:
        choice: grey or rgb, by which most of them stay as they are; None where neither helps.
    """

    def __init__(self, file: Path, images: Mapping[int, int], cases: Mapping[int, str]) -> None:
        told = ", ".join(f"{n} have {one} (as {cases[one]!r})" for one, n in sorted(images.items()))
        self.choice: Channels | None = None
        step = "give images of one kind"
        if {*images} == {1, 3}:
            self.choice = "rgb" if images[3] > images[1] else "grey"
            step = (
                "--channels rgb leaves most as they are, with three alike channels for the grey; "
                "grey if colour says nothing"
                if self.choice == "rgb"
                else "--channels grey leaves most as they are, with the brightness of the others; "
                "rgb if colour matters"
            )
        read = sum(images.values())
        super().__init__(
            f"{file}: not all images have as many channels: of {read} read, {told}; {step}"
        )


def fingerprint(
    table: CaseTable,
    spatial_dims: int | None = None,
    modality: Modality | None = None,
    channels: Channels = "stored",
) -> Fingerprint:
    """Read the training files of a table, one at a time, and tell what they have in common.

    Args:
        table: whose cases of the split train are read; all, where it has no splits.
        spatial_dims: 2 or 3; None takes the files' own.
        modality: takes the place of what values and headers say.
        channels: that images are converted to, see `convert_channels`.

    Raises:
        DataError: listing every file that cannot be read or has no label; or cases differ in axes
            or channels.
    """
    rows = [row for row in table.rows if row.get("split", "train") == "train"]
    if not rows:
        raise DataError(f"{table.path}: no rows of the split 'train', of which a plan is made")
    found, problems, first_case = [], [], None
    for item in bar(rows, desc="fingerprint", unit="case"):
        try:
            found.append(_case(item, spatial_dims, len(rows), channels))
        except DataError as error:
            problems.append(str(error))
            continue
        first_case = first_case or item.get("case")
        first, new = len(found[0].shape), len(found[-1].shape)
        if new != first:
            raise DataError(
                f"{table.path}: case {item.get('case')!r} has {new} axes, "
                f"{first_case!r} has {first}; give images of one kind"
            )
    refuse(table.path, problems)
    cases = {len(one.ends): str(row.get("case")) for one, row in zip(found, rows, strict=True)}
    if len(cases) > 1:
        raise MixedChannelsError(table.path, Counter(len(one.ends) for one in found), cases)
    spacings = [one.spacing_mm for one in found]
    known = tuple(one for one in spacings if one is not None)
    values = []
    for channel in range(len(found[0].ends)):
        inside = np.concatenate([one.foreground[channel] for one in found])
        if not inside.size:
            inside = np.concatenate([one.sample[channel] for one in found])
        low, high = np.percentile(inside, WINDOW)
        values.append(
            Values(
                lowest=min(float(one.ends[channel][0]) for one in found),
                highest=max(float(one.ends[channel][1]) for one in found),
                mean=float(inside.mean()),
                std=float(inside.std()),
                window=(float(low), float(high)),
            )
        )
    told, why = _modality(found, values)
    if modality is not None:
        told, why = modality, "as given"
    numbers = sorted({0, *(number for one in found for number in one.voxels)})
    return Fingerprint(
        spatial_dims=len(found[0].shape),
        shapes=tuple(one.shape for one in found),
        spacings_mm=known if len(known) == len(found) else None,
        values=tuple(values),
        modality=told,
        why_modality=why,
        stored=tuple(sorted({one.stored for one in found})),
        class_voxels={n: tuple(one.voxels.get(n, 0) for one in found) for n in numbers},
        class_pixels={
            n: tuple(int(k) for one in found for k in one.pixels.get(n, np.zeros(one.shape[2])))
            for n in numbers
            if len(found[0].shape) == 3
        },
    )


def of_planes(known: Fingerprint) -> Fingerprint:
    """What the axial planes of volumes have in common: as many as there are.

    Raises:
        ConfigError: the volumes have several channels.
    """
    shapes, spacings = known.shapes, known.spacings_mm
    if len(known.values) != 1:
        raise ConfigError(
            f"dims=2: the volumes have {len(known.values)} channels, and planes are read from "
            "volumes of one; leave dims out"
        )
    planes = [shape[2] for shape in shapes]
    none = (0,) * sum(planes)
    return replace(
        known,
        spatial_dims=2,
        shapes=tuple(shape[:2] for shape, n in zip(shapes, planes, strict=True) for _ in range(n)),
        spacings_mm=spacings
        and tuple(one[:2] for one, n in zip(spacings, planes, strict=True) for _ in range(n)),
        class_voxels={n: known.class_pixels.get(n, none) for n in known.class_voxels},
        class_pixels={},
        planar=True,
    )


def bar(each: Iterable[Any] | None = None, **told: Any) -> Any:
    """A progress bar on stderr, of few lines where that is a file."""
    every = 0.2 if sys.stderr.isatty() else 20
    return tqdm(each, mininterval=every, dynamic_ncols=True, **told)


class _Case(NamedTuple):
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    ends: list[tuple[float, float]]  # of each channel
    foreground: np.ndarray  # (C, P)
    sample: np.ndarray  # (C, P) of all voxels
    stored: str
    format: str
    modality: str  # as the header of a DICOM series says; "" of other files
    voxels: dict[int, int]  # of each class
    pixels: dict[int, np.ndarray]  # of each class in each axial plane of a volume


def read_case(
    item: Mapping[str, Any], channels: Channels, classes: int, spatial_dims: int | None
) -> tuple[LoadedCase, AxialVolume | None]:
    """Read a case as a planned bundle trains on it: volumes are seen from their axial axis.

    Args:
        item: a row of a `CaseTable`.
        channels: that its image is converted to, see `convert_channels`.
        classes: of its label, background too.
        spatial_dims: 2 or 3; None takes the file's own.

    Raises:
        DataError: naming the case; a file cannot be read, or a volume has several channels, no
            affine or tilted planes.
    """
    loaded = load_case(item, channels, classes, spatial_dims)
    if loaded.image.ndim < 4:
        return loaded, None
    if len(loaded.image) != 1:
        raise DataError(
            f"case {item.get('case')!r}: a volume of {len(loaded.image)} channels; networks of "
            "volumes are wired for one: give one sequence a row"
        )
    try:  # the axes in the order in which `AxialVolumed` gives them
        return loaded, axial_volume(Image(loaded.image, loaded.attributes))
    except DataError as error:
        raise DataError(f"case {item.get('case')!r}: {error}") from error


def _case(
    item: Mapping[str, Any], spatial_dims: int | None, cases: int, channels: Channels
) -> _Case:
    loaded, view = read_case(item, channels, MOST_CLASSES, spatial_dims)
    if loaded.label is None:
        raise DataError(
            f"case {item.get('case')!r}: no label, of which a plan is made; give one, or leave the "
            "row out"
        )
    image, label = loaded.image, loaded.label[0]
    shape, spacing = image.shape[1:], item.get("spacing_mm")
    if view is not None:
        planes, rows, columns = view.planes.shape
        shape, spacing = (rows, columns, planes), view.spacing_mm
        stack = axial_volume(Image(loaded.label, loaded.attributes)).planes
    if spacing is not None:
        z, y, x = spacing
        spacing = (y, x, z)[: len(shape)]
    numbers, counts = np.unique(label, return_counts=True)
    pixels = {int(n): (stack == n).sum((1, 2)) for n in numbers if image.ndim == 4}
    inside = np.flatnonzero(label)
    most = max(1 << 8, min(VOXELS_OF_A_CASE, (1 << 24) // cases))
    inside = inside[:: -(-len(inside) // most) or 1]
    flat = image.reshape(len(image), -1)
    return _Case(
        shape=tuple(int(size) for size in shape),
        spacing_mm=None if spacing is None else tuple(float(step) for step in spacing),
        ends=[(float(one.min()), float(one.max())) for one in flat],
        foreground=flat[:, inside].astype(np.float64),
        sample=on_grid(image, most).astype(np.float64),
        stored=str(loaded.attributes["stored"]),
        format=str(loaded.attributes["format"]),
        modality=str(loaded.attributes.get("modality", "")),
        voxels=dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
        pixels=pixels,
    )


def _modality(cases: Sequence[_Case], values: Sequence[Values]) -> tuple[Modality, str]:
    formats, stored = {one.format for one in cases}, {one.stored for one in cases}
    if (headers := {one.modality for one in cases}) in ({"CT"}, {"MR"}):
        (said,) = headers
        of_units = "Hounsfield units" if said == "CT" else "values without a unit"
        return ("CT" if said == "CT" else "other"), f"{said} by the DICOM headers: {of_units}"
    if len(values) == 3 and stored == {"uint8"}:
        return "RGB", (
            "three channels of 8 bits, taken as colours; where they are something else, as MR "
            "sequences or stains, --modality other"
        )
    if len(values) != 1 or not formats <= {"nifti", "dicom"}:
        return "other", f"{len(values)} channel(s) of {', '.join(sorted(formats))}"
    air, dense = HOUNSFIELD
    of_air = np.mean([one.sample.min() < air and one.sample.max() > dense for one in cases])
    told = f"values from {values[0].lowest:g} to {values[0].highest:g}"
    if of_air > 0.5:
        return "CT", f"{told}: below {air} as air and above {dense} as bone in Hounsfield units"
    return "other", f"{told}: no Hounsfield units, which reach below {air} and above {dense}"


class Fact(NamedTuple):
    """A value that was planned, and why."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """How a data set is trained on.

    Attributes:
        facts: what was decided, by name: of the data `spatial_dims`, `modality`, `in_channels`,
            `classes`, `spacing_mm` (of rows and columns, and of planes; None leaves pixels as they
            are) and `shape` (the median after that); of the network `network`, `patch`, `levels`
            (how often features are halved along each axis) and `filters`; of the training
            `batch_size`, `memory_gb`, `normalisation`, `foreground_share`, of planes of volumes
            `foreground_drawn`, and, where it was measured, `step_seconds`. `new-bundle` adds
            `epochs`, `cached`, `scaling`, `mirroring`, and with folds `planned_from`.
        network: the bare network as a component of a configuration.
    """

    facts: Mapping[str, Fact]
    network: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name].value

    def to_dict(self) -> dict[str, Any]:
        """{fact: {value, reason}}, for JSON."""
        return {name: fact._asdict() for name, fact in self.facts.items()}

    def __str__(self) -> str:
        return "\n".join(f"{name}: {f.value} ({f.reason})" for name, f in self.facts.items())


def plan(
    found: Fingerprint,
    network: Network = "dynunet",
    memory_gb: float = 4.0,
    schema: MetadataSchema | None = None,
    measure: bool = True,
) -> Plan:
    """Decide how a data set is trained on.

    What a step takes is measured on this machine (`measured_step`), once or a few times, until
    the plan fits; where it cannot be, or is not to be, it is an estimate, and the plan says so.

    Args:
        found: what the training files have in common.
        network: dynunet, with residual blocks dynunet_res, segresnet, segresnet_ds (deep
            supervision, anisotropic levels), unet3 or ppunet.
        memory_gb: that training may take on the CPU: of a step, with weights, optimizer and the
            checkpoint of them; what is kept of images comes on top.
        schema: of the metadata, which steer the network; None for none.
        measure: False estimates, in seconds.

    Raises:
        ConfigError: the network is none of these, or not even the smallest patch fits.
        RuntimeError: a training step of the plan fails.

    >>> flat = Values(0, 255, 120, 40, (10, 240))
    >>> found = Fingerprint(2, ((32, 32),) * 40, None, (flat,) * 3, "RGB", "", ("uint8",),
    ...                     {0: (800,) * 40, 1: (224,) * 40})
    >>> plan(found, "unet3")["patch"]
    [32, 32]
    """
    if network not in get_args(Network):
        raise ConfigError(
            f"network={network!r}: expected one of {', '.join(get_args(Network))}; "
            f"{did_you_mean(network, get_args(Network), told=True)}"
        )
    if not 0 < memory_gb < math.inf:
        raise ConfigError(f"memory_gb={memory_gb}: expected gigabytes above 0, such as 4")
    schema = schema or MetadataSchema([])
    spacing = _spacing(found, network)
    shape = _shape_at(found, spacing.value)
    grid = spacing.value or list(found.spacing_mm)
    filters = Fact(32, "as nnU-Net's first level has")
    if memory_gb < 8:
        filters = Fact(16, "half of nnU-Net's 32, as memory is below 8 GB")
    if network == "unet3" or network == "ppunet":
        filters = Fact(16, "one width in all levels, as the project's bundles have it")
    start, whole = _first_patch(grid, shape)
    patch, fitting, share = start, False, GAPS

    def counted(batch: int) -> float:
        return counted_bytes(_of_training(found, made, network, schema), patch, batch) / 1e9

    while True:
        patch, poolings, kernels = _poolings(grid, patch, network)
        made = _network(network, found, filters.value, poolings, kernels, grid)
        two = share * counted(2)
        if two > memory_gb:
            one_voxel = two / math.prod(patch)
            while math.prod(patch) * one_voxel > memory_gb:
                smaller = _shrunk(grid, patch, shape, network)
                if smaller is None:
                    raise ConfigError(
                        f"memory_gb={memory_gb:g}: two patches of {patch} take more, and smaller "
                        "ones cannot be halved often enough; give more memory, or --network unet3"
                    )
                patch, fitting = smaller, True
            continue
        one_more = (share * counted(4) - two) / 2
        batch = _batch(found, patch, shape, 2 + int((memory_gb - two) / one_more))
        expected = two + (batch.value - 2) * one_more
        settings = _of_training(found, made, network, schema)
        memory, step = _memory(settings, schema, patch, batch.value, expected, memory_gb, measure)
        if memory.value <= memory_gb:
            break
        share *= MISSED * memory.value / expected
    edge = EDGE_2D if found.spatial_dims == 2 else EDGE_3D
    whole_told = (
        f"the median image, {shape}"
        if whole
        else f"a window of the median image {shape}, some {edge}^{found.spatial_dims} voxels"
    )
    why_patch = f"{whole_told}, to a multiple of what the poolings halve"
    if fitting:
        why_patch = f"the largest, in the proportions of {shape}, of which two fit the memory"
    levels = [sum(step[axis] > 1 for step in poolings) for axis in range(found.spatial_dims)]
    facts = {
        "spatial_dims": Fact(found.spatial_dims, "the axes of the files"),
        "modality": Fact(found.modality, found.why_modality),
        "in_channels": Fact(found.channels, "of the files"),
        "classes": Fact(found.classes, _why_classes(found)),
        "spacing_mm": spacing,
        "shape": Fact(shape, "median of the training images after resampling"),
        "network": Fact(
            network, "of --network, which is dynunet by default; unet3 takes less time"
        ),
        "patch": Fact(patch, why_patch),
        "levels": Fact(levels, _why_levels(network)),
        "filters": filters,
        "batch_size": batch,
        "memory_gb": memory,
        "normalisation": _normalisation(found),
        **_foreground(found),
    }
    if step is not None:
        facts["step_seconds"] = Fact(
            _short(step.seconds),
            "about, of the last step measured here; too long where other programs ran beside it",
        )
    return Plan(facts, made)


def _empty(found: Fingerprint) -> int:
    """Number of cases without any foreground."""
    rows = [voxels for number, voxels in found.class_voxels.items() if number]
    return sum(not any(case) for case in zip(*rows, strict=True)) if rows else len(found.shapes)


def _why_classes(found: Fingerprint) -> str:
    cases = len(found.shapes)
    if _empty(found) == cases:
        return f"two at least: none of {cases} training cases has a label value above 0"
    return f"label values in {cases} training cases, background too"


def _foreground(found: Fingerprint) -> dict[str, Fact]:
    """How often patches lie over foreground.

    Of planes a third is drawn from those with foreground, and the rest from all, so that the
    share among the former is larger where they are rare: nnU-Net lays every patch of that third,
    and no other, over foreground.
    """
    cases, empty = len(found.shapes), _empty(found)
    told = "of patches laid over foreground, as in nnU-Net"
    if not found.planar or not 0 < empty < cases:
        if empty:
            told += f"; {empty} of {cases} cases have none, of which any patch is taken"
        return {"foreground_share": Fact(_short(FOREGROUND_SHARE), told)}
    full = FOREGROUND_SHARE + (1 - FOREGROUND_SHARE) * (cases - empty) / cases
    return {
        "foreground_drawn": Fact(
            _short(FOREGROUND_SHARE),
            f"of planes are drawn from the {cases - empty} of {cases} with foreground, the rest "
            "from all",
        ),
        "foreground_share": Fact(
            _short(FOREGROUND_SHARE / full),
            f"of patches of a plane with foreground are laid over it, so that "
            f"{FOREGROUND_SHARE:.0%} of all are, as in nnU-Net",
        ),
    }


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")


def _spacing(found: Fingerprint, network: Network) -> Fact:
    """The spacing to resample to, along the axes of the shapes."""
    if found.spacings_mm is None:
        return Fact(None, "no spacing is known of every file: pixels are taken as they are")
    spacings = np.array(found.spacings_mm)
    target, reason = np.median(spacings, axis=0), "median of the training files"
    if found.spatial_dims == 2:
        return Fact([_short(target.mean())] * 2, reason)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    size = np.median(found.shapes, axis=0)
    thick = target[worst] > ANISOTROPY * max(target[others])
    if thick and size[worst] * ANISOTROPY < min(size[others]):
        tenth = float(np.percentile(spacings[:, worst], 10))
        target[worst] = max(tenth, float(max(target[others])) + 1e-5)
        reason += (
            f"; along axis {worst}, whose voxels are over {ANISOTROPY} times as long, the 10th "
            "percentile, so that few planes are made up"
        )
    return Fact([_short(one) for one in target], reason)


def _shape_at(found: Fingerprint, spacing: Sequence[float] | None) -> list[int]:
    shapes = np.array(found.shapes, dtype=float)
    if spacing is not None:
        shapes *= np.array(found.spacings_mm) / np.array(spacing)
    return [max(1, round(float(size))) for size in np.median(shapes, axis=0)]


def _first_patch(grid: Sequence[float], shape: Sequence[int]) -> tuple[list[int], bool]:
    """A patch of equal sides in mm, cut to the median image, and whether it is all of that."""
    edge = EDGE_2D if len(shape) == 2 else EDGE_3D
    proportions = 1 / np.array(grid)
    proportions *= edge / float(np.prod(proportions)) ** (1 / len(shape))
    patch = [min(size, max(1, round(float(p)))) for size, p in zip(shape, proportions, strict=True)]
    return patch, patch == list(shape)


def _poolings(
    grid: Sequence[float], patch: Sequence[int], network: Network
) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Patch, strides of the levels (the first 1) and their kernels, as nnU-Net finds them.

    An axis is halved while its voxels are less than twice as long as the shortest of those that
    can be, and its features stay at 4 or more; a kernel spans an axis once that is so. SegResNetDS
    halves by MONAI's own rule, which leaves thick slices alone until voxels are alike; networks
    other than these halve all axes alike. All are halved twice at least, for which small patches
    are padded.
    """
    dims, alike = len(grid), network not in NNUNET
    spacing, least = [float(one) for one in grid], LEAST_FEATURES << LEAST_POOLINGS
    if network == "segresnet_ds":
        size, strides = list(patch), [[1] * dims]
        for scale in scales_for_resolution(_resolution(grid) or [1.0] * dims, len(RESIDUALS) - 1):
            steps = [int(one) for one in scale]
            size = [-(-one // step) for one, step in zip(size, steps, strict=True)]
            small = any(n < LEAST_FEATURES for n, step in zip(size, steps, strict=True) if step > 1)
            if small and len(strides) > LEAST_POOLINGS:
                break
            strides.append(steps)
        return _padded(patch, strides), strides, [[3] * dims] * len(strides)
    if alike:
        deep = {"segresnet": 3}.get(network)  # MONAI's default of three halvings
        most = max(LEAST_POOLINGS, int(math.log2(max(1, min(patch) / LEAST_FEATURES))))
        times = deep or min(most, 5)
        strides = [[1] * dims, *([2] * dims for _ in range(times))]
        return _padded(patch, strides), strides, [[3] * dims] * len(strides)
    near = [axis for axis in range(dims) if spacing[axis] / min(spacing) < 2]
    least <<= len(near) == 1  # an axis alone is halved while 12 remain
    patch = [max(size, least) if axis in near else size for axis, size in enumerate(patch)]
    size, kernel = list(patch), [1] * dims
    strides, kernels = [[1] * dims], []
    while axes := [axis for axis in range(dims) if size[axis] >= 2 * LEAST_FEATURES]:
        shortest = min(spacing[axis] for axis in axes)
        axes = [axis for axis in axes if spacing[axis] / shortest < 2]
        if len(axes) == 1 and size[axes[0]] < 3 * LEAST_FEATURES:
            break
        kernel = [3 if s / min(spacing) < 2 else k for s, k in zip(spacing, kernel, strict=True)]
        kernels.append(kernel)
        strides.append([2 if axis in axes else 1 for axis in range(dims)])
        for axis in axes:
            spacing[axis] *= 2
            size[axis] = -(-size[axis] // 2)
    kernels.append([3] * dims)
    return _padded(patch, strides), strides, kernels


def _resolution(grid: Sequence[float]) -> list[float] | None:
    """The spacing that MONAI's SegResNetDS plans its levels by; None where all axes are alike."""
    return [float(one) for one in grid] if max(grid) >= 2 * min(grid) else None


def _padded(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    factors = _factors(strides)
    return [-(-size // factor) * factor for size, factor in zip(patch, factors, strict=True)]


def _factors(strides: Sequence[Sequence[int]]) -> list[int]:
    """How often smaller the lowest features are along each axis."""
    return [math.prod(steps) for steps in zip(*strides, strict=True)]


def _shrunk(
    grid: Sequence[float], patch: Sequence[int], shape: Sequence[int], network: Network
) -> list[int] | None:
    """The next smaller patch, along the axis longest beside the image; None at the end.

    What is taken off is what the poolings of the smaller patch halve, as in nnU-Net: from 128
    (five times halved) to 112 (four times), not to 96.
    """
    order = np.argsort([-size / whole for size, whole in zip(patch, shape, strict=True)])
    for axis in order.tolist():
        off = _factors(_poolings(grid, patch, network)[1])[axis]
        for _ in range(2):  # by the patch's own factor, then by that of the smaller one
            smaller = list(patch)
            smaller[axis] -= off
            if smaller[axis] < LEAST_FEATURES << LEAST_POOLINGS:
                break
            off = _factors(_poolings(grid, smaller, network)[1])[axis]
        else:
            smaller = _poolings(grid, smaller, network)[0]
            if math.prod(smaller) < math.prod(patch):
                return smaller
    return None


def _network(
    network: Network,
    found: Fingerprint,
    filters: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    grid: Sequence[float],
) -> dict[str, Any]:
    """The bare network as a component."""
    dims = found.spatial_dims
    sizes = {"spatial_dims": dims, "in_channels": found.channels, "out_channels": found.classes}
    if network == "segresnet_ds":
        resolution = _resolution(grid)
        return {
            "_target_": "SegResNetDS",
            **sizes,
            "init_filters": filters,
            "blocks_down": list(RESIDUALS[: len(strides)]),
            "norm": "instance",
            **({} if resolution is None else {"resolution": resolution}),
        }
    if network in NNUNET:
        return {
            "_target_": "DynUNet",
            **({"res_block": True} if network == "dynunet_res" else {}),
            **sizes,
            "kernel_size": [list(one) for one in kernels],
            "strides": [list(one) for one in strides],
            "upsample_kernel_size": [list(one) for one in strides[1:]],
            "filters": [min(filters << level, MOST_FILTERS[dims]) for level in range(len(strides))],
        }
    if network == "segresnet":
        return {"_target_": "SegResNet", **sizes, "init_filters": filters}
    name = {"unet3": "Unet3", "ppunet": "PPUnet"}[network]
    return {
        "_target_": f"metaseg_monai.networks.{name}",
        "variant": "none",
        **sizes,
        "channels": filters,
        "levels": len(strides) - 1,
    }


def steering(network: Mapping[str, Any], name: Network, schema: MetadataSchema) -> dict[str, Any]:
    """The settings of a training that condition a planned network by a schema.

    Args:
        network: the bare one, as of `Plan`.
        name: as of `plan`.
        schema: of the metadata; without fields the network stays bare, or takes gates that read
            the image alone.
    """
    own_gates = name == "unet3" or name == "ppunet"
    bare = {**network, "in_channels": "@in_channels", "out_channels": "@classes"}
    steered = {
        "schema": "@schema",
        "variant": "@variant",
        "unknown_trained": "$@metadata_dropout > 0",
    }
    settings: dict[str, Any] = {}
    if not schema.fields:
        settings = {"variant": "se" if own_gates else "none", "metadata_dropout": 0.0}
    if own_gates:
        return {"network_def": {**bare, **steered, "start": "neutral"}, **settings}
    if name == "segresnet_ds":
        bare |= {"dsdepth": min(3, len(bare["blocks_down"]) - 1)}
    if name in NNUNET:
        bare |= {"deep_supervision": True, "deep_supr_num": min(2, len(bare["strides"]) - 2)}
    component = {"_target_": "metaseg_monai.networks.condition", "network": bare, **steered}
    return {"network_def": component, **settings}


def _of_training(
    found: Fingerprint, network: Mapping[str, Any], name: Network, schema: MetadataSchema
) -> dict[str, Any]:
    sizes = {"in_channels": found.channels, "classes": found.classes}
    return {**sizes, **steering(network, name, schema)}


def _memory(
    settings: Mapping[str, Any],
    schema: MetadataSchema,
    patch: Sequence[int],
    batch: int,
    estimate: float,
    memory_gb: float,
    measure: bool,
) -> tuple[Fact, Step | None]:
    """Gigabytes that training takes, and the step that was measured where that can be."""
    told = f"of {memory_gb:g} GB, training steps, validation and a checkpoint on the CPU"
    if not measure:
        return Fact(_short(estimate), f"{told}: an estimate, nothing was measured"), None
    if estimate > free_bytes() / 1e9:
        why = f"{told}: an estimate, as less is free on this machine"
        return Fact(_short(estimate), why), None
    taken = measured_step(settings, schema, patch, batch)
    if taken is None:
        return Fact(_short(estimate), f"{told}: an estimate, as it cannot be measured here"), None
    return Fact(_short(taken.bytes / 1e9), f"{told}, measured on this machine"), taken


def _batch(found: Fingerprint, patch: Sequence[int], shape: Sequence[int], fit: int) -> Fact:
    """As many patches as fit the memory and are few beside all voxels; two at least."""
    voxels = len(found.shapes) * math.prod(shape)
    few = round(SHARE_OF_VOXELS * voxels / math.prod(patch))
    size = max(2, min(fit, few, MOST_BATCH))
    why = {
        fit: "as many patches as fit the memory",
        few: f"{SHARE_OF_VOXELS:.0%} of the training's voxels",
        MOST_BATCH: "no more are of use",
    }
    return Fact(size, why.get(size, "two at least, though fewer would be 5 % of the voxels"))


def _why_levels(network: Network) -> str:
    if network in NNUNET:
        return f"halved along each axis while voxels are alike in mm and {LEAST_FEATURES} remain"
    if network == "segresnet_ds":
        return f"by MONAI's scales_for_resolution, while {LEAST_FEATURES} remain of each axis"
    if network == "segresnet":
        return "MONAI's own depth; the network halves all axes alike"
    return f"while {LEAST_FEATURES} remain of the shortest axis; the network halves all axes alike"


def _normalisation(found: Fingerprint) -> Fact:
    """The component that scales an image."""
    if found.modality == "CT":
        of_what = "all voxels" if _empty(found) == len(found.shapes) else "the foreground"
        low, high = found.values[0].window
        low, high = math.floor(low), max(math.floor(low) + 1, math.ceil(high))
        return Fact(
            {
                "_target_": "metaseg_monai.transforms.ScaleIntensityCased",
                "intensity_range": [low, high],
                "clip": True,
            },
            f"CT: the window of percentiles 0.5 to 99.5 of {of_what}, in Hounsfield units",
        )
    if found.modality == "RGB":
        scale = "metaseg_monai.transforms.ScaleIntensityCased"
        return Fact(
            {"_target_": scale, "intensity_range": [0, 255]}, "colours of 8 bits, to [0, 1]"
        )
    if found.planar:
        return Fact(
            {"_target_": "metaseg_monai.transforms.NormalizeVolumed"},
            "each plane by mean and deviation of its whole volume: its values have no unit",
        )
    return Fact(
        {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
        "each image and channel by its own mean and deviation: its values have no unit",
    )


# What a training step takes: measured in a process of its own, or counted.


def measured_step(
    settings: Mapping[str, Any], schema: MetadataSchema, patch: Sequence[int], batch: int
) -> Step | None:
    """Measure what training steps on random images take, above Python and its libraries.

    A fresh process trains with the trainer and evaluator that bundles have and the strong recipe,
    and reads its own peak: `EPOCHS` of `STEPS` steps, fewer where they take longer than `LONGEST`
    seconds, one at least, each with a checkpoint. Shorter ones run twice, as the C library keeps
    gaps that differ from training to training. The seconds are those that the main thread was
    running in the last step: it takes part in all of it, and does not count while others have the
    processor. It runs in this process' environment, so with as many threads. What a loader keeps
    of images is not in it, nor what validating images larger than a window takes.

    Args:
        settings: where a bundle's training is set otherwise than the shared one: network,
            `classes`, `in_channels` and what these refer to.
        schema: of the metadata.
        patch: (H, W) or (H, W, D).
        batch: patches in it.

    Returns:
        The most bytes, and the seconds of a step; None where it cannot be measured: on a GPU,
        where the system does not tell a process' peak, or ends the process for its memory.

    Raises:
        RuntimeError: the steps failed; the message is what the process told.
    """
    if not sys.platform.startswith("linux") or torch.cuda.is_available():
        return None
    asked = {"settings": dict(settings), "schema": schema.to_dict(), "shape": [batch, *patch]}
    words = [sys.executable, "-W", "ignore", "-c", STEP]
    pipe = subprocess.PIPE
    started = subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe, stderr=pipe)
    how = {"bar_format": "{desc}: {elapsed}", "miniters": 0}
    with started as process, bar(None, desc="measuring training steps", **how) as shown:
        given: str | None = json.dumps(asked)
        while True:
            try:
                output, errors = process.communicate(given, timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                given = None
                shown.update(0)
            except BaseException:
                process.kill()
                raise
    if process.returncode < 0 or "allocate memory" in errors:
        return None
    if process.returncode:
        raise RuntimeError(f"a training step failed:\n{errors[-4000:]}")
    taken, seconds = output.split()[-2:]
    return Step(int(taken), float(seconds))


def free_bytes() -> float:
    """Memory that a new process may take without pushing others out; 0 where it is not told."""
    if not sys.platform.startswith("linux"):
        return 0
    return SPARED * _told("/proc/meminfo", "MemAvailable")


def counted_bytes(settings: Mapping[str, Any], patch: Sequence[int], batch: int) -> int:
    """Count the tensors that live at once in such a step: an estimate, in about a second.

    Tensors have shapes and no values, whatever the size. Gates of metadata are left out. A process
    takes more, as the C library keeps gaps between small blocks.

    Args:
        settings: as of `measured_step`.
        patch: (H, W) or (H, W, D), the former in bfloat16, as bundles train on the CPU.
        batch: patches in it.
    """
    component = settings["network_def"].get("network", settings["network_def"])
    bare = {"schema": None, "variant": "none", "metadata_dropout": 0.0}
    parser = ConfigParser({**settings, **bare, "network": dict(component)})
    classes, channels = settings["classes"], settings["in_channels"]
    with FakeTensorMode(), _Live() as live:
        network: nn.Module = parser.get_parsed_content("network")
        optimizer = torch.optim.AdamW(network.parameters())
        for weight in network.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()  # makes the moments, which live on in the next step
        optimizer.zero_grad()
        average = [weight.detach().clone() for weight in network.parameters()]
        image = torch.empty(batch, channels, *patch)
        with torch.autocast("cpu", torch.bfloat16, enabled=len(patch) == 2):
            pred = network(image)
        if isinstance(pred, Tensor):
            pred = pred.unbind(1) if pred.dim() > image.dim() else [pred]
        labels: dict[torch.Size, tuple[Tensor, Tensor]] = {}
        loss = torch.zeros(())
        for answer in pred:  # at several depths, where the network has them
            if (size := answer.shape[2:]) not in labels:
                one_hot = torch.zeros(batch, *size, classes).long().movedim(-1, 1).float()
                labels[size] = torch.zeros(batch, *size).long(), one_hot
            label, one_hot = labels[size]
            answer = answer.float()
            overlap = (answer.softmax(1) * one_hot).sum()
            loss = loss + nn.functional.cross_entropy(answer, label) - overlap
        loss.backward()
        optimizer.step()
    del average
    return live.most


def _train(settings: Mapping[str, Any], schema: MetadataSchema, shape: Sequence[int]) -> float:
    """Train on random images (B, *S); the seconds that this thread ran in the last step."""
    patch = list(shape[1:])
    channels, classes = settings["in_channels"], settings["classes"]
    validation = {"_target_": "ValidationHandler", "interval": 1}
    given: dict[str, Any] = {
        **settings,
        "roi_size": patch,
        "window_inferer#roi_size": patch,
        "schema": schema,
        "device": torch.device("cpu"),
        "best": SimpleNamespace(facts={}),
        "validate#dataloader": _Batches([1, *patch], 1, channels, classes, schema.width),
        "validate#handlers": [],
        "train#trainer#train_data_loader": _Batches(shape, STEPS, channels, classes, schema.width),
        "train#trainer#train_handlers": [
            "@train#average",
            validation | {"validator": "@validate#evaluator"},
        ],
        "train#trainer#max_epochs": EPOCHS,
    }
    parser = ConfigParser(shared_training())
    for name, value in given.items():
        parser[name] = value
    trainer: Engine = parser.get_parsed_content("train#trainer")
    began, started, seconds = time.monotonic(), 0.0, 0.0

    @trainer.on(Events.ITERATION_STARTED)
    def start() -> None:
        nonlocal started
        started = time.thread_time()

    @trainer.on(Events.ITERATION_COMPLETED)
    def end() -> None:
        nonlocal seconds
        seconds = time.thread_time() - started
        epoch, passed = trainer.state.epoch, time.monotonic() - began
        if epoch > 1 and passed > LONGEST:
            trainer.terminate()
        elif passed > LONGEST * epoch / EPOCHS:
            trainer.terminate_epoch()

    @trainer.on(Events.EPOCH_COMPLETED | Events.COMPLETED)
    def write() -> None:  # as `write_checkpoint` does
        kept = {name: parser.get_parsed_content(name).state_dict() for name in KEPT}
        torch.save(kept, io.BytesIO())

    trainer.run()
    return seconds


class _Batches:
    """Random batches (B, *S), `count` of them, of which one is held at a time."""

    def __init__(
        self, shape: Sequence[int], count: int, channels: int, classes: int, width: int
    ) -> None:
        self.shape, self.count = shape, count
        self.channels, self.classes, self.width = channels, classes, width

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        batch, *patch = self.shape
        for _ in range(self.count):
            yield {
                "image": torch.rand(batch, self.channels, *patch),
                "label": torch.randint(self.classes, (batch, 1, *patch)).float(),
                "meta": torch.zeros(batch, self.width),
            }


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            self._known.pop(key, None)
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def _told(file: str, name: str) -> int:
    """Bytes, as Linux tells them."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(file).read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def _tell_step() -> None:
    """Read from the standard input what `measured_step` asks, and write bytes and seconds."""
    asked = json.load(sys.stdin)
    schema = MetadataSchema.from_dict(asked["schema"])
    patch = asked["shape"][1:]
    tiny = {**TINY, "spatial_dims": len(patch), "filters": [4] * 3}
    _train(asked["settings"] | {"network_def": tiny}, schema, [2, *[16] * len(patch)])

    gc.collect()  # objects of a training refer to each other
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak of so far
    before = _told("/proc/self/status", "VmRSS")
    ends = time.monotonic() + LONGEST
    seconds = _train(asked["settings"], schema, asked["shape"])
    if time.monotonic() < ends:  # the C library's gaps differ from one to the next
        gc.collect()
        seconds = _train(asked["settings"], schema, asked["shape"])
    sys.stdout.write(f"{_told('/proc/self/status', 'VmHWM') - before} {seconds}")
