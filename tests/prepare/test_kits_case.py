"""One KiTS case: its slices and rows, its measures, and what is told of it."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.images.read import read_image
from metaseg_monai.prepare import prepare_kits21
from metaseg_monai.prepare.found import FoundCase
from metaseg_monai.prepare.kits_case import (
    LIKENESS,
    TumourMeasures,
    class_pixels,
    equal_planes,
    gathered,
    measure_tumour,
    read_case,
    repeated_after,
    write_slices,
)
from metaseg_monai.prepare.kits_source import size_remark
from metaseg_monai.simulate.phantoms import draw_anatomy, generate_phantoms, render

PLANE_MM, PIXEL_MM = 5.0, 6.0
PLANE = (np.arange(64) - 31.5) * PIXEL_MM
ORIENTATIONS = [
    tuple(codes)
    for axes in itertools.permutations(["SI", "PA", "RL"])
    for codes in itertools.product(*axes)
]


def volumes(scans, folder, image=None, label=None, **storage):
    """A case as it is read, of planes (D, H, W)."""
    arrays = {"image": scans.image() if image is None else image}
    arrays["label"] = scans.label() if label is None else label
    files = [scans.save(folder / f"{name}.nii.gz", one, **storage) for name, one in arrays.items()]
    read, problems = read_case(FoundCase("case_00000", (files[0],), (files[1],)))
    assert problems == []
    return read


def slices(read, output, **options):
    return write_slices("case_00000", read, class_pixels(read.label.planes), output, **options)


def test_class_pixels_are_those_of_a_direct_count(scans):
    label = np.random.default_rng(0).integers(0, 4, (70, 9, 11)).astype(np.uint8)
    label[::3] = 0
    expected = [[(plane == k).sum() for k in range(4)] for plane in label]
    np.testing.assert_array_equal(class_pixels(label), expected)
    np.testing.assert_array_equal(class_pixels(np.asfortranarray(label)), expected)


def test_all_48_orientations_give_the_same_uncompressed_bytes(scans, tmp_path):
    first = None
    for number, codes in enumerate(ORIENTATIONS):
        output = tmp_path / str(number)
        rows = slices(volumes(scans, tmp_path, codes=codes), output, rule="all", spacing="native")
        content = {p.name: p.read_bytes() for p in sorted(output.rglob("*.tif"))}
        assert len(content) == len(rows) == 6
        first = first or (rows, content)
        assert (rows, content) == first, codes
    for row in first[0]:
        plane = row["plane"]
        for kind, dtype in (("image", np.int16), ("label", np.uint8)):
            path = tmp_path / "0" / row[kind]
            with tifffile.TiffFile(path) as file:
                (page,) = file.pages
                assert page.compression == tifffile.COMPRESSION.NONE
                assert (page.dtype, page.shape) == (dtype, scans.shape[1:])
                np.testing.assert_array_equal(page.asarray(), getattr(scans, kind)()[plane])
            assert hashlib.sha256(path.read_bytes()).hexdigest() == row[f"{kind}_sha256"]


def test_row_says_where_the_slice_lies_and_what_it_shows(scans, tmp_path):
    rows = slices(volumes(scans, tmp_path), tmp_path, spacing="native")
    assert [row["plane"] for row in rows] == [2, 3, 4]
    first = rows[0]
    assert first["image"] == "images/case_00000_0002.tif"
    assert (first["volume"], first["planes"]) == ("case_00000", 6)
    assert first["position_mm"] == "-6"  # plane 0 lies at 0, each is 3 mm lower
    spacing = [first[f"spacing_{axis}_mm"] for axis in "zyx"]
    assert spacing == ["3", "1.5", "1.25"]
    # plane 2: kidney 49 pixels, of which tumour covers 5 x 5; tumour 10 x 10; 1.875 mm2 each
    assert (first["kidney_mm2"], first["tumour_mm2"], first["cyst_mm2"]) == ("45", "187.5", "0")
    assert (rows[2]["tumour_mm2"], rows[2]["cyst_mm2"]) == ("0", "22.5")


def test_resampling_makes_square_pixels_and_keeps_native_areas(scans, tmp_path):
    (odd, *_) = slices(volumes(scans, tmp_path), tmp_path, spacing=0.78)
    assert tifffile.imread(tmp_path / odd["image"]).shape == (38, 38)
    assert float(odd["spacing_y_mm"]) == pytest.approx(20 * 1.5 / 38, abs=1e-6)  # as written
    (first, *_) = slices(volumes(scans, tmp_path), tmp_path, spacing=0.75)
    image, label = (tifffile.imread(tmp_path / first[kind]) for kind in ("image", "label"))
    assert image.shape == label.shape == (40, 40)  # 20 x 1.5 and 24 x 1.25 mm
    assert (image.dtype, label.dtype) == (np.int16, np.uint8)
    assert [first[f"spacing_{axis}_mm"] for axis in "zyx"] == ["3", "0.75", "0.75"]
    assert first["tumour_mm2"] == "187.5"
    columns = [int((column + 0.5) * 0.75 / 1.25) for column in range(40)]
    np.testing.assert_array_equal(label, np.repeat(scans.label()[2], 2, axis=0)[:, columns])
    assert abs(image.mean() - scans.image()[2].mean()) < 3


@pytest.mark.parametrize("spacing", ["native", 0.6])
def test_floats_are_rounded_after_resampling(scans, tmp_path, spacing):
    image = scans.image().astype(np.float32) + np.float32(0.4)
    exact = slices(volumes(scans, tmp_path), tmp_path / "a", spacing=spacing)
    rows = slices(volumes(scans, tmp_path, image), tmp_path / "b", spacing=spacing)
    for one, other in zip(exact, rows, strict=True):
        whole = tifffile.imread(tmp_path / "a" / one["image"])
        rounded = tifffile.imread(tmp_path / "b" / other["image"])
        assert rounded.dtype == np.int16
        assert np.abs(rounded - whole).max() <= (0 if spacing == "native" else 1)


def test_gathered_planes_are_equal_and_in_c_order():
    stored = np.random.default_rng(0).integers(0, 9, (37, 18, 21)).astype(np.int16)
    for axes in itertools.permutations(range(3)):
        view = stored.transpose(axes)[::-1, :, ::-1]
        copy = gathered(view)
        assert copy.flags.c_contiguous
        np.testing.assert_array_equal(copy, view)


def test_equal_planes_are_found_and_constant_ones_are_not():
    planes = np.random.default_rng(0).integers(-9, 9, (8, 40, 40))
    assert equal_planes(planes) == []
    planes[[1, 2]] = 0
    assert equal_planes(planes) == []
    planes[6] = planes[3]
    assert equal_planes(planes) == [(3, 6)]
    planes[6, 1, 1] += 1  # beside the sample
    assert equal_planes(planes) == []
    planes[7] = planes[6]  # not like the first plane of the same sample, but like another
    assert equal_planes(planes) == [(6, 7)]


def ball(shape, centre, radius_mm, spacing):
    axes = [(np.arange(n) - c) * s for n, c, s in zip(shape, centre, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2


@pytest.mark.parametrize("spacing", [(3.0, 0.8, 0.8), (1.0, 0.5, 1.5)])
def test_diameter_of_a_ball(spacing):
    planes = np.zeros((40, 120, 100), np.uint8)
    planes[ball(planes.shape, (20, 50, 50), 19, spacing)] = 2
    measures = measure_tumour(planes, spacing)
    assert measures.components == 1
    assert measures.diameter_mm == pytest.approx(38, abs=max(spacing[1:]))


def test_diameter_is_within_one_plane_and_one_lesion():
    planes = np.zeros((9, 40, 40), np.uint8)
    planes[1:8, 4, 4] = 2  # long across the planes, a pixel within them
    planes[2, 20, 20:30] = 2
    planes[2, 25, 4:9] = 2
    assert measure_tumour(planes, (10.0, 1.0, 7.0)) == TumourMeasures(3, 70.0)


def test_diagonal_extent_by_hand():
    planes = np.zeros((1, 20, 20), np.uint8)
    planes[0, 3:7, 5:8] = 2  # edge middles (2.5, 5) and (6.5, 7): 4 rows of 2 mm, 2 columns of 1
    found = measure_tumour(planes, (9.0, 2.0, 1.0)).diameter_mm
    assert found == pytest.approx(np.hypot(8, 2))


def test_lesions_that_touch_by_a_corner_are_one_and_specks_none():
    planes = np.zeros((4, 30, 30), np.uint8)
    planes[1, 3:8, 3:8] = 2
    planes[2, 8:13, 8:13] = 2
    planes[0, 25, 25] = 2
    assert measure_tumour(planes, (3.0, 1.0, 1.0)).components == 1
    assert measure_tumour(planes, (70.0, 1.0, 1.0)).components == 2
    assert measure_tumour(planes * 0 + 1, (3.0, 1.0, 1.0)) == TumourMeasures(0, 0.0)


def remarks_of(scans, folder):
    return [row["remarks"] for row in scans.rows(folder / "cases.csv")]


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
    assert likeness > LIKENESS
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
def test_a_second_phase_is_remarked_and_the_case_kept(scans, tmp_path, shown):
    source = tmp_path / "source"
    for n in range(3):
        random = np.random.default_rng(n)
        anatomy = draw_anatomy(random)
        image, label = scan(random, anatomy)
        again, label_again = scan(random, later(anatomy, 60, 0), noise=15.0)
        if n == 1 and shown == "image":
            image, label = np.concatenate([image, again]), np.concatenate([label, 0 * label])
        if n == 1 and shown == "label":
            image = random.integers(-200, 200, (2 * len(label), *label.shape[1:])).astype(np.int16)
            label = np.concatenate([label, label_again])
        scans.case(source, n, image=image, label=label, spacing=(PLANE_MM, 6.0, 6.0))
    made = prepare_kits21(source, tmp_path / "out")
    assert made.problems == []
    remarks = remarks_of(scans, tmp_path / "out")
    assert remarks[0] == remarks[2] == ""
    assert f"from plane 60 on, the {shown} changes as from plane 0 on (correlation " in remarks[1]
    assert "several contrast phases appended" in made.summary


def test_a_size_in_the_wrong_unit_is_remarked(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2, case_1={"radiographic_size": 19})
    made = prepare_kits21(source, tmp_path / "out")
    told = "radiographic_size 19 is read as 190 mm, but the label's tumour is 18.8 mm across"
    assert f"case_00001: {told}: is it in cm, and of this case?" in made.summary
    assert [told in remark for remark in remarks_of(scans, tmp_path / "out")] == [False, True]
    own = tmp_path / "own.csv"
    own.write_text("case_id,tumour_size_mm\ncase_00000,18\ncase_00001,18\n")
    made = prepare_kits21(source, tmp_path / "own", clinical=own)
    assert remarks_of(scans, tmp_path / "own") == ["", ""]


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
