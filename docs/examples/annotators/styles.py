"""Make a table of annotation styles: each CT slice once for each of those who drew it."""

import csv
import shutil
import sys
from itertools import combinations
from pathlib import Path

import fire
import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

STYLES = {
    "annotator1": "label_ann1",
    "annotator2": "label_ann2",
    "annotator3": "label_ann3",
    "kits19": "label_kits19",
    "kits23": "label",
}
PARTS = {"kidney and masses": (1, 2, 3), "tumour": (2,)}
KEPT = ("case_id", "split", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "source", "licence")
LICENCE = "LICENSE.CC-BY-NC-SA-4.0.txt"
Mask = npt.NDArray[np.uint8]


def styles(source: str, target: str) -> None:
    """Copy the slices that all five have drawn, and print how much they differ.

    Example:
        python docs/examples/annotators/styles.py ../shared/data/kits2d runs/data/annotators

    Args:
        source: folder with manifest.csv, whose columns label_ann1, label_ann2, label_ann3,
            label_kits19 and label (KiTS23) name the masks.
        target: new folder, with a table.csv of one row for each slice and style.
    """
    old, new = Path(source), Path(target)
    if not (old / "manifest.csv").is_file() or new.exists():
        sys.exit(f"error: expected {old}/manifest.csv and no folder {new}; check both paths")
    with (old / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    if absent := {"image", *STYLES.values(), *KEPT} - set(lines[0] if lines else ()):
        sys.exit(f"error: {old}/manifest.csv lacks the columns {', '.join(sorted(absent))}")
    drawn = [line for line in lines if all(line[column] for column in STYLES.values())]
    if not drawn:
        sys.exit(f"error: no row of {old}/manifest.csv has all of {', '.join(STYLES.values())}")
    rows = []
    counts = dict.fromkeys([(part, pair) for part in PARTS for pair in _pairs()], np.zeros(3))
    for line in tqdm(drawn, desc="slices"):
        for file in (line["image"], *(line[column] for column in STYLES.values())):
            (new / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old / file, new / file)
        masks = {style: _read(new / line[column]) for style, column in STYLES.items()}
        for part, (one, other) in counts:
            counts[part, (one, other)] = counts[part, (one, other)] + compared(
                masks[one], masks[other], PARTS[part]
            )
        for style, column in STYLES.items():
            kept = {name: line[name] for name in KEPT}
            rows.append({"image": line["image"], "label": line[column], "style": style, **kept})
    with (new / "table.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if (old / LICENCE).is_file():
        shutil.copyfile(old / LICENCE, new / LICENCE)
    for line_of_text in told(counts):
        sys.stdout.write(line_of_text + "\n")
    patients = len({line["case_id"] for line in drawn})
    sys.stdout.write(f"{len(drawn)} slices of {patients} patients, {len(rows)} rows: {new}\n")


def compared(one: Mask, other: Mask, values: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Count the pixels of a part in both masks, in the first and in the second."""
    first, second = np.isin(one, values), np.isin(other, values)
    return np.array([(first & second).sum(), first.sum(), second.sum()], dtype=float)


def told(counts: dict[tuple[str, tuple[str, str]], npt.NDArray[np.float64]]) -> list[str]:
    """Say the F1 and the ratio of the areas of each pair, pixels of all slices pooled."""
    lines = ["part: first / second: F1, area of the first over that of the second"]
    for (part, (one, other)), (both, first, second) in counts.items():
        if first and second:
            f1, ratio = 2 * both / (first + second), first / second
            lines.append(f"{part}: {one} / {other}: {f1:.3f}, {ratio:.3f}")
    return lines


def _pairs() -> list[tuple[str, str]]:
    return list(combinations(STYLES, 2))


def _read(path: Path) -> Mask:
    with Image.open(path) as image:
        return np.asarray(image)


if __name__ == "__main__":
    fire.Fire(styles)
