import os

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.sharing.score import find_pairs


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


KITS = [f"case_0000{n}/{name}.nii.gz" for n in (0, 1) for name in ("imaging", "aggregated_MAJ_seg")]


@pytest.mark.parametrize(
    "name",
    [
        "case_00000.nii.gz",
        "case_00000.nii",
        "case_00000_imaging.nii.gz",
        "case_00000/imaging.nii.gz",
        "case_00000/segmentation.nii.gz",
        "case_00000/case_00000.nii.gz",
    ],
)
def test_the_names_that_predictions_have(tmp_path, name):
    predictions = make(tmp_path / "p", name)
    found = find_pairs(predictions, make(tmp_path / "l", *KITS))
    label = tmp_path / "l" / "case_00000" / "aggregated_MAJ_seg.nii.gz"
    assert found.pairs == [("case_00000", predictions / name, label)]
    assert found.unpredicted == ["case_00001"]


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["case_1/segmentation.nii.gz", "case_1/imaging.nii.gz"], "case_1/segmentation.nii.gz"),
        (["data/case_1/segmentation.nii.gz"], "data/case_1/segmentation.nii.gz"),
        (["case_1.nii.gz", "case_2.nii.gz"], "case_1.nii.gz"),
        (["case_1/case_1.nii.gz"], "case_1/case_1.nii.gz"),
    ],
)
def test_the_places_that_labels_have(tmp_path, names, label):
    predictions = make(tmp_path / "p", "case_1.nii.gz")
    (pair,) = find_pairs(predictions, make(tmp_path / "l", *names)).pairs
    assert pair.label == tmp_path / "l" / label


def test_pairs_come_in_the_order_of_their_names_without_half_written_files(tmp_path):
    predictions = make(tmp_path / "p", "b.nii.gz", "a.nii.gz", ".part-1-a.nii.gz", "notes.txt")
    found = find_pairs(predictions, make(tmp_path / "l", "b.nii.gz", "a.nii"))
    assert [pair.case for pair in found.pairs] == ["a", "b"]


def test_two_files_need_no_common_name(tmp_path):
    make(tmp_path, "mask.nii.gz", *KITS)
    label = tmp_path / "case_00000" / "aggregated_MAJ_seg.nii.gz"
    found = find_pairs(tmp_path / "mask.nii.gz", label)
    assert found.pairs == [("case_00000", tmp_path / "mask.nii.gz", label)]


def test_a_prediction_without_a_label_is_left_out_unless_it_is_alone(tmp_path):
    predictions, labels = make(tmp_path / "p", "case_00009.nii.gz"), make(tmp_path / "l", *KITS)
    with pytest.raises(DataError, match="case_00009: predicted, but without a label"):
        find_pairs(predictions, labels)
    make(predictions, "case_00000.nii.gz")
    found = find_pairs(predictions, labels)
    assert [pair.case for pair in found.pairs] == ["case_00000"]
    assert [(one.case, one.file) for one in found.unlabelled] == [
        ("case_00009", str(predictions / "case_00009.nii.gz"))
    ]


def test_files_that_are_no_one_mask_of_a_case_are_told_and_the_others_paired(tmp_path):
    predictions = make(tmp_path / "p", "a.nii.gz", "a_imaging.nii.gz")
    with pytest.raises(DataError, match=r"a: .*both .* and this are its predictions; keep one"):
        find_pairs(predictions, make(tmp_path / "l", "a.nii.gz"))
    make(tmp_path / "p", *(f"{name}.nii.gz" for name in "befg"))
    labels = make(tmp_path / "l", *(f"{name}.nii.gz" for name in "bcdefg"), "g/segmentation.nii")
    (predictions / "c.nii.gz").symlink_to("nowhere")
    os.mkfifo(predictions / "d.nii.gz")
    (labels / "e.nii.gz").unlink()
    os.mkfifo(labels / "e.nii.gz")
    (predictions / "f.nii.gz").rename(predictions / "f\nf.nii.gz")
    found = find_pairs(predictions, labels)
    assert [pair.case for pair in found.pairs] == ["b"]
    told = {problem.case: str(problem) for problem in found.unlabelled}
    assert sorted(told) == ["a", "c", "d", "e", "f\nf", "g"]
    assert "\n" not in "".join(told.values())
    for case, cause in {"c": "leads to no file", "e": "FIFO", "g": "its labels"}.items():
        assert cause in told[case]
    assert found.unpredicted == ["f"]


def test_nothing_to_score_is_refused(tmp_path):
    labels = make(tmp_path / "l", "a.nii.gz")
    with pytest.raises(DataError, match=r"nowhere: no such file or folder.*predictions"):
        find_pairs(tmp_path / "nowhere", labels)
    with pytest.raises(DataError, match="p: no NIfTI masks; expected predictions"):
        find_pairs(make(tmp_path / "p", "a.png"), labels)
    with pytest.raises(DataError, match="p: no NIfTI masks; expected labels"):
        find_pairs(labels, tmp_path / "p")


def test_links_go_by_their_own_names(tmp_path, monkeypatch):
    store = make(tmp_path / "store", "blob2/segmentation.nii.gz", "blob1/segmentation.nii.gz")
    for side, blob in (("p", "blob2"), ("l", "blob1")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "case_1").symlink_to(store / blob)
    mask, label = (tmp_path / side / "case_1" / "segmentation.nii.gz" for side in "pl")
    for labels in (tmp_path / "l", tmp_path / "l" / "case_1"):
        assert find_pairs(tmp_path / "p", labels).pairs == [("case_1", mask, label)]
    monkeypatch.chdir(make(tmp_path / "case_1", "segmentation.nii.gz"))
    (pair,) = find_pairs(".", tmp_path / "l").pairs
    assert pair.case == "case_1"


def test_accents_in_two_forms_are_one_name(tmp_path):
    made = (
        make(tmp_path / "p", "Zu\u0308rich #1 (a).nii.gz"),
        make(tmp_path / "l", "Z\u00fcrich #1 (a).nii"),
    )
    assert [pair.case for pair in find_pairs(*made).pairs] == ["Z\u00fcrich #1 (a)"]
