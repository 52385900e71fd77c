import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.tables import DataWarning, find_cases


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


def test_linked_folders_are_searched_but_never_in_a_circle(tmp_path, save_volume):
    save_volume(tmp_path / "store" / "p" / "ct.nii")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").symlink_to(tmp_path / "store" / "p")
    (tmp_path / "store" / "p" / "back").symlink_to(tmp_path / "in")
    assert [item["case"] for item in find_cases(tmp_path / "in", None)] == ["b_ct"]


def test_a_relative_source_is_named_by_its_folder(tmp_path, monkeypatch, save_volume):
    save_volume(tmp_path / "case_00003" / "imaging.nii.gz")
    (tmp_path / "case_00003" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "case_00003" / "sub")
    for source in ("..", "../../case_00003", "../sub/../imaging.nii.gz"):
        (item,) = find_cases(source, None)
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
        assert len(find_cases(kits, None)) == 3
    with pytest.warns(DataWarning, match=r"a KiTS case, so 1 image\(s\).*'second\.nii\.gz'"):
        find_cases(kits / "case_00000", None)


def test_segmentations_beside_an_image_are_no_images(tmp_path, save_volume):
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
