"""Keep a few predictions of an evaluation, for reports that have pictures but no network."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.per_case import Case
from metaseg_monai.files import replacing
from metaseg_monai.images.lazy import LARGE_PIXELS, every_nth
from metaseg_monai.transforms.postprocessing import class_map

MOST_STRETCHED = 16  # voxels of a picture's side by those of the other


class Sample(NamedTuple):
    """One case: image (H, W) in 0..1, label (H, W), predicted classes (H, W) for each test mode.

    Of a volume these are three planes side by side: axial, coronal and sagittal. Of an image of
    several `channels` it is their mean.
    """

    case: str
    domain: str
    image: np.ndarray
    label: np.ndarray
    preds: dict[str, np.ndarray]
    channels: int = 1


class PredictionSamples:
    """Measure of ``samples.npz``: some cases of every domain with all their modes.

    Of volumes three planes are kept, through the middle of the label. Of images of more than 4
    million pixels every n-th row and column is kept, which is what a picture in a report can show.

    Of each of the first groups (patients) it is one, that with the largest foreground, for
    neighbouring slices of a patient would show the same. All cases of the first mode come first.

    Args:
        per_domain: largest number of cases kept for each domain, each of another group.
    """

    def __init__(self, per_domain: int = 1) -> None:
        self.per_domain = per_domain
        self.samples: dict[tuple[str, str], Sample] = {}  # by domain and group
        self.shown: dict[tuple[str, str], int] = {}  # foreground pixels of each
        self.first: str | None = None  # the mode in which cases are chosen, by their labels

    def start(self, items: list[Any]) -> None:
        """Forget the samples of an earlier evaluation."""
        self.samples, self.first = {}, None

    def __call__(self, case: Case) -> tuple[()]:
        """Keep the case if it is still wanted."""
        place = case["domain"], case["group"]
        self.first = self.first or case["mode"]
        if case["mode"] == self.first:
            shown = sum(int(torch.count_nonzero(one)) for one in _planes(case, "label"))
            if self._is_wanted(place, shown):
                label = _side_by_side(case, [one[0] for one in _planes(case, "label")])
                label = label.astype(np.uint8)
                planes = [one.float() for one in _planes(case, "image")]
                grey = [one[0] if len(one) == 1 else one.mean(0) for one in planes]
                unit = to_unit(_side_by_side(case, grey))
                self.samples[place] = Sample(
                    case["case"], case["domain"], unit, label, {}, len(planes[0])
                )
                self.shown[place] = shown
        if place in self.samples and self.samples[place].case == case["case"]:
            classes = [torch.from_numpy(class_map(one)) for one in _planes(case, "pred")]
            pred = _side_by_side(case, classes).astype(np.uint8)
            self.samples[place].preds[case["mode"]] = pred
        return ()

    def _is_wanted(self, place: tuple[str, str], shown: int) -> bool:
        """Whether a case is of a new group, while there is room, or shows more than its group's."""
        if place in self.samples:
            return shown > self.shown[place]
        return sum(domain == place[0] for domain, _ in self.samples) < self.per_domain

    def write(self, path: Path, found: list[Any]) -> list[Path]:
        """Write the file."""
        return write_samples(path, self.samples.values())

    def join(self, path: Path, earlier: Path, modes: Sequence[str]) -> None:
        """Add the predictions of the same cases in modes that only an earlier evaluation had."""
        before = {one.case: one.preds for one in read_samples(earlier)}
        write_samples(
            path,
            [
                one._replace(preds={**before.get(one.case, {}), **one.preds})
                for one in read_samples(path)
            ],
        )


def write_samples(path: Path, samples: Iterable[Sample]) -> list[Path]:
    """Write predictions for `read_samples`."""
    arrays: dict[str, Any] = {}
    index = []
    for number, sample in enumerate(samples):
        arrays |= {f"image_{number}": sample.image, f"label_{number}": sample.label}
        for position, pred in enumerate(sample.preds.values()):
            arrays[f"pred_{number}_{position}"] = pred
        told = {
            "case": sample.case,
            "domain": sample.domain,
            "modes": list(sample.preds),
            "channels": sample.channels,
        }
        index.append(told)
    return write_arrays(path, index, arrays)


