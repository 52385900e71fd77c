import csv

import numpy as np
import pytest
import tifffile

from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema

WHEN = {"provenance": "acquisition", "availability": "acquisition"}


@pytest.fixture
def task_schema():
    return MetadataSchema([Categorical(name="task", values=("disc", "ring"), **WHEN)])


@pytest.fixture
def size_schema():
    return MetadataSchema(
        [
            Categorical(name="task", values=("disc", "ring"), **WHEN),
            Continuous(name="size_mm", unit="mm", range=(1, 100), out_of_range="flag", **WHEN),
        ]
    )


@pytest.fixture
def write_csv():
    def write(path, rows):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def folder(tmp_path, write_csv):
    """A table of three images (two train, one test) with labels, and its rows to edit."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    rows = []
    for number, split in enumerate(["train", "train", "test"]):
        name = f"{number}.tif"
        image = np.random.default_rng(number).integers(0, 255, (20, 30), np.uint8)
        tifffile.imwrite(tmp_path / "images" / name, image)
        label = np.zeros((20, 30), np.uint8)
        label[4:8, 5:9] = 1
        tifffile.imwrite(tmp_path / "labels" / name, label)
        rows.append(
            {
                "image": f"images/{name}",
                "label": f"labels/{name}",
                "task": ["disc", "ring"][number % 2],
                "group": f"patient{number}",
                "split": split,
            }
        )
    write_csv(tmp_path / "table.csv", rows)
    return tmp_path, rows
