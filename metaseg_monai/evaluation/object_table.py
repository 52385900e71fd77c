"""Write the predicted objects of every image as a label image for Fiji and napari."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import tifffile
from ignite.engine import Engine, Events

from metaseg_monai.errors import ConfigError, DataError, Problem, listing
from metaseg_monai.evaluation.masks import let_go
from metaseg_monai.evaluation.per_case import Case, PerCase
from metaseg_monai.evaluation.predicted import MaskRecord
from metaseg_monai.files import replacing
from metaseg_monai.images.geometry import resize_image
from metaseg_monai.images.image import as_stored, image_format
from metaseg_monai.images.read import read_header, read_image
from metaseg_monai.images.tiff import UM_PER_CM, tiff_pixel_um
from metaseg_monai.images.write import orientation_tags
from metaseg_monai.metadata.fields import read_number, said
from metaseg_monai.metrics.objects import (
    Objects,
    ObjectSettings,
    as_object_settings,
    measure_objects,
)
from metaseg_monai.naming import shortened
from metaseg_monai.rows import frame_csv
from metaseg_monai.tables.check import image_files
from metaseg_monai.transforms.postprocessing import background_shift, find_objects

# What the objects of a well are together: how many, how dense, how large.

PLACE = ("plate", "well", "group")
TYPICAL = (
    "area_px", "area_um2", "diameter_px", "diameter_um", "eccentricity", "solidity",
)  # fmt: skip
OF_IMAGE = ("imaged_px", "pixel_um", "_alone", "_area")  # of images, beside their names
UM2_PER_MM2 = 1e6
DECIMALS = 4


def well_summary(
    images: pd.DataFrame, objects: pd.DataFrame, by: Sequence[str] = ()
) -> pd.DataFrame:
    """Sum the objects of each well up, a row a well and class.

    `objects` and the densities count every object; `whole_objects` leaves out those that touch
    the image's border, and medians are over these whole ones alone, as a cut object has neither
    its size nor its shape. Images without any object count as images.

    Args:
        images: a row for each image and class: `case`, `plate`, `well`, `group`, `class`,
            `imaged_px`, `pixel_um` (NaN where unknown) and the columns `by`.
        objects: rows of `objects.csv`, with the same columns.
        by: further columns that keep rows apart, such as the task.

    Returns:
        `plate`, `well` and `group` (the group only where it is one), `by`, `class`, `images`,
        `objects`, `whole_objects`, `objects_per_image`, `imaged_mm2` and `objects_per_mm2` (empty
        where the pixel size of any image is unknown), `median_...`. Without a well the group
        stands for it.
    """
    keys = ["plate", "well", "_alone", *by, "class"]
    images = images.assign(
        # an image belongs to its well, whatever its group; without a well it belongs to its group
        _alone=images["group"].where(images["well"] == "", ""),
        _area=images["imaged_px"] * images["pixel_um"] ** 2 / UM2_PER_MM2,
    )
    placed = objects.merge(images[["case", "class", "_alone"]], on=["case", "class"])
    wells = images.groupby(keys, sort=False)
    of_all = placed.groupby(keys, sort=False)
    of_whole = placed[placed["touches_border"] == 0].groupby(keys, sort=False)
    table = wells.agg(group=("group", _only), images=("case", "count"))
    table["objects"] = of_all.size().reindex(table.index, fill_value=0)
    table["whole_objects"] = of_whole.size().reindex(table.index, fill_value=0)
    table["objects_per_image"] = table["objects"] / table["images"]
    table["imaged_mm2"] = wells["_area"].agg(lambda area: area.sum(skipna=False))
    table["objects_per_mm2"] = table["objects"] / table["imaged_mm2"]
    means = [
        name for name in objects.columns if name.startswith("mean_intensity") and name not in by
    ]
    for name in (*TYPICAL, *means):
        table[f"median_{name}"] = of_whole[name].median()
    table = table.reset_index().drop(columns="_alone")
    table.insert(2, "group", table.pop("group"))
    return table.round(DECIMALS)


def _only(groups: pd.Series) -> str:
    """The one group of a well; empty where there are several."""
    return str(groups.iloc[0]) if groups.nunique() == 1 else ""


# How many micrometres a pixel measures: from the table or the image's file, never guessed.

COLUMN, UM_PER_MM = "pixel_um", 1e3


def pixel_size_um(item: Mapping[str, Any]) -> float | None:
    """The side of an image's square pixels in micrometres; None where it is unknown.

    The table's column `pixel_um` comes first, then what OME-Zarr says, or a TIFF of itself: its OME
    metadata, its ImageJ unit, or a resolution per centimetre. A resolution per inch is that of a
    screen or printer and tells nothing; pixels that are not square have no one size.

    Args:
        item: of a table or folder, with `image`.

    Raises:
        DataError: the column holds no number above 0, or the file cannot be read.
    """
    cell = said(item.get("columns", {}).get(COLUMN))
    if cell:
        number = read_number(cell)
        if number is None or number <= 0:
            raise DataError(
                f"case {item.get('case', '?')!r}: {COLUMN} is {cell!r}; expected micrometres "
                "above 0, or an empty cell where the size is unknown"
            )
        return number
    file = image_files(item)[0]
    if image_format(file) == "ome-zarr":
        sides = {round(side, 9) for side in (read_header(file)["spacing_mm"] or ())[:2]}
        return sides.pop() * UM_PER_MM if len(sides) == 1 else None
    return tiff_pixel_um(file) if image_format(file) == "tiff" else None


# The objects of every image as they are predicted, with both tables.

OBJECTS, WELLS = "objects.csv", "wells.csv"
Measured = tuple[pd.DataFrame, list[dict[str, Any]]]  # objects, and the image for each class
Form = Literal["labels", "ome-labels"]
SUFFIX: Mapping[str, str] = {"labels": "_objects.tif", "ome-labels": "_objects.ome.tif"}


class SaveObjects:
    """Evaluator handler: a label image ``<case>_objects.tif`` for each image, and its tables.

    Background is 0, every object has a number of its own, by which ``objects.csv`` tells of it;
    ``wells.csv`` sums it up, see `well_summary`. Pixels are 16-bit, or 32-bit where an image has
    more than 65,535 objects, in the shape and pixel size of the image's file: logits are resized
    to it where the evaluation resampled them, and objects are measured in its pixels, with the
    intensities that it stores. The columns of the wells are those of the table, where it has them.

    Before the next batch is read, the engine's last batch and output are let go, so that no two
    large images take memory. An existing file is replaced only where it is still as a prediction
    before wrote it (see `MaskRecord`). Use it in the place of `SaveMasks`, not beside it in one
    folder.

    Args:
        folder: where all files go.
        form: "labels": TIFF with its resolution per centimetre; "ome-labels": OME-TIFF.
        objects: settings of `ObjectSettings`; None is connected components.
        by: metadata fields or columns of the table that both tables show, each once; wells are
            kept apart by them. Name the task here where an image is predicted for several.
        threshold: of the masks that objects are made of, as that of `AsMaskd`.
        record: of the files; by default one that knows no weights.
        problems: gets the images of which no objects can be made, in the place of an error.

    Raises:
        ConfigError: a setting is wrong, such as a name in `by` that a column of measures has.
        DataError: while running: a file would replace an image, another image's objects, or what
            is no earlier prediction; an image cannot be read, or is no 2D image of the predicted
            shape; names the case.
    """

    def __init__(
        self,
        folder: str | Path,
        form: Form = "labels",
        objects: ObjectSettings | Mapping[str, Any] | None = None,
        by: Sequence[str] | None = (),
        threshold: float = 0.5,
        record: MaskRecord | None = None,
        problems: list[Problem] | None = None,
    ) -> None:
        if form not in get_args(Form):
            raise ConfigError(
                "predictions are written as 'mask' or 'dicom-seg' (SaveMasks) or "
                f"{', '.join(get_args(Form))}, not {form!r}"
            )
        self.folder = Path(folder)
        self.form = form
        self.settings = as_object_settings(objects)
        self.by = _checked(by)
        self.background = background_shift(threshold)
        self.items: dict[str, Mapping[str, Any]] = {}
        self.paths: dict[str, Path] = {}
        self._record = MaskRecord(folder) if record is None else record
        self.home = self._record.home
        self.problems = problems

    def attach(self, engine: Engine) -> None:
        """Write label images after every batch, the tables at the end."""
        PerCase(self.folder, self).attach(engine)
        engine.add_event_handler(Events.GET_BATCH_STARTED, let_go)  # every handler is done then

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn which files must not be written, and whether all names of `by` are there."""
        self.items = {item["case"]: item for item in items}
        for case, item in self.items.items():
            for name in self.by:
                _value(item, name)
            image = image_files(item)[0]
            if "plane" in item or image_format(image) in ("nifti", "dicom"):
                told = "is of a volume, and objects are made of 2D images; write its mask instead"
                error = DataError(f"{image}: {told}")
                self._leave_out(str(item.get("volume", case)), image, error)
        self.paths = {case: self._path(case) for case in self.items}
        whole = self._record.shard.is_whole
        tables = [self.folder / name for name in (OBJECTS, WELLS) if whole]
        self._record.claim(self.paths, items, "objects", tables)

    def __call__(self, case: Case) -> Iterator[Measured]:
        """Write the objects of an image; its rows of ``objects.csv``, and what wells need of it."""
        item, logits = self.items[case["case"]], case["pred"]
        if "plane" in item or image_format(image_files(item)[0]) in ("nifti", "dicom"):
            return  # left out
        self._record.saw(case["case"], case)
        pixel_um = pixel_size_um(item)
        try:
            if "native_shape" in case and logits.ndim == 3:
                logits = resize_image(logits[None].float(), case["native_shape"].tolist())[0]
            objects = find_objects(logits, self.settings, self.background)
            measured = measure_objects(objects, read_image(item["image"], 2).array, pixel_um)
        except DataError as error:
            self._leave_out(item["case"], image_files(item)[0], error)
            return
        cells = item.get("columns", {})
        names = {"case": item["case"], "plate": cells.get("plate", "")}
        names |= {"well": cells.get("well", ""), "group": item["group"]}
        names |= {name: _value(item, name) for name in self.by}
        for place, (name, value) in enumerate(names.items()):
            measured.insert(place, name, str(value))
        height, width = objects.labels.shape
        size = {"imaged_px": height * width, "pixel_um": pixel_um or math.nan}
        images = [{**names, "class": number, **size} for number in range(1, len(logits))]
        rows = {"objects": measured.to_dict("split", index=False), "images": images}
        if not objects.labels.any():
            self._record.note(item["case"], empty=True)
        turn = read_header(item["image"]).get("orientation", 1)
        with self._record.listed(self._path(item["case"]), item["case"], rows) as part:
            write_labels(part, objects.labels, pixel_um, turn)
        yield measured, images

    def _leave_out(self, case: str, image: str, error: DataError) -> None:
        """List a case of which no objects can be made."""
        if self.problems is None:
            raise DataError(f"case {case!r}: {error}") from error
        problem = Problem.of_error(case, image, image, error)
        if problem not in self.problems:
            self.problems.append(problem)

    def write(self, path: Path, found: list[Measured]) -> list[Path]:
        """Write both tables; a prediction without objects leaves a header alone."""
        if not self._record.shard.is_whole:  # `merge` writes those of all shards
            return self._record.finish()
        # of the tables with a row, as empty ones have no types of their own
        order = {case: number for number, case in enumerate(self._record.cases)}
        found = [*map(_measured, self._record.kept.values()), *found]
        if not found:
            told = listing(self.problems or (), 3, str)
            raise DataError(f"{self.folder}: objects of no image could be made: {told}")
        found.sort(key=lambda one: order[one[1][0]["case"]])
        tables = [table for table, _ in found if len(table)] or [found[0][0]]
        objects = pd.concat(tables, ignore_index=True)
        images = pd.DataFrame([image for _, of_case in found for image in of_case])
        wells = well_summary(images, objects, self.by)
        for name, table in ((OBJECTS, objects), (WELLS, wells)):
            with self._record.listed(path / name) as part:
                part.write_bytes(frame_csv(table).encode())
        return self._record.finish()

    def _path(self, case: str) -> Path:
        return self.folder / shortened(f"{case}{SUFFIX[self.form]}")


