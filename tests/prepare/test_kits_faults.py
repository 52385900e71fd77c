"""Faults in one case of three: it is named with file and next step, the others are prepared."""

import gzip
import hashlib
import json
import os
import re
import struct

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.kits import prepare_kits21

IMAGE, LABEL = "imaging.nii.gz", "aggregated_MAJ_seg.nii.gz"


def flip_bit(scans, case):
    raw = bytearray((case / IMAGE).read_bytes())
    raw[len(raw) // 2] ^= 8
    (case / IMAGE).write_bytes(raw)


def cut(scans, case):
    (case / IMAGE).write_bytes((case / IMAGE).read_bytes()[:-1])


def header(case, name, start, content):
    raw = bytearray(gzip.decompress((case / name).read_bytes()))
    raw[start : start + len(content)] = content
    (case / name).write_bytes(gzip.compress(raw))


def no_codes(name):
    def fault(scans, case):
        header(case, name, 252, bytes(4))  # qform_code and sform_code

    return fault


def label_flipped(scans, case):
    scans.save(case / LABEL, scans.label(), codes=("I", "A", "R"))
    raw = nib.load(case / LABEL)
    nib.save(nib.Nifti1Image(np.asarray(raw.dataobj), raw.affine), case / LABEL)


def label_shifted(scans, case):
    scans.save(case / LABEL, scans.label(), shift=3.0)


def label_shifted_by_a_little(scans, case):
    scans.save(case / LABEL, scans.label(), shift=0.4)


def label_shorter(scans, case):
    scans.save(case / LABEL, scans.label()[:-1])


def image_with(value):
    def fault(scans, case):
        image = scans.image().astype(np.float32)
        image[1, 2, 3] = value
        scans.save(case / IMAGE, image)

    return fault


def label_with(value, dtype):
    def fault(scans, case):
        label = scans.label().astype(dtype)
        label[1, 2, 3] = value
        scans.save(case / LABEL, label)

    return fault


def bomb(scans, case):
    head = nib.Nifti1Header()
    head.set_data_shape((800, 800, 1200))
    head.set_data_dtype(np.int16)
    head["vox_offset"], head["magic"] = 352, b"n+1"
    (case / IMAGE).write_bytes(gzip.compress(head.binaryblock + bytes(1 << 20)))


def giant_header(scans, case):
    header(case, IMAGE, 40, struct.pack("<4h", 3, 32767, 32767, 2000))


FAULTS = [
    ("1 bit flip", flip_bit, IMAGE, "damaged or truncated gzip|announces"),
    ("2 truncated", cut, IMAGE, "damaged or truncated gzip"),
    ("no codes", no_codes(IMAGE), IMAGE, "no affine .*its axial axis is unknown"),
    ("label without codes", no_codes(LABEL), LABEL, "no affine .*its axial axis is unknown"),
    ("6 label flipped", label_flipped, LABEL, "the label's affine differs from its image's"),
    ("6 label shifted", label_shifted, LABEL, "affine differs from its image's, by up to 1 voxels"),
    ("6 label a bit aside", label_shifted_by_a_little, LABEL, "image's, by up to 0.133 voxels"),
    (
        "7 label shape",
        label_shorter,
        LABEL,
        r"label of shape \(5, 20, 24\), expected \(6, 20, 24\)",
    ),
    ("11 NaN", image_with(np.nan), IMAGE, "1 of 2880 voxels are not finite"),
    ("12 Inf", image_with(-np.inf), IMAGE, "1 of 2880 voxels are not finite"),
    ("HU", image_with(40000), IMAGE, "values -1000 to 40000 do not fit int16"),
    ("14 255", label_with(255, np.uint8), LABEL, r"label value 255 \(1 voxels\), expected 0 back"),
    ("14 -1", label_with(-1, np.int16), LABEL, r"label value -1 \(1 voxels\)"),
    ("14 4 of 3", label_with(4, np.uint8), LABEL, r"label value 4 \(1 voxels\)"),
    ("15 label 0.5", label_with(0.5, np.float32), LABEL, "label value 0.5, expected whole numbers"),
    ("15 label NaN", label_with(np.nan, np.float32), LABEL, "label value nan, expected whole"),
    ("35 gzip bomb", bomb, IMAGE, "1464 MiB, more than 500 times"),
    ("36 giant header", giant_header, IMAGE, "the header announces .* MiB"),
]


def prepared_without(scans, tmp_path, wrong, **settings):
    """Prepare; return the one problem, after seeing that the other cases are whole."""
    out = tmp_path / "out"
    made = prepare_kits21(tmp_path / "source", out, **settings)
    (problem,) = scans.rows(out / "problems.csv")
    assert problem["case"] == wrong
    assert problem["next_step"]
    assert made.problems[0].startswith(f"{wrong}: ")
    assert "2 cases prepared, 1 with problems" in made.summary
    assert made.problems[0] in made.summary
    others = {f"case_{n:05d}" for n in range(3)} - {wrong}
    assert {row["group"] for row in scans.rows(made.table)} == others
    assert {row["case"] for row in scans.rows(out / "cases.csv")} == others
    assert not list(out.rglob(f"*{wrong}*"))
    return problem


@pytest.mark.parametrize(
    ("fault", "name", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_faulty_file(scans, tmp_path, fault, name, message):
    source = scans.folder(tmp_path / "source")
    fault(scans, source / "case_00001")
    problem = prepared_without(scans, tmp_path, "case_00001")
    assert problem["file"] == f"case_00001/{name}"
    assert str(tmp_path) not in problem["problem"]
    assert re.search(message, problem["problem"]), problem


def test_all_problems_of_a_case_are_told(scans, tmp_path):
    source = scans.folder(tmp_path / "source")
    image_with(np.nan)(scans, source / "case_00001")
    label_with(9, np.uint8)(scans, source / "case_00001")
    made = prepare_kits21(source, tmp_path / "out")
    assert len(made.problems) == 2
    assert "1 with problems" in made.summary


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("about 4", "'about 4' is no size"),  # 21
        (41, "tumour_size_mm 410 is outside 5 to 250"),  # 22
        (0.4, "tumour_size_mm 4 is outside 5 to 250"),  # 22
    ],
)
def test_faulty_size(scans, tmp_path, size, message):
    source = scans.folder(tmp_path / "source", case_1={"radiographic_size": size})
    problem = prepared_without(scans, tmp_path, "case_00001")
    assert message in problem["problem"]
    scans.clinical(source, 3)  # mended: the case is prepared after all
    made = prepare_kits21(source, tmp_path / "out")
    assert made.problems == []
    assert not (tmp_path / "out" / "problems.csv").exists()
    assert len(scans.rows(made.table)) == 9


@pytest.mark.parametrize("size", [None, float("nan"), "n/a"])
def test_missing_size_is_no_problem(scans, tmp_path, size):  # 21
    source = scans.folder(tmp_path / "source", case_1={"radiographic_size": size})
    made = prepare_kits21(source, tmp_path / "out")
    assert made.problems == []
    assert "missing in 1 cases (case_00001)" in made.summary


def test_repeated_patient_in_the_clinical_table(scans, tmp_path):  # 28
    source = scans.folder(tmp_path / "source", case_2={"case_id": "case_00001"})
    made = prepare_kits21(source, tmp_path / "out")
    assert made.problems[0].startswith("case_00001: case_id case_00001 appears more than once")
    assert {row["group"] for row in scans.rows(made.table)} == {"case_00000", "case_00002"}


@pytest.mark.parametrize("codes", [("I", "P", "L"), ("R", "A", "S")])
def test_one_scan_under_two_cases(scans, tmp_path, codes):  # 28, 29
    source = scans.folder(tmp_path / "source")
    scans.case(source, 2, image=scans.image(0), codes=codes)
    for _ in range(2):  # told again the next time
        made = prepare_kits21(source, tmp_path / "out")
        assert [p.split(";")[0] for p in made.problems] == [
            "case_00000: case_00000/imaging.nii.gz: the same voxels as case_00002",
            "case_00002: case_00002/imaging.nii.gz: the same voxels as case_00000",
        ]
        assert {row["group"] for row in scans.rows(made.table)} == {"case_00001"}
        assert not list((tmp_path / "out").rglob("*case_00000*"))


def test_images_that_differ_beside_the_sample_are_no_copies(scans, tmp_path):
    source = tmp_path / "source"
    for number in range(3):
        image = np.full(scans.shape, -79, np.int16)
        image[:, 4:12, 4:12] = 30 + (number == 1)  # between the pixels that are sampled
        scans.case(source, number, image=image)
    scans.clinical(source, 3)
    for _ in range(2):
        made = prepare_kits21(source, tmp_path / "out")
        assert [p.split(";")[0].split(": ")[-1] for p in made.problems] == [
            "the same voxels as case_00002",
            "the same voxels as case_00000",
        ]
        assert {row["group"] for row in scans.rows(made.table)} == {"case_00001"}


def test_labels_at_other_places_are_no_copies(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    scans.save(source / "case_00001" / LABEL, np.roll(scans.label(), 1, axis=0))
    made = prepare_kits21(source, tmp_path / "out", labels_only=True)
    assert made.problems == []
    scans.save(source / "case_00001" / LABEL, scans.label())
    made = prepare_kits21(source, tmp_path / "again", labels_only=True)
    assert len(made.problems) == 2


def test_one_patient_in_two_lists(scans, tmp_path):  # 29
    source = scans.folder(tmp_path / "source")
    (tmp_path / "lists.json").write_text('{"train": [0, 1], "test": [1, 2]}')
    with pytest.raises(DataError, match="case_00001 is in train and in test"):
        prepare_kits21(source, tmp_path / "out", splits=tmp_path / "lists.json")
    assert not (tmp_path / "out").exists()


def test_changed_source_is_made_anew_and_told(scans, tmp_path):  # 30, 3
    source = tmp_path / "source"
    for number in range(3):
        scans.case(source, number)
        for name in (IMAGE, LABEL):
            packed = source / f"case_{number:05d}" / name
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
    scans.clinical(source, 3)
    out = tmp_path / "out"
    prepare_kits21(source, out)
    before = (out / "table.csv").read_bytes()
    image = source / "case_00001" / "imaging.nii"
    os.utime(image)  # touched only
    prepare_kits21(source, out)
    assert (out / "table.csv").read_bytes() == before
    raw = bytearray(image.read_bytes())
    raw[148] ^= 1  # a bit of the header that no check of values can see
    image.write_bytes(raw)
    made = prepare_kits21(source, out)
    assert "case_00001: case_00001/imaging.nii has changed since it was prepared" in made.summary


def test_checksums_see_a_flipped_bit_of_a_header(scans, tmp_path):  # 3
    source = scans.folder(tmp_path / "source")
    packed = source / "case_00001" / IMAGE
    raw = bytearray(gzip.decompress(packed.read_bytes()))
    lines = [f"{hashlib.sha256(raw).hexdigest()}  ./case_00001/imaging.nii"]
    raw[148] ^= 1
    (source / "case_00001" / "imaging.nii").write_bytes(raw)
    packed.unlink()
    prepare_kits21(source, tmp_path / "out")  # nothing to see without the list
    (tmp_path / "sums.txt").write_text("\n".join(lines))
    problem = prepared_without(scans, tmp_path, "case_00001", checksums=tmp_path / "sums.txt")
    assert "the list of checksums has" in problem["problem"]


def test_changed_clinical_table_changes_the_table(scans, tmp_path):  # 30
    source = scans.folder(tmp_path / "source")
    prepare_kits21(source, tmp_path / "out")
    scans.clinical(source, 3, case_2={"radiographic_size": 9.9})
    made = prepare_kits21(source, tmp_path / "out")
    assert {row["tumour_size_mm"] for row in scans.rows(made.table)} == {"20", "30", "99"}


def test_when_every_case_is_wrong_there_is_no_table(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 1)
    prepare_kits21(source, tmp_path / "out")
    cut(scans, source / "case_00000")
    made = prepare_kits21(source, tmp_path / "out")
    assert made.table is None
    assert sorted(p.name for p in (tmp_path / "out").glob("*.*")) == [
        ".cases",
        "classes.json",
        "license.json",
        "prepared.json",
        "problems.csv",
    ]
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["seed"] == 0
    assert not list((tmp_path / "out").rglob("*.tif"))


@pytest.mark.parametrize("spacing", [(3000.0, 800.0, 800.0), (0.003, 0.0008, 0.0008)])
def test_voxels_of_another_unit_are_left_out(scans, tmp_path, spacing):
    source = scans.folder(tmp_path / "source")
    scans.case(source, 1, spacing=spacing)
    text = prepare_kits21(source, tmp_path / "out").problems
    assert len(text) == 2  # image and label
    assert all("another unit of length?; mend the header" in one for one in text)


def test_a_sheared_case_is_left_out_and_an_oblique_one_told(scans, tmp_path):
    source = scans.folder(tmp_path / "source")
    for number in (1, 2):
        for name in (IMAGE, LABEL):
            path = source / f"case_{number:05d}" / name
            stored = nib.load(path)
            affine = stored.affine.copy()
            if number == 1:
                affine[1, 0] = affine[2, 0] * 0.45
            else:
                affine[:3, :3] = rotation(15) @ affine[:3, :3]
            made = nib.Nifti1Image(np.asarray(stored.dataobj), affine)
            made.set_qform(None, 0)
            nib.save(made, path)
    text = prepare_kits21(source, tmp_path / "out")
    assert all("case_00001" in one and "sheared by 24.2 degrees" in one for one in text.problems)
    rows = {row["case"]: row for row in scans.rows(tmp_path / "out" / "cases.csv")}
    assert "case_00001" not in rows
    assert "tilted by 15.0 degrees" in rows["case_00002"]["remarks"]


def rotation(degrees):
    angle = np.radians(degrees)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn
