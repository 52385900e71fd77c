"""Make one table of two data sets: nuclei in brightfield (two cell lines) and cracks in roads."""

import csv
import shutil
import sys
from pathlib import Path

import fire
from tqdm import tqdm

CELLS, CRACKS = {"A549": "A549", "HeLa": "HeLa"}, "crack"
KEPT = ("image", "label", "group", "split", "source", "licence")


def join(cells: str, cracks: str, target: str) -> None:
    """Copy images and masks of both into one folder, with a column that tells the domain.

    Example:
        python docs/examples/surfaces/join.py ../shared/data/brifiseg ../shared/data/crackforest \
runs/data/surfaces

    Args:
        cells: folder with a manifest.csv that has a column cell_line.
        cracks: folder with a manifest.csv of road photographs and crack masks.
        target: new folder, with a table.csv of all rows of A549, HeLa and cracks.
    """
    new = Path(target)
    if new.exists():
        sys.exit(f"error: {new} is there already; name a new folder")
    rows = []
    for source in (Path(cells), Path(cracks)):
        table = source / "manifest.csv"
        if not table.is_file():
            sys.exit(f"error: no {table}; check the path")
        with table.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
        if absent := set(KEPT) - set(lines[0] if lines else ()):
            sys.exit(f"error: {table} lacks the columns {', '.join(sorted(absent))}")
        for line in lines:
            domain = CELLS.get(line["cell_line"]) if "cell_line" in line else CRACKS
            if domain is not None:
                kept = {name: line[name] for name in KEPT}
                kept |= {name: f"{source.name}/{line[name]}" for name in ("image", "label")}
                rows.append({**kept, "group": f"{source.name}-{line['group']}", "domain": domain})
    for row in tqdm(rows, desc="images"):
        for name in ("image", "label"):
            folder, file = row[name].split("/", 1)
            source = Path(cells if Path(cells).name == folder else cracks)
            (new / row[name]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, new / row[name])
    with (new / "table.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    counts = {domain: sum(row["domain"] == domain for row in rows) for domain in (*CELLS, CRACKS)}
    sys.stdout.write(f"{counts}: {new}\n")


if __name__ == "__main__":
    fire.Fire(join)