def read_samples(path: str | Path) -> list[Sample]:
    """Read the file that `PredictionSamples` wrote.

    Raises:
        DataError: the file is damaged or is none.
    """
    index, arrays = read_arrays(path, "samples", "evaluate")
    return [
        Sample(
            told["case"],
            told["domain"],
            arrays[f"image_{number}"],
            arrays[f"label_{number}"],
            {mode: arrays[f"pred_{number}_{place}"] for place, mode in enumerate(told["modes"])},
            told.get("channels", 1),
        )
        for number, told in enumerate(index)
    ]


def write_arrays(path: Path, index: Any, arrays: Mapping[str, Any]) -> list[Path]:
    """Write arrays and what they are, plain values, as a compressed ``.npz``, in one step."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, index=np.array(json.dumps(index)), **arrays)
    return [path]


def read_arrays(path: str | Path, what: str, command: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the index and the arrays that `write_arrays` wrote.

    Args:
        path: the file.
        what: it holds.
        command: that makes it.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return json.loads(str(arrays.pop("index"))), arrays
    except FileNotFoundError as error:
        raise DataError(f"There are no {what} at {path}: {command} this model first.") from error
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise DataError(f"{path}: no {what} ({error}); {command} again, or remove it.") from error


def middle_plane(array: Tensor) -> Tensor:
    """Return (C, H, W): the array itself, or the middle plane of the last axis of a volume."""
    return array if array.ndim == 3 else array[..., array.shape[-1] // 2]


def _planes(case: Case, key: str) -> list[Tensor]:
    """What a picture shows of an entry, (C, H, W) each, of a large image every n-th row and column.

    Of a volume (C, H, W, D), rows to the back and planes down, these are the axial plane and, head
    up, the coronal and the sagittal one through the middle of the label, else of the volume.
    """
    array, label = case[key], case["label"]
    if array.ndim == 3 or array.shape[-1] == 1:
        plane = middle_plane(array).detach().cpu()
        step = math.isqrt(math.prod(plane.shape[1:]) // LARGE_PIXELS) + 1
        return [torch.from_numpy(every_nth(plane, step))]
    inside = torch.nonzero(label[0].detach().cpu() > 0)
    sides = torch.tensor(label.shape[1:])
    row, column, depth = (inside.median(0).values if len(inside) else sides // 2).tolist()
    coronal, sagittal = (one.transpose(1, 2) for one in (array[:, row], array[:, :, column]))
    return [one.detach().cpu() for one in (array[..., depth], coronal, sagittal)]


def _side_by_side(case: Case, planes: Sequence[Tensor]) -> np.ndarray:
    """Planes (H, W) in one picture, those along the depth stretched by the spacing if it is known.

    Lower ones are filled up with their least value.
    """
    axial, *others = (one.numpy() for one in planes)
    if not others:
        return axial
    stretch = 1.0
    if "spacing_mm" in case:
        z, y, _ = (float(side) for side in case["spacing_mm"])
        stretch = min(max(z / y, 1 / MOST_STRETCHED), MOST_STRETCHED) if z > 0 and y > 0 else 1.0
    least = min(one.min() for one in (axial, *others))
    rows = max(1, round(len(others[0]) * stretch))
    places = np.arange(rows) * len(others[0]) // rows
    every = [axial, *(one[places] for one in others)]
    height = max(map(len, every))
    filled = [np.pad(one, ((0, height - len(one)), (0, 0)), constant_values=least) for one in every]
    return np.concatenate(filled, axis=1)


def to_unit(image: np.ndarray) -> np.ndarray:
    """The grey values between the 1st and 99th percentile as float16 in 0..1."""
    low, high = np.quantile(image, [0.01, 0.99])
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float16)
