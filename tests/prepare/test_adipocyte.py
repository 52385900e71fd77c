"""The adipocyte challenge's names, and what becomes of its files."""

import csv
import shutil

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from metaseg_monai.errors import DataError
from metaseg_monai.images import read_image
from metaseg_monai.prepare import prepare_adipocyte
from metaseg_monai.prepare.adipocyte import (
    INTENSITY,
    INTENSITY_LABELS,
    NUCLEI,
    find_nuclei,
    magnification_of,
)
from metaseg_monai.rows import read_lines
from metaseg_monai.simulate import generate_adipocyte
from metaseg_monai.transforms import IntensityStatistics, ScaleIntensityBy

HELD_OUT = {"hold_out": ["B03"], "camera_pixel_um": 16, "val": 0}


def named(well, field, plane, channel):
    action = 4 if channel == 4 else channel
    place = f"T0001F{field:03d}L01A{action:02d}Z{plane:02d}C{channel:02d}"
    return f"AssayPlate_Greiner_#655090_{well}_{place}.tif"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two wells at 20x and 60x, a field each, made."""
    folder = tmp_path_factory.mktemp("made") / "data"
    settings = {"train": 1, "val": 0, "test": 1, "fields": 1, "planes": 3}
    generate_adipocyte(folder, **settings, magnifications=(20, 60), size=96)
    return folder


@pytest.fixture
def challenge(made, tmp_path):
    """The same files as the challenge names them, in wells B03 and B04."""
    source = tmp_path / "astra"
    for cells in lines(made / "table.csv"):
        well = {"A01": "B03", "A02": "B04"}[cells["well"]]
        folder = source / f"{cells['magnification']}x_images"
        folder.mkdir(parents=True, exist_ok=True)
        stain = ("nuclei", "lipids", "cytoplasm").index(cells["channel"]) + 1
        shutil.copy(made / cells["label"], folder / named(well, 1, 1, stain))
        for number, plane in enumerate(cells["image"].split(";"), start=1):
            shutil.copy(made / plane, folder / named(well, 1, number, 4))
    return source


def lines(path):
    return [cells for _, cells in read_lines(path)[1]]


def test_planes_are_joined_and_each_stain_makes_a_row(challenge, made, tmp_path):
    done = prepare_adipocyte(
        challenge, tmp_path / "out", hold_out=["B03"], camera_pixel_um=16, val=0
    )
    assert done.problems == []
    rows, before = lines(done.table), lines(made / "table.csv")
    assert len(rows) == len(before) == 12
    assert {row["split"] for row in rows if row["well"] == "B03"} == {"test"}
    assert {row["split"] for row in rows if row["well"] == "B04"} == {"train"}
    assert {row["group"] for row in rows} == {f"AssayPlate_Greiner_-655090_B0{n}" for n in (3, 4)}
    order = ["magnification", "well", "channel"]
    rows.sort(key=lambda row: [row[name] for name in order])
    before.sort(key=lambda row: [row[name] for name in order])
    for row, was in zip(rows, before, strict=True):
        assert (row["magnification"], row["channel"]) == (was["magnification"], was["channel"])
        assert float(row["pixel_um"]) == pytest.approx(16 / float(row["magnification"]), rel=1e-5)
        for name in ("image", "label"):
            own, other = row[name].split(";"), was[name].split(";")
            for one, two in zip(own, other, strict=True):
                assert (tmp_path / "out" / one).read_bytes() == (made / two).read_bytes()
        found, drawn = (
            read_image(folder / cells["mask"]).array[0] > 0
            for folder, cells in ((tmp_path / "out", row), (made, was))
        )
        if row["magnification"] == "20":  # where there are many whole ones
            assert 2 * (found & drawn).sum() / (found.sum() + drawn.sum()) > 0.8


def test_centres_and_ranges_stand_beside_the_table(challenge, tmp_path):
    done = prepare_adipocyte(
        challenge, tmp_path / "out", hold_out=["B03"], camera_pixel_um=16, val=0
    )
    rows = lines(done.table)
    for nucleus in lines(tmp_path / "out" / NUCLEI):
        objects = tifffile.imread(tmp_path / "out" / nucleus["instances"])
        own = np.argwhere(objects == int(nucleus["number"]))
        assert len(own) == int(nucleus["area_px"])
        centre = [float(nucleus["y_px"]), float(nucleus["x_px"])]
        np.testing.assert_allclose(own.mean(axis=0), centre, atol=0.01)
    planes = IntensityStatistics.load(tmp_path / "out" / INTENSITY)
    stains = IntensityStatistics.load(tmp_path / "out" / INTENSITY_LABELS)
    assert (planes.by, stains.by) == ("magnification", "magnification/channel")
    assert stains.images == {
        f"{m}/{s}": 2 for m in (20, 60) for s in ("nuclei", "lipids", "cytoplasm")
    }
    for row in rows:
        files = [tifffile.imread(tmp_path / "out" / file) for file in row["image"].split(";")]
        target = tifffile.imread(tmp_path / "out" / row["label"])
        ranges = planes.ranges[row["magnification"]]
        assert all(
            low <= one.min() < one.max() <= high
            for one, (low, high) in zip(files, ranges, strict=True)
        )
        ((low, high),) = stains.ranges[f"{row['magnification']}/{row['channel']}"]
        assert low <= target.min() < target.max() <= high
    of_one = [row for row in rows if (row["magnification"], row["channel"]) == ("20", "lipids")]
    whole = np.stack([tifffile.imread(tmp_path / "out" / row["label"]) for row in of_one])
    assert stains.ranges["20/lipids"] == [[whole.min(), whole.max()]]
    scale = ScaleIntensityBy("magnification", (0, 100), planes)
    stack = torch.from_numpy(np.stack(files).astype(np.float32))
    scaled = scale({"image": stack, "columns": rows[-1]})["image"]
    expected = (stack[1] - ranges[1][0]) / (ranges[1][1] - ranges[1][0])
    torch.testing.assert_close(scaled[1], expected)


def test_the_ranges_may_be_those_that_the_report_prints(challenge, tmp_path):
    with pytest.raises(DataError, match="ranges=report: 3 channels of 20x, but the report has 7"):
        prepare_adipocyte(challenge, tmp_path / "out", ranges="report")
    for folder in challenge.iterdir():
        for well in ("B03", "B04"):
            for plane in (4, 5, 6, 7):
                shutil.copy(folder / named(well, 1, 1, 4), folder / named(well, 1, plane, 4))
    prepare_adipocyte(challenge, tmp_path / "out", ranges="report")
    planes = IntensityStatistics.load(tmp_path / "out" / INTENSITY)
    stains = IntensityStatistics.load(tmp_path / "out" / INTENSITY_LABELS)
    assert planes.ranges["20"][4] == [134, 19200]
    assert planes.ranges["60"][6] == [11, 4225]
    assert stains.ranges["20/cytoplasm"] == [[45, 65535]]


@pytest.fixture(scope="module")
def listed(tmp_path_factory, real):
    """Empty files of all names in the team's own lists."""
    source = tmp_path_factory.mktemp("lists")
    folder = real / "adipocyte_meta"
    of_split = {}
    for split in ("train", "test"):
        with (folder / f"{split}_split_1.csv").open(newline="") as stream:
            of_split[split] = list(csv.DictReader(stream))
        for row in of_split[split]:
            images = source / f"{row['magnification']}_images"
            images.mkdir(exist_ok=True)
            for name in ("C1", "C2", "C3"):
                (images / row[name]).touch()
            for plane in range(1, 8):
                (images / row["brightfield"].replace("Z01", f"Z{plane:02d}")).touch()
    return source, {split: len(rows) for split, rows in of_split.items()}


@pytest.mark.real_data
def test_the_lists_of_the_team_hold_one_well_out(listed, tmp_path):
    source, counts = listed
    assert counts == {"train": 182, "test": 26}
    done = prepare_adipocyte(source, tmp_path / "out", hold_out=["B03"], val=0, dry_run=True)
    text = str(done)
    assert done.problems == []
    assert f"train: {3 * 182} cases; 7 groups" in text
    assert f"test: {3 * 26} cases; 1 groups" in text
    assert "magnification: 20 18, 40 24, 60 36" in text  # of the held-out well
    assert "7 planes, nuclei, lipids, cytoplasm" in text


@pytest.mark.real_data
def test_the_last_training_leaves_three_four_and_six_fields_out(listed, tmp_path):
    done = prepare_adipocyte(listed[0], tmp_path / "out", final=True, val=0, dry_run=True)
    test = next(line for line in str(done).splitlines() if line.startswith("  test:"))
    assert "39 cases; 13 groups" in test
    assert "magnification: 20 9, 40 12, 60 18" in test
    assert "test fields (3 at 20x, 4 at 40x, 6 at 60x) are of wells that are trained on" in str(
        done
    )


@pytest.mark.slow
@pytest.mark.real_data
def test_real_brightfield_and_its_nuclei_in_boxes(tmp_path, real):
    source = real / "bf2dapi"
    done = prepare_adipocyte(source, tmp_path / "out", boxes="manifest.csv", camera_pixel_um=8.016)
    assert done.problems == []
    with (source / "manifest.csv").open(newline="") as stream:
        boxes = list(csv.DictReader(stream))
    rows = lines(done.table)
    assert len(rows) == len(boxes) == 12
    by_place = {(row["magnification"], row["label"].rpartition("_")[2]): row for row in rows}
    for box in boxes:
        left, top, right, bottom = (int(box[name]) for name in ("x0", "y0", "x1", "y1"))
        row = by_place[box["magnification"].rstrip("x"), f"y{top}x{left}.tif"]
        assert row["split"] == box["split"]
        part = (slice(top, bottom), slice(left, right))
        for own, real in ((row["image"], box["image"]), (row["label"], box["label"])):
            for one, two in zip(own.split(";"), real.split(";"), strict=True):
                expected = tifffile.imread(source / two)[part]
                np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / one), expected)
        found = read_image(tmp_path / "out" / row["mask"]).array[0] > 0
        drawn = read_image(source / box["mask"]).array[0][part] > 0
        assert 2 * (found & drawn).sum() / (found.sum() + drawn.sum()) > 0.97


