"""Sources of several downloads: whose table, whose name, and what may not be read."""

import json
import os

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.tables import find_cases, read_table

SIZE = Continuous(
    name="tumour_size_mm",
    unit="mm",
    range=(5, 250),
    missing="unknown",
    provenance="clinical prior",
    availability="pre-operative",
)
SCHEMA = MetadataSchema([SIZE])


def save_volume(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.int16), np.diag([1, 1, 5, 1.0])), path)


def save_site(folder, case, sizes_cm=None):
    save_volume(folder / case / "imaging.nii.gz")
    if sizes_cm is not None:
        rows = [{"case_id": name, "radiographic_size": size} for name, size in sizes_cm.items()]
        (folder / "kits.json").write_text(json.dumps(rows))


def sizes(source, schema=SCHEMA):
    items = find_cases(source, schema)
    return {item["case"]: item["metadata"].get("tumour_size_mm") for item in items}


def test_each_case_has_the_row_of_its_own_sites_table(tmp_path):
    both = {"case_00001": 3, "case_00003": 9}
    save_site(tmp_path / "siteA", "case_00001", both)
    save_site(tmp_path / "siteB" / "data", "case_00003", {"case_00003": 4})
    assert sizes(tmp_path) == {"case_00001": "30", "case_00003": "40"}
    (tmp_path / "siteB" / "data" / "kits.json").rename(tmp_path / "siteB" / "kits23.json")
    assert sizes(tmp_path) == {"case_00001": "30", "case_00003": "40"}
    assert sizes(tmp_path / "siteB") == {"case_00003": "40"}


def test_no_case_has_a_row_of_another_sites_table(tmp_path):
    save_site(tmp_path / "siteA", "case_00001", {"case_00001": 3, "case_00003": 9})
    save_site(tmp_path / "siteB", "case_00003")
    with pytest.warns(MetadataWarning, match=r"all 1 image\(s\) \('case_00003'\)"):
        assert sizes(tmp_path) == {"case_00001": "30", "case_00003": None}
    strict = MetadataSchema([SIZE.model_copy(update={"missing": "error"})])
    with pytest.raises(MetadataError, match=r"\('case_00003'\): .*tumour_size_mm"):
        sizes(tmp_path, strict)
    (tmp_path / "siteA" / "kits.json").rename(tmp_path / "kits.json")
    assert sizes(tmp_path) == {"case_00001": "30", "case_00003": "90"}  # one table for both


def test_the_row_of_the_case_goes_before_that_of_its_group(tmp_path, write_csv):
    for name in ("a", "b"):
        save_volume(tmp_path / f"{name}.nii.gz")
    rows = [{"image": f"{name}.nii.gz", "name": name, "group": "patient"} for name in ("a", "b")]
    write_csv(tmp_path / "table.csv", rows)
    given = [{"case_id": "patient", "tumour_size_mm": "20"}, {"case_id": "a", SIZE.name: "30"}]
    file = write_csv(tmp_path / "sizes.csv", given)
    items = find_cases(tmp_path, SCHEMA, {"case": "name"}, file)
    assert [item["metadata"] for item in items] == [{SIZE.name: "30"}, {SIZE.name: "20"}]


@pytest.mark.parametrize(
    ("one", "other", "case"),
    [
        ("s1.nii", "s1.nii.gz", "s1"),
        ("a/s1.nii.gz", "a_s1.nii.gz", "a_s1"),
        ("siteA/case_00001/imaging.nii.gz", "siteB/case_00001/imaging.nii.gz", "case_00001"),
    ],
)
def test_images_that_would_be_one_case_are_named_by_their_paths(tmp_path, one, other, case):
    for name in (one, other):
        save_volume(tmp_path / name)
    with pytest.raises(DataError) as caught:
        find_cases(tmp_path, None)
    assert f"{other}: the case '{case}' is also {one}; rename one" in str(caught.value)
    assert "row" not in str(caught.value)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    for name in ("a", "b"):
        save_volume(tmp_path / name / "ct.nii.gz")
    scandir = os.scandir

    def forbid_b(path):
        if str(path) == str(tmp_path / "b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid_b)
    with pytest.raises(
        DataError, match=r"/b: cannot be read \(Permission denied\); check its perm"
    ):
        find_cases(tmp_path, None)


def test_a_table_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("image\na.nii\n")

    def forbidden(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", forbidden)
    for reading in (find_cases, read_table):
        with pytest.raises(DataError, match=r"table\.csv: cannot be read \(Permission denied\)"):
            reading(path, None)
