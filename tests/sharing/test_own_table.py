"""Which columns of a user's own table hold what, and what its labels hold: inferred or asked."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from skimage.io import imsave

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.own_table import OwnTable, parse_labels


def table_of(folder, columns, masks=None):
    """A table of 8 x 8 pictures with these columns besides image and mask."""
    rows = []
    for number in range(max(map(len, columns.values()))):
        mask = np.eye(8, dtype=np.uint8) if masks is None else masks[number]
        imsave(folder / f"{number}.png", np.full((8, 8), number, np.uint8), check_contrast=False)
        imsave(folder / f"{number}_m.png", mask.astype(np.uint8), check_contrast=False)
        row = {"img": f"{number}.png", "mask": f"{number}_m.png"}
        rows.append(row | {name: cells[number] for name, cells in columns.items()})
    return write_table(rows, folder / "cohort.csv")


HALVES = ["train"] * 6 + ["test"] * 6


def test_splits_and_folds_in_any_case_are_the_tables_own(tmp_path):
    found = OwnTable(table_of(tmp_path, {"Split": HALVES, "FOLD": list("012") * 4}))
    assert (found.split_column, found.fold_column) == ("Split", "FOLD")
    assert OwnTable(found.file, split="FOLD").fold_column == "FOLD"
    assert set(found.own_split.values()) == {"train", "test"}
    told = table_of(tmp_path, {"fold_change": range(12), "dataset": list("ab") * 6})
    assert OwnTable(told).of_splits == []


def test_objects_that_are_numbered_are_no_classes_unasked(tmp_path):
    masks = []
    for number in range(8):
        mask = np.zeros((8, 8))
        for one in range(1 + number):
            mask[2 * (one // 4), 2 * (one % 4)] = one + 1
        masks.append(mask)
    found = OwnTable(table_of(tmp_path, {"age": range(8)}, masks))
    with pytest.raises(ConfigError, match=r"--labels classes.*--labels instances"):
        found.scan_labels()
    for labels, classes in (("classes", 9), ("instances", 2)):
        found = OwnTable(found.file)
        found.scan_labels(labels)
        assert found.classes == classes
        assert found.numbered == (labels == "instances")
    found = OwnTable(found.file)
    found.scan_labels(named=True)
    assert found.label_values == []


def test_of_many_structures_those_that_are_named_become_classes(tmp_path):
    masks = [np.zeros((8, 8)) for _ in range(4)]
    for number, mask in enumerate(masks):
        mask[0], mask[1, :4], mask[2, : 1 + number], mask[3, 0] = 5, 52, 117, 90
    table = table_of(tmp_path, {"age": range(4)}, masks)
    with pytest.raises(ConfigError, match=r'--labels "5=liver,52\+117=kidneys" \(all others'):
        OwnTable(table).scan_labels()
    found = OwnTable(table)
    found.scan_labels(parse_labels("117=spleen, 5+52=rest"))
    assert (found.label_values, found.classes) == ([[117], [5, 52]], 3)
    assert found.counts[2] == {0: 64 - 12 - 3, 1: 3, 2: 12}
    why = "label values as given: 117 becomes 1, 5+52 becomes 2; 90 become background"
    assert found.why_classes == why
    found = OwnTable(table)
    found.scan_labels(parse_labels("117=spleen"))
    assert (found.label_values, found.classes, found.holding(1)) == ([117], 2, [True] * 4)
    with pytest.raises(ConfigError, match=r"value 6, which no label .* 0, 5, 52, 90, 117$"):
        OwnTable(table).scan_labels(parse_labels("5=liver,6=spleen"))


@pytest.mark.parametrize(
    "given", ["clases", "0=a", "1=a,1=b", "1=a,2=a", "1+=a", "x=a", "1=", "", "1=a,"]
)
def test_what_labels_mean_is_read_or_refused(given):
    with pytest.raises(ConfigError, match=r'expected classes, instances, or .*"1=spleen,2\+3=kid'):
        parse_labels(given)


def test_all_unreadable_and_wrong_labels_are_told_at_once(tmp_path):
    table = table_of(tmp_path, {"age": range(4)})
    for number in (0, 2):
        (tmp_path / f"{number}_m.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"2 labels \(.*row 1\)\n  row 2: .*\n  row 4: .*\nmend the files"
    ):
        OwnTable(table).scan_labels()
    with pytest.raises(DataError, match=r"every label of column 'mask' is empty.*--label"):
        OwnTable(table_of(tmp_path, {"a": "xy"}, [np.zeros((8, 8))] * 2)).scan_labels()


def test_rows_of_one_image_or_patient_stay_together(tmp_path):
    table = table_of(tmp_path, {"patient": ["p", "q", "NA", "-"]})
    with pytest.raises(DataError, match="row 4, 5: no patient"):
        OwnTable(table)
    rows = [{"img": f"{n // 2}.png", "mask": f"{n}_m.png", "reader": "ab"[n % 2]} for n in range(4)]
    assert OwnTable(write_table(rows, table)).groups == ["row 2", "row 2", "row 4", "row 4"]
    write_table([{**row, "patient": n} for n, row in enumerate(rows)], table)
    with pytest.raises(DataError, match="row 3: its image is that of row 2, but not its patient"):
        OwnTable(table)


def test_rows_that_share_a_mask_stay_together_unless_it_is_empty(tmp_path):
    masks = [np.eye(8, k=n) for n in range(6)]
    masks[2], masks[3], masks[5] = np.zeros((8, 8)), np.zeros((8, 8)), masks[4]
    table = table_of(tmp_path, {"sequence": ["T1", "FLAIR"] * 3}, masks)
    rows = [{**cells} for cells in OwnTable(table).rows]
    rows[1]["mask"], rows[3]["mask"] = rows[0]["mask"], rows[2]["mask"]
    found = OwnTable(write_table(rows, table))
    found.scan_labels()
    assert found.groups == ["row 2", "row 2", "row 4", "row 5", "row 6", "row 7"]
    assert "rows 2 and 3 share the mask" in found.inferred["group"][1]
    assert found.inferred["equal masks"][0] == "rows 6, 7"
    assert "--group" in found.inferred["equal masks"][1]


def test_groups_of_one_name_image_or_file_become_one(tmp_path):
    table = table_of(tmp_path, {"plate": ["P1", "p 1", "P2", "P3", "P4", "P5"], "n": range(6)})
    (tmp_path / "5.png").write_bytes((tmp_path / "0.png").read_bytes())  # of no contrast: no copy
    for name, picture in (("2.png", 7), ("4.tif", 7), ("3.png", 9)):
        array = np.add.outer(np.arange(8), np.full(8, picture)).astype(np.uint8)
        imsave(tmp_path / name, array, check_contrast=False)
    rows = [{**cells, "actin": cells["img"]} for cells in OwnTable(table).rows]
    rows[4] |= {"img": "4.tif", "actin": "4.tif"}
    found = OwnTable(write_table(rows, table), image="img")
    assert found.groups == ["P1", "P1", "P2", "P3", "P4", "P5"]
    assert "'P1' and 'p 1' are probably one" in found.inferred["group"][1]
    found.join_copies()
    assert found.groups == ["P1", "P1", "P2", "P3", "P2", "P5"]
    assert "rows 4 and 6 have the same image" in found.inferred["group"][1]
    rows[5]["actin"] = "3.png"
    rows[4]["actin"] = "0.png"
    found = OwnTable(write_table(rows, table), image="img,actin")
    assert found.groups == ["P1", "P1", "P2", "P3", "P1", "P3"]
    assert "rows 5 and 7 share" in found.inferred["group"][1]
    assert len(set(OwnTable(table, image="img,actin", group="none").groups)) == 4


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("raw/", "looked for from .*; write them relative to it, or absolute"),
        ("~/", "~ is not read"),
        ("file:///", "they are addresses"),
        ("D:\\raw\\", "name a drive of Windows"),
    ],
)
def test_paths_of_files_that_are_elsewhere_are_told_at_once(tmp_path, place, told):
    rows = [{"img": f"{place}{n}.png", "mask": f"{place}{n}_m.png"} for n in range(4)]
    with pytest.raises(DataError, match=f"'img', 'mask' name files, and none is there.*{told}"):
        OwnTable(write_table(rows, tmp_path / "t.csv"))


def test_a_link_to_a_table_and_the_line_of_excel_are_named(tmp_path):
    table = table_of(tmp_path, {"age": range(4)})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "t.csv").symlink_to(table)
    with pytest.raises(DataError, match=r"is a link; name the file itself, --table .*cohort.csv"):
        OwnTable(tmp_path / "other" / "t.csv")
    table.write_text("sep=;\n" + table.read_text().replace(",", ";"))
    with pytest.raises(DataError, match="Excel's sep="):
        OwnTable(table)


def test_values_with_gaps_are_no_empty_classes_unasked(tmp_path):
    masks = [np.zeros((8, 8)) for _ in range(4)]
    for mask in masks:
        mask[0], mask[2, :3] = 1, 7
    table = table_of(tmp_path, {"age": range(4)}, masks)
    with pytest.raises(ConfigError, match=r'6 in no label; .*--labels "1=class_1,7=class_7"'):
        OwnTable(table).scan_labels()
    found = OwnTable(table)
    found.scan_labels("classes")
    assert (found.classes, found.why_classes[-27:]) == (8, "; 2, 3, 4, 5, 6 in no label")
    found = OwnTable(table)
    found.scan_labels(parse_labels("1=class_1,7=class_7"))
    assert found.classes == 3


def test_one_group_in_all_rows_is_asked_for(tmp_path):
    table = table_of(tmp_path, {"plate": ["P1"] * 4, "well": ["A1"] * 4})
    with pytest.raises(ConfigError, match=r"'plate' says 'P1' in every row.*--group none"):
        OwnTable(table)
    assert len(set(OwnTable(table, group="none").groups)) == 4
    wells = table_of(tmp_path, {"plate": ["P1"] * 4, "well": ["A1", "A1", "A2", "A3"]})
    assert OwnTable(wells).group == "well"


def test_images_of_val_and_test_are_looked_at(tmp_path):
    table = table_of(tmp_path, {"age": range(3)})
    imsave(tmp_path / "1_m.png", np.zeros((8, 9), np.uint8), check_contrast=False)
    imsave(tmp_path / "2.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    rows = [
        {"image": str(tmp_path / f"{n}.png"), "label": str(tmp_path / f"{n}_m.png"), "case": str(n)}
        | {"split": ("train", "val", "test")[n]}
        for n in range(3)
    ]
    like = SimpleNamespace(classes=2, spatial_dims=2, channels=1, shapes=((8, 8),))
    with warnings.catch_warnings(), pytest.raises(DataError, match=r"1 cases of val and test"):
        OwnTable(table).check_images(rows, like, "stored")
    told = r"2 have 1 \(as '1'\), 1 have 3 \(as '2'\); --channels grey leaves most as they are"
    imsave(tmp_path / "1_m.png", np.zeros((8, 8), np.uint8), check_contrast=False)
    with warnings.catch_warnings(), pytest.raises(DataError, match=told):
        OwnTable(table).check_images(rows, like, "stored")


def test_masks_of_one_and_of_255_are_offered_as_one_class(tmp_path):
    masks = [np.eye(8) * (255 if number % 2 else 1) for number in range(6)]
    table = table_of(tmp_path, {"age": range(6)}, masks)
    with pytest.raises(ConfigError, match=r'--labels "1\+255=liver"'):
        OwnTable(table).scan_labels()
    found = OwnTable(table)
    found.scan_labels(parse_labels("1+255=liver"))
    assert found.classes == 2


def test_rows_are_named_whose_split_or_patient_is_not_said(tmp_path):
    table = table_of(tmp_path, {"split": ["train", "", "test", "train", "val", ""]})
    with pytest.raises(ConfigError, match="column 'split': '' in row 3, 7, expected train, val"):
        OwnTable(table)
    table = table_of(tmp_path, {"patient": ["p0", "Unknown", "p1", "?", "p2", "p2"]})
    with pytest.raises(DataError, match="row 3, 5: no patient, which keeps rows of one group"):
        OwnTable(table)
