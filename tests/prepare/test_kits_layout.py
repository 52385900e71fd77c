"""KiTS downloads as sources of a prediction: images, their names, and whose row is whose."""

import json
import os
from pathlib import Path

import pytest

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.prepare import KitsLayout
from metaseg_monai.tables import DataWarning, find_cases

BUNDLE = Path(__file__).parents[2] / "bundles" / "kits21_tumour_slices_segmentation"
SCHEMA = MetadataSchema.load(BUNDLE / "configs" / "schema.json")
STRICT = MetadataSchema([{**SCHEMA.settings[0], "missing": "error"}])


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


def found(source, schema=None, metadata=None):
    return find_cases(source, schema, metadata=metadata, layout=KitsLayout())


def test_any_other_source_is_read_as_without_the_layout(tmp_path, save_volume):
    save_volume(tmp_path / "a" / "ct.nii.gz")
    assert found(tmp_path) == find_cases(tmp_path)
    assert found(tmp_path / "a" / "ct.nii.gz") == find_cases(tmp_path / "a" / "ct.nii.gz")


def test_kits_json_beside_the_cases_gives_their_metadata(kits):
    with pytest.warns(MetadataWarning, match="no tumour_size_mm for 'case_00003', 'case_00009'"):
        items = found(kits, SCHEMA)
    assert [item["metadata"] for item in items] == [
        {"tumour_size_mm": "41"},
        {"tumour_size_mm": ""},
        {},
    ]
    with pytest.warns(MetadataWarning):
        assert found(kits.parent, SCHEMA)[0]["metadata"]


def test_cases_without_a_size_are_refused_by_name_where_it_must_be_known(kits):
    with pytest.raises(MetadataError, match=r"(?s)2 problem.*case_00003.*case_00009.*has no row"):
        found(kits, STRICT)


@pytest.mark.parametrize("value", ["41", "unknown"])
def test_given_values_take_the_place_of_kits_json(kits, value):
    items = found(kits, SCHEMA, metadata={"tumour_size_mm": value})
    assert [item["metadata"] for item in items] == [{"tumour_size_mm": value}] * 3


def test_links_go_by_their_own_names(tmp_path, save_volume):
    """A folder of links to volumes, and one of links to folders, as a data store makes them."""
    store = tmp_path / "store"
    save_volume(store / "case_00001" / "imaging.nii.gz")
    for case in ("case_00004", "case_00005"):
        (tmp_path / "files" / case).mkdir(parents=True)
        link = tmp_path / "files" / case / "imaging.nii.gz"
        link.symlink_to(store / "case_00001" / "imaging.nii.gz")
        (tmp_path / "folders").mkdir(exist_ok=True)
        (tmp_path / "folders" / case).symlink_to(store / "case_00001")
    rows = [{"case_id": f"case_{n:05d}", "radiographic_size": n} for n in (1, 4, 5)]
    for kind in ("files", "folders"):
        (tmp_path / kind / "kits.json").write_text(json.dumps(rows))
        items = found(tmp_path / kind, SCHEMA)
        assert [item["case"] for item in items] == ["case_00004", "case_00005"]
        assert [item["metadata"]["tumour_size_mm"] for item in items] == ["40", "50"]
        assert [item["image"] for item in items] == [
            str(tmp_path / kind / case / "imaging.nii.gz") for case in ("case_00004", "case_00005")
        ]
        (one,) = found(tmp_path / kind / "case_00005", SCHEMA)
        assert (one["case"], one["metadata"]["tumour_size_mm"]) == ("case_00005", "50")


@pytest.mark.parametrize("name", ["kits.json", "kits23.json", "kits21.json", "kits19.json"])
@pytest.mark.parametrize("source", ["case_00000", "case_00000/imaging.nii.gz"])
def test_one_case_takes_its_size_from_the_table_above_its_folder(kits, source, name):
    (kits / "kits.json").rename(kits / name)
    (item,) = found(kits / source, SCHEMA)
    assert (item["case"], item["mask"]) == ("case_00000", "case_00000.nii.gz")
    assert item["metadata"] == {"tumour_size_mm": "41"}


@pytest.mark.parametrize("place", ["", "dataset"])
def test_the_table_of_kits23_is_found_too(kits, place):
    kits.rename(kits.with_name("dataset"))
    top = kits.parent
    (top / "dataset" / "kits.json").rename(top / place / "kits23.json")
    with pytest.warns(MetadataWarning, match="case_00009"):
        items = found(top, SCHEMA)
    assert items[0]["metadata"] == {"tumour_size_mm": "41"}


def save_site(save_volume, folder, case, sizes_cm=None):
    save_volume(folder / case / "imaging.nii.gz")
    if sizes_cm is not None:
        rows = [{"case_id": name, "radiographic_size": size} for name, size in sizes_cm.items()]
        (folder / "kits.json").write_text(json.dumps(rows))


def sizes(source, schema=SCHEMA):
    items = found(source, schema)
    return {item["case"]: item["metadata"].get("tumour_size_mm") for item in items}


