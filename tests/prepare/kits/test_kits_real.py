"""Real KiTS label volumes and slices, counted and compared directly."""

import csv
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.prepare.kits import prepare_kits21

REAL = Path(os.environ.get("METASEG_DATA", "../shared/data"))
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not (REAL / "kits_seg3d").is_dir(), reason=f"no real data in {REAL} (set METASEG_DATA)"
    ),
]


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_twelve_label_volumes_equal_a_direct_count(tmp_path):
    made = prepare_kits21(REAL / "kits_seg3d", tmp_path, "all", labels_only=True, spacing="native")
    assert made.problems == []
    slices, cases = rows_of(made.table), rows_of(tmp_path / "cases.csv")
    manifest = {row["case_id"]: row for row in rows_of(REAL / "kits_seg3d" / "manifest.csv")}
    assert {row["case"] for row in cases} == set(manifest)
    for case in cases:
        name = case["case"]
        volume = nib.load(REAL / "kits_seg3d" / name / "segmentation.nii.gz")
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
def test_slices_by_rule(tmp_path, rule):
    made = prepare_kits21(REAL / "kits_seg3d", tmp_path, rule, labels_only=True)
    expected = {}
    for path in sorted((REAL / "kits_seg3d").glob("case_*/segmentation.nii.gz")):
        label = np.asarray(nib.load(path).dataobj)
        wanted = label > 1 if rule == "mass" else label > 0
        planes = np.flatnonzero(wanted.any(axis=(1, 2)))
        expected |= {(path.parent.name, str(plane)): None for plane in planes}
    assert [(row["volume"], row["plane"]) for row in rows_of(made.table)] == list(expected)


def test_real_slices_come_back_from_their_volumes(tmp_path):
    flat = rows_of(REAL / "kits2d" / "manifest.csv")
    published = {(row["case_id"], int(row["z_index"])): row for row in flat}
    clinical = REAL / "kits_seg3d" / "kits.json"
    made = prepare_kits21(
        REAL / "kits_mini3d", tmp_path, "all", spacing="native", clinical=clinical
    )
    rows = rows_of(made.table)
    assert len(rows) == 43
    for row in rows:
        folder = REAL / "kits_mini3d" / row["volume"]
        places = json.loads((folder / "slices.json").read_text())["true_z_indices"]
        known = published[row["volume"], places[int(row["plane"])]]
        image = tifffile.imread(tmp_path / row["image"])
        expected = np.asarray(PIL.Image.open(REAL / "kits2d" / known["image"]))
        np.testing.assert_array_equal(np.clip(image, 0, 255), expected)
        label = tifffile.imread(tmp_path / row["label"])
        expected = np.asarray(PIL.Image.open(REAL / "kits2d" / known["label"]))
        np.testing.assert_array_equal(label, expected)
        assert float(row["tumour_size_mm"]) == pytest.approx(
            10 * float(known["radiographic_size_cm"])
        )
        area = float(known["spacing_y_mm"]) * float(known["spacing_x_mm"])
        assert float(row["tumour_mm2"]) == pytest.approx(int(known["tumor_px"]) * area, rel=1e-4)
