import csv
import json

import nibabel as nib
import numpy as np
import pytest
import tifffile

from metaseg_monai.data import read_table
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


@pytest.fixture
def save_volume():
    def save(path, value=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.full((4, 5, 3), value, np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 5, 1.0])), path)

    return save


@pytest.fixture
def kits(tmp_path, save_volume):
    """Three cases as KiTS stores them, with labels beside them, and their kits.json."""
    for case in ("case_00000", "case_00003", "case_00009"):
        for name in ("imaging.nii.gz", "segmentation.nii.gz", "aggregated_MAJ_seg.nii.gz"):
            save_volume(tmp_path / "data" / case / name)
    rows = [
        {"case_id": "case_00000", "radiographic_size": 4.1},
        {"case_id": "case_00003", "radiographic_size": None},
    ]
    (tmp_path / "data" / "kits.json").write_text(json.dumps(rows))
    return tmp_path / "data"


@pytest.fixture
def read_edited():
    """Read the folder's table after edits {row: {column: cell}} or extra rows."""

    def read(folder, schema, write_csv, *edits, columns=None):
        path, rows = folder
        for edit in edits:
            for number, cells in edit.items():
                rows[number].update(cells)
        write_csv(path / "table.csv", rows)
        return read_table(path, schema, columns)

    return read
