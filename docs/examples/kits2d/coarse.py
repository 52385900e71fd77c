"""Write the CT slices with pixels 2.56 times as large, so that networks can be compared on a CPU.

Each slice keeps its own pixel size (1.12 to 2.46 mm), as `prepare kits21 --spacing native` would.

Example:
    python docs/examples/kits2d/coarse.py ../shared/data/kits2d runs/data/kits2d-coarse
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, COARSE = 512, 200

source, target = map(Path, sys.argv[1:3])
with (source / "manifest.csv").open(encoding="utf-8", newline="") as stream:
    rows = list(csv.DictReader(stream))
for row in rows:
    for kind, resample in (("image", Image.Resampling.BOX), ("label", Image.Resampling.NEAREST)):
        file = target / row[kind]
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source / row[kind]) as image:
            pixels = np.asarray(image.resize((COARSE, COARSE), resample))
        Image.fromarray(pixels).save(file)
    for axis in ("y", "x"):
        row[f"spacing_{axis}_mm"] = f"{float(row[f'spacing_{axis}_mm']) * SIDE / COARSE:.6f}"
with (target / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
shutil.copy(source / "LICENSE.CC-BY-NC-SA-4.0.txt", target)