def test_each_case_has_the_row_of_its_own_sites_table(tmp_path, save_volume):
    both = {"case_00001": 3, "case_00003": 9}
    save_site(save_volume, tmp_path / "siteA", "case_00001", both)
    save_site(save_volume, tmp_path / "siteB" / "data", "case_00003", {"case_00003": 4})
    assert sizes(tmp_path) == {"case_00001": "30", "case_00003": "40"}
    (tmp_path / "siteB" / "data" / "kits.json").rename(tmp_path / "siteB" / "kits23.json")
    assert sizes(tmp_path) == {"case_00001": "30", "case_00003": "40"}
    assert sizes(tmp_path / "siteB") == {"case_00003": "40"}


def test_cases_of_one_name_are_told_by_their_paths(tmp_path, save_volume):
    for site in ("siteA", "siteB"):
        save_site(save_volume, tmp_path / site, "case_00001")
    told = "siteB/case_00001/imaging.nii.gz: the case 'case_00001' is also siteA/"
    with pytest.raises(DataError, match=told):
        found(tmp_path)


def test_no_case_has_a_row_of_another_sites_table(tmp_path, save_volume):
    save_site(save_volume, tmp_path / "siteA", "case_00001", {"case_00001": 3, "case_00003": 9})
    save_site(save_volume, tmp_path / "siteB", "case_00003")
    with pytest.warns(MetadataWarning, match=r"all 1 image\(s\) \('case_00003'\)"):
        assert sizes(tmp_path) == {"case_00001": "30", "case_00003": None}
    with pytest.raises(MetadataError, match=r"\('case_00003'\): .*tumour_size_mm"):
        sizes(tmp_path, STRICT)
    (tmp_path / "siteA" / "kits.json").rename(tmp_path / "kits.json")
    assert sizes(tmp_path) == {"case_00001": "30", "case_00003": "90"}  # one table for both


def test_only_the_images_of_a_kits_folder_are_found(kits):
    expected = [f"case_{number:05d}" for number in (0, 3, 9)]
    items = found(kits, None)
    assert [item["case"] for item in items] == expected
    assert items[1] == {
        "image": str(kits / "case_00003" / "imaging.nii.gz"),
        "case": "case_00003",
        "group": "case_00003",
        "metadata": {},
        "mask": "case_00003.nii.gz",
    }
    above = found(kits.parent, None)
    assert [item["mask"] for item in above] == [f"{case}.nii.gz" for case in expected]
    (one,) = found(kits / "case_00003", None)
    assert (one["case"], one["mask"]) == ("case_00003", "case_00003.nii.gz")


def test_a_relative_source_is_named_by_its_folder(tmp_path, monkeypatch, save_volume):
    save_volume(tmp_path / "case_00003" / "imaging.nii.gz")
    (tmp_path / "case_00003" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "case_00003" / "sub")
    for source in ("..", "../../case_00003", "../sub/../imaging.nii.gz"):
        (item,) = found(source, None)
        assert item["case"] == "case_00003"
        assert item["image"] == str(tmp_path / "case_00003" / "imaging.nii.gz")


def test_images_beside_kits_cases_are_left_out_with_a_word(kits, save_volume):
    save_volume(kits / "patientA" / "ct.nii.gz")
    save_volume(kits / "case_00000" / "second.nii.gz")
    for name in ("raw", "segmentations", "instances"):
        save_volume(kits / "case_00000" / name / "tumor_instance-1.nii.gz")
    save_volume(kits / "case_00003" / "aggregated_OR_seg.nii.gz")
    save_volume(kits / "case_00010" / "segmentation.nii.gz")
    message = (
        r"KiTS cases, so 3 image\(s\) .*: 'case_00000/second\.nii\.gz', "
        r"'case_00010/segmentation\.nii\.gz', 'patientA/ct\.nii\.gz';"
    )
    with pytest.warns(DataWarning, match=message):
        assert len(found(kits, None)) == 3
    with pytest.warns(DataWarning, match=r"a KiTS case, so 1 image\(s\).*'second\.nii\.gz'"):
        found(kits / "case_00000", None)


def test_segmentations_beside_an_image_are_no_images(tmp_path, save_volume):
    for name in ("imaging", "aggregated_MAJ_seg", "segmentation", "aggregated_AND_seg"):
        save_volume(tmp_path / "pat1" / f"{name}.nii.gz")
    save_volume(tmp_path / "pat2" / "segmentation.nii.gz")  # alone, it may be any image
    items = found(tmp_path, None)
    assert [item["case"] for item in items] == ["pat1_imaging", "pat2_segmentation"]


@pytest.mark.filterwarnings("ignore:.*taken as a folder of KiTS cases")
def test_a_scan_that_is_a_link_to_nothing_or_a_pipe_is_told_and_the_others_taken(kits):
    for case, make in (("case_00000", os.mkfifo), ("case_00009", lambda p: p.symlink_to("none"))):
        (kits / case / "imaging.nii.gz").unlink()
        make(kits / case / "imaging.nii.gz")
    problems = []
    items = find_cases(kits, layout=KitsLayout(), problems=problems)
    assert [item["case"] for item in items] == ["case_00003"]
    assert {problem.case: problem.problem for problem in problems} == {
        "case_00000/imaging.nii.gz": "is no regular file (but a FIFO or device)",
        "case_00009/imaging.nii.gz": "is a link that leads to no file",
    }
    assert find_cases(kits / "case_00003", layout=KitsLayout(), problems=problems)
