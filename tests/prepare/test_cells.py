"""A folder of images, masks and a table: rows, groups, splits, and what is told of them."""

import os
import shutil

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images.read import read_image
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.prepare import prepare_cells, prepare_names
from metaseg_monai.tables.check import load_case
from metaseg_monai.tables.table import read_table

LINES = MetadataSchema(
    [
        Categorical(
            name="cell_line",
            values=("A549", "HeLa"),
            provenance="acquisition",
            availability="acquisition",
        )
    ]
)


WELLS = {"group": ("plate", "well")}


def test_a_lab_folder_becomes_one_that_training_reads(lab, tmp_path):
    source, rows = lab.cells(tmp_path / "lab")
    made = prepare_cells(source, tmp_path / "out", **WELLS)
    assert made.problems == []
    table = read_table(made.table, LINES)
    assert [len(table.items(split)) for split in ("train", "val", "test")] == [2, 2, 2]
    first = table.rows[0]
    assert first["metadata"] == {"cell_line": "HeLa"}
    assert first["group"] == "p1_B00"
    assert first["columns"]["File"] == "im0.tif"
    for row in rows:
        for kind, name in (("images", row["File"]), ("labels", f"{row['File'][:3]}.png")):
            of = {"labels": "masks"}.get(kind, kind)
            written = (tmp_path / "out" / kind / name).read_bytes()
            assert written == (source / of / name).read_bytes()  # bytes as they are
    assert "6 cases prepared, 0 problems" in made.summary
    assert "train: 2 cases; 1 groups; " in made.summary
    assert "cell_line: A549 1, HeLa 1" in made.summary
    assert "every image is its own group" not in made.summary
    assert "every image is its own group" in prepare_cells(source, tmp_path / "b").summary


def test_seeded_split_keeps_groups_together(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab", 20, split=False)
    options = {**WELLS, "train": 0.6, "val": 0.2, "test": 0.2}
    rows = lab.rows(prepare_cells(source, tmp_path / "out", **options).table)
    of_group = {}
    for row in rows:
        of_group.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in of_group.values())
    counts = [[*map(min, of_group.values())].count(s) for s in ("train", "val", "test")]
    assert counts == [6, 2, 2]
    again = lab.rows(prepare_cells(source, tmp_path / "b", **options).table)
    assert again == rows
    other = prepare_cells(source, tmp_path / "c", **WELLS, train=0.6, val=0.2, test=0.2, seed=1)
    assert lab.rows(other.table) != rows


