"""Images that are predicted: how near they are, by pixels and by objects, and their files."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from skimage.filters import gaussian, threshold_otsu
from skimage.segmentation import watershed

from metaseg_monai.errors import ConfigError, DataError, Problem
from metaseg_monai.evaluation.masks import let_go
from metaseg_monai.evaluation.object_scores import COLUMN as INSTANCES
from metaseg_monai.evaluation.object_scores import SCORES, match_row, read_numbers
from metaseg_monai.evaluation.object_table import pixel_size_um
from metaseg_monai.evaluation.per_case import (
    IMAGES,
    NAMES,
    NUMBER,
    TEXT,
    WHOLE,
    Case,
    PerCase,
    Row,
    Table,
    names_of,
    read_rows,
)
from metaseg_monai.evaluation.predicted import MaskRecord
from metaseg_monai.evaluation.samples import middle_plane, read_arrays, to_unit, write_arrays
from metaseg_monai.files import replacing
from metaseg_monai.images.image import image_format
from metaseg_monai.images.lazy import LARGE_PIXELS, every_nth
from metaseg_monai.images.read import read_header
from metaseg_monai.images.write import write_image
from metaseg_monai.metadata.fields import said
from metaseg_monai.metrics.images import SCALES_PX, score_image, texture_of
from metaseg_monai.metrics.objects import Objects, ObjectSettings, match_objects, measure_objects
from metaseg_monai.metrics.objects import number_objects as numbered
from metaseg_monai.metrics.scores import IMAGE_SCORES
from metaseg_monai.naming import shortened
from metaseg_monai.prepare.adipocyte import find_nuclei
from metaseg_monai.tables.check import image_files
from metaseg_monai.tables.table import CaseTable

CHANNEL = "channel"
CLOSE_OBJECTS = ObjectSettings("watershed", smallest_px=12, min_distance_px=5)
Method = Literal["nuclei", "seeded", "bright"]
Found = tuple[np.ndarray, np.ndarray]  # objects of the real and of the generated image


class _Predicted:
    """Real and generated images of each case, channel by channel, in the values of files."""

    def __init__(
        self, table: CaseTable, postprocessing: Sequence[Callable[[Any], Any]], column: str
    ) -> None:
        self.items = {item["case"]: item for item in table.rows}
        self.postprocessing = list(postprocessing)
        self.column = column

    def __call__(self, case: Case) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of the channels, and generated and real images (K, *S).

        Raises:
            DataError: the case is not in the table, or both have other shapes.
        """
        name = case["case"]
        if name not in self.items:
            raise DataError(f"case {name!r} is not in the table; give the measure the run's")
        pred = answered(self.postprocessing, self.items[name], case)
        label = case["label"].cpu().numpy()
        if pred.shape != label.shape:
            raise DataError(
                f"case {name!r}: predicted {pred.shape}, the label has {label.shape}; give the "
                "network as many channels as the labels have"
            )
        told = said(self.items[name].get("columns", {}).get(self.column, "")).split(";")
        numbers = [str(number) for number in range(1, len(label) + 1)]
        return told if len(told) == len(label) and all(told) else numbers, pred, label


def answered(
    postprocessing: Sequence[Callable[[Any], Any]], item: Mapping[str, Any], case: Case
) -> np.ndarray:
    """The image (K, *S) that a network's answer stands for, by what its item tells."""
    data: Any = {**{key: item.get(key, {}) for key in ("columns", "metadata")}, **case}
    for step in postprocessing:  # MONAI's Compose would hide which error it was
        data = step(data)
    image: np.ndarray = data["pred"].cpu().numpy()
    return image


