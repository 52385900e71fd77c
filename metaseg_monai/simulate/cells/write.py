"""Simulated microscopy as files: 16-bit TIFF, labels, objects and a table with all metadata."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from metaseg_monai.rows import write_table
from metaseg_monai.simulate.cells.acquisition import Acquisition, expose
from metaseg_monai.simulate.cells.culture import (
    CUES,
    Cue,
    draw_anomalies,
    draw_concrete,
    draw_culture,
    line_as_seen,
)
from metaseg_monai.simulate.cells.plan import (
    ANOMALIES,
    CRACK,
    NUCLEI,
    RECIPES,
    Place,
    Plan,
    make_plan,
    place_images,
)
from metaseg_monai.simulate.generated import require, require_whole, write_generated, write_tiff
from metaseg_monai.simulate.polygons import polygonise
from metaseg_monai.tables.columns import SPLITS

SMALLEST_SIDE = 32
SMALL = {"train": 56, "val": 14, "test": 28}
STYLE_TOLERANCE_PX = {"exact": 0.0, "fine": 2.0, "coarse": 3.5}  # at 20x (paper 3.2)
STYLE_MAGNIFICATION = 20.0
FOREGROUND = {  # of recipes whose masks are not of nuclei alone
    "heterogeneous": "crack or nucleus",
    **dict.fromkeys(
        ("anomalies", "anomalies_curtailed", "anomalies_curtailed_apart"), "nucleus or anomaly"
    ),
}
SPOILT = 0.2  # share of the images without a label of anomalies that have some all the same
OF_CELLS = (
    "magnification", "modality", "medium", "focal", "plane", "focus_um", "exposure_ms", "staining",
    "illumination", "density_per_mm2", "pixel_um",
)  # fmt: skip
Layout = Literal["small", "thesis"]


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
            magnification_imbalanced, acquisition (as that, and every field varies), heterogeneous,
            styles, anomalies, anomalies_curtailed or anomalies_curtailed_apart.
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
        ConfigError: an argument is out of its range.
        DataError: the folder holds other files.
    """
    counts = {"train": train, "val": val, "test": test}
    given = {split: number for split, number in counts.items() if number is not None}
    numbers: dict[str, tuple[Any, int]] = {
        **{split: (number, 0) for split, number in given.items()},
        "size": (size, SMALLEST_SIDE),
        "seed": (seed, 0),
        "fields_per_well": (fields_per_well, 1),
        "workers": (workers, 1),
    }
    require(
        (layout in ("small", "thesis"), f"layout {layout!r}: expected small or thesis"),
        (recipe in RECIPES, f"recipe {recipe!r}: expected one of {', '.join(RECIPES)}"),
        (cue in CUES, f"cue {cue!r}: expected one of {', '.join(CUES)}"),
        (
            (recipe, cue) != ("acquisition", "metadata"),
            "recipe acquisition with cue metadata: fluorescence and stains show the nuclei, so "
            "metadata would not be the only cue; choose another recipe or cue",
        ),
    )
    require_whole(**numbers)
    settings: dict[str, Any] = {
        "recipe": recipe,
        **(SMALL if layout == "small" else counts),
        **given,
        "size": size,
        "seed": seed,
        "cue": cue,
        "fields_per_well": fields_per_well,
    }
    plans = make_plan(recipe, settings, seed)
    write = partial(_write, plans=plans, settings=settings, workers=workers)
    names = {0: "background", 1: FOREGROUND.get(recipe, "nucleus")}
    write_generated(Path(output), settings, write, once=True, class_names=names)
    return Path(output) / "table.csv"


