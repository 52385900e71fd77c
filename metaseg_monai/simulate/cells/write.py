"""Simulated microscopy as files: 16-bit TIFF, labels, objects and a table with all metadata."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from tqdm import tqdm

from metaseg_monai.errors import DataError
from metaseg_monai.files import write_table
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.simulate.cells.culture import CUES, Cue
from metaseg_monai.simulate.cells.picture import Picture, draw_picture
from metaseg_monai.simulate.cells.plan import (
    CRACK,
    NUCLEI,
    Place,
    Plan,
    Totals,
    make_plan,
    place_images,
    unrelated_lines,
)
from metaseg_monai.simulate.generated import ensure_generated, write_generated
from metaseg_monai.tables.columns import SPLITS, ColumnMap
from metaseg_monai.tables.table import CaseTable, read_table

GENERATE_COMMAND = "python -m metaseg_monai generate cells --output"
SMALLEST_SIDE = 32
SMALL = {"train": 56, "val": 14, "test": 28}
Layout = Literal["small", "thesis"]
Job = tuple[int, Plan, Place]


def generate_cells(
    output: str | Path,
    recipe: str = "seven_lines",
    layout: Layout = "small",
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    size: int = 1080,
    seed: int = 0,
    cue: Cue = "image",
    fields_per_well: int = 4,
    workers: int = 1,
) -> Path:
    """Write simulated fields of cells: 16-bit TIFF, labels, objects, plates, all metadata.

    Example:
        python -m metaseg_monai generate cells --recipe seven_lines --output cells --size 256

    The composition is that of a data set of the texts.

    Real about them: the acquisition fields of the proposal act as optics does (the contrast of
    brightfield grows with the distance of the focus and turns with its side, apertures follow the
    objective, photon and read noise, 16 bit, uneven light), sizes are in micrometres, so that a
    magnification changes what a pixel is, images of a well share line and acquisition. Not real:
    outlines are smooth ovals, cells do not overlap much, divide or die, all nuclei are in one
    plane, and the lines are only loosely those whose names they bear. With ``cue="metadata"``
    bodies are alike and the nuclei invisible by design.

    The table has, for every image and task, the columns cell_line, magnification, modality, medium,
    focal, plane, focus_um, exposure_ms, staining, illumination, density_per_mm2, style, task,
    domain, source, unrelated_line (that of another well: null control), plate, well, field,
    pixel_um, instances (file of the object numbers; nuclei only), group (plate and well) and split.

    Args:
        output: a new or empty folder, or one made with these arguments.
        recipe: which data set, a key of `RECIPES`: seven_lines, two_lines, extended, magnification,
            acquisition (every field varies), heterogeneous, styles, anomalies, anomalies_curtailed
            or anomalies_curtailed_apart.
        layout: small (56 / 14 / 28 images), or thesis for the numbers of appendix A, which `train`,
            `val` and `test` replace one by one.
        train: training images, with the texts' proportions; so `val` and `test`.
        val: validation images.
        test: test images.
        size: pixels a side, at least 32. A smaller image is a smaller field, not a coarser one.
        seed: the same arguments give the same bytes.
        cue: what tells the nucleus' shape: "metadata", "image" or "nothing", see `line_as_seen`.
        fields_per_well: most images of a well.
        workers: processes.

    Returns:
        The path of the table.

    Raises:
        DataError: the folder holds other files, or an argument is out of its range.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise DataError(f"workers={workers!r}: expected a whole number of processes, 1 or more")
    totals = _totals(layout, train, val, test)
    settings = _settings(recipe, totals, size, seed, cue, fields_per_well)
    write = partial(_write, settings=settings, workers=workers)
    write_generated(Path(output), settings, write, once=True)
    return Path(output) / "table.csv"


def cells_table(
    dataset_dir: str | Path,
    default_dir: str | Path,
    schema: MetadataSchema,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    recipe: str = "seven_lines",
    layout: Layout = "small",
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    size: int = 96,
    seed: int = 0,
    cue: Cue = "image",
    fields_per_well: int = 4,
) -> CaseTable:
    """The table of a folder; a bundle's empty default folder is filled by the simulator once.

    Args:
        dataset_dir: folder that training reads; real data are given by their folder, and the
            arguments from `recipe` on do not count.
        default_dir: the bundle's own folder for generated data.
        schema: of the metadata.
        columns: see `read_table`.
        recipe: see `generate_cells`, and so all others.
        layout: small or thesis.
        train: training images.
        val: validation images.
        test: test images.
        size: pixels a side.
        seed: of the images.
        cue: what tells the nucleus' shape.
        fields_per_well: most images of a well.

    Raises:
        DataError: another folder is missing or empty, the default folder holds data generated
            with other settings, or the table has problems.
    """
    totals = _totals(layout, train, val, test)
    settings = _settings(recipe, totals, size, seed, cue, fields_per_well)
    ensure_generated(
        Path(dataset_dir),
        Path(default_dir),
        settings,
        partial(_write, settings=settings, workers=1),
        command=f"{GENERATE_COMMAND} {dataset_dir} --recipe {recipe}",
    )
    return read_table(dataset_dir, schema, columns)


