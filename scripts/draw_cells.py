"""Draw the sheet of examples of the cell simulator (docs/images/cells.png).

Example:
    python scripts/draw_cells.py --output docs/images/cells.png
"""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from metaseg_monai.cli.commands import run_script
from metaseg_monai.simulate import SEVEN_LINES
from metaseg_monai.simulate.cells.acquisition import Acquisition
from metaseg_monai.simulate.cells.culture import Cue
from metaseg_monai.simulate.cells.plan import ANOMALIES, CRACK, CRACKS, NUCLEI, Plan
from metaseg_monai.simulate.cells.write import Picture, draw_picture

SIZE, COLUMNS = 120, 7
COMMON = Acquisition(magnification=20, focus_um=4.0, density_per_mm2=1300)
Tile = tuple[str, Picture, str]


def tile(
    title: str,
    line: str = "HeLa",
    taken: Acquisition = COMMON,
    cue: Cue = "image",
    style: str = "exact",
    task: str = NUCLEI,
    seed: int = 5,
) -> Tile:
    """One picture of the sheet and the task whose outline is drawn into it."""
    tasks = (NUCLEI, ANOMALIES) if task == ANOMALIES else (task,)
    plan = Plan("train", line, taken.magnification, tasks, style)
    return title, draw_picture(np.random.default_rng(seed), plan, taken, SIZE, cue), task


def rows() -> list[tuple[str, list[Tile]]]:
    """The sheet, row by row."""
    some = replace(COMMON, density_per_mm2=1500)
    return [
        ("cue: image", [tile(line, line) for line in SEVEN_LINES]),
        ("cue: metadata", [tile(n, n, cue="metadata") for n in SEVEN_LINES]),
        ("cue: nothing", [tile(n, n, cue="nothing") for n in SEVEN_LINES]),
        (
            "magnification",
            [tile(f"{m:g}x", taken=replace(some, magnification=m)) for m in (5, 10, 20, 40)]
            + [tile("foreign collection (AZ)", "AZ")]
            + [tile("concrete", CRACK, task=CRACKS, seed=seed) for seed in (1, 3)],
        ),
        (
            "acquisition at 20x",
            [
                tile("lower plane", taken=replace(COMMON, plane="lower", focus_um=-4.0)),
                tile("out of focus", taken=replace(COMMON, focal="non-focal", focus_um=12.0)),
                tile("phase contrast", taken=replace(COMMON, modality="dpc")),
                tile("fluorescence", taken=replace(COMMON, modality="fluorescence")),
                tile("haematoxylin", taken=replace(COMMON, staining="haematoxylin")),
                tile("tilted light", taken=replace(COMMON, illumination="tilted")),
                tile("5 ms", taken=replace(COMMON, exposure_ms=5)),
            ],
        ),
        (
            "styles, anomalies",
            [tile(style, "A549", style=style) for style in ("exact", "fine", "coarse")]
            + [tile("anomalies", taken=some, task=ANOMALIES, seed=seed) for seed in (4, 6, 11, 15)],
        ),
    ]


def draw(axis: Axes, title: str, picture: Picture, task: str) -> None:
    """Show an image, its outlines in orange; the grey scale is the image's own."""
    low, high = np.percentile(picture.image, [0.5, 99.5])
    axis.imshow(picture.image, cmap="gray", vmin=low, vmax=high)
    numbers = picture.objects if task == NUCLEI and picture.objects is not None else None
    for number in [] if numbers is None else range(1, int(numbers.max()) + 1):
        axis.contour(numbers == number, [0.5], colors="#ff9933", linewidths=1.3)
    if numbers is None and picture.labels[task].any():
        axis.contour(picture.labels[task], [0.5], colors="#ff9933", linewidths=1.3)
    axis.set_title(title, fontsize=9)
    axis.set(xticks=[], yticks=[])


def main(output: str = "docs/images/cells.png") -> None:
    """Write the sheet.

    Example:
        python scripts/draw_cells.py --output docs/images/cells.png

    Args:
        output: the picture.
    """
    sheet = rows()
    size = (1.55 * COLUMNS, 1.78 * len(sheet))
    figure, axes = plt.subplots(len(sheet), COLUMNS, figsize=size, dpi=72, layout="constrained")
    for across, (name, tiles) in zip(axes, sheet, strict=True):
        across[0].set_ylabel(name, fontsize=9)
        for axis, (title, picture, task) in zip(across, tiles, strict=True):
            draw(axis, title, picture, task)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with BytesIO() as full:
        figure.savefig(full, dpi=72)
        palette = Image.open(full).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    palette.save(output, optimize=True)  # well under half the size, and looks the same
    print(output)


if __name__ == "__main__":
    run_script(main)
