import hashlib
import itertools

import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.images.read import read_image
from metaseg_monai.prepare.kits_case import equal_planes, gathered, whole_digest
from metaseg_monai.prepare.kits_slices import (
    chosen_planes,
    class_pixels,
    number,
    table_row,
    write_slices,
    write_tiff,
)

ORIENTATIONS = [
    tuple(codes)
    for axes in itertools.permutations(["SI", "PA", "RL"])
    for codes in itertools.product(*axes)
]
CONTRACT = [
    "image",
    "label",
    "tumour_size_mm",
    "group",
    "split",
    "volume",
    "plane",
    "planes",
    "position_mm",
    "spacing_z_mm",
    "spacing_y_mm",
    "spacing_x_mm",
    "kidney_mm2",
    "tumour_mm2",
    "cyst_mm2",
    "image_sha256",
    "label_sha256",
]


def slices(kits, folder, output, image=None, label=None, **options):
    storage = {key: options.pop(key) for key in ("codes", "spacing_mm") if key in options}
    if "spacing_mm" in storage:
        storage["spacing"] = storage.pop("spacing_mm")
    image = kits.image() if image is None else image
    label = kits.label() if label is None else label
    volumes = [
        axial_volume(read_image(kits.save(folder / f"{name}.nii.gz", planes, **storage)))
        for name, planes in (("image", image), ("label", label))
    ]
    pixels = class_pixels(volumes[1].planes)
    return write_slices("case_00000", *volumes, pixels, output, **options)


def test_class_pixels_are_those_of_a_direct_count(kits):
    label = np.random.default_rng(0).integers(0, 4, (70, 9, 11)).astype(np.uint8)
    label[::3] = 0
    expected = [[(plane == k).sum() for k in range(4)] for plane in label]
    np.testing.assert_array_equal(class_pixels(label), expected)
    np.testing.assert_array_equal(class_pixels(np.asfortranarray(label)), expected)


def test_rules(kits):
    pixels = class_pixels(kits.label())
    assert chosen_planes(pixels, "mass").tolist() == [2, 3, 4]
    assert chosen_planes(pixels, "kidney").tolist() == [1, 2, 3, 4]
    assert chosen_planes(pixels, "all").tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match=r"'tumour': expected one of mass, kidney, all"):
        chosen_planes(pixels, "tumour")


def test_all_48_orientations_give_the_same_bytes(kits, tmp_path):
    assert len(set(ORIENTATIONS)) == 48
    first = None
    for number_, codes in enumerate(ORIENTATIONS):
        output = tmp_path / str(number_)
        rows = slices(kits, tmp_path, output, codes=codes, rule="all", spacing="native")
        content = {p.name: p.read_bytes() for p in sorted(output.rglob("*.tif"))}
        assert len(content) == len(rows) == 6
        first = first or (rows, content)
        assert (rows, content) == first, codes
    for row in first[0]:
        plane = row["plane"]
        written = tifffile.imread(tmp_path / "0" / row["image"])
        np.testing.assert_array_equal(written, kits.image()[plane])
        np.testing.assert_array_equal(
            tifffile.imread(tmp_path / "0" / row["label"]), kits.label()[plane]
        )
        assert written.dtype == np.int16


def test_files_are_uncompressed_and_carry_their_digest(kits, tmp_path):
    (first, *_) = slices(kits, tmp_path, tmp_path, spacing="native")
    for kind, dtype in (("image", np.int16), ("label", np.uint8)):
        path = tmp_path / first[kind]
        with tifffile.TiffFile(path) as file:
            (page,) = file.pages
            assert page.compression == tifffile.COMPRESSION.NONE
            assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
            assert (page.dtype, page.shape) == (dtype, kits.shape[1:])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == first[f"{kind}_sha256"]
    assert not list(tmp_path.rglob(".*"))


def test_row_says_where_the_slice_lies_and_what_it_shows(kits, tmp_path):
    rows = slices(kits, tmp_path, tmp_path, spacing="native")
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