def _measured(rows: Mapping[str, Any]) -> Measured:
    """The objects of an image that an earlier prediction has measured."""
    told = rows["objects"]
    return pd.DataFrame(told["data"], columns=told["columns"]), rows["images"]


def _checked(by: Sequence[str] | None) -> list[str]:
    """The names, each once, without those that the tables show in any case."""
    if by is None:
        return []
    if (
        isinstance(by, str)
        or not isinstance(by, Sequence)
        or not all(isinstance(name, str) for name in by)
    ):
        raise ConfigError(f"objects_by is {by!r}; expected a list of fields or columns")
    names = [name for name in dict.fromkeys(by) if name not in (*PLACE, "case", "class")]
    # channels have columns such as mean_intensity_2
    if taken := [name for name in names if re.sub(r"_\d+$", "", name) in _measures()]:
        raise ConfigError(
            f"objects_by names {taken[0]!r}, as {OBJECTS} and {WELLS} name a column of their own; "
            "give the field or column another name in the table, or leave it out of objects_by"
        )
    return names


@cache
def _measures() -> frozenset[str]:
    """The columns that both tables are made with, from those of a single pixel."""
    pixel = Objects(np.ones((1, 1), dtype=np.int32), np.ones(1, dtype=np.int64))
    objects = measure_objects(pixel, np.zeros((1, 1, 1)), None)
    names = {**dict.fromkeys(PLACE, ""), "case": ""}
    sizes = {"imaged_px": 1, "pixel_um": float("nan")}
    images = pd.DataFrame([{**names, "class": 1, **sizes}])
    wells = well_summary(images, objects.assign(**names))
    return frozenset([*objects.columns, *wells.columns, *OF_IMAGE])