def test_parts_of_fields_are_cut_from_all_their_files(challenge, tmp_path):
    folder = challenge / "20x_images"
    first = f"20x_images/{named('B03', 1, 1, 4)}"
    rows = [
        {"image": first, "x0": "8", "y0": "0", "x1": "40", "y1": "20", "split": "train"},
        {"image": first, "x0": "40", "y0": "20", "x1": "96", "y1": "96", "split": "test"},
        {
            "image": "20x_images/none.tif",
            "x0": "0",
            "y0": "0",
            "x1": "9",
            "y1": "9",
            "split": "val",
        },
        {"image": first, "x0": "-1", "y0": "0", "x1": "9", "y1": "9", "split": "val"},
        {"image": first, "x0": "80", "y0": "0", "x1": "97", "y1": "9", "split": "val"},
    ]
    with (tmp_path / "boxes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = prepare_adipocyte(challenge, tmp_path / "out", boxes=tmp_path / "boxes.csv")
    assert len(done.problems) == 3
    told = "\n".join(done.problems)
    assert "row 4: no field with the plane '20x_images/none.tif'" in told
    assert "row 5: box ['-1', '0', '9', '9']" in told
    assert "columns 80 to 97 does not lie in its 96 x 96 pixels" in told
    assert "parts of one field are in several splits" in str(done)
    for row in lines(done.table):
        left, top, right, bottom = (8, 0, 40, 20) if row["split"] == "train" else (40, 20, 96, 96)
        stain = ("nuclei", "lipids", "cytoplasm").index(row["channel"]) + 1
        whole = tifffile.imread(folder / named("B03", 1, 1, stain))
        part = tifffile.imread(tmp_path / "out" / row["label"])
        np.testing.assert_array_equal(part, whole[top:bottom, left:right])
        assert read_image(tmp_path / "out" / row["mask"]).array.shape[1:] == part.shape


def test_incomplete_and_doubled_fields_are_problems_and_the_others_go_on(challenge, tmp_path):
    images = challenge / "20x_images"
    (images / named("B03", 1, 2, 4)).unlink()
    shutil.copy(images / named("B04", 1, 1, 1), images / named("B04", 1, 2, 1))
    (challenge / "notes.txt").write_text("x")
    done = prepare_adipocyte(challenge, tmp_path / "out", val=0, test=0, train=1)
    assert sorted(problem.partition("; ")[0].rpartition(": ")[2] for problem in done.problems) == [
        "no Z02C04, which other fields have",
        "several files of C01, expected one",
    ]
    assert {row["magnification"] for row in lines(done.table)} == {"60"}
    assert "1 files that are named otherwise: notes.txt" in str(done)


def test_a_plane_more_and_a_plane_of_three_channels_are_problems_of_their_field(
    challenge, tmp_path
):
    images = challenge / "20x_images"
    shutil.copy(images / named("B03", 1, 1, 4), images / named("B03", 1, 9, 4))
    path = images / named("B04", 1, 2, 4)
    tifffile.imwrite(path, np.stack([tifffile.imread(path)] * 3, axis=-1), photometric="rgb")
    done = prepare_adipocyte(challenge, tmp_path / "out", val=0, test=0, train=1)
    told = sorted(done.problems)
    assert len(told) == 2
    assert "plane Z09, which most fields have not; name it as they do" in told[0]
    assert f"{path.name}: 3 channels, expected one, as it is one of 3 planes" in told[1]
    assert {row["magnification"] for row in lines(done.table)} == {"60"}
    assert all(row["image"].count(";") == 2 for row in lines(done.table))


def test_names_in_lower_case_are_taken_and_a_folder_without_magnification_is_a_problem(
    challenge, tmp_path
):
    for path in sorted((challenge / "20x_images").iterdir()):
        path.rename(path.with_name(path.name.lower()))
    (challenge / "60x_images").rename(challenge / "images60")
    (challenge / "0x_images").mkdir()
    shutil.copy(challenge / "images60" / named("B03", 1, 1, 4), challenge / "0x_images")
    done = prepare_adipocyte(challenge, tmp_path / "out", val=0, test=0, train=1)
    assert {row["magnification"] for row in lines(done.table)} == {"20"}
    assert {row["well"] for row in lines(done.table)} == {"B03", "B04"}
    (told,) = done.problems
    assert told.startswith("13 files in no folder such as 20x_images: 0x_images/")
    assert told.endswith("name the folder by its magnification")


def test_deeper_folders_tell_the_magnification_too(challenge, tmp_path, monkeypatch):
    deeper = challenge / "20x_images" / "plate1" / "raw"
    deeper.mkdir(parents=True)
    for path in sorted((challenge / "20x_images").glob("*.tif")):
        path.rename(deeper / path.name)
    monkeypatch.chdir(challenge / "20x_images")
    done = prepare_adipocyte(".", tmp_path / "out", val=0, test=0, train=1)
    assert not done.problems
    assert {row["magnification"] for row in lines(done.table)} == {"20"}
    assert all(row["mask"] for row in lines(done.table))


def test_boxes_that_share_pixels_across_splits_or_their_corner_are_refused(challenge, tmp_path):
    first, other = (f"20x_images/{named(well, 1, 1, 4)}" for well in ("B03", "B04"))
    table = "image,x0,y0,x1,y1,split\n" + "".join(
        f"{first},{box},{split}\n"
        for box, split in (
            ("0,0,40,40", "train"),
            ("30,30,60,60", "test"),  # in the first
            ("30,30,60,60", "train"),  # likewise, of the same split
            ("30,30,50,50", "train"),  # the same corner
            ("60,0,90,30", "test"),
        )
    )
    table += f"{other},30,30,60,60,val\n"  # of another field
    (tmp_path / "boxes.csv").write_text(table)
    done = prepare_adipocyte(challenge, tmp_path / "out", boxes=tmp_path / "boxes.csv")
    told = "\n".join(done.problems)
    assert len(done.problems) == 2
    assert told.startswith("boxes.csv: row 3: its box has the corner of that of row 2, or shares")
    assert "boxes.csv: row 5: its box has the corner of that of row 4" in told
    assert [row["split"] for row in lines(done.table)].count("test") == 3  # of three stains


def test_without_a_stain_there_are_fewer_rows_and_without_nuclei_no_masks(challenge, tmp_path):
    for path in [*challenge.rglob("*C01.tif"), *challenge.rglob("*C03.tif")]:
        path.unlink()
    done = prepare_adipocyte(challenge, tmp_path / "out", val=0, test=0, train=1)
    rows = lines(done.table)
    assert {row["channel"] for row in rows} == {"lipids"}
    assert "mask" not in rows[0]
    assert not (tmp_path / "out" / NUCLEI).exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hold_out": "B03"}, "hold_out as names of wells"),
        ({"hold_out": ["B03"], "final": True}, "give one of them"),
        ({"hold_out": ["B09"]}, "no well B09; there are B03, B04"),
        ({"final": True}, "2 fields at 20x, expected more than 3"),
        ({"boxes": "none.csv"}, "none.csv: no such table"),
        ({"ranges": "table"}, "expected measured or report"),
        ({"camera_pixel_um": 0}, "camera_pixel_um=0: expected micrometres"),
    ],
)
def test_settings_that_cannot_be_are_refused(challenge, tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        prepare_adipocyte(challenge, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_parts_of_the_wells_that_are_left_have_a_sum_of_at_most_1(challenge, tmp_path):
    with pytest.raises(DataError, match=r"train=0\.9, val=0\.5: expected parts whose sum"):
        prepare_adipocyte(challenge, tmp_path / "out", hold_out=["B03"], train=0.9, val=0.5)


def test_a_folder_without_such_names_is_refused(tmp_path, lab):
    lab.tif(tmp_path / "a" / "images" / named("B03", 1, 1, 4), lab.image())
    with pytest.raises(DataError, match="in a folder such as 20x_images; it has images/Assay"):
        prepare_adipocyte(tmp_path / "a", tmp_path / "out")


def test_the_folder_tells_the_magnification(tmp_path):
    for name, expected in (("20x_images", "20"), ("2.5X", "2.5"), ("60x-b", "60"), ("max", None)):
        assert magnification_of(tmp_path / name / "a" / "x.tif", tmp_path) == expected
    assert magnification_of(tmp_path / "20x" / "40x_b" / "x.tif", tmp_path) == "40"


def discs(*middles, size=80, radius=9, value=1000.0):
    rows, columns = np.ogrid[:size, :size]
    picture = np.zeros((size, size))
    for row, column in middles:
        picture[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = value
    noise = np.random.default_rng(0).normal(0, 5, picture.shape)
    return 100 + noise + gaussian_filter(picture, 1)


def test_touching_nuclei_are_divided_and_specks_left_out():
    assert find_nuclei(discs((20, 20), (20, 37), (60, 50)), pixel_um=1).max() == 3
    picture = discs((20, 20))
    picture[60:63, 60:63] = 1000
    objects = find_nuclei(picture, pixel_um=1)
    assert objects.max() == 1
    assert objects[20, 20] == 1
    assert objects[61, 61] == 0


def test_where_no_nucleus_is_none_is_found():
    assert not find_nuclei(discs(), pixel_um=1).any()
    assert not find_nuclei(np.full((32, 32), 7), pixel_um=1).any()
