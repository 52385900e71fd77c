import json

import nibabel as nib
import numpy as np
import pytest
import tifffile

from metaseg_monai.data import DataWarning, find_cases
from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.metadata.fields import MetadataWarning


def test_folder_with_table_without_labels_groups_and_splits(folder, task_schema, write_csv):
    path, rows = folder
    write_csv(path / "table.csv", [{key: row[key] for key in ("image", "task")} for row in rows])
    items = find_cases(path, task_schema)
    assert [item["metadata"]["task"] for item in items] == ["disc", "ring", "disc"]
    assert items[0] == {
        "image": str(path / "images/0.tif"),
        "case": "images_0",
        "group": "images_0",
        "metadata": {"task": "disc"},
        "columns": {"image": "images/0.tif", "task": "disc"},
    }
    assert find_cases(path / "table.csv", task_schema) == items


def test_labels_are_kept_only_where_all_rows_have_one(folder, task_schema, write_csv):
    path, rows = folder
    assert all("split" in item for item in find_cases(path, task_schema))
    assert not any("label" in item for item in find_cases(path, task_schema))
    rows[1]["label"] = ""
    write_csv(path / "table.csv", rows)
    assert not any("label" in item for item in find_cases(path, task_schema))


def test_given_metadata_take_the_place_of_the_table(folder, task_schema, write_csv):
    path, rows = folder
    items = find_cases(path, task_schema, metadata={"task": "ring"})
    assert {item["metadata"]["task"] for item in items} == {"ring"}
    write_csv(path / "table.csv", [{"image": row["image"]} for row in rows])
    assert find_cases(path, task_schema, metadata={"task": "ring"})[2]["case"] == "images_2"
    with pytest.raises(DataError, match="no column 'task'"):
        find_cases(path, task_schema)


def test_given_value_replaces_all_values_of_a_row(folder, task_schema, write_csv):
    path, rows = folder
    rows[0]["task"] = "disc;ring"
    write_csv(path / "table.csv", rows)
    assert len(find_cases(path, task_schema, {"rows_per": "task"})) == 4
    assert len(find_cases(path, task_schema, {"rows_per": "task"}, {"task": "ring"})) == 3


def test_problems_of_the_table_are_told(folder, task_schema, write_csv):
    path, rows = folder
    rows[0]["task"] = "dsic"
    write_csv(path / "table.csv", rows)
    with pytest.raises(DataError, match=r"row 2.*dsic"):
        find_cases(path, task_schema)


def test_folder_of_images_is_searched_in_order(folder, task_schema):
    path, _ = folder
    (path / "table.csv").unlink()
    (path / ".hidden").mkdir()
    tifffile.imwrite(path / ".hidden" / "x.tif", [[1, 2]])
    (path / "images" / "notes.txt").write_text("x")
    items = find_cases(path, task_schema, metadata={"task": "ring"})
    assert [item["case"] for item in items] == [
        f"{kind}_{number}" for kind in ("images", "labels") for number in range(3)
    ]
    assert all(item["metadata"] == {"task": "ring"} for item in items)
    items[0]["metadata"]["task"] = "changed"
    assert items[1]["metadata"]["task"] == "ring"


@pytest.mark.parametrize("metadata", [None, {"task": "dsic"}, {"task": "ring", "colour": "red"}])
def test_images_without_right_metadata_name_the_option(folder, task_schema, metadata):
    with pytest.raises(MetadataError, match="--meta task=VALUE"):
        find_cases(folder[0] / "images", task_schema, metadata=metadata)


def test_single_image(folder, task_schema):
    image = folder[0] / "images/1.tif"
    (item,) = find_cases(image, task_schema, metadata={"task": "ring"})
    assert item == {
        "image": str(image),
        "case": "1",
        "group": "1",
        "metadata": {"task": "ring"},
    }


def test_without_schema_no_metadata_are_asked_for(folder):
    assert [item["metadata"] for item in find_cases(folder[0] / "images", None)] == [{}] * 3


def test_two_images_of_one_name_are_told(folder, task_schema):
    path, _ = folder
    (path / "images/0.png").write_bytes(b"")
    with pytest.raises(DataError, match="the case '0' is also"):
        find_cases(path / "images", task_schema, metadata={"task": "ring"})


