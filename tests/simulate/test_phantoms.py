import json
from dataclasses import replace

import numpy as np
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.images.read import read_image
from metaseg_monai.simulate import generate_phantom_slices, generate_phantoms, phantoms
from metaseg_monai.simulate.phantoms import (
    CORE_MM,
    CYST,
    FAT,
    KIDNEY,
    NOISE_HU,
    SIZE_MM,
    TUMOUR,
    TUMOUR_CLASS,
    Anatomy,
    Ellipsoid,
    Lesion,
    draw_anatomy,
    paint,
    render,
)
from metaseg_monai.tables import read_table
from metaseg_monai.tables.licenses import data_license

FEW = {"train": 1, "val": 1, "test": 1, "matrix": 48}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate_phantoms(tmp_path_factory.mktemp("phantoms") / "a", cases=6, matrix=48, seed=3)


def volumes(folder, case):
    return (
        axial_volume(read_image(folder / case / f"{name}.nii.gz"))
        for name in ("imaging", "aggregated_MAJ_seg")
    )


def table(folder):
    return {row["case_id"]: row for row in json.loads((folder / "kits.json").read_text())}


def test_the_layout_of_kits21_with_varied_geometry(folder):
    shapes, spacings, orientations = set(), set(), set()
    assert len(table(folder)) == 6
    for case in table(folder):
        image, label = volumes(folder, case)
        assert image.planes.dtype == np.int16
        assert label.planes.dtype == np.uint8
        np.testing.assert_array_equal(image.affine, label.affine)
        shapes.add(image.planes.shape[1:])
        spacings.add(image.spacing_mm)
        orientations.add(image.orientation.tobytes())
    assert shapes == {(48, 48), (48, 60)}
    assert len(spacings) == 6
    assert len(orientations) >= 3


def test_tissues_have_their_attenuation_and_the_noise_its_strength(folder):
    image, label = volumes(folder, "case_00001")
    kidney = image.planes[(label.planes == 1)]
    assert abs(np.median(kidney) - KIDNEY) < 20
    corner = image.planes[:, :3, :3].astype(float)  # air, cut at -1024
    assert abs(np.median(corner) + 1000) < 5
    assert 0.5 * NOISE_HU < corner.std() < 1.3 * NOISE_HU


def test_the_stated_size_is_that_of_the_label(folder):
    for case, row in table(folder).items():
        _, label = volumes(folder, case)
        z, y, x = label.spacing_mm
        places = np.argwhere(label.planes == 2)
        extent = (np.ptp(places, axis=0) + 1) * (z, y, x)
        stated = 10 * row["radiographic_size"]
        assert SIZE_MM[0] * 0.8 < stated < SIZE_MM[1] * 1.2
        if len(places) and row["pathologic_size"] is not None:
            assert abs(stated - 10 * row["pathologic_size"]) < 0.2 * stated
        assert extent.max() > 0.6 * stated


def test_the_same_seed_gives_the_same_bytes_and_cases_do_not_depend_on_each_other(tmp_path, folder):
    again = generate_phantoms(tmp_path / "b", cases=6, matrix=48, seed=3)
    alone = generate_phantoms(tmp_path / "c", cases=1, matrix=48, seed=3, first=4)
    for name in ("imaging.nii.gz", "aggregated_MAJ_seg.nii.gz"):
        first, second, third = (
            read_image(root / "case_00004" / name).array for root in (folder, again, alone)
        )
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
    assert (folder / "kits.json").read_bytes() == (again / "kits.json").read_bytes()


def test_the_size_for_the_null_control_says_nothing_of_the_tumour(tmp_path):
    rows = table(generate_phantoms(tmp_path / "b", cases=60, matrix=32, seed=3)).values()
    true, unrelated = (
        np.array([row[name] for row in rows]) for name in ("radiographic_size", "unrelated_size")
    )
    assert abs(np.corrcoef(true, unrelated)[0, 1]) < 0.3
    assert 0.8 < np.median(unrelated) / np.median(true) < 1.25


GRID = tuple(np.arange(-60.0, 61.0, 3.0) for _ in range(3))


def anatomy(radius_mm, core_mm=7.0):
    body = Ellipsoid((0, 0, 0), (1e4, 100, 100), -100)
    wall = Ellipsoid((0, 0, 0), (1e4, 90, 90), 55)
    fat = Ellipsoid((0, 0, 0), (1e4, 80, 80), -100)
    kidney = Ellipsoid((0, 0, 0), (50, 25, 25), KIDNEY)
    cyst = Ellipsoid((0, -40, 0), (6, 6, 6), CYST)
    tumour = Lesion((0, 10, 0), radius_mm, core_mm)
    spine = Ellipsoid((0, 70, 0), (1e4, 5, 5), 400)
    return Anatomy((body, wall), fat, spine, (), (kidney,), (tumour,), (cyst,))


