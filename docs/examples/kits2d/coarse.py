"""Write the CT slices with larger pixels, so that networks can be compared on a CPU."""

import csv
import shutil
import sys
from pathlib import Path

import fire
import numpy as np
from PIL import Image
from tqdm import tqdm

SIDE, COARSE = 512, 200


def coarsen(source: str, target: str) -> None:
    """Make pixels 2.56 times as large; each slice keeps a pixel size of its own (1.12 to 2.46 mm).

    Example:
        python docs/examples/kits2d/coarse.py ../shared/data/kits2d runs/data/kits2d-coarse

    Args:
        source: folder with manifest.csv.
        target: new folder, with a manifest.csv of the new pixel sizes.
    """
    old, new = Path(source), Path(target)
    if not (old / "manifest.csv").is_file() or new.exists():
        sys.exit(f"error: expected {old}/manifest.csv and no folder {new}; check both paths")
    with (old / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in tqdm(rows, desc="slices"):
        for kind, way in (("image", Image.Resampling.BOX), ("label", Image.Resampling.NEAREST)):
            file = new / row[kind]
            file.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(old / row[kind]) as image:
                pixels = np.asarray(image.resize((COARSE, COARSE), way))
            Image.fromarray(pixels).save(file)
        for name in ("spacing_y_mm", "spacing_x_mm"):
            row[name] = f"{float(row[name]) * SIDE / COARSE:.6f}"
    with (new / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shutil.copy(old / "LICENSE.CC-BY-NC-SA-4.0.txt", new)


if __name__ == "__main__":
    fire.Fire(coarsen)
