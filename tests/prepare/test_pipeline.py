"""What every layout has in common: checks of pixels and settings, and the folder that is made."""

import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images.read import read_image
from metaseg_monai.prepare import prepare_cells, prepare_names
from metaseg_monai.tables.table import read_table

WELLS = {"group": ("plate", "well")}


@pytest.fixture
def prepared(lab, tmp_path):
    """Prepare a sound folder in which im0 was replaced; return what was made and its image."""
    source, _ = lab.cells(tmp_path / "lab")

    def make(image=None, mask=None, image_options=None, **settings):
        if image is not None:
            lab.tif(source / "images" / "im0.tif", image, **(image_options or {}))
        if mask is not None:
            (source / "masks" / "im0.png").unlink()
            lab.tif(source / "masks" / "im0.tif", mask)
        made = prepare_cells(source, tmp_path / "out", **WELLS, **settings)
        table = read_table(made.table, None)  # what is left can be trained on
        assert len(table.rows) == 6 - len(made.problems)
        return made

    return make


@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 20, 30), "ZYX"), ((2, 5, 20, 30), "CZYX"), ((5, 20, 30), None)]
)
def test_stacks_are_refused_with_their_axes(prepared, lab, shape, axes):
    made = prepared(lab.image(0, shape), image_options={"metadata": {"axes": axes} if axes else {}})
    assert len(made.problems) == 1
    assert f"found the axes {axes or 'QYX'} {shape}" in made.problems[0]
    assert "im0: images/im0.tif: " in made.problems[0]