def test_numbers_of_groups_leave_the_rest_out(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab", 20, split=False)
    made = prepare_cells(source, tmp_path / "out", **WELLS, train=3, val=2, test=1)
    splits = [row["split"] for row in lab.rows(made.table)]
    assert [splits.count(s) for s in ("train", "val", "test")] == [6, 4, 2]
    assert "8 cases beyond the numbers asked for" in made.summary
    with pytest.raises(DataError, match="11 asked for, but there are 10 groups"):
        prepare_cells(source, tmp_path / "b", **WELLS, train=9, val=1, test=1)


@pytest.mark.parametrize("labels", ["binary", "instances"])
def test_other_values_need_a_rule_by_name(lab, tmp_path, labels):
    source, _ = lab.cells(tmp_path / "lab", 3)
    value = 255 if labels == "binary" else 7
    for n in range(3):
        lab.png(source / "masks" / f"im{n}.png", lab.mask(value))
    with_problems = prepare_cells(source, tmp_path / "a")
    assert with_problems.table is None
    assert f"label values {value} (35 px), expected 0..1" in with_problems.problems[0]
    assert (tmp_path / "a" / "problems.csv").is_file()
    made = prepare_cells(source, tmp_path / "b", labels=labels)
    row = lab.rows(made.table)[0]
    label = tifffile.imread(tmp_path / "b" / row["label"])
    np.testing.assert_array_equal(label, lab.mask(1))
    assert label.dtype == np.uint8
    if labels == "instances":
        objects = tifffile.imread(tmp_path / "b" / row["instances"])
        assert objects.dtype == np.uint16
        np.testing.assert_array_equal(objects, lab.mask(7))
    else:
        assert "instances" not in row


def test_problems_leave_out_their_cases_only(lab, tmp_path):
    source, rows = lab.cells(tmp_path / "lab", 12)
    (source / "masks" / "im0.png").unlink()
    lab.tif(source / "images" / "im1.tif", lab.image(1, (30, 20)))
    (source / "images" / "im2.tif").write_bytes(b"II*\0")
    lab.tif(source / "images" / "extra.tif", lab.image(99))
    lab.png(source / "masks" / "extra.png", lab.mask())
    rows[3]["split"] = "later"
    rows.append({**rows[4], "well": "B09"})  # im4 twice
    rows.append({**rows[5], "File": "gone.tif"})
    rows[6]["well"] = ""
    lab.csv(source / "lab.csv", rows)
    (source / "images" / "notes.txt").write_text("x")
    lab.png(source / "masks" / "lonely.png", lab.mask())
    made = prepare_cells(source, tmp_path / "out", **WELLS)
    told = "\n".join(made.problems)
    for expected in (
        "im0: images/im0.tif: no mask; expected one named im0",
        "im1: masks/im1.png: label of shape (20, 30), expected (30, 20) (rows, columns)",
        "im2: images/im2.tif: ",
        "im3: column 'split': unknown split 'later'",
        "im4.tif: lab.csv: is in rows 6, 14",
        "gone.tif: lab.csv: row 15: File='gone.tif' names no image",
        "extra.tif: lab.csv: has no row",
        "im6: no value of well, which makes the group",
    ):
        assert expected in told, told
    assert len(made.problems) == 8
    assert len(lab.rows(tmp_path / "out" / "problems.csv")) == 8
    kept = [f"images/im{n}.tif" for n in (5, 7, 8, 9, 10, 11)]
    assert sorted(row["image"] for row in lab.rows(made.table)) == sorted(kept)
    assert sorted(p.stem for p in (tmp_path / "out" / "images").iterdir()) == sorted(
        f"im{n}" for n in (5, 7, 8, 9, 10, 11)
    )
    assert "1 files of other types: images/notes.txt" in made.summary
    assert "1 masks without image: lonely" in made.summary
    for n in (0, 1, 2):  # mended, the same command makes the folder anew
        lab.tif(source / "images" / f"im{n}.tif", lab.image(n))
        lab.png(source / "masks" / f"im{n}.png", lab.mask())
    again = prepare_cells(source, tmp_path / "out", **WELLS)
    assert len(again.problems) == 5
    assert len(lab.rows(again.table)) == 9


def test_dry_run_shows_rows_and_writes_nothing(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    made = prepare_cells(source, tmp_path / "out", **WELLS, dry_run=True)
    assert made.table is None
    lines = made.summary.splitlines()
    assert lines[0].startswith("dry run: 6 cases, 0 problems; nothing is written")
    assert lines[1] == "image,label,File,cell_line,plate,well,group,split"
    assert lines[2] == "images/im0.tif,masks/im0.png,im0.tif,HeLa,p1,B00,p1_B00,train"
    assert "... and 1 more rows" in lines
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab"]


def test_keys_by_stem_and_by_path(lab, tmp_path):
    for number, plate in enumerate("ab"):
        lab.tif(tmp_path / "lab" / "images" / plate / "im.tif", lab.image(number))
        lab.tif(tmp_path / "lab" / "masks" / plate / "im_seg.tif", lab.mask())
    rows = [{"key": "a/im", "dose": 1}, {"key": r"b\im.tif", "dose": 2}]
    lab.csv(tmp_path / "lab" / "t.csv", rows)
    made = prepare_cells(tmp_path / "lab", tmp_path / "out", key="key", mask_suffix="_seg")
    assert made.problems == []
    assert {r["image"]: r["dose"] for r in lab.rows(made.table)} == {
        "images/a_im.tif": "1",
        "images/b_im.tif": "2",
    }
    lab.csv(tmp_path / "lab" / "t.csv", [*rows, {"key": "im", "dose": 3}])
    told = prepare_cells(tmp_path / "lab", tmp_path / "b", key="key", mask_suffix="_seg")
    assert "names several images (a/im.tif, b/im.tif)" in told.problems[0]


def test_refusals(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    out = tmp_path / "out"
    with pytest.raises(DataError, match="no such folder; expected a folder with images/, masks/"):
        prepare_cells(tmp_path / "none", out)
    with pytest.raises(DataError, match=r"imgs: no such folder; .* has images, masks"):
        prepare_cells(source, out, images="imgs")
    with pytest.raises(DataError, match="no column 'dose'; it has File, cell_line"):
        prepare_cells(source, out, key="dose")
    with pytest.raises(DataError, match=r"no row of 6 fits any of 6 images by its column 'well'"):
        prepare_cells(source, out, key="well")
    with pytest.raises(DataError, match=r"no column 'fold'; it has File, .*: name the split's"):
        prepare_cells(source, out, split="fold")
    with pytest.raises(DataError, match="group=dish: no column dish; the images have File"):
        prepare_cells(source, out, group=("dish",))
    with pytest.raises(DataError, match="labels='objects': expected one of classes, binary"):
        prepare_cells(source, out, labels="objects")
    with pytest.raises(DataError, match="lies in the source"):
        prepare_cells(source, source / "out")
    lab.csv(source / "more.csv", [{"a": 1}])
    with pytest.raises(DataError, match=r"several CSV files \(lab.csv, more.csv\)"):
        prepare_cells(source, out)
    assert prepare_cells(source, out, metadata="lab.csv").problems == []
    for name in ("lab.csv", "more.csv"):
        (source / name).unlink()
    with pytest.raises(DataError, match="no CSV file with the metadata"):
        prepare_cells(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_output_is_taken_only_where_nothing_is_lost(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    out = tmp_path / "out"
    out.mkdir()
    prepare_cells(source, out, **WELLS)
    before = lab.content(out)
    with pytest.raises(DataError, match="was made with seed=0, asked for seed=1; give another"):
        prepare_cells(source, out, **WELLS, seed=1)
    (out / "runs").mkdir()
    with pytest.raises(DataError, match="holds runs; give a new or empty folder"):
        prepare_cells(source, out, **WELLS)
    (out / "runs").rmdir()
    assert lab.content(out) == before
    prepare_cells(source, out, **WELLS)
    assert lab.content(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab", "out"]  # nothing left beside


def test_a_failure_leaves_no_half_folder(lab, tmp_path, monkeypatch):
    source, _ = lab.cells(tmp_path / "lab")
    prepare_cells(source, tmp_path / "out", **WELLS)
    before = lab.content(tmp_path / "out")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    for name in ("out", "new"):
        with pytest.raises(DataError, match=rf"{name}: No space left"):
            prepare_cells(source, tmp_path / name, **WELLS)
    assert lab.content(tmp_path / "out") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab", "out"]


def test_colours_become_grey_only_where_asked(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab", 3)
    colours = lab.image(5, (*lab.shape, 3), np.uint8)
    lab.png(source / "images" / "im0.png", colours)
    (source / "images" / "im0.tif").unlink()
    rows = lab.rows(source / "lab.csv")
    rows[0]["File"] = "im0.png"
    lab.csv(source / "lab.csv", rows)
    stored = prepare_cells(source, tmp_path / "a")
    assert read_image(tmp_path / "a" / "images" / "im0.png").array.shape == (3, 20, 30)
    assert "uint8 with 3 channels: 1 case (im0)" in stored.summary
    prepare_cells(source, tmp_path / "b", grey=True)
    grey = tifffile.imread(tmp_path / "b" / "images" / "im0.tif")
    luma = np.rint(colours @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    np.testing.assert_array_equal(grey, luma)
    assert grey.dtype == np.uint8
    same = (tmp_path / "b" / "images" / "im1.tif").read_bytes()
    assert same == (source / "images" / "im1.tif").read_bytes()


LEFT_OUT = "columns of the table that are left out, as table.csv has its own of these names: "


def with_columns(lab, tmp_path, count=12, **columns):
    """A lab folder whose table has further columns, each a function of the image's number."""
    source, rows = lab.cells(tmp_path / "lab", count, split=False)
    added = [{name: make(n) for name, make in columns.items()} for n in range(count)]
    lab.csv(source / "lab.csv", [{**row, **more} for row, more in zip(rows, added, strict=True)])
    return source


def test_own_columns_of_a_table_are_told_where_they_are_left_out(lab, tmp_path):
    source = with_columns(lab, tmp_path, label=str, instances=str, group=lambda n: f"g{n // 2}")
    wells = {"group": ("plate", "well")}
    made = prepare_cells(source, tmp_path / "a", **wells)
    assert f"{LEFT_OUT}label, instances, group; rename them" in made.summary
    assert "column group makes the groups" not in made.summary
    made = prepare_cells(source, tmp_path / "b")
    assert f"{LEFT_OUT}label, instances; rename them" in made.summary
    assert "the table's column group makes the groups" in made.summary
    assert {row["image"]: row["group"] for row in lab.rows(made.table)}["images/im2.tif"] == "g1"


def test_a_split_column_beside_the_one_asked_for_is_told(lab, tmp_path):
    source = with_columns(
        lab, tmp_path, 3, split=lambda n: "train", fold=lambda n: ["train", "val", "test"][n]
    )
    made = prepare_cells(source, tmp_path / "a", split="fold")
    assert f"{LEFT_OUT}split; rename them" in made.summary
    assert [row["split"] for row in lab.rows(made.table)] == ["train", "val", "test"]
    assert LEFT_OUT not in prepare_cells(source, tmp_path / "b").summary


def test_the_column_group_can_be_named(lab, tmp_path):
    source = with_columns(lab, tmp_path, group=lambda n: f"g{n // 2}")
    made = prepare_cells(source, tmp_path / "a", group=("group",))
    assert made.problems == []
    groups = {row["image"]: row["group"] for row in lab.rows(made.table)}
    assert [groups[f"images/im{n}.tif"] for n in range(3)] == ["g0", "g0", "g1"]
    assert LEFT_OUT not in made.summary
    both = {"group": ("plate", "group")}
    made = prepare_cells(source, tmp_path / "b", **both)
    assert lab.rows(made.table)[0]["group"] == "p1_g0"


def test_a_split_that_stays_empty_is_warned_of(lab, tmp_path):
    source = with_columns(lab, tmp_path, group=lambda n: "all")
    warning = "WARNING: no case in val and test: 12 cases are 1 group;"
    for dry_run in (True, False):
        made = prepare_cells(source, tmp_path / "a", dry_run=dry_run)
        assert warning in made.summary
    sound = prepare_cells(source, tmp_path / "b", group=("well",))
    assert "WARNING" not in sound.summary
    wanted = prepare_cells(source, tmp_path / "c", train=1.0, val=0.0, test=0.0)
    assert "WARNING" not in wanted.summary


def plate(lab, root, names):
    for number, name in enumerate(names):
        lab.tif(root / name, lab.image(number))
    return root


@pytest.mark.parametrize(
    ("pattern", "names", "groups", "told"),
    [
        (
            "metaxpress",
            [f"p7_A{w:02d}_s{s}_w{c}.tif" for w in range(1, 9) for s in (1, 2) for c in (1, 2)],
            [f"p7_A{w:02d}" for w in range(1, 9)],
            "plate and well make the groups",
        ),
        (
            "metaxpress",
            [f"TimePoint_{t}/A0{w}_w1.tif" for w in (1, 2, 3, 4) for t in (1, 2)],
            ["A01", "A02", "A03", "A04"],  # no plate is told
            "plate and well make the groups",
        ),
        (
            "opera",
            [f"p7__x/Images/r27c0{w}f01p0{z}-ch1sk1fk1fl1.tiff" for w in "123" for z in "12"],
            [f"p7__x_AA0{w}" for w in "123"],
            "plate and well make the groups",
        ),
        (
            r"(?P<line>[A-Z]+)_f(?P<field>\d)_z(?P<z>\d)\.tif",
            [f"HELA_f{f}_z{z}.tif" for f in (1, 2, 3, 4) for z in (1, 2, 3)],
            [f"HELA_{f}" for f in (1, 2, 3, 4)],
            "line and field make the groups",
        ),
        (
            r"(?P<time>\d)\.tif",
            [f"{t}.tif" for t in range(5)],
            ["all"],
            "all images are one group",
        ),
    ],
)  # fmt: skip
def test_channels_planes_and_times_of_a_field_stay_together(
    lab, tmp_path, pattern, names, groups, told
):
    made = prepare_names(plate(lab, tmp_path / "s", names), tmp_path / "out", pattern)
    assert made.problems == []
    rows = lab.rows(made.table)
    assert len(rows) == len(names)
    assert sorted({row["group"] for row in rows}) == groups
    assert len({(row["group"], row["split"]) for row in rows}) == len(groups)
    assert f"no group is named: {told}" in made.summary


def test_groups_that_are_named_or_needless_stay_as_they_are(lab, tmp_path):
    names = [f"p7_A0{w}_s1_w{c}.tif" for w in (1, 2, 3) for c in (1, 2)]
    source = plate(lab, tmp_path / "s", names)
    options = {"group": ("plate", "channel")}
    made = prepare_names(source, tmp_path / "a", "metaxpress", **options)
    assert {row["group"] for row in lab.rows(made.table)} == {"p7_1", "p7_2"}
    assert "no group is named" not in made.summary
    pattern = r"p7_(?P<group>[A-P]\d\d)_s1_w(?P<channel>\d)\.tif"
    made = prepare_names(source, tmp_path / "b", pattern)
    assert {row["group"] for row in lab.rows(made.table)} == {"A01", "A02", "A03"}
    assert "no group is named" not in made.summary
    numbers = plate(lab, tmp_path / "n", [f"im{n}.tif" for n in range(3)])
    made = prepare_names(numbers, tmp_path / "c", r"im(?P<number>\d)\.tif")
    assert "every image is its own group" in made.summary
    assert "no group is named" not in made.summary


@pytest.mark.parametrize("in_table", ["Zu\u0308rich", "Z\u00fcrich"])
def test_accents_are_compared_in_one_form(lab, tmp_path, in_table):
    """A file system that takes names apart, a table typed on a keyboard or made from names."""
    apart, whole = "Zu\u0308rich", "Z\u00fcrich"
    source, rows = lab.cells(tmp_path / "lab", 3, split=False)
    lab.tif(source / "images" / f"{apart}.tif", lab.image(9))
    lab.png(source / "masks" / f"{whole}.png", lab.mask())
    rows.append({**rows[0], "File": f"{in_table}.tif", "cell_line": apart})
    lab.csv(source / "lab.csv", rows)
    made = prepare_cells(source, tmp_path / "out")
    assert made.problems == []
    (row,) = (row for row in lab.rows(made.table) if row["cell_line"] == whole)
    assert row["image"] == f"images/{whole}.tif"
    assert (tmp_path / "out" / row["image"]).is_file()
    pattern = rf"(?P<place>{whole})\.tif"
    named = prepare_names(source / "images", tmp_path / "b", pattern)
    assert [row["place"] for row in lab.rows(named.table)] == [whole]


def test_images_and_masks_in_one_folder(lab, tmp_path):
    rows = []
    for n in range(3):
        lab.tif(tmp_path / "s" / f"im{n}.tif", lab.image(n))
        lab.png(tmp_path / "s" / f"im{n}_mask.png", lab.mask())
        rows.append({"file": f"im{n}.tif", "dose": n})
    lab.csv(tmp_path / "s" / "t.csv", rows)
    where = {"images": ".", "masks": "."}
    made = prepare_cells(tmp_path / "s", tmp_path / "out", **where, mask_suffix="_mask")
    assert made.problems == []
    assert [row["label"] for row in lab.rows(made.table)] == [f"labels/im{n}.png" for n in range(3)]
    label = (tmp_path / "out" / "labels" / "im0.png").read_bytes()
    assert label == (tmp_path / "s" / "im0_mask.png").read_bytes()
    with pytest.raises(ValueError, match="images and masks in one folder; say with --mask_suffix"):
        prepare_cells(tmp_path / "s", tmp_path / "b", **where)


@pytest.mark.parametrize("labels", ["classes", "binary", "instances"])
def test_volumes_of_one_plane_are_written_as_training_sees_them(lab, tmp_path, labels):
    source, affine = tmp_path / "src", np.diag([0.5, 0.5, 2, 1])
    for part in ("images", "masks"):
        (source / part).mkdir(parents=True)
    lines = ["image,stain"]
    for number in range(3):
        image, mask = lab.image(number).astype(np.int16), lab.mask()
        nib.save(nib.Nifti1Image(image[..., None], affine), source / f"images/{number}.nii.gz")
        nib.save(nib.Nifti1Image(mask[..., None], affine), source / f"masks/{number}.nii.gz")
        lines.append(f"{number},a")
    (source / "meta.csv").write_text("\n".join(lines))
    made = prepare_cells(source, tmp_path / "out", labels=labels)
    assert made.problems == []
    whole = {"image": source / "images/0.nii.gz", "label": source / "masks/0.nii.gz"}
    expected, found = load_case(whole), load_case(read_table(made.table, None).rows[0])
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.label, expected.label)
    moved = affine + np.array([*[[0, 0, 0, 9]] * 3, [0] * 4])
    nib.save(nib.Nifti1Image(lab.mask(), affine), source / "masks/1.nii.gz")
    nib.save(nib.Nifti1Image(lab.mask()[..., None], moved), source / "masks/2.nii.gz")
    told = prepare_cells(source, tmp_path / "again", labels=labels).problems
    assert ["not both planes" in told[0], "affine differs" in told[1]] == [True, True]


def test_what_is_named_as_an_image_and_is_none_is_told_with_its_cause(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab", 6)
    masks, images = source / "masks", source / "images"
    PIL.Image.open(masks / "im0.png").save(masks / "im0.gif")
    (masks / "im0.png").unlink()
    (masks / "im1.bmp").write_bytes(b"BM")  # beside the mask, of no matter
    (masks / "im2.png").unlink()
    (masks / "im2.png").symlink_to("nowhere")
    for folder, name in ((images, "im3.tif"), (masks, "im4.png")):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    (images / "im5.tif").rename(images / "im\n5.tif")
    made = prepare_cells(source, tmp_path / "out", **WELLS)
    rows = lab.rows(tmp_path / "out/problems.csv")
    told = {row["case"]: row["problem"] for row in rows}
    assert "unsupported file type" in told["im0"]
    assert "leads to no file" in told["im2"]
    assert "FIFO" in told["im3"]
    assert "FIFO" in told["im4"]
    assert "im1" not in told
    assert [row["image"] for row in lab.rows(made.table)] == ["images/im1.tif"]
    lines = (tmp_path / "out/problems.csv").read_text().splitlines()
    assert len(lines) == len(rows) + 1
    assert r"im\n5.tif" in "".join(lines)
