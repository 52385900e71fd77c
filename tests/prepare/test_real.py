"""The layouts on real files, as far as they are at hand."""

import json

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.images.read import read_image
from metaseg_monai.prepare import (
    prepare_cells,
    prepare_kits21,
    prepare_names,
    read_clinical,
)
from metaseg_monai.prepare.kits_source import size_problem
from metaseg_monai.tables.table import read_table

pytestmark = pytest.mark.real_data


def test_names_of_a_cell_voyager(real, tmp_path):
    made = prepare_names(
        real / "bf2dapi" / "20x_images",
        tmp_path / "out",
        r"(?P<plate>.+)_(?P<well>[A-P]\d\d)_T\d+F(?P<field>\d+)L\d+A04Z(?P<plane>\d+)C04\.tif",
        join=("plane",),
        group=("plate", "well"),
    )
    assert made.problems == []
    (item,) = read_table(made.table, None, {"label": None}).rows
    assert item["columns"]["well"] == "A01"
    assert item["group"] == "AssayPlate_sephaCe_A01"
    assert len(item["image"]) == 6
    sources = [f"AssayPlate_sephaCe_A01_T0001F001L01A04Z0{z}C04.tif" for z in range(1, 7)]
    original = read_image([real / "bf2dapi" / "20x_images" / name for name in sources])
    np.testing.assert_array_equal(read_image(item["image"]).array, original.array)
    assert "1 files that do not fit: AssayPlate_sephaCe_A01_T0001F001L01A01Z01C01.tif" in (
        made.summary
    )


def test_a_table_of_nuclei(lab, real, tmp_path):
    made = prepare_cells(
        real / "nuclei_dsb2018", tmp_path / "out", key="image", masks="labels", labels="instances"
    )
    rows = lab.rows(made.table)
    assert len(rows) + len(made.problems) == 121
    objects = [int(read_image(tmp_path / "out" / r["instances"]).array.max()) for r in rows[:5]]
    assert objects == [int(row["n_nuclei"]) for row in rows[:5]]


def test_twelve_label_volumes_equal_a_direct_count(scans, real, tmp_path):
    made = prepare_kits21(real / "kits_seg3d", tmp_path, "all", labels_only=True, spacing="native")
    assert made.problems == []
    slices, cases = scans.rows(made.table), scans.rows(tmp_path / "cases.csv")
    manifest = {row["case_id"]: row for row in scans.rows(real / "kits_seg3d" / "manifest.csv")}
    assert {row["case"] for row in cases} == set(manifest)
    for case in cases:
        name = case["case"]
        volume = nib.load(real / "kits_seg3d" / name / "segmentation.nii.gz")
        label, zooms = np.asarray(volume.dataobj), volume.header.get_zooms()
        assert nib.aff2axcodes(volume.affine) == ("I", "P", "L")  # planes lie as stored
        shown = [(label == k).any(axis=(1, 2)) for k in (1, 2, 3)]
        mass = shown[1] | shown[2]
        counts = {
            "planes": len(label),
            "planes_kidney": shown[0].sum(),
            "planes_tumour": shown[1].sum(),
            "planes_cyst": shown[2].sum(),
            "planes_tumour_and_cyst": (shown[1] & shown[2]).sum(),
            "planes_mass": mass.sum(),
            "planes_kidney_or_mass": (shown[0] | mass).sum(),
        }
        assert {key: int(case[key]) for key in counts} == counts
        assert case["planes_kidney_or_mass"] == manifest[name]["slices_with_kidney"]
        own = [row for row in slices if row["volume"] == name]
        assert len(own) == len(label)
        for row, plane in zip(own, label, strict=True):
            for k, structure in enumerate(("kidney", "tumour", "cyst"), start=1):
                area = np.count_nonzero(plane == k) * float(zooms[1]) * float(zooms[2])
                assert float(row[f"{structure}_mm2"]) == pytest.approx(area, rel=1e-5, abs=1e-5)
            np.testing.assert_array_equal(tifffile.imread(tmp_path / row["label"]), plane)
        assert float(case["tumour_diameter_mm"]) == pytest.approx(
            float(case["tumour_size_mm"]), rel=0.35
        )


@pytest.mark.parametrize("rule", ["mass", "kidney"])
def test_slices_by_rule(scans, real, tmp_path, rule):
    made = prepare_kits21(real / "kits_seg3d", tmp_path, rule, labels_only=True)
    expected = {}
    for path in sorted((real / "kits_seg3d").glob("case_*/segmentation.nii.gz")):
        label = np.asarray(nib.load(path).dataobj)
        wanted = label > 1 if rule == "mass" else label > 0
        planes = np.flatnonzero(wanted.any(axis=(1, 2)))
        expected |= {(path.parent.name, str(plane)): None for plane in planes}
    assert [(row["volume"], row["plane"]) for row in scans.rows(made.table)] == list(expected)


def test_real_slices_come_back_from_their_volumes(scans, real, tmp_path):
    flat = scans.rows(real / "kits2d" / "manifest.csv")
    published = {(row["case_id"], int(row["z_index"])): row for row in flat}
    clinical = real / "kits_seg3d" / "kits.json"
    made = prepare_kits21(
        real / "kits_mini3d", tmp_path, "all", spacing="native", clinical=clinical
    )
    rows = scans.rows(made.table)
    assert len(rows) == 43
    for row in rows:
        folder = real / "kits_mini3d" / row["volume"]
        places = json.loads((folder / "slices.json").read_text())["true_z_indices"]
        known = published[row["volume"], places[int(row["plane"])]]
        image = tifffile.imread(tmp_path / row["image"])
        expected = np.asarray(PIL.Image.open(real / "kits2d" / known["image"]))
        np.testing.assert_array_equal(np.clip(image, 0, 255), expected)
        label = tifffile.imread(tmp_path / row["label"])
        expected = np.asarray(PIL.Image.open(real / "kits2d" / known["label"]))
        np.testing.assert_array_equal(label, expected)
        assert float(row["tumour_size_mm"]) == pytest.approx(
            10 * float(known["radiographic_size_cm"])
        )
        area = float(known["spacing_y_mm"]) * float(known["spacing_x_mm"])
        assert float(row["tumour_mm2"]) == pytest.approx(int(known["tumor_px"]) * area, rel=1e-4)


def test_the_clinical_table(real):
    path = real / "kits_seg3d" / "kits.json"
    entries = {entry["case_id"]: entry for entry in json.loads(path.read_text())}
    rows = read_clinical(path)
    assert list(rows) == list(entries)
    assert len(rows) == 475
    for case, row in rows.items():
        size = entries[case]["radiographic_size"]
        assert row["tumour_size_mm"] == ("" if size is None else f"{round(size * 10, 6):g}")
    assert sum(not row["tumour_size_mm"] for row in rows.values()) == 7
    assert not [case for case, row in rows.items() if size_problem(row["tumour_size_mm"])]