def test_nothing_to_find(tmp_path, task_schema):
    with pytest.raises(DataError, match="no such file or folder"):
        find_cases(tmp_path / "no", task_schema)
    with pytest.raises(DataError, match="neither the table"):
        find_cases(tmp_path, task_schema)


SIZE = Continuous(
    name="tumour_size_mm",
    unit="mm",
    range=(5, 250),
    missing="unknown",
    provenance="clinical prior",
    availability="pre-operative",
)


def save_volume(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.full((4, 5, 3), value, np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 5, 1.0])), path)


@pytest.fixture
def kits(tmp_path):
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


def test_only_the_images_of_a_kits_folder_are_found(kits):
    expected = [f"case_{number:05d}" for number in (0, 3, 9)]
    items = find_cases(kits, None)
    assert [item["case"] for item in items] == expected
    assert items[1] == {
        "image": str(kits / "case_00003" / "imaging.nii.gz"),
        "case": "case_00003",
        "group": "case_00003",
        "metadata": {},
        "mask": "case_00003/imaging.nii.gz",
    }
    above = find_cases(kits.parent, None)
    assert [item["mask"] for item in above] == [f"data/{case}/imaging.nii.gz" for case in expected]
    (one,) = find_cases(kits / "case_00003", None)
    assert (one["case"], one["mask"]) == ("case_00003", "imaging.nii.gz")


def test_kits_json_beside_the_cases_gives_their_metadata(kits):
    with pytest.warns(MetadataWarning, match="no tumour_size_mm for 'case_00003', 'case_00009'"):
        items = find_cases(kits, MetadataSchema([SIZE]))
    assert [item["metadata"] for item in items] == [
        {"tumour_size_mm": "41"},
        {"tumour_size_mm": ""},
        {},
    ]
    with pytest.warns(MetadataWarning):
        assert find_cases(kits.parent, MetadataSchema([SIZE]))[0]["metadata"]


def test_cases_without_a_size_are_refused_by_name_where_it_must_be_known(kits):
    strict = MetadataSchema([SIZE.model_copy(update={"missing": "error"})])
    with pytest.raises(MetadataError, match=r"(?s)2 problem.*case_00003.*case_00009.*has no row"):
        find_cases(kits, strict)


@pytest.mark.parametrize("value", ["41", "unknown"])
def test_given_values_take_the_place_of_kits_json(kits, value):
    items = find_cases(kits, MetadataSchema([SIZE]), metadata={"tumour_size_mm": value})
    assert [item["metadata"] for item in items] == [{"tumour_size_mm": value}] * 3


@pytest.mark.parametrize("value", ["4.1", "300", "41 mm"])
def test_values_in_cm_or_out_of_range_are_refused(kits, value):
    with pytest.raises(MetadataError, match="in mm from 5 to 250"):
        find_cases(kits, MetadataSchema([SIZE]), metadata={"tumour_size_mm": value})


def test_a_clinical_csv_is_matched_by_case(tmp_path, write_csv):
    for name in ("b/p1.nii.gz", "p2.nii"):
        save_volume(tmp_path / "in" / name)
    rows = [{"case_id": "p2", "tumour_size_mm": "30"}, {"case_id": "b_p1", "tumour_size_mm": "20"}]
    path = write_csv(tmp_path / "clinical.csv", rows)
    items = find_cases(tmp_path / "in", MetadataSchema([SIZE]), metadata=path)
    assert [(item["case"], item["mask"], item["metadata"]) for item in items] == [
        ("b_p1", "b/p1.nii.gz", {"tumour_size_mm": "20"}),
        ("p2", "p2.nii", {"tumour_size_mm": "30"}),
    ]


def test_a_file_without_the_field_says_what_it_has(kits, write_csv, tmp_path):
    path = write_csv(tmp_path / "c.csv", [{"case_id": "case_00000", "age": "61"}])
    schema = MetadataSchema([SIZE.model_copy(update={"name": "grade"})])
    with pytest.raises(MetadataError, match=r"no column 'grade'; it has .*'age'"):
        find_cases(kits, schema, metadata=str(path))


