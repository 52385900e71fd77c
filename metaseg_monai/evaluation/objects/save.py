"""Write the predicted objects of every image as a label image for Fiji and napari."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tifffile
from ignite.engine import Engine, Events

from metaseg_monai.data.cases import image_files
from metaseg_monai.data.headers import image_format
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.mask_record import MaskRecord
from metaseg_monai.evaluation.masks import let_go
from metaseg_monai.evaluation.objects.instances import ObjectSettings
from metaseg_monai.evaluation.objects.pixel_size import pixel_size_um
from metaseg_monai.evaluation.objects.table import ObjectTable, find_native
from metaseg_monai.files import replacing

Form = Literal["labels", "ome-labels"]
SUFFIX: Mapping[str, str] = {"labels": "_objects.tif", "ome-labels": "_objects.ome.tif"}
UM_PER_CM = 1e4


class SaveObjects:
    """Evaluator handler: a label image ``<case>_objects.tif`` for each image, and its tables.

    Background is 0, every object has a number of its own, by which ``objects.csv`` tells of it;
    ``wells.csv`` sums it up (see `ObjectTable`). Pixels are 16-bit, or 32-bit where an image has
    more than 65,535 objects, in the shape and pixel size of the image's file.

    Before the next batch is read, the engine's last batch and output are let go, so that no two
    large images take memory. An existing file is replaced only where it is still as a prediction
    before wrote it (see `MaskRecord`). Use it in the place of `SaveMasks`, not beside it in one
    folder.

    Args:
        folder: where all files go.
        form: "labels": TIFF with its resolution per centimetre; "ome-labels": OME-TIFF.
        objects: settings of `ObjectSettings`; None is connected components.
        by: fields or columns that the tables show, see `ObjectTable`.

    Raises:
        ConfigError: a setting is wrong.
        DataError: while running: a file would replace an image, another image's objects, or what
            is no earlier prediction; or a case is no 2D image.
    """

    def __init__(
        self,
        folder: str | Path,
        form: Form = "labels",
        objects: ObjectSettings | Mapping[str, Any] | None = None,
        by: Sequence[str] | None = (),
    ) -> None:
        if form not in get_args(Form):
            raise ConfigError(
                f"predictions are written as 'mask' (SaveMasks) or {', '.join(get_args(Form))}, "
                f"not {form!r}"
            )
        self.folder = Path(folder)
        self.form = form
        self.table = ObjectTable(folder, objects, by)
        self._record = MaskRecord(folder)

    def attach(self, engine: Engine) -> None:
        """Write label images after every batch, the tables at the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, let_go)  # every handler is done then
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Learn which files must not be written."""
        self.table.start(engine)
        items = self.table.items
        for case, item in items.items():
            if "plane" in item or image_format(image_files(item)[0]) in ("nifti", "dicom"):
                raise DataError(
                    f"case {case!r}: objects are made of 2D images, {image_files(item)[0]} is of a "
                    "volume; write its mask instead"
                )
        paths = {case: self._path(case) for case in items}
        images = {file for item in items.values() for file in image_files(item)}
        self._record = MaskRecord(self.folder)
        self._record.check_names(paths, images, "objects")
        self._record.check([*paths.values(), *self.table.paths])

    def __call__(self, engine: Engine) -> None:
        """Write the objects of one batch and measure them."""
        batch, preds = engine.state.batch, engine.state.output["pred"]
        for row, case in enumerate(batch["case"]):
            item = self.table.items[case]
            native = batch["native_shape"][row].tolist() if "native_shape" in batch else None
            objects = find_native(item, preds[row], native, self.table.settings)
            self.table.add(item, objects, len(preds[row]))
            with self._record.writing():
                path = write_labels(self._path(case), objects.labels, pixel_size_um(item))
            self._record.add(path)

    def finish(self, engine: Engine) -> None:
        """Write the tables."""
        with self._record.writing():
            self.table.save()
        for path in self.table.paths:
            self._record.add(path)
        self._record.finish()

    def _path(self, case: str) -> Path:
        return self.folder / f"{case}{SUFFIX[self.form]}"


def write_labels(path: str | Path, labels: np.ndarray, pixel_um: float | None = None) -> Path:
    """Write object numbers as a 16-bit TIFF, or 32-bit beyond 65,535.

    Args:
        path: file to write; an OME-TIFF where it ends in ``.ome.tif``.
        labels: (H, W) whole numbers from 0.
        pixel_um: side of a pixel in micrometres; None where it is unknown.

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
            labels.astype(np.uint16 if narrow else np.uint32),
            ome=ome,
            photometric="minisblack",
            compression="zlib",
            metadata=described,
            **settings,
        )
    return path