def _write(folder: Path, plans: list[Plan], settings: Mapping[str, Any], workers: int) -> None:
    recipe = settings["recipe"]
    for name in ("images", "labels", "objects"):
        (folder / name).mkdir(parents=True)
    places = place_images(plans, settings["fields_per_well"], settings["seed"], recipe)
    # Numbered within their split: more training images leave the test images as they are.
    numbers = {split: iter(range(len(plans))) for split in SPLITS}
    placed = zip(plans, places, strict=True)
    jobs = [(next(numbers[plan.split]), plan, place) for plan, place in placed]
    make = partial(_make, folder=folder, settings=settings)
    rows: list[dict[str, Any]] = []
    with (
        ProcessPoolExecutor(workers) as pool,
        tqdm(total=len(jobs), desc=f"cells: {recipe}", unit="image", disable=None) as bar,
    ):
        for made in pool.map(make, jobs, chunksize=8) if workers > 1 else map(make, jobs):
            rows += made
            bar.update()
    write_table(rows, folder / "table.csv")


def _make(
    job: tuple[int, Plan, Place], folder: Path, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write one image with its labels, and return its rows."""
    number, plan, place = job
    random = np.random.default_rng([settings["seed"], 9, SPLITS.index(plan.split), number])
    taken = place.acquisition
    picture = draw_picture(random, plan, taken, settings["size"], settings["cue"])
    name = f"{plan.split}_{number:05d}"
    of_cells = {column: getattr(taken, column) for column in OF_CELLS}
    of_cells |= {name: f"{of_cells[name]:g}" for name in ("magnification", "pixel_um")}
    if plan.line == CRACK:
        of_cells = dict.fromkeys(OF_CELLS, "")
    image = f"images/{name}.tif"
    write_tiff(folder / image, picture.image, None if plan.line == CRACK else taken.pixel_um)
    rows = []
    for task, label in picture.labels.items():
        write_tiff(folder / f"labels/{name}_{task}.tif", label)
        instances = ""
        if picture.objects is not None and task == NUCLEI:
            instances = f"objects/{name}.tif"
            write_tiff(folder / instances, picture.objects)
        row = {
            "image": image,
            "label": f"labels/{name}_{task}.tif",
            "cell_line": plan.line,
            **of_cells,
            "style": plan.style,
            "task": task,
            "domain": plan.line,
            "source": plan.source,
            "unrelated_line": place.unrelated_line,
            "plate": place.plate,
            "well": place.well,
            "field": place.field,
            "instances": instances,
            "group": f"{place.plate}_{place.well}",
            "split": plan.split,
        }
        rows.append(row)
    return rows


class Picture(NamedTuple):
    """What is written of one image.

    Attributes:
        image: (H, W) uint16.
        labels: task -> mask (H, W) uint8 of 0 and 1.
        objects: (H, W) uint16, numbers of the nuclei as the style draws them; None for cracks.
    """

    image: np.ndarray
    labels: dict[str, np.ndarray]
    objects: np.ndarray | None


def draw_picture(
    random: np.random.Generator, plan: Plan, acquisition: Acquisition, size: int, cue: Cue
) -> Picture:
    """Draw one image of `size` pixels a side; of `cue` see `line_as_seen`."""
    shape = (size, size)
    if plan.line == CRACK:
        image, mask = draw_concrete(random, shape)
        return Picture(image, dict.fromkeys(plan.tasks, mask), None)
    pixel_um = acquisition.pixel_um
    line = line_as_seen(plan.line, cue)
    culture = draw_culture(random, line, shape, pixel_um, acquisition.density_per_mm2)
    spoilt = random.random() < SPOILT
    number = int(random.integers(1, 5)) if spoilt or ANOMALIES in plan.tasks else 0
    shadow, anomalous = draw_anomalies(random, shape, pixel_um, number)
    image = expose(random, culture, acquisition, shadow)
    tolerance = STYLE_TOLERANCE_PX[plan.style] * acquisition.magnification / STYLE_MAGNIFICATION
    objects = polygonise(culture.objects, tolerance).astype(np.uint16)
    labels = {NUCLEI: (objects > 0).astype(np.uint8), ANOMALIES: anomalous}
    return Picture(image, {task: labels[task] for task in plan.tasks}, objects)