def test_a_table_of_volumes_with_its_own_or_a_files_metadata(tmp_path, write_csv):
    save_volume(tmp_path / "in" / "v" / "a.nii.gz")
    save_volume(tmp_path / "in" / "b.nii.gz")
    rows = [
        {"image": "v/a.nii.gz", "name": "first", "tumour_size_mm": "40"},
        {"image": "b.nii.gz", "name": "second", "tumour_size_mm": "unknown"},
        {"image": "b.nii.gz", "name": "third", "tumour_size_mm": "60"},
    ]
    write_csv(tmp_path / "in" / "table.csv", rows)
    items = find_cases(tmp_path / "in", MetadataSchema([SIZE]), {"case": "name"})
    assert [item["metadata"]["tumour_size_mm"] for item in items] == ["40", "unknown", "60"]
    assert [item["mask"] for item in items] == ["v/a.nii.gz", "second.nii.gz", "third.nii.gz"]
    write_csv(
        tmp_path / "in" / "table.csv", [{k: row[k] for k in row if k[0] != "t"} for row in rows[:2]]
    )
    sizes = [{"case_id": name, "tumour_size_mm": "77"} for name in ("first", "second")]
    file = write_csv(tmp_path / "sizes.csv", sizes)
    items = find_cases(tmp_path / "in", MetadataSchema([SIZE]), {"case": "name"}, file)
    assert [item["metadata"] for item in items] == [{"tumour_size_mm": "77"}] * 2


def test_dicom_folders_are_images_of_their_own(tmp_path):
    for name in ("in/p.1/s2.3", "in/q"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "IM0").write_bytes(b"\0" * 128 + b"DICM")
    items = find_cases(tmp_path / "in", None)
    assert [(item["case"], item["mask"]) for item in items] == [
        ("p.1_s2.3", "p.1/s2.3.nii.gz"),
        ("q", "q.nii.gz"),
    ]
    (one,) = find_cases(tmp_path / "in" / "q", None)
    assert (one["image"], one["case"], one["mask"]) == (str(tmp_path / "in/q"), "q", "q.nii.gz")


def test_links_go_by_their_own_names(tmp_path):
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
        items = find_cases(tmp_path / kind, MetadataSchema([SIZE]))
        assert [item["case"] for item in items] == ["case_00004", "case_00005"]
        assert [item["metadata"]["tumour_size_mm"] for item in items] == ["40", "50"]
        assert [item["image"] for item in items] == [
            str(tmp_path / kind / case / "imaging.nii.gz") for case in ("case_00004", "case_00005")
        ]
        (one,) = find_cases(tmp_path / kind / "case_00005", MetadataSchema([SIZE]))
        assert (one["case"], one["metadata"]["tumour_size_mm"]) == ("case_00005", "50")


def test_linked_folders_are_searched_but_never_in_a_circle(tmp_path):
    save_volume(tmp_path / "store" / "p" / "ct.nii")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").symlink_to(tmp_path / "store" / "p")
    (tmp_path / "store" / "p" / "back").symlink_to(tmp_path / "in")
    assert [item["case"] for item in find_cases(tmp_path / "in", None)] == ["b_ct"]


def test_a_relative_source_is_named_by_its_folder(tmp_path, monkeypatch):
    save_volume(tmp_path / "case_00003" / "imaging.nii.gz")
    (tmp_path / "case_00003" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "case_00003" / "sub")
    for source in ("..", "../../case_00003", "../sub/../imaging.nii.gz"):
        (item,) = find_cases(source, None)
        assert item["case"] == "case_00003"
        assert item["image"] == str(tmp_path / "case_00003" / "imaging.nii.gz")


@pytest.mark.parametrize("name", ["kits.json", "kits23.json", "kits21.json", "kits19.json"])
@pytest.mark.parametrize("source", ["case_00000", "case_00000/imaging.nii.gz"])
def test_one_case_takes_its_size_from_the_table_above_its_folder(kits, source, name):
    (kits / "kits.json").rename(kits / name)
    (item,) = find_cases(kits / source, MetadataSchema([SIZE]))
    assert (item["case"], item["mask"]) == ("case_00000", "imaging.nii.gz")
    assert item["metadata"] == {"tumour_size_mm": "41"}