def test_resampling_makes_square_pixels_and_keeps_native_areas(kits, tmp_path):
    (first, *_) = slices(kits, tmp_path, tmp_path, spacing=0.75)
    image, label = (tifffile.imread(tmp_path / first[kind]) for kind in ("image", "label"))
    assert image.shape == label.shape == (40, 40)  # 20 x 1.5 and 24 x 1.25 mm
    assert (image.dtype, label.dtype) == (np.int16, np.uint8)
    assert [first[f"spacing_{axis}_mm"] for axis in "zyx"] == ["3", "0.75", "0.75"]
    assert first["tumour_mm2"] == "187.5"
    columns = [int((column + 0.5) * 0.75 / 1.25) for column in range(40)]
    np.testing.assert_array_equal(label, np.repeat(kits.label()[2], 2, axis=0)[:, columns])
    assert abs(image.mean() - kits.image()[2].mean()) < 3


def test_spacing_is_that_of_the_written_pixels(kits, tmp_path):
    (first, *_) = slices(kits, tmp_path, tmp_path, spacing=0.78)
    rows, columns = tifffile.imread(tmp_path / first["image"]).shape
    assert (rows, columns) == (38, 38)
    assert float(first["spacing_y_mm"]) == pytest.approx(20 * 1.5 / 38, abs=1e-6)
    assert float(first["spacing_x_mm"]) == pytest.approx(24 * 1.25 / 38, abs=1e-6)


@pytest.mark.parametrize("spacing", ["native", 0.6])
def test_floats_are_rounded_after_resampling(kits, tmp_path, spacing):
    image = kits.image().astype(np.float32) + np.float32(0.4)
    exact = slices(kits, tmp_path, tmp_path / "a", spacing=spacing)
    rows = slices(kits, tmp_path, tmp_path / "b", image=image, spacing=spacing)
    for one, other in zip(exact, rows, strict=True):
        whole = tifffile.imread(tmp_path / "a" / one["image"])
        rounded = tifffile.imread(tmp_path / "b" / other["image"])
        assert rounded.dtype == np.int16
        assert np.abs(rounded - whole).max() <= (0 if spacing == "native" else 1)


def test_without_image_rows_and_folder_have_labels_only(kits, tmp_path):
    label = axial_volume(read_image(kits.save(tmp_path / "label.nii.gz", kits.label())))
    rows = write_slices("a", None, label, class_pixels(label.planes), tmp_path, "all", "native")
    assert not (tmp_path / "images").exists()
    assert len(rows) == len(list((tmp_path / "labels").iterdir())) == 6
    assert list(rows[0]) == [
        name
        for name in CONTRACT
        if not name.startswith("image") and name not in ("tumour_size_mm", "group", "split")
    ]


def test_no_chosen_plane_gives_no_row(kits, tmp_path):
    empty = np.zeros(kits.shape, np.uint8)
    assert slices(kits, tmp_path, tmp_path / "out", label=empty) == []
    assert not (tmp_path / "out").exists()


def test_table_row_has_the_columns_of_the_contract(kits, tmp_path):
    (row, *_) = slices(kits, tmp_path, tmp_path)
    clinical = {"tumour_size_mm": "41", "gender": "male", "split": "a", "image": "b"}
    whole = table_row(row, clinical, "val")
    assert list(whole) == [*CONTRACT, "gender", "clinical_split", "clinical_image"]
    assert (whole["tumour_size_mm"], whole["split"], whole["group"]) == ("41", "val", "case_00000")
    assert table_row(row, {}, "val", "patient 7")["group"] == "patient 7"


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "images" / "a_0000.tif"
    digest = write_tiff(path, np.zeros((4, 5), np.int16))
    monkeypatch.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_tiff(path, np.ones((4, 5), np.int16))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


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


def test_number_text():
    assert [number(v) for v in (0.1 + 0.2, 1e-7, 12.0, -3.25)] == ["0.3", "0", "12", "-3.25"]


def test_the_same_values_in_another_shape_are_another_volume():
    values = np.arange(24, dtype=np.int16)
    digests = [whole_digest(values.reshape(shape)) for shape in ((2, 3, 4), (2, 4, 3), (4, 2, 3))]
    assert len(set(digests)) == 3
    stored = np.asfortranarray(values.reshape(2, 3, 4).astype(np.float32))
    assert whole_digest(stored) == digests[0]
