"""The synthetic shapes data of thesis 4.6 as files: TIFF images and labels beside a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from tqdm import tqdm

from metaseg_monai.data.columns import SPLITS, ColumnMap
from metaseg_monai.data.generated import ensure_generated, write_generated
from metaseg_monai.data.shapes import (
    SMALLEST_SIDE,
    balanced_tasks,
    draw_image,
    draw_placements,
    shape_target,
)
from metaseg_monai.data.table import CaseTable, read_table
from metaseg_monai.data.writers import write_table
from metaseg_monai.errors import DataError
from metaseg_monai.metadata import MetadataSchema

GENERATE_COMMAND = "python -m metaseg_monai generate synthetic-shapes --output"


def generate_synthetic_shapes(
    output: str | Path,
    train: int = 600,  # thesis 4.6: 100 / 20 / 20 images a class
    val: int = 120,
    test: int = 120,
    size: int = 64,
    seed: int = 0,
    overlap: float = 0.1,
) -> Path:
    """Write images that all hold six shapes, each with the mask of the one its task names.

    Images are 0/255 and labels 0/1, uint8, (size, size). The tasks are balanced within a split
    and in random order. The same arguments give the same bytes. The folder appears complete or
    not at all.

    Args:
        output: folder to make; it may exist if it is empty.
        train: number of training images; `val` and `test` likewise.
        val: number of validation images.
        test: number of test images.
        size: side of an image in pixels, at least 32.
        seed: of the one random stream per image.
        overlap: largest part of a shape that another one may cover, 0 to 1. At 1 about one shape
            in six is touched and some are hidden, which no network can undo.

    Returns:
        The path of the table.

    Raises:
        DataError: the folder holds files, `size` is too small, `seed` or a count is negative, or
            all counts are 0.
    """
    output = Path(output)
    settings = _settings(train, val, test, size, seed, overlap)
    write_generated(output, settings, lambda folder: _write_shapes(folder, settings))
    return output / "table.csv"


def synthetic_table(
    dataset_dir: str | Path,
    default_dir: str | Path,
    schema: MetadataSchema,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    train: int = 600,
    val: int = 120,
    test: int = 120,
    size: int = 64,
    seed: int = 0,
    overlap: float = 0.1,
) -> CaseTable:
    """The table of a bundle whose data are generated: made once, read ever after (contract 16).

    Only where `dataset_dir` is `default_dir` and is missing or empty the data are generated;
    processes that do so at once end with the same data, those of the first to finish.

    Args:
        dataset_dir: folder that training reads.
        default_dir: the bundle's own folder for generated data.
        schema: of the metadata.
        columns: see `read_table`.
        train: see `generate_synthetic_shapes`; so `val`, `test`, `size` and `seed`.
        val: number of validation images.
        test: number of test images.
        size: side of an image in pixels.
        seed: of the images.
        overlap: see `generate_synthetic_shapes`.

    Raises:
        DataError: another folder is missing or empty, the default folder holds data generated
            with other settings, or the table has problems.
    """
    folder = Path(dataset_dir)
    settings = _settings(train, val, test, size, seed, overlap)
    ensure_generated(
        folder,
        Path(default_dir),
        settings,
        lambda partial: _write_shapes(partial, settings),
        command=f"{GENERATE_COMMAND} {folder}",
    )
    return read_table(folder, schema, columns)


def _settings(
    train: int, val: int, test: int, size: int, seed: int, overlap: float
) -> dict[str, Any]:
    settings = {"train": train, "val": val, "test": test, "size": size, "seed": seed}
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise DataError(f"{name}={value!r}: expected a whole number, 0 or more")
    if size < SMALLEST_SIDE:
        raise DataError(f"size={size}: shapes need at least {SMALLEST_SIDE} pixels a side")
    if train + val + test == 0:
        raise DataError("train, val and test are all 0; ask for at least one image")
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or not 0 <= overlap <= 1:
        raise DataError(f"overlap={overlap!r}: expected a number from 0 to 1")
    return {**settings, "overlap": float(overlap)}


def _write_shapes(folder: Path, settings: dict[str, Any]) -> None:
    size, seed = settings["size"], settings["seed"]
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rows = []
    total = sum(settings[split] for split in SPLITS)
    with tqdm(total=total, desc="synthetic shapes", unit="image", disable=None) as bar:
        for stream, split in enumerate(SPLITS):
            tasks = balanced_tasks(np.random.default_rng([seed, stream]), settings[split])
            for number, task in enumerate(tasks):
                random = np.random.default_rng([seed, stream, number])
                placements = draw_placements(random, size, settings["overlap"])
                name = f"{split}_{number:05d}"
                image, label = f"images/{name}.tif", f"labels/{name}.tif"
                _write_tiff(folder / image, draw_image(placements, size) * np.uint8(255))
                target = shape_target(task, placements[task], size)
                _write_tiff(folder / label, target.astype(np.uint8))
                rows.append(
                    {"image": image, "label": label, "task": task, "group": name, "split": split}
                )
                bar.update()
    write_table(rows, folder / "table.csv")


def _write_tiff(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", metadata=None)
