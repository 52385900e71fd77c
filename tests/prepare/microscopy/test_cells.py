import shutil

import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images.read import read_image
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.prepare import PrepareOptions, prepare_cells
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


def wells(**options):
    return PrepareOptions(group=("plate", "well"), **options)


def test_a_lab_folder_becomes_one_that_training_reads(lab, tmp_path):
    source, rows = lab.cells(tmp_path / "lab")
    made = prepare_cells(source, tmp_path / "out", options=wells())
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
    options = wells(shares=(0.6, 0.2, 0.2))
    rows = lab.rows(prepare_cells(source, tmp_path / "out", options=options).table)
    of_group = {}
    for row in rows:
        of_group.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in of_group.values())
    counts = [[*map(min, of_group.values())].count(s) for s in ("train", "val", "test")]
    assert counts == [6, 2, 2]
    again = lab.rows(prepare_cells(source, tmp_path / "b", options=options).table)
    assert again == rows
    other = prepare_cells(source, tmp_path / "c", options=wells(shares=(0.6, 0.2, 0.2), seed=1))
    assert lab.rows(other.table) != rows


def test_numbers_of_groups_leave_the_rest_out(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab", 20, split=False)
    made = prepare_cells(source, tmp_path / "out", options=wells(shares=(3, 2, 1)))
    splits = [row["split"] for row in lab.rows(made.table)]
    assert [splits.count(s) for s in ("train", "val", "test")] == [6, 4, 2]
    assert "8 cases beyond the numbers asked for" in made.summary
    with pytest.raises(DataError, match="11 asked for, but there are 10 groups"):
        prepare_cells(source, tmp_path / "b", options=wells(shares=(9, 1, 1)))


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
    made = prepare_cells(source, tmp_path / "out", options=wells())
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
    again = prepare_cells(source, tmp_path / "out", options=wells())
    assert len(again.problems) == 5
    assert len(lab.rows(again.table)) == 9


def test_dry_run_shows_rows_and_writes_nothing(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    made = prepare_cells(source, tmp_path / "out", options=wells(dry_run=True))
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
        prepare_cells(source, out, options=PrepareOptions(group=("dish",)))
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
    prepare_cells(source, out, options=wells())
    before = lab.content(out)
    with pytest.raises(DataError, match="was made with seed=0, asked for seed=1; give another"):
        prepare_cells(source, out, options=wells(seed=1))
    (out / "runs").mkdir()
    with pytest.raises(DataError, match="holds runs; give a new or empty folder"):
        prepare_cells(source, out, options=wells())
    (out / "runs").rmdir()
    assert lab.content(out) == before
    prepare_cells(source, out, options=wells())
    assert lab.content(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab", "out"]  # nothing left beside


def test_a_failure_leaves_no_half_folder(lab, tmp_path, monkeypatch):
    source, _ = lab.cells(tmp_path / "lab")
    prepare_cells(source, tmp_path / "out", options=wells())
    before = lab.content(tmp_path / "out")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    for name in ("out", "new"):
        with pytest.raises(DataError, match=rf"{name}: cannot be written \(No space left"):
            prepare_cells(source, tmp_path / name, options=wells())
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
    prepare_cells(source, tmp_path / "b", options=PrepareOptions(grey=True))
    grey = tifffile.imread(tmp_path / "b" / "images" / "im0.tif")
    luma = np.rint(colours @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    np.testing.assert_array_equal(grey, luma)
    assert grey.dtype == np.uint8
    same = (tmp_path / "b" / "images" / "im1.tif").read_bytes()
    assert same == (source / "images" / "im1.tif").read_bytes()
