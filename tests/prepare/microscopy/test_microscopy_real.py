"""The layouts on real files, as far as they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from metaseg_monai.images.read import read_image
from metaseg_monai.prepare import PrepareOptions, prepare_cells, prepare_names
from metaseg_monai.tables.table import read_table

REAL = Path(os.environ.get("METASEG_DATA", "../shared/data"))
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL} (set METASEG_DATA)"),
]


def test_names_of_a_cell_voyager(tmp_path):
    made = prepare_names(
        REAL / "bf2dapi" / "20x_images",
        tmp_path / "out",
        r"(?P<plate>.+)_(?P<well>[A-P]\d\d)_T\d+F(?P<field>\d+)L\d+A04Z(?P<plane>\d+)C04\.tif",
        join=("plane",),
        options=PrepareOptions(group=("plate", "well")),
    )
    assert made.problems == []
    (item,) = read_table(made.table, None, {"label": None}).rows
    assert item["columns"]["well"] == "A01"
    assert item["group"] == "AssayPlate_sephaCe_A01"
    assert len(item["image"]) == 6
    sources = [f"AssayPlate_sephaCe_A01_T0001F001L01A04Z0{z}C04.tif" for z in range(1, 7)]
    original = read_image([REAL / "bf2dapi" / "20x_images" / name for name in sources])
    np.testing.assert_array_equal(read_image(item["image"]).array, original.array)
    assert "1 files that do not fit: AssayPlate_sephaCe_A01_T0001F001L01A01Z01C01.tif" in (
        made.summary
    )


def test_a_table_of_nuclei(lab, tmp_path):
    made = prepare_cells(
        REAL / "nuclei_dsb2018", tmp_path / "out", key="image", masks="labels", labels="instances"
    )
    rows = lab.rows(made.table)
    assert len(rows) + len(made.problems) == 121
    objects = [int(read_image(tmp_path / "out" / r["instances"]).array.max()) for r in rows[:5]]
    assert objects == [int(row["n_nuclei"]) for row in rows[:5]]
