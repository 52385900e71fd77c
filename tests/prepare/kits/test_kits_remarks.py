"""What is allowed but seldom meant: several phases in one file, sizes that are not the label's."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.images.read import read_image
from metaseg_monai.prepare import kits_case as phases
from metaseg_monai.prepare.clinical import size_remark
from metaseg_monai.prepare.kits import _size_lines, prepare_kits21
from metaseg_monai.prepare.kits_case import repeated_after
from metaseg_monai.simulate.phantoms.anatomy import draw_anatomy, render
from metaseg_monai.simulate.phantoms.scans import generate_phantoms
from metaseg_monai.tables.clinical import ClinicalTable

PLANE_MM, PIXEL_MM = 5.0, 6.0
PLANE = (np.arange(64) - 31.5) * PIXEL_MM


def remarks_of(folder):
    with (folder / "cases.csv").open(newline="") as stream:
        return [row["remarks"] for row in csv.DictReader(stream)]


def scan(random, anatomy, first_mm=-150.0, last_mm=150.0, noise=10.0):
    """One phase of an abdomen: int16 HU and classes (D, 64, 64)."""
    hu, label = render(anatomy, np.arange(first_mm, last_mm, PLANE_MM), PLANE, PLANE)
    white = gaussian_filter(random.standard_normal(hu.shape), (0, 0.6, 0.6))
    return np.rint(hu + noise * white / white.std()).astype(np.int16), label


def later(anatomy, washout, breath_mm):
    """The same abdomen some minutes later: less contrast in the kidneys, other breath."""
    moved = [
        tuple(
            part._replace(centre=(part.centre[0] + breath_mm, *part.centre[1:]))
            for part in getattr(anatomy, name)
        )
        for name in ("organs", "kidneys", "tumours", "cysts")
    ]
    organs, kidneys, tumours, cysts = moved
    kidneys = tuple(kidney._replace(hu=kidney.hu - washout) for kidney in kidneys)
    return replace(anatomy, organs=organs, kidneys=kidneys, tumours=tumours, cysts=cysts)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("first_mm", "last_mm", "noise", "washout", "breath_mm"),
    [
        (-150, 150, 10, 0, 0),
        (-147.5, 152.5, 20, 60, 0),
        (-130, 150, 20, 100, 8),
        (-170, 100, 25, 60, -10),
        (-80, 80, 20, 100, 10),
    ],
)
def test_a_second_phase_is_noticed(seed, first_mm, last_mm, noise, washout, breath_mm):
    random = np.random.default_rng(seed)
    anatomy = draw_anatomy(random)
    one, _ = scan(random, anatomy)
    second = later(anatomy, washout, breath_mm)
    other, _ = scan(random, second, first_mm, last_mm, noise)
    both = np.concatenate([one, other])
    offset, likeness = repeated_after(both, PLANE_MM)
    begin = len(one) - (first_mm + 150) / PLANE_MM  # of the plane that is like plane 0
    assert abs(offset - begin) <= 3
    assert likeness > phases.LIKENESS
    assert repeated_after(one, PLANE_MM) is None
    assert repeated_after(other, PLANE_MM) is None
    for stored in (both + 1024, np.asfortranarray(both.astype(np.float32))):  # no HU; other order
        assert repeated_after(stored, PLANE_MM) == pytest.approx((offset, likeness), abs=1e-4)


def test_a_label_that_repeats_is_noticed_and_a_short_or_empty_volume_is_not():
    random = np.random.default_rng(0)
    image, label = scan(random, draw_anatomy(random))
    assert repeated_after(label, PLANE_MM) is None
    assert repeated_after(np.concatenate([label, label]), PLANE_MM)[0] == len(label)
    assert repeated_after(np.zeros_like(image), PLANE_MM) is None
    assert repeated_after(np.concatenate([image[:6], image[:6]]), PLANE_MM) is None
    assert repeated_after(image[:1], PLANE_MM) is None


def test_thin_planes_are_compared_at_some_distance():
    random = np.random.default_rng(3)
    image, _ = scan(random, draw_anatomy(random))
    thin = np.repeat(np.concatenate([image, image]), 5, axis=0)
    assert repeated_after(thin, PLANE_MM / 5)[0] == pytest.approx(5 * len(image), abs=4)


def test_no_phantom_is_taken_for_two_scans(tmp_path):
    folder = generate_phantoms(tmp_path / "a", cases=40, matrix=32, seed=7)
    for path in sorted(folder.glob("case_*/*.nii.gz")):
        volume = axial_volume(read_image(path))
        assert repeated_after(volume.planes, volume.spacing_mm[0]) is None, path


@pytest.mark.parametrize("shown", ["image", "label"])
def test_a_second_phase_is_remarked_and_the_case_kept(kits, tmp_path, shown):
    source = tmp_path / "source"
    for number in range(3):
        random = np.random.default_rng(number)
        anatomy = draw_anatomy(random)
        image, label = scan(random, anatomy)
        again, label_again = scan(random, later(anatomy, 60, 0), noise=15.0)
        if number == 1 and shown == "image":
            image, label = np.concatenate([image, again]), np.concatenate([label, 0 * label])
        if number == 1 and shown == "label":
            image = random.integers(-200, 200, (2 * len(label), *label.shape[1:])).astype(np.int16)
            label = np.concatenate([label, label_again])
        kits.case(source, number, image=image, label=label, spacing=(PLANE_MM, 6.0, 6.0))
    made = prepare_kits21(source, tmp_path / "out")
    assert made.problems == []
    remarks = remarks_of(tmp_path / "out")
    assert remarks[0] == remarks[2] == ""
    assert f"from plane 60 on, the {shown} changes as from plane 0 on (correlation " in remarks[1]
    assert "several contrast phases appended" in made.summary


@pytest.mark.parametrize("cm", [1.6, 3.2, 6.4, None])
def test_a_size_near_that_of_the_label_is_not_remarked(kits, tmp_path, cm):
    source = kits.folder(tmp_path / "source", 1, case_0={"radiographic_size": cm})
    prepare_kits21(source, tmp_path / "out")
    assert remarks_of(tmp_path / "out") == [""]


def test_a_size_in_the_wrong_unit_is_remarked(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2, case_1={"radiographic_size": 19})
    made = prepare_kits21(source, tmp_path / "out")
    told = "radiographic_size 19 is read as 190 mm, but the label's tumour is 18.8 mm across"
    assert f"case_00001: {told}: is it in cm, and of this case?" in made.summary
    assert [told in remark for remark in remarks_of(tmp_path / "out")] == [False, True]
    own = tmp_path / "own.csv"
    own.write_text("case_id,tumour_size_mm\ncase_00000,18\ncase_00001,18\n")
    made = prepare_kits21(source, tmp_path / "own", clinical=own)
    assert remarks_of(tmp_path / "own") == ["", ""]


def test_a_size_given_in_cm_as_mm_is_remarked():
    row = {"tumour_size_mm": "16.2"}
    assert size_remark(row, "radiographic", "160.5") == (
        "tumour_size_mm 16.2 is read as 16.2 mm, but the label's tumour is 160 mm across: is it "
        "in cm, and of this case?"
    )
    assert size_remark(row, "radiographic", "64") is None
    assert size_remark(row, "radiographic", "65") is not None
    assert size_remark(row, "radiographic", "4") is not None
    assert size_remark(row, "radiographic", "") is None


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ("20 30 40 50", "the size is partly derived from what the label shows"),
        ("20 50 40 30", "size and label disagree: check the units and the case_id of the clinical"),
    ],
)
def test_the_summary_tells_whether_size_and_label_agree(tmp_path, sizes, told):
    cases = [
        {
            "case": str(n),
            "tumour_size_mm": size,
            "tumour_diameter_mm": str(20 + 10 * n),
            "tumour_components": "12"[n % 2],
        }
        for n, size in enumerate(sizes.split())
    ]
    patients = ClinicalTable({str(n): {} for n in range(3)}, {}, tmp_path / "own.csv")
    lines = _size_lines(cases, "radiographic", patients)
    assert lines[0] == f"clinical table: {tmp_path / 'own.csv'}; it has no row for 1 cases (3)"
    assert lines[2].startswith("2 cases have several tumours")
    assert ("derived" in lines[-1]) == ("derived" in told)
    assert told in lines[-1]