def test_pages_become_channels_where_axes_are_named(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab", 3)
    stack = lab.image(0, (5, 20, 30))
    for n in range(3):
        lab.tif(source / "images" / f"im{n}.tif", stack + np.uint16(n))
    made = prepare_cells(source, tmp_path / "out", axes="CYX")
    assert made.problems == []
    image = read_image(tmp_path / "out" / "images" / "im2.tif")  # without naming them again
    np.testing.assert_array_equal(image.array, stack + np.uint16(2))
    assert image.array.dtype == np.uint16


@pytest.mark.parametrize(
    ("value", "dtype", "settings", "told"),
    [
        (255, np.int16, {}, "label values 255 (2 px), expected 0..1"),
        (-1, np.int16, {}, "label values -1 (2 px), expected 0..1"),
        (2, np.int16, {}, "label values 2 (2 px), expected 0..1"),
        (0.5, np.float32, {}, "label value 0.5, expected whole"),
        (np.nan, np.float32, {}, "label value nan, expected whole"),
        (0.5, np.float32, {"labels": "instances"}, "label value 0.5, expected whole"),
        (np.nan, np.float32, {"labels": "instances"}, "label value nan, expected whole"),
    ],
)
def test_label_values_that_are_no_classes(prepared, lab, value, dtype, settings, told):
    mask = lab.mask().astype(dtype)
    mask[0, :2] = value
    made = prepared(mask=mask, **settings)
    assert f"im0: masks/im0.tif: {told}" in made.problems[0]


def test_constant_image_is_told_and_not_finite_refused(prepared, lab):
    assert "every pixel is 7: an image without contrast: 1 case (im0)" in (
        prepared(np.full(lab.shape, 7, np.uint16)).summary
    )
    broken = lab.image().astype(np.float32)
    broken[0, 0] = np.inf
    assert "1 of 600 pixels are not finite numbers" in prepared(broken).problems[0]


def test_names_that_are_one_where_case_does_not_count(lab, tmp_path):
    source, rows = lab.cells(tmp_path / "lab")
    lab.tif(source / "images" / "IM1.tif", lab.image(50))
    lab.png(source / "masks" / "IM1.png", lab.mask())
    lab.csv(source / "lab.csv", [*rows, {**rows[1], "File": "IM1.tif"}])
    made = prepare_cells(source, tmp_path / "out", **WELLS)
    assert "im1: images/im1.tif: gives the same case as images/IM1.tif" in made.problems[1]
    assert len(read_table(made.table, None).rows) == 5


def test_group_in_two_splits(lab, tmp_path):
    source, rows = lab.cells(tmp_path / "lab")
    rows[1]["split"] = "test"
    lab.csv(source / "lab.csv", rows)
    made = prepare_cells(source, tmp_path / "out", **WELLS)
    assert [problem.split(":")[0] for problem in made.problems] == ["im0", "im1"]
    assert "its group 'p1_B00' is in several splits: test, train" in made.problems[0]
    assert len(read_table(made.table, None).rows) == 4


def test_same_pixels_in_two_splits_by_content(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    copy = lab.image(0)  # the pixels of im0 (train) in another file format and split
    lab.tif(source / "images" / "im2.tif", copy, compression="zlib", description="other bytes")
    made = prepare_cells(source, tmp_path / "out", **WELLS)
    assert made.problems == [
        "im0: images/im0.tif: in train with the same pixels as im2 (val); keep one of them, or "
        "give them one group",
        "im2: images/im2.tif: in val with the same pixels as im0 (train); keep one of them, or "
        "give them one group",
    ]
    assert not list((tmp_path / "out" / "images").glob("im[02]*"))
    lab.tif(source / "images" / "im2.tif", lab.image(2))
    lab.tif(source / "images" / "im1.tif", copy)
    within = prepare_cells(source, tmp_path / "out", **WELLS)
    assert within.problems == []
    assert "the same pixels within one split: 2 cases (im0, im1)" in within.summary


def test_constant_images_are_no_copies_of_each_other(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    for n in (0, 2):
        lab.tif(source / "images" / f"im{n}.tif", np.zeros(lab.shape, np.uint16))
    assert prepare_cells(source, tmp_path / "out", **WELLS).problems == []


def test_a_file_of_an_ome_set_is_refused(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    first = source / "images" / "im0.tif"
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="30" SizeY="20" '
        'SizeZ="1" SizeC="2" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="im0.tif">urn:uuid:0</UUID>'
        '</TiffData><TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="im1.tif">'
        "urn:uuid:1</UUID></TiffData></Pixels></Image></OME>"
    )
    for name in ("im0", "im1"):
        text = xml.replace("<OME ", f'<OME UUID="urn:uuid:{name[-1]}" ')
        tifffile.imwrite(
            first.with_name(f"{name}.tif"), lab.image(int(name[-1])), description=text,
            metadata=None, photometric="minisblack",
        )  # fmt: skip
    made = prepare_cells(source, tmp_path / "out", **WELLS)
    assert len(made.problems) == 2
    assert "one of several files of an OME-TIFF set" in made.problems[0]


def test_another_source_does_not_replace_a_folder(lab, tmp_path):
    one, _ = lab.cells(tmp_path / "one")
    other, _ = lab.cells(tmp_path / "other", 3)
    prepare_cells(one, tmp_path / "out")
    before = lab.content(tmp_path / "out")
    with pytest.raises(DataError, match=r"was made with source='.*one', asked for source='.*oth"):
        prepare_cells(other, tmp_path / "out")
    assert lab.content(tmp_path / "out") == before
    (tmp_path / "link").symlink_to(one)
    prepare_cells(tmp_path / "link", tmp_path / "out")  # the same source by another name
    (tmp_path / "out" / "prepared.json").write_text("[]")
    with pytest.raises(DataError, match="asked for"):
        prepare_cells(one, tmp_path / "out")


def test_the_folder_one_stands_in(lab, tmp_path, monkeypatch):
    source, _ = lab.cells(tmp_path / "lab")
    here = tmp_path / "here"
    here.mkdir()
    number = here.stat().st_ino
    monkeypatch.chdir(here)
    for _ in range(2):  # anew too
        made = prepare_cells(source, ".")
        assert made.table.resolve() == here / "table.csv"
        assert len(lab.rows(here / "table.csv")) == 6
    assert here.stat().st_ino == number  # the shell that stands in it sees the files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "lab"]


def test_the_folder_one_stands_in_is_as_it_was_after_a_failure(lab, tmp_path, monkeypatch):
    source, _ = lab.cells(tmp_path / "lab")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    prepare_cells(source, ".")
    before = lab.content(here)
    rename = type(here).rename

    def broken(path, target):
        if path.name == "table.csv" and path.parent.name.startswith(".partial-"):
            raise OSError("disk gone")
        return rename(path, target)

    monkeypatch.setattr(type(here), "rename", broken)
    with pytest.raises(DataError, match="disk gone; check path, disk"):
        prepare_cells(source, ".")
    assert lab.content(here) == before


LABELLED = (r"(?P<name>im\d)\.tif", r"(?P<name>im\d)\.png")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"labels": "binary", "classes": 7}, "classes=7: labels=binary makes two classes"),
        ({"threshold": 3, "classes": 3}, "classes=3: threshold=3 makes two classes"),
        ({"labels": "nonsense", "threshold": 9}, "labels='nonsense': expected one of classes"),
        ({"labels": "instances", "threshold": 9}, "threshold=9: labels=instances are object"),
        ({"threshold": "abc"}, "threshold='abc': expected a number"),
        ({"threshold": float("nan")}, "threshold=nan: expected a number"),
        ({"threshold": True}, "threshold=True: expected a number"),
    ],
)
def test_settings_of_masks_that_contradict_each_other(lab, tmp_path, setting, message):
    source, _ = lab.cells(tmp_path / "lab")
    with pytest.raises(DataError, match=message):
        prepare_cells(source, tmp_path / "out", **setting)