def _value(item: Mapping[str, Any], name: str) -> str:
    known = {**item.get("columns", {}), **item.get("metadata", {})}
    if name not in known:
        raise DataError(
            f"case {item['case']!r} has no field or column {name!r}; it has "
            f"{', '.join(map(str, known)) or 'none'}: mend `by`"
        )
    value = known[name]
    return "" if value is None else str(value)


def write_labels(
    path: str | Path, labels: np.ndarray, pixel_um: float | None = None, orientation: int = 1
) -> Path:
    """Write object numbers as a 16-bit TIFF, or 32-bit beyond 65,535.

    Args:
        path: file to write; an OME-TIFF where it ends in ``.ome.tif``.
        labels: (H, W) whole numbers from 0.
        pixel_um: side of a pixel in micrometres; None where it is unknown.
        orientation: of the image's file, to whose frame they are turned back, with its tag.

    Returns:
        The path.
    """
    path = Path(path)
    narrow = labels.max(initial=0) <= np.iinfo(np.uint16).max
    ome = path.name.lower().endswith(".ome.tif")
    described: dict[str, Any] = {"axes": "YX"}
    settings: dict[str, Any] = {}
    if pixel_um is not None and ome:
        for axis in "YX":
            described |= {f"PhysicalSize{axis}": pixel_um, f"PhysicalSize{axis}Unit": "µm"}
    elif pixel_um is not None:
        settings = {"resolution": (UM_PER_CM / pixel_um,) * 2, "resolutionunit": "CENTIMETER"}
    with replacing(path) as partial:
        tifffile.imwrite(
            partial,
            as_stored(labels, orientation).astype(np.uint16 if narrow else np.uint32),
            ome=ome,
            photometric="minisblack",
            compression="zlib",
            metadata=described,
            extratags=orientation_tags(orientation),
            **settings,
        )
    return path