def test_the_middle_plane_hides_the_radius_but_the_label_shows_it():
    (small, small_label), (large, large_label) = (
        render(anatomy(radius), *GRID) for radius in (12.0, 30.0)
    )
    middle = len(GRID[0]) // 2
    np.testing.assert_allclose(small[middle], large[middle], atol=1e-3)
    areas = [int((label[middle] == 2).sum()) * 9 for label in (small_label, large_label)]
    np.testing.assert_allclose(areas, [np.pi * 12**2, np.pi * 30**2], rtol=0.1)


def test_the_radiographic_size_is_read_with_an_error_of_4_percent_and_no_bias():
    random, stranger = np.random.default_rng(0), draw_anatomy(np.random.default_rng(1))
    read = [phantoms._clinical(random, 100.0, stranger)["radiographic_size"] for _ in range(1000)]
    assert np.mean(read) == pytest.approx(10.0, abs=0.05)
    assert np.std(read) == pytest.approx(0.4, rel=0.1)


def test_the_contrast_of_the_core_falls_to_the_poles_and_ends_there():
    radius = 30.0
    tumour = Lesion((0, 0, 0), radius, 7.0)
    alone = anatomy(radius)
    alone = replace(alone, kidneys=(), cysts=(), tumours=(tumour,))
    z = np.array([0.0, 15.0, 29.99, 31.0, 60.0])  # shares 0, 1/2, 1 of the radius, and beyond
    hu, _ = render(alone, z, np.zeros(1), np.zeros(1))
    weights = (hu[:, 0, 0] - FAT) / (TUMOUR - FAT)
    np.testing.assert_allclose(weights, [1.0, 0.875, 0.5, 0.0, 0.0], atol=1e-3)


def test_a_tumour_takes_no_voxel_of_spine_or_wall():
    whole = anatomy(30.0)
    behind = replace(whole, tumours=(Lesion((0, 60, 0), 30.0, 7.0),))
    grid = (GRID[0], GRID[1] + 60.7, GRID[2] + 0.3)  # no voxel on a border
    hu, label = render(behind, *grid)
    free, _ = render(replace(behind, tumours=()), *grid)
    taken = label == TUMOUR_CLASS
    z, y, x = np.meshgrid(*grid, indexing="ij")
    ball = z**2 + (y - 60) ** 2 + x**2 <= 30**2
    spine = ((y - 70) / 5) ** 2 + (x / 5) ** 2 <= 1
    cavity = (y / 80) ** 2 + (x / 80) ** 2 <= 1
    assert np.any(ball & spine)
    np.testing.assert_array_equal(taken, ball & cavity & ~spine)
    np.testing.assert_array_equal(hu[spine], free[spine])


def test_tumour_lies_over_kidney_and_cyst_over_all():
    hu, label = render(anatomy(20.0), *GRID)
    places = {"kidney": (0, -18, 0), "tumour": (0, 9, 0), "cyst": (0, -39, 0)}
    at = {name: tuple(np.searchsorted(GRID[0], place)) for name, place in places.items()}
    assert [int(label[at[name]]) for name in ("kidney", "tumour", "cyst")] == [1, 2, 3]
    assert hu[at["cyst"]] == CYST
    assert hu[at["kidney"]] == pytest.approx(KIDNEY, abs=1)