def _totals(layout: str, train: int | None, val: int | None, test: int | None) -> Totals:
    if layout not in ("small", "thesis"):
        raise DataError(f"layout {layout!r}: expected small or thesis")
    given = dict(zip(SPLITS, (train, val, test), strict=True))
    default: Mapping[str, int | None] = SMALL if layout == "small" else dict.fromkeys(SPLITS)
    return {split: default[split] if number is None else number for split, number in given.items()}


def _settings(
    recipe: str, totals: Totals, size: int, seed: int, cue: Cue, fields_per_well: int
) -> dict[str, Any]:
    for name, value, least in (
        ("size", size, SMALLEST_SIDE),
        ("seed", seed, 0),
        ("fields_per_well", fields_per_well, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DataError(f"{name}={value!r}: expected a whole number, {least} or more")
    if cue not in CUES:
        raise DataError(f"cue {cue!r}: expected one of {', '.join(CUES)}")
    if recipe == "acquisition" and cue == "metadata":
        raise DataError(
            "recipe acquisition with cue metadata: fluorescence and stains show the nuclei, so "
            "metadata would not be the only cue; choose another recipe or cue"
        )
    make_plan(recipe, totals, seed)
    return {
        "recipe": recipe,
        **totals,
        "size": size,
        "seed": seed,
        "cue": cue,
        "fields_per_well": fields_per_well,
    }


def _write(folder: Path, settings: dict[str, Any], workers: int) -> None:
    recipe, seed = settings["recipe"], settings["seed"]
    plans = make_plan(recipe, {split: settings[split] for split in SPLITS}, seed)
    places = place_images(
        plans,
        settings["fields_per_well"],
        seed,
        everything=recipe == "acquisition",
        unrelated=unrelated_lines(recipe),
    )
    for name in ("images", "labels", "objects"):
        (folder / name).mkdir(parents=True)
    numbers: dict[str, int] = dict.fromkeys(SPLITS, -1)
    jobs: list[Job] = []
    for plan, place in zip(plans, places, strict=True):
        numbers[plan.split] += 1  # within its split: more training images, the same test images
        jobs.append((numbers[plan.split], plan, place))
    make = partial(_make, folder=folder, settings=settings)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(jobs), desc=f"cells: {recipe}", unit="image", disable=None) as bar:
        if workers > 1:
            with ProcessPoolExecutor(workers) as pool:
                for made in pool.map(make, jobs, chunksize=8):
                    rows += made
                    bar.update()
        else:
            for job in jobs:
                rows += make(job)
                bar.update()
    write_table(rows, folder / "table.csv")


def _make(job: Job, folder: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Write one image with its labels, and return its rows."""
    number, plan, place = job
    random = np.random.default_rng([settings["seed"], 9, SPLITS.index(plan.split), number])
    picture = draw_picture(random, plan, place.acquisition, settings["size"], settings["cue"])
    name = f"{plan.split}_{number:05d}"
    image = f"images/{name}.tif"
    pixel_um = None if plan.line == CRACK else place.acquisition.pixel_um
    _write_tiff(folder / image, picture.image, pixel_um)
    rows = []
    for task, label in picture.labels.items():
        path = f"labels/{name}_{task}.tif"
        _write_tiff(folder / path, label, None)
        instances = _write_objects(folder, name, task, picture)
        rows.append(_row(plan, place, task, image, path, instances))
    return rows


def _write_objects(folder: Path, name: str, task: str, picture: Picture) -> str:
    if picture.objects is None or task != NUCLEI:
        return ""
    path = f"objects/{name}.tif"
    _write_tiff(folder / path, picture.objects, None)
    return path


def _row(
    plan: Plan, place: Place, task: str, image: str, label: str, instances: str
) -> dict[str, Any]:
    taken, wall = place.acquisition, plan.line == CRACK
    of_cells = {
        "magnification": f"{taken.magnification:g}",
        "modality": taken.modality,
        "medium": taken.medium,
        "focal": taken.focal,
        "plane": taken.plane,
        "focus_um": taken.focus_um,
        "exposure_ms": taken.exposure_ms,
        "staining": taken.staining,
        "illumination": taken.illumination,
        "density_per_mm2": taken.density_per_mm2,
        "pixel_um": f"{taken.pixel_um:g}",
    }
    return {
        "image": image,
        "label": label,
        "cell_line": plan.line,
        **(dict.fromkeys(of_cells, "") if wall else of_cells),
        "style": plan.style,
        "task": task,
        "domain": plan.domain,
        "source": plan.source,
        "unrelated_line": place.unrelated_line,
        "plate": place.plate,
        "well": place.well,
        "field": place.field,
        "instances": instances,
        "group": place.group,
        "split": plan.split,
    }


def _write_tiff(path: Path, array: np.ndarray, pixel_um: float | None) -> None:
    """Write plain TIFF; its resolution tags tell the pixel size, in centimetres as TIFF does."""
    resolution = (1e4 / pixel_um, 1e4 / pixel_um) if pixel_um else None
    tifffile.imwrite(
        path,
        array,
        photometric="minisblack",
        compression="zlib",
        metadata=None,
        resolution=resolution,
        resolutionunit="CENTIMETER" if pixel_um else None,
    )