@pytest.mark.parametrize("place", ["", "dataset"])
def test_the_table_of_kits23_is_found_too(kits, place):
    kits.rename(kits.with_name("dataset"))
    top = kits.parent
    (top / "dataset" / "kits.json").rename(top / place / "kits23.json")
    with pytest.warns(MetadataWarning, match="case_00009"):
        items = find_cases(top, MetadataSchema([SIZE]))
    assert items[0]["metadata"] == {"tumour_size_mm": "41"}


@pytest.mark.parametrize("metadata", [None, {}, {"tumour_size_mm": ""}])
def test_a_value_that_no_one_gave_is_not_silently_unknown(tmp_path, metadata):
    save_volume(tmp_path / "in" / "a.nii.gz")
    with pytest.warns(MetadataWarning, match=r"no tumour_size_mm .* unknown for all 1 image"):
        find_cases(tmp_path / "in", MetadataSchema([SIZE]), metadata=metadata)


def test_a_file_that_names_none_of_the_cases_is_refused(kits, write_csv, tmp_path):
    path = write_csv(tmp_path / "c.csv", [{"case_id": "Case 0", "tumour_size_mm": "41"}])
    message = r"no row for any of 3 case\(s\) \('case_00000', .*has rows for 'Case 0'"
    with pytest.raises(MetadataError, match=message):
        find_cases(kits, MetadataSchema([SIZE]), metadata=path)


@pytest.mark.parametrize("given", [{"tumour_size_mm": "41"}, "kits.json"])
def test_metadata_are_refused_where_the_variant_takes_none(kits, given):
    with pytest.raises(ConfigError, match="variant takes no metadata"):
        find_cases(kits, None, metadata=given)


def test_images_beside_kits_cases_are_left_out_with_a_word(kits):
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
        assert len(find_cases(kits, None)) == 3
    with pytest.warns(DataWarning, match=r"a KiTS case, so 1 image\(s\).*'second\.nii\.gz'"):
        find_cases(kits / "case_00000", None)


def test_segmentations_beside_an_image_are_no_images(tmp_path):
    for name in ("imaging", "aggregated_MAJ_seg", "segmentation", "aggregated_AND_seg"):
        save_volume(tmp_path / "pat1" / f"{name}.nii.gz")
    save_volume(tmp_path / "pat2" / "segmentation.nii.gz")  # alone, it may be any image
    items = find_cases(tmp_path, None)
    assert [item["case"] for item in items] == ["pat1_imaging", "pat2_segmentation"]


def dicom_series(folder, frames=1, files=1):
    pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    folder.mkdir(parents=True)
    for number in range(files):
        plane = pydicom.Dataset()
        plane.file_meta = pydicom.dataset.FileMetaDataset()
        plane.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        plane.file_meta.MediaStorageSOPClassUID = plane.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        plane.file_meta.MediaStorageSOPInstanceUID = plane.SOPInstanceUID = f"1.2.{number + 1}"
        plane.SeriesInstanceUID, plane.NumberOfFrames = "1.2.9", frames
        plane.save_as(folder / f"IM{number}.dcm", enforce_file_format=True)


def test_localisers_among_series_are_left_out_with_a_word(tmp_path):
    dicom_series(tmp_path / "in" / "1_scout")
    dicom_series(tmp_path / "in" / "2_abdomen", files=3)
    dicom_series(tmp_path / "in" / "3_frames", frames=30)
    with pytest.warns(DataWarning, match=r"1 DICOM series of one plane .*: '1_scout'$"):
        items = find_cases(tmp_path / "in", None)
    assert [item["case"] for item in items] == ["2_abdomen", "3_frames"]
    (one,) = find_cases(tmp_path / "in" / "1_scout", None)  # named itself, its reader refuses it
    assert one["case"] == "1_scout"
    dicom_series(tmp_path / "only" / "scout")
    with pytest.raises(DataError, match="'scout' have one plane"):
        find_cases(tmp_path / "only", None)
