"""The tables of a prediction's objects: one row an object, and one a well."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.data import read_image
from metaseg_monai.data.planes import resize_image
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.objects.instances import (
    Objects,
    ObjectSettings,
    as_object_settings,
    find_objects,
)
from metaseg_monai.evaluation.objects.pixel_size import pixel_size_um
from metaseg_monai.evaluation.objects.shapes import measure_objects
from metaseg_monai.evaluation.objects.wells import OF_IMAGE, well_summary
from metaseg_monai.files import replacing

OBJECTS, WELLS = "objects.csv", "wells.csv"
KEY = ["plate", "well", "group"]


class ObjectTable:
    """Evaluator handler that writes ``objects.csv`` and ``wells.csv`` of the predicted objects.

    Objects are measured in the pixels of the image's own file, to which logits are resized where
    the evaluation resampled them, with the intensities that the file stores. Of an evaluation in
    several test modes the mode normal is measured. The columns of the wells are those of the
    table, where it has them.

    Args:
        folder: where both files go when the evaluation is complete.
        objects: settings of `ObjectSettings`; None is connected components.
        by: metadata fields or columns of the table that both files show, each once; wells are kept
            apart by them. Name the task here where an image is predicted for several.

    Raises:
        ConfigError: a setting is wrong, such as a name in `by` that a column of measures has.
        DataError: while running: an image cannot be read, or is no 2D image of the predicted
            shape; names the case.
    """

    def __init__(
        self,
        folder: str | Path,
        objects: ObjectSettings | Mapping[str, Any] | None = None,
        by: Sequence[str] | None = (),
    ) -> None:
        self.folder = Path(folder)
        self.settings = as_object_settings(objects)
        self.by = _checked(by)
        self.items: dict[str, Mapping[str, Any]] = {}
        self.objects: list[pd.DataFrame] = []
        self.images: list[dict[str, Any]] = []

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files that are written."""
        return self.folder / OBJECTS, self.folder / WELLS

    def attach(self, engine: Engine) -> None:
        """Measure after every batch of the evaluator, write at its end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forget an earlier evaluation and learn which images will come."""
        items: list[Mapping[str, Any]] = engine.state.dataloader.dataset.data
        self.items = {item["case"]: item for item in items}
        self.objects, self.images = [], []
        for item in items:
            for name in self.by:
                _value(item, name)

    def measure(self, engine: Engine) -> None:
        """Find and measure the objects of one batch."""
        batch, preds = engine.state.batch, engine.state.output["pred"]
        for row, case in enumerate(batch["case"]):
            if "mode" not in batch or batch["mode"][row] == "normal":
                native = batch["native_shape"][row].tolist() if "native_shape" in batch else None
                item, logits = self.items[case], preds[row]
                self.add(item, find_native(item, logits, native, self.settings), len(logits))

    def add(self, item: Mapping[str, Any], objects: Objects, classes: int) -> None:
        """Measure the objects of one image.

        Args:
            item: of the table or folder.
            objects: in the pixels of the image's file.
            classes: number of classes with the background.
        """
        pixel_um = pixel_size_um(item)
        try:
            image = read_image(item["image"], 2).array
            measured = measure_objects(objects, image, pixel_um)
        except DataError as error:
            raise DataError(f"case {item['case']!r}: {error}") from error
        cells = item.get("columns", {})
        told = {name: _value(item, name) for name in self.by}
        names = {"case": item["case"], "plate": cells.get("plate", "")}
        names |= {"well": cells.get("well", ""), "group": item["group"], **told}
        for place, (name, value) in enumerate(names.items()):
            measured.insert(place, name, str(value))
        self.objects.append(measured)
        height, width = objects.labels.shape
        size = {"imaged_px": height * width, "pixel_um": pixel_um or float("nan")}
        self.images += [{**names, "class": number, **size} for number in range(1, classes)]

    def write(self, engine: Engine) -> None:
        """Write both files, each in one step."""
        self.save()

    def save(self) -> None:
        """Write both files; a prediction without objects leaves a header alone.

        Raises:
            DataError: no image came.
        """
        if not self.images:
            raise DataError(f"{self.folder}: no image was predicted, so there are no objects")
        # of the tables with a row, as empty ones have no types of their own
        tables = [table for table in self.objects if len(table)] or self.objects[:1]
        objects = pd.concat(tables, ignore_index=True)
        wells = well_summary(pd.DataFrame(self.images), objects, self.by)
        for path, table in zip(self.paths, (objects, wells), strict=True):
            with replacing(path) as part:  # not by write_table: it takes no table without rows
                table.to_csv(part, index=False, lineterminator="\n")


def find_native(
    item: Mapping[str, Any],
    logits: Tensor,
    native_shape: Sequence[int] | None,
    settings: ObjectSettings,
) -> Objects:
    """The objects of an image in the pixels of its file.

    Args:
        item: for messages.
        logits: (K, H, W).
        native_shape: (H, W) of the file where the evaluation resampled it.
        settings: how objects are made.

    Raises:
        DataError: the logits are not those of an image; names the case.
    """
    try:
        if native_shape is not None and logits.ndim == 3:
            logits = resize_image(logits[None].float(), native_shape)[0]
        return find_objects(logits, settings)
    except DataError as error:
        raise DataError(f"case {item['case']!r}: {error}") from error


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
    names = [name for name in dict.fromkeys(by) if name not in (*KEY, "case", "class")]
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
    names = {**dict.fromkeys(KEY, ""), "case": ""}
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