class ImageScores:
    """Measure of ``counts.csv`` where labels are images: a row for each case, mode and channel.

    The scores are those of `score_image`, in the values of the label's file; what does not exist is
    an empty cell.

    Args:
        table: of the run, which tells the channels.
        postprocessing: makes `pred` (K, *S), in the values of the label's file, of the network's
            answer, as `AsImaged`; none where the network answers so.
        column: of the table, that names the channel of a row's label.
    """

    def __init__(
        self,
        table: CaseTable,
        postprocessing: Sequence[Callable[[Any], Any]] = (),
        column: str = CHANNEL,
    ) -> None:
        self.of = _Predicted(table, postprocessing, column)

    def __call__(self, case: Case) -> Iterator[Row]:
        """The scores of each channel."""
        channels, preds, labels = self.of(case)
        for number, (name, pred, label) in enumerate(zip(channels, preds, labels, strict=True), 1):
            cells = score_image(pred, label)._asdict()
            yield {
                **names_of(case),
                **{"class": number, "channel": name, "pixels": label.size},
                **cells,
            }

    def metrics(self, found: list[Row]) -> dict[str, float]:
        """The mean of each score over cases and channels under true metadata."""
        rows = pd.DataFrame([row for row in found if row["mode"] == "normal"])
        means = {} if rows.empty else rows[list(IMAGE_SCORES)].mean().to_dict()
        return {f"val_mean_{name}": value for name, value in means.items()}

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Write the table."""
        return IMAGES.write(path, found)


# The objects that real and generated images show.

FEATURES = (
    *("area_px", "eccentricity", "solidity", "mean_intensity", "sd_intensity"),
    *("integrated_intensity", *(f"texture_{scale}_px" for scale in SCALES_PX)),
)
OF_OBJECTS = Table(
    "objects of images",
    "evaluate with objects set.",
    {
        **dict.fromkeys(NAMES, TEXT),
        **{"class": WHOLE, "channel": TEXT, "source": TEXT, "object": WHOLE},
        **dict.fromkeys(FEATURES, NUMBER._replace(empty=True)),
    },
    key=("case", "class", "source", "object"),
)
OBJECTS_FILE = "image_objects.csv"
SOURCES = ("real", "generated")


class ImageObjects:
    """Measure of ``objects_scores.csv`` and ``image_objects.csv`` where labels are images.

    Objects are found in the real and in the generated image, both by the same rule, and compared:
    the first table has what `ObjectScores` has, the objects of the real image being the true ones;
    the second has, with true metadata, size, shape, intensity and texture of each. An image of
    which no object is found has no row there.

    Args:
        table: of the run.
        objects: rule by the name of the channel. "nuclei": see `find_nuclei`, by the size of a
            pixel. "seeded": the part that is bright by Otsu's threshold, divided among the nuclei
            in the file of the column `instances`, which are the same for both. "bright": the parts
            that are bright so, cut between the peaks of their distance to the edge. None: no
            objects are measured, and the files of an earlier evaluation are removed.
        postprocessing: see `ImageScores`.
        column: see `ImageScores`.

    Raises:
        ConfigError: a rule is none of these; while running: a channel has none.
        DataError: while running: the size of a pixel, or the nuclei, are missing; names the case.
    """

    def __init__(
        self,
        table: CaseTable,
        objects: Mapping[str, Method] | None,
        postprocessing: Sequence[Callable[[Any], Any]] = (),
        column: str = CHANNEL,
    ) -> None:
        known = ", ".join(get_args(Method))
        for name, rule in (objects or {}).items():
            if rule not in get_args(Method):
                raise ConfigError(f"objects: {name} is {rule!r}; expected one of {known}")
        self.of = _Predicted(table, postprocessing, column)
        self.folder_of_table = table.folder
        self.rules = dict(objects or {})

    def __call__(self, case: Case) -> Iterator[tuple[Row, list[Row]]]:
        """Of each channel how the objects match, and in mode normal what they are."""
        if not self.rules:
            return
        channels, preds, labels = self.of(case)
        for number, (name, pred, label) in enumerate(zip(channels, preds, labels, strict=True), 1):
            if name not in self.rules:
                raise ConfigError(
                    f"objects: no rule for channel {name!r}, as "
                    f'{{"{name}": "bright"}}; those known are {", ".join(self.rules)}'
                )
            real, generated = self.find(case["case"], self.rules[name], label, pred)
            told = {**names_of(case), "class": number}
            match = {**told, **match_row(match_objects(real, generated)), "truth": "image"}
            rows: list[Row] = []
            if case["mode"] == "normal":
                ends = float(label.min()), float(label.max())
                for source, objects, image in zip(
                    SOURCES, (real, generated), (label, pred), strict=True
                ):
                    rows += [
                        {**told, "channel": name, "source": source, **features}
                        for features in features_of(objects, image, ends)
                    ]
            yield match, rows

    def find(self, case: str, rule: Method, label: np.ndarray, pred: np.ndarray) -> Found:
        """The objects (H, W) of the real and of the generated image of a channel (H, W)."""
        item = self.of.items[case]
        if rule == "nuclei":
            pixel_um = pixel_size_um(item)
            if pixel_um is None:
                raise DataError(
                    f"case {case!r}: the size of a pixel is unknown, by which nuclei are told; "
                    "give the column pixel_um"
                )
            return find_nuclei(label, pixel_um), find_nuclei(pred, pixel_um)
        if rule == "bright":
            return _bright(label), _bright(pred)
        named = said(item.get("columns", {}).get(INSTANCES))
        if not named:
            raise DataError(
                f"case {case!r}: no file of nuclei in the column {INSTANCES}, from which the "
                "objects are grown; give it, or another rule"
            )
        try:
            seeds = read_numbers(self.folder_of_table / named, label.shape, None, None)
        except DataError as error:
            raise DataError(f"case {case!r}: {error}") from error
        return _grown(label, seeds), _grown(pred, seeds)

    def write(self, path: Path, found: list[tuple[Row, list[Row]]]) -> list[Path]:
        """Write both tables."""
        matches = SCORES.write(path, [match for match, _ in found])
        rows = [row for _, of_case in found for row in of_case]
        return [*matches, *OF_OBJECTS.write(path.with_name(OBJECTS_FILE), rows)]


def features_of(
    objects: np.ndarray, image: np.ndarray, ends: tuple[float, float]
) -> list[dict[str, float]]:
    """Number and `FEATURES` of each object (H, W), 1 to N, of an image (H, W).

    Args:
        objects: of the image.
        image: in the values of its file.
        ends: values that become the first and last grey level of textures.
    """
    count = int(objects.max(initial=0))
    if not count:
        return []
    table = measure_objects(Objects(objects, np.ones(count, np.int64)), image[None], None)
    table["integrated_intensity"] = table["mean_intensity"] * table["area_px"]
    for scale, values in zip(SCALES_PX, texture_of(objects, image, ends).T, strict=True):
        table[f"texture_{scale}_px"] = values
    names = ["object", *FEATURES]
    return [dict(zip(names, row, strict=True)) for row in table[names].itertuples(index=False)]


def read_image_objects(path: str | Path) -> pd.DataFrame:
    """Read an ``image_objects.csv``.

    Raises:
        DataError: see `read_rows`.
    """
    return read_rows(path, OF_OBJECTS)


def _above_otsu(image: np.ndarray) -> np.ndarray:
    smooth = gaussian(image.astype(np.float32), 1.0)
    if smooth.min() == smooth.max():
        return np.zeros(image.shape, np.uint8)
    return (smooth > threshold_otsu(smooth)).astype(np.uint8)


def _bright(image: np.ndarray) -> np.ndarray:
    return numbered(_above_otsu(image), 2, CLOSE_OBJECTS).labels


def _grown(image: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """What is bright in an image, divided among seeds, each of which is part of its object."""
    smooth = gaussian(image.astype(np.float32), 1.0)
    grown = watershed(-smooth, seeds, mask=(_above_otsu(image) > 0) | (seeds > 0))
    return np.asarray(grown, dtype=np.int32)


# Pictures of some cases, for reports.

SAMPLES_FILE = "image_samples.npz"


class ImageSample(NamedTuple):
    """One channel of a case, in pictures (H, W); grey values are float16 in 0..1.

    Attributes:
        case: its name.
        domain: that it is scored in.
        channel: name of the channel.
        planes: (P, H, W) of the image; each has a scale of its own.
        real: label.
        generated: prediction, in the scale of the label.
        objects: of the real image, and of the generated one; None where none were looked for.
    """

    case: str
    domain: str
    channel: str
    planes: np.ndarray
    real: np.ndarray
    generated: np.ndarray
    objects: Found | None


class ImageSamples:
    """Measure of ``image_samples.npz``: some cases of each domain and channel, in mode normal.

    Of images of more than 4 million pixels every n-th row and column is kept. Of each of the first
    groups (wells) it is one case.

    Args:
        of: finds the objects whose outlines are drawn, and makes images of answers.
        per_domain: largest number of cases kept for each domain and channel.
    """

    def __init__(self, of: ImageObjects, per_domain: int = 1) -> None:
        self.of = of
        self.per_domain = per_domain
        self.taken: dict[tuple[str, str], set[str]] = {}

    def start(self, items: list[Any]) -> None:
        """Forget the samples of an earlier evaluation."""
        self.taken = {}

    def __call__(self, case: Case) -> Iterator[ImageSample]:
        """The channels of the case that are wanted."""
        if case["mode"] != "normal":
            return
        channels, preds, labels = self.of.of(case)
        for name, pred, label in zip(channels, preds, labels, strict=True):
            groups = self.taken.setdefault((case["domain"], name), set())
            if case["group"] in groups or len(groups) >= self.per_domain:
                continue
            groups.add(case["group"])
            rule = self.of.rules.get(name)
            found = None if rule is None else self.of.find(case["case"], rule, label, pred)
            planes = np.stack([to_unit(_thinned(one)) for one in case["image"].cpu().numpy()])
            yield ImageSample(
                *(case["case"], case["domain"], name, planes),
                *in_one_scale(_thinned(label), _thinned(pred)),
                None if found is None else (_thinned(found[0]), _thinned(found[1])),
            )

    def write(self, path: Path, found: list[ImageSample]) -> list[Path]:
        """Write the file."""
        arrays: dict[str, Any] = {}
        index = []
        for number, one in enumerate(found):
            arrays |= {
                f"{key}_{number}": getattr(one, key) for key in ("planes", "real", "generated")
            }
            if one.objects is not None:
                arrays[f"objects_{number}"] = np.stack(one.objects)
            index.append({"case": one.case, "domain": one.domain, "channel": one.channel})
        return write_arrays(path, index, arrays)

    def join(self, path: Path, earlier: Path, modes: Sequence[str]) -> None:
        """Keep the pictures of an earlier evaluation where this one had no true metadata."""
        if "normal" not in modes:
            with replacing(path) as part:
                part.write_bytes(earlier.read_bytes())


def read_image_samples(path: str | Path) -> list[ImageSample]:
    """Read the file that `ImageSamples` wrote.

    Raises:
        DataError: the file is damaged or is none.
    """
    index, arrays = read_arrays(path, "samples of images", "evaluate")
    found = []
    for number, told in enumerate(index):
        planes, real, generated = (
            arrays[f"{key}_{number}"] for key in ("planes", "real", "generated")
        )
        both = arrays.get(f"objects_{number}")
        objects = None if both is None else (both[0], both[1])
        names = told["case"], told["domain"], told["channel"]
        found.append(ImageSample(*names, planes, real, generated, objects))
    return found


# Files of predicted images.


class SaveImages:
    """Evaluator handler: the predicted image of each case, as OME-TIFF ``<case>.ome.tif``.

    It has the pixels of the image's file, the names of the channels and, where it is known, the
    size of a pixel. The folder also gets a list of the files, ``predicted.sha256``, by which a
    prediction goes on where it was stopped; an existing file is replaced only where it is still as
    a prediction before wrote it (see `MaskRecord`).

    Args:
        folder: where the images go.
        postprocessing: makes `pred` (K, *S), in the values that are written, of the network's
            answer, as `AsImaged`.
        channels: names of the channels that the network predicts; none takes what the item's
            `column` says, as its table has it or as the metadata given.
        column: see `ImageScores`.
        record: of the files; by default one that knows no weights.
        problems: gets the cases that are no image of two axes, or say of no group that is known, in
            the place of an error.

    Raises:
        DataError: an image would replace one that it is made of, or any other file that is no image
            as predicted before; or as told in `problems`.
    """

    def __init__(
        self,
        folder: str | Path,
        postprocessing: Sequence[Callable[[Any], Any]],
        channels: Sequence[str] = (),
        column: str = CHANNEL,
        record: MaskRecord | None = None,
        problems: list[Problem] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.postprocessing = list(postprocessing)
        self.channels = list(channels)
        self.column = column
        self.record = MaskRecord(folder) if record is None else record
        self.home = self.record.home
        self.problems = problems
        self.items: dict[str, Mapping[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Write after every batch."""
        PerCase(self.folder, self).attach(engine)
        engine.add_event_handler(Events.GET_BATCH_STARTED, let_go)  # every handler is done then

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn which files must not be written."""
        self.items = {item["case"]: item for item in items}
        for case, item in self.items.items():
            image = image_files(item)[0]
            if "plane" in item or image_format(image) in ("nifti", "dicom"):
                told = "is of a volume, and images of two axes are predicted; give its planes"
                self._leave_out(case, DataError(f"{image}: {told}"))
        self.record.claim({case: self._path(case) for case in self.items}, items)

    def __call__(self, case: Case) -> tuple[()]:
        """Write the image of a case."""
        name = case["case"]
        item = self.items[name]
        if "plane" in item or image_format(image_files(item)[0]) in ("nifti", "dicom"):
            return ()  # left out
        self.record.saw(name, case)
        try:
            image = answered(self.postprocessing, item, case)
            pixel_um = pixel_size_um(item)
            turn = read_header(item["image"]).get("orientation", 1)
        except DataError as error:
            self._leave_out(name, error)
            return ()
        told = {**item.get("metadata", {}), **item.get("columns", {})}
        names = self.channels or str(told.get(self.column, "")).split(";")
        if len(names) != len(image) or not all(names):
            names = [f"channel {number}" for number in range(1, len(image) + 1)]
        with self.record.listed(self._path(name), name) as part:
            write_image(image, part, names, pixel_um, turn)
        return ()

    def write(self, path: Path, found: list[Any]) -> list[Path]:
        """End the list of files."""
        return self.record.finish()

    def _leave_out(self, case: str, error: DataError) -> None:
        if self.problems is None:
            raise DataError(f"case {case!r}: {error}") from error
        image = image_files(self.items[case])[0]
        self.problems.append(Problem.of_error(case, image, image, error))

    def _path(self, case: str) -> Path:
        return self.folder / shortened(f"{case}.ome.tif")


def in_one_scale(label: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float16 in 0..1, by the percentiles 1 and 99.8 of the label."""
    low, high = np.quantile(label, [0.01, 0.998])
    width = max(float(high - low), float(np.ptp(label)) * 1e-3, 1e-6)
    one, other = (np.clip((x - low) / width, 0, 1).astype(np.float16) for x in (label, pred))
    return one, other


def _thinned(picture: np.ndarray) -> np.ndarray:
    plane = middle_plane(torch.from_numpy(np.ascontiguousarray(picture))[None])
    return every_nth(plane, math.isqrt(picture.size // LARGE_PIXELS) + 1)[0]
