import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.prepare import prepare_dsb2018
from metaseg_monai.tables.table import read_table


def bowl(lab, root, ids="abcd"):
    """Two touching objects an image; b's file sorts first, so that it is object 1."""
    for number, name in enumerate(ids):
        rgba = np.full((*lab.shape, 4), 255, np.uint8)
        rgba[..., :3] = lab.image(number)[..., None]
        lab.png(root / name / "images" / f"{name}.png", rgba)
        for file, columns in (("z", slice(2, 8)), ("b", slice(8, 15))):
            mask = np.zeros(lab.shape, np.uint8)
            mask[3:9, columns] = 255
            lab.png(root / name / "masks" / f"{file}.png", mask)
    return root


def test_objects_become_numbers_and_a_label(lab, tmp_path):
    bowl(lab, tmp_path / "data" / "stage1_train")
    made = prepare_dsb2018(tmp_path / "data", tmp_path / "out", grey=True, train=2, val=1, test=1)
    assert made.problems == []
    table = read_table(made.table, None)
    assert [len(table.items(split)) for split in table.splits] == [2, 1, 1]
    row = next(row for row in table.rows if row["columns"]["group"] == "c")
    objects = tifffile.imread(tmp_path / "out" / row["columns"]["instances"])
    assert objects.dtype == np.uint16
    expected = np.zeros(lab.shape, np.uint16)
    expected[3:9, 8:15], expected[3:9, 2:8] = 1, 2  # touching objects stay apart
    np.testing.assert_array_equal(objects, expected)
    np.testing.assert_array_equal(tifffile.imread(row["label"]), expected > 0)
    np.testing.assert_array_equal(tifffile.imread(row["image"]), lab.image(2))  # grey of equals


def test_overlap_is_refused_or_goes_to_the_smaller(lab, tmp_path):
    root = bowl(lab, tmp_path / "stage1_train")
    large = np.zeros(lab.shape, np.uint8)
    large[0:12, 8:20] = 255  # 144 px, over object z1's 42
    lab.png(root / "a" / "masks" / "z1.png", large)
    lab.png(root / "a" / "masks" / "z2.png", np.zeros(lab.shape, np.uint8))
    made = prepare_dsb2018(root, tmp_path / "a")
    assert len(made.problems) == 1
    assert "42 pixels belong to several objects" in made.problems[0]
    made = prepare_dsb2018(root, tmp_path / "b", overlap="smaller")
    assert made.problems == []
    objects = tifffile.imread(tmp_path / "b" / "instances" / "a.tif")
    assert np.bincount(objects.ravel())[1:].tolist() == [42, 36, 144 - 42]
    assert "42 pixels of several objects went to the smaller one: 1 case (a)" in made.summary
    assert "1 empty object files: 1 case (a)" in made.summary
    with pytest.raises(DataError, match="overlap='larger': expected one of refuse, smaller"):
        prepare_dsb2018(root, tmp_path / "c", overlap="larger")


def test_table_gives_columns_group_and_split(lab, tmp_path):
    root = bowl(lab, tmp_path / "stage1_train")
    rows = [
        {"image_id": name, "modality": kind, "batch": batch, "fold": split}
        for name, kind, batch, split in (
            ("a", "fluo", "x", "training"),
            ("b.png", "fluo", "x", "train"),
            ("c", "tissue", "y", "validation"),
        )
    ]
    lab.csv(tmp_path / "classes.csv", rows)
    made = prepare_dsb2018(
        root,
        tmp_path / "out",
        metadata=tmp_path / "classes.csv",
        split="fold",
        group=("batch",),
    )
    assert made.problems == ["d.png: classes.csv: has no row; give every image one row"]
    with pytest.raises(DataError, match=r"classes\.csv: no column 'fould'; it has image_id, "):
        prepare_dsb2018(root, tmp_path / "b", metadata=tmp_path / "classes.csv", split="fould")
    for setting in ("key", "split"):
        with pytest.raises(DataError, match=f"{setting}='fold': there is no table that has col"):
            prepare_dsb2018(root, tmp_path / "b", **{setting: "fold"})
    rows = lab.rows(made.table)
    assert [(r["modality"], r["group"], r["split"]) for r in rows] == [
        ("fluo", "x", "train"),
        ("fluo", "x", "train"),
        ("tissue", "y", "val"),
    ]


def test_incomplete_folders_are_told(lab, tmp_path):
    root = bowl(lab, tmp_path / "stage1_train")
    for path in (root / "a" / "masks").iterdir():
        path.unlink()
    lab.png(root / "b" / "masks" / "z.png", lab.image(0, (5, 6), np.uint8))
    made = prepare_dsb2018(root, tmp_path / "out")
    assert "a: 1 images and 0 masks, expected one image and a mask an object" in made.problems[0]
    assert "b: b/masks/z.png: shape (5, 6), but (20, 30) in b.png" in made.problems[1]
    with pytest.raises(DataError, match="no folder <id>/images/"):
        prepare_dsb2018(root / "a", tmp_path / "b")