@pytest.mark.parametrize("setting", [{"labels": "binary"}, {"classes": 3}, {"threshold": 5}])
def test_settings_of_masks_without_masks(lab, tmp_path, setting):
    source, _ = lab.cells(tmp_path / "lab")
    with pytest.raises(DataError, match="there are no masks to read; name them with --mask_patt"):
        prepare_names(source, tmp_path / "out", LABELLED[0], **setting)
    assert prepare_names(source, tmp_path / "out", LABELLED[0]).problems == []


def test_a_threshold_that_empties_all_masks_is_refused(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    for n in range(6):
        lab.png(source / "masks" / f"im{n}.png", lab.mask(200 - n))
    with pytest.raises(
        DataError, match="threshold=200: all 6 masks become empty, as their largest value is 200"
    ):
        prepare_cells(source, tmp_path / "out", threshold=200)
    assert not (tmp_path / "out").exists()
    made = prepare_cells(source, tmp_path / "out", threshold=199)
    assert "masks without foreground: 5 cases" in made.summary  # one has, so it is meant
    for n in range(6):  # black, which is not the fault of a threshold
        lab.png(source / "masks" / f"im{n}.png", lab.mask(0))
    made = prepare_cells(source, tmp_path / "b", threshold=127)
    assert "masks without foreground: 6 cases" in made.summary


def test_probabilities_under_a_threshold_for_grey_values(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    (source / "masks" / "im0.png").unlink()
    lab.tif(source / "masks" / "im0.tif", lab.mask().astype(np.float32) * np.float32(0.9))
    for n in range(1, 6):
        lab.png(source / "masks" / f"im{n}.png", lab.mask(255))
    made = prepare_cells(source, tmp_path / "out", threshold=127)
    assert len(made.problems) == 1
    assert "values up to 0.9, of which none is above 127; give threshold=0.5" in made.problems[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"axes": 3}, "axes=3: expected letters, such as CYX"),
        ({"group": "well"}, "group='well': expected names of columns"),
        ({"group": (3,)}, r"group=\(3,\): expected names of columns"),
        ({"grey": "no"}, "grey='no': expected True or False"),
        ({"train": "most"}, "train='most': expected a part such as 0.7, or a whole number"),
    ],
)
def test_options_of_a_wrong_type(lab, tmp_path, setting, message):
    source, _ = lab.cells(tmp_path / "lab", 3)
    with pytest.raises(DataError, match=message):
        prepare_cells(source, tmp_path / "out", **setting)