def test_sizes_are_spread_and_some_cases_have_several_masses():
    drawn = [draw_anatomy(np.random.default_rng(number)) for number in range(200)]
    sizes = [one.largest_mm for one in drawn]
    assert 34 < np.median(sizes) < 46
    assert min(sizes) >= SIZE_MM[0]
    assert max(sizes) <= SIZE_MM[1]
    assert 0.08 < np.mean([len(one.tumours) == 2 for one in drawn]) < 0.25
    assert 0.2 < np.mean([len(one.cysts) > 0 for one in drawn]) < 0.6


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"cases": 0}, "cases=0"), ({"matrix": 8}, "matrix=8")],
)
def test_wrong_settings_are_refused(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        generate_phantoms(tmp_path / "a", **setting)


def test_slices_of_all_splits_are_made_once(tmp_path):
    made = generate_phantom_slices(tmp_path / "a", **FEW)
    groups = {row["split"]: row["group"] for row in read_table(made).rows}
    assert groups == {"train": "case_00000", "val": "case_10000", "test": "case_20000"}
    before = made.stat().st_mtime_ns
    assert generate_phantom_slices(tmp_path / "a", **FEW) == made
    assert made.stat().st_mtime_ns == before


def test_a_phantom_that_cannot_be_prepared_is_told_and_nothing_is_left(tmp_path, monkeypatch):
    write = phantoms._write_volumes

    def write_broken(folder, numbers, matrix, seed):
        cases = write(folder, numbers, matrix, seed)
        (folder / "case_10000" / "imaging.nii.gz").write_bytes(b"")
        return cases

    monkeypatch.setattr(phantoms, "_write_volumes", write_broken)
    with pytest.raises(DataError, match="problems of generated phantoms, such as case_10000"):
        generate_phantom_slices(tmp_path / "a", **FEW)
    assert not list(tmp_path.rglob("*.tif"))


def test_the_width_of_the_core_says_nothing_of_the_tumours_size():
    tumours = [t for n in range(400) for t in draw_anatomy(np.random.default_rng(n)).tumours]
    radii, cores = np.array([(t.radius_mm, t.core_mm) for t in tumours]).T
    assert CORE_MM[0] <= cores.min() < cores.max() <= CORE_MM[1]
    assert abs(np.corrcoef(radii, cores)[0, 1]) < 0.2


@pytest.fixture(scope="module")
def painted(folder, tmp_path_factory):
    """Of phantoms as if they were patients: labels and table alone decide."""
    output = tmp_path_factory.mktemp("painted") / "a"
    return generate_phantoms(output, cases=4, matrix=48, labels=folder, seen="whole")


def test_painted_labels_are_the_patients_own_and_lie_where_they_lay(folder, painted):
    assert list(table(painted)) == list(table(folder))[:4]
    for case, row in table(painted).items():
        (_, before), (image, after) = volumes(folder, case), volumes(painted, case)
        np.testing.assert_array_equal(image.affine, after.affine)
        assert after.spacing_mm[0] >= 4
        centres = [
            one.affine[:3, :3] @ np.argwhere(one.planes == 1).mean(0) + one.affine[:3, 3]
            for one in (before, after)
        ]
        np.testing.assert_allclose(*centres, atol=1e-3)
        assert {k: row[k] for k in table(folder)[case] if k != "unrelated_size"} == {
            k: v for k, v in table(folder)[case].items() if k != "unrelated_size"
        }
        for value, hu in ((1, KIDNEY), (2, TUMOUR)):
            inside = image.planes[after.planes == value]
            assert len(inside) < 5 or abs(np.median(inside) - hu) < 25, (case, value)


def test_a_thinned_label_keeps_its_place(folder):
    _, label = volumes(folder, "case_00001")
    thin = phantoms._thinned(label, 24)
    assert thin.planes.shape[1:] == (24, 24)
    np.testing.assert_allclose(thin.spacing_mm[1:], 2 * np.array(label.spacing_mm[1:]))
    index = np.array([3, 5, 7])
    stored = index * [1, 2, 2] + [0, 1, 1]  # the voxel that it is a copy of
    assert thin.planes[tuple(index)] == label.planes[tuple(stored)]
    np.testing.assert_allclose(thin.affine @ [*index, 1], label.affine @ [*stored, 1], atol=1e-9)


def test_of_a_core_the_extent_cannot_be_seen_and_of_the_whole_it_can():
    label = np.zeros((9, 48, 48), dtype=np.uint8)
    z, y, x = np.ogrid[-4:5, -24:24, -24:24]
    label[(z / 4) ** 2 + ((y - 4) / 16) ** 2 + (x / 16) ** 2 <= 1] = 1
    label[((z / 4) ** 2 + (y / 9) ** 2 + ((x - 4) / 9) ** 2 <= 1)] = 2
    rim = (label == 2)[4] & ((y[0] ** 2 + (x[0] - 4) ** 2) > 64)
    assert rim.sum() > 20
    whole, core = (
        np.median(paint(np.random.default_rng(1), label, (5.0, 4.0, 4.0), seen)[4][rim])
        for seen in ("whole", "core")
    )
    assert abs(whole - TUMOUR) < 30
    assert abs(core - KIDNEY) < 30
    middle = paint(np.random.default_rng(1), label, (5.0, 4.0, 4.0), "core")[4, 24, 28]
    assert middle < (KIDNEY + TUMOUR) / 2 + NOISE_HU


def test_another_patients_size_stands_beside_the_own_one(folder, painted):
    own, other = (
        [row[name] for row in table(painted).values()]
        for name in ("radiographic_size", "unrelated_size")
    )
    assert sorted(own) == sorted(other)
    assert all(one != two for one, two in zip(own, other, strict=True))


def test_painted_labels_are_under_the_licence_of_the_labels(folder, painted, tmp_path):
    assert data_license(painted) == data_license(folder)
    kits = tmp_path / "kits"
    for case in ("case_00000", "case_00001"):
        (kits / case).mkdir(parents=True)
        (kits / case / "segmentation.nii.gz").symlink_to(
            folder / case / "aggregated_MAJ_seg.nii.gz"
        )
    (kits / "kits.json").write_text((folder / "kits.json").read_text())
    made = generate_phantoms(tmp_path / "a", matrix=48, labels=kits)
    assert list(table(made)) == ["case_00000", "case_00001"]
    assert [one["license"] for one in data_license(made)] == ["cc-by-nc-sa-4.0"]
    with pytest.raises(DataError, match=r"2 cases with a label .* ask for fewer"):
        generate_phantoms(tmp_path / "b", cases=3, matrix=48, labels=kits)
    (kits / "kits.json").unlink()
    with pytest.raises(DataError, match=r"no clinical table; put kits\.json"):
        generate_phantoms(tmp_path / "b", matrix=48, labels=kits)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("setting", [{"seen": "whole"}, {"seen": "half", "labels": "."}])
def test_what_is_seen_is_of_real_labels(tmp_path, setting):
    with pytest.raises(ConfigError, match="seen="):
        generate_phantoms(tmp_path / "a", **setting)
