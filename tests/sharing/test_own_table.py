"""What columns of a user's own table mean: what is inferred, what is asked, what is left out."""

import warnings
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from skimage.io import imsave

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.own_table import (
    OwnTable,
    infer_schema,
    names_alike,
    not_in_training,
    parse_labels,
)


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


def inferred(table, fields=None, training=None, **settings):
    found = OwnTable(table, **settings)
    found.scan_labels()
    rows = range(len(found.rows)) if training is None else training
    return infer_schema(found, fields, rows)


HALVES = ["train"] * 6 + ["test"] * 6


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("set", HALVES),
        ("subset", ["one"] * 6 + ["two"] * 6),
        ("cv_fold", list("012345") * 2),
        ("cohort", [*HALVES[:-1], ""]),
        ("arm", ["Training", "dev"] * 6),
    ],
)
def test_a_column_that_may_tell_splits_is_asked_for_and_is_no_metadata(tmp_path, column, cells):
    table = table_of(tmp_path, {column: cells, "age": range(20, 44, 2)})
    with pytest.raises(ConfigError, match=f"--split {column}, or .* --split new"):
        OwnTable(table)
    schema, _, left_out = inferred(table, split="new")
    assert schema.names == ("age",)
    assert f"--split {column}" in left_out[column]
    with pytest.raises(ConfigError, match="cannot be metadata"):
        inferred(table, fields=column, split="new")


def test_splits_and_folds_in_any_case_are_the_tables_own(tmp_path):
    found = OwnTable(table_of(tmp_path, {"Split": HALVES, "FOLD": list("012") * 4}))
    assert (found.split_column, found.fold_column) == ("Split", "FOLD")
    assert OwnTable(found.file, split="FOLD").fold_column == "FOLD"
    assert set(found.own_split.values()) == {"train", "test"}
    told = table_of(tmp_path, {"fold_change": range(12), "dataset": list("ab") * 6})
    assert OwnTable(told).of_splits == []


def with_objects(count, number=0):
    mask = np.zeros((8, 8))
    for one in range(count):
        mask[2 * (one // 4), 2 * (one % 4)] = 1
    mask[7, : number % 3] = 1
    return mask


def test_few_numbers_and_texts_that_go_with_labels_are_found(tmp_path):
    counts = [1 + number % 5 for number in range(40)]
    masks = [with_objects(2 * one) for one in counts]
    size = ["large" if 2 * one > 6 else "small" for one in counts]
    random = np.random.default_rng(0).choice(["A", "B", "C"], 40)
    table = table_of(tmp_path, {"lesions": counts, "size": size, "site": random}, masks)
    schema, _, left_out = inferred(table)
    assert schema.names == ("site",)
    assert "goes with the label's size" in left_out["lesions"]
    assert "goes with the label's size" in left_out["size"]
    schema, _, _ = inferred(table, fields="+lesions:ordinal")
    assert schema.names == ("lesions", "site")
    assert schema.field("lesions").provenance == "label-derived"


def test_volumes_in_ml_are_found_whatever_the_spacing(tmp_path):
    rng, rows = np.random.default_rng(1), []
    for number in range(24):
        label = np.zeros((10, 10, 12), np.uint8)
        label[:, :, : 1 + int(rng.integers(0, 4))] = 1
        steps = [*[float(rng.uniform(0.2, 2))] * 2, float(rng.choice([1, 1.5, 3, 5]))]
        for name, array in (("ct", label), ("mask", label)):
            file = tmp_path / f"{number}_{name}.nii.gz"
            nib.save(nib.Nifti1Image(array, np.diag([*steps, 1])), file)
        row = {name: f"{number}_{name}.nii.gz" for name in ("ct", "mask")}
        rows.append({**row, "tumour_ml": f"{label.sum() * np.prod(steps) / 1000:.5f}"})
    _, _, left_out = inferred(write_table(rows, tmp_path / "t.csv"))
    assert "size in mm" in left_out["tumour_ml"]


def test_kinds_ranges_and_names_are_of_training_rows(tmp_path):
    columns = {"age": [*range(20, 40, 2), 95, 40], "scanner": [*"ABABABABAB", "Z", "A"]}
    found = OwnTable(table_of(tmp_path, columns))
    found.scan_labels()
    schema, names_of, _ = infer_schema(found, None, range(10))
    assert schema.field("age").range[1] < 50
    assert schema.field("scanner").values == ("A", "B")
    assert "of 10 training rows" in schema.field("age").description
    assert not_in_training(found, schema, names_of, range(10)) == {(10, "scanner"): "Z"}
    assert names_alike(found) == ["scanner"]


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


def test_kinds_of_images_are_metadata_though_labels_differ_among_them(tmp_path):
    masks = []
    for number in range(40):
        mask = np.zeros((20, 20))
        mask[:, : 2 + number % 5 + 4 * (number % 2)] = 1  # two kinds, whose sizes overlap a little
        masks.append(mask)
    sizes = [int(mask.sum()) for mask in masks]
    columns = {
        "microscope": ["ab"[number % 2] for number in range(40)],
        "microscope_code": [1 + number % 2 for number in range(40)],
        "size_code": [1 if size < 160 else 2 for size in sizes],
        "size_class": ["small" if size < 160 else "large" for size in sizes],
        "histologic_grade": [(number // 3) % 3 for number in range(40)],
        "scan_year": [1983 + number // 2 for number in range(40)],
    }
    found = OwnTable(table_of(tmp_path, columns, masks))
    found.scan_labels()
    schema, _, left_out = infer_schema(found, None, range(40))
    assert schema.names == ("microscope", "microscope_code", "scan_year")
    assert schema.field("microscope").provenance == "acquisition"
    assert "microscope (goes with the label's size" in found.inferred["to look at"][0]
    assert "as if computed from it" in left_out["size_class"]
    assert "as if computed from it" in left_out["size_code"]
    assert "found in tissue" in left_out["histologic_grade"]
    assert schema.field("scan_year").range == (1979, 2006)
    forced = infer_schema(found, "+histologic_grade,+size_class", range(40))[0]
    assert forced.field("histologic_grade").availability == "post-operative"
    assert found.inferred["known late"][0] == "histologic_grade"
    assert forced.field("size_class").provenance == "label-derived"


def test_columns_that_fields_would_divide_cannot_be_named(tmp_path):
    found = OwnTable(
        table_of(tmp_path, {"dose, mGy": range(12), "a:b": [f"x{n}" for n in range(12)]})
    )
    found.scan_labels()
    for given in ("dose, mGy", "a:b", "+a:b"):
        with pytest.raises(ConfigError, match="cannot be named, as --fields divides"):
            infer_schema(found, given, range(12))
    assert "rename it to take it" in infer_schema(found, None, range(12))[2]["a:b"]


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
    assert found.why_classes == "label values as given; 90 become background"
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
    with pytest.raises(DataError, match=r"2 labels\n  row 2: .*\n  row 4: .*\nmend the files"):
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


def test_numbers_with_a_few_other_cells_are_told_with_their_rows(tmp_path):
    ages = [20 + 3 * n for n in range(11)]
    table = table_of(tmp_path, {"age (years)": [*ages, "65+"], "dose": [*ages, 70]})
    schema, _, left_out = inferred(table)
    assert schema.names == ("dose",)
    assert "11 of 12 cells are numbers, and row 13: '65+' is none" in left_out["age (years)"]
    assert "--fields '+age (years):categorical'" in left_out["age (years)"]
    with pytest.raises(ConfigError, match=r"row 13: '65\+' is none; mend or empty"):
        inferred(table, fields="age (years)")
    assert inferred(table, fields="age (years):categorical")[0].names == ("age_years",)
    for empty in ("", " ", ","):
        with pytest.raises(ConfigError, match="--fields is empty"):
            inferred(table, fields=empty)
    with pytest.raises(ConfigError, match="--group is empty"):
        OwnTable(table, group="")


def test_outcomes_are_left_out_and_doubtful_names_are_told(tmp_path):
    late = ("treatment_response", "vital_status", "OS", "followup_months", "recist", "WHO")
    late += ("biopsy_result",)
    doubtful = ("diagnosis", "stage", "T_stage", "volume_ml", "radiologist")
    plain = ("stage_x", "reader_software", "scanner_os", "contrast_volume_ml")
    cells = np.random.default_rng(0).choice(["A", "B", "C"], (16, 12))
    names = (*late, *doubtful, *plain)
    found = OwnTable(table_of(tmp_path, dict(zip(names, cells, strict=True))))
    found.scan_labels()
    schema, _, left_out = infer_schema(found, None, range(12))
    assert set(left_out) == set(late)
    assert schema.names == (*doubtful, *plain)
    assert all(f"{one} (by its name)" in found.inferred["to look at"][0] for one in doubtful)
    assert found.inferred["to look at"][0].count("by its name") == len(doubtful)


def test_what_goes_with_labels_is_judged_by_all_rows(tmp_path):
    masks = [with_objects(1 + n % 8) for n in range(18)]
    scores = [int(mask.sum()) for mask in masks]
    found = OwnTable(table_of(tmp_path, {"score": scores, "n": [n * n for n in range(18)]}, masks))
    found.scan_labels()
    schema, _, left_out = infer_schema(found, None, range(9))  # too few by themselves
    assert schema.names == ("n",)
    assert "in 18 rows, as if computed from it" in left_out["score"]


def test_values_with_gaps_are_no_empty_classes_unasked(tmp_path):
    masks = [np.zeros((8, 8)) for _ in range(4)]
    for mask in masks:
        mask[0], mask[2, :3] = 1, 7
    table = table_of(tmp_path, {"age": range(4)}, masks)
    with pytest.raises(ConfigError, match=r'6 in no label; .*--labels "1=class_1,7=class_2"'):
        OwnTable(table).scan_labels()
    found = OwnTable(table)
    found.scan_labels("classes")
    assert (found.classes, found.why_classes[-27:]) == (8, "; 2, 3, 4, 5, 6 in no label")
    found = OwnTable(table)
    found.scan_labels(parse_labels("1=class_1,7=class_2"))
    assert found.classes == 3


def test_one_group_in_all_rows_is_asked_for(tmp_path):
    table = table_of(tmp_path, {"plate": ["P1"] * 4, "well": ["A1"] * 4})
    with pytest.raises(ConfigError, match=r"'plate' says 'P1' in every row.*--group none"):
        OwnTable(table)
    assert len(set(OwnTable(table, group="none").groups)) == 4
    wells = table_of(tmp_path, {"plate": ["P1"] * 4, "well": ["A1", "A1", "A2", "A3"]})
    assert OwnTable(wells).group == "well"


def test_a_group_is_no_guess(tmp_path):
    slices = [n // 4 for n in range(12)]
    with pytest.raises(ConfigError, match=r"--group case_id if so, .* --group none"):
        OwnTable(table_of(tmp_path, {"case_id": slices}))
    table = table_of(tmp_path, {"group": ["control", "treated"] * 6, "patient": slices})
    schema, _, _ = inferred(table)
    assert schema.names == ("group",)
    with pytest.raises(ConfigError, match="'patient' cannot be metadata"):
        inferred(table, fields="patient")
    with pytest.raises(ConfigError, match="'mask' cannot be metadata"):
        inferred(table, fields="mask")
    alone = table_of(tmp_path, {"patient_sex": list("mf") * 6, "age_group": list("ab") * 6})
    assert OwnTable(alone).group is None
    wells = {"plate": [n // 6 for n in range(12)], "well": [n % 6 // 2 for n in range(12)]}
    found = OwnTable(table_of(tmp_path, wells))
    assert found.group == "plate + well"
    assert len(set(found.groups)) == 6
    assert len(set(OwnTable(found.file, group="plate").groups)) == 2
    assert len(set(OwnTable(found.file, group="none").groups)) == 12


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    table = table_of(tmp_path, {"age": range(20, 44, 2)})
    told = "no column 'vendor'; use one of 'img', 'mask', 'age'"
    with pytest.raises(ConfigError, match=told):
        inferred(table, fields="vendor")
    with pytest.raises(ConfigError, match=told):
        OwnTable(table, group="vendor")


def test_patients_count_once(tmp_path):
    masks = [with_objects(1 + (n // 4)) for n in range(28)]
    table = table_of(tmp_path, {"patient": [n // 4 for n in range(28)], "age": [40] * 28}, masks)
    found = OwnTable(table)
    ages = [20.0 + 3 * (n // 4) for n in range(28)]  # by chance in the order of 7 patients' masks
    for row, age in zip(found.rows, ages, strict=True):
        row["age"] = str(age)
    found.scan_labels()
    assert infer_schema(found, None, range(28))[0].names == ("age",)


def test_names_tell_units_and_few_numbers_are_names(tmp_path):
    columns = {"n_stage": [n % 3 for n in range(12)], "number of beds": [n % 2 for n in range(12)]}
    columns |= {"year": [2001 + n * n for n in range(12)], "age_index": [n * n for n in range(12)]}
    schema, _, _ = inferred(table_of(tmp_path, columns))
    kinds = {one.name: (one.kind, getattr(one, "unit", "")) for one in schema.fields}
    assert kinds["n_stage"] == kinds["number of beds"] == ("categorical", "")
    assert kinds["year"] == ("continuous", "unit to be named")


def test_a_field_may_not_be_called_as_the_masks_threshold(tmp_path):
    table = table_of(tmp_path, {"threshold": [0.1 * n * n for n in range(12)]})
    assert "mask's threshold" in inferred(table)[2]["threshold"]
    with pytest.raises(ConfigError, match="rename the column"):
        inferred(table, fields="threshold:continuous:V")


def test_fields_are_added_to_what_is_inferred_or_stand_alone(tmp_path):
    columns = {"grade": [n % 3 for n in range(12)], "site": list("ab") * 6}
    table = table_of(tmp_path, columns)
    assert inferred(table, fields="grade:continuous:steps")[0].names == ("grade",)
    schema, _, _ = inferred(table, fields="+grade:continuous:steps")
    assert [one.kind for one in schema.fields] == ["continuous", "categorical"]
    with pytest.raises(ConfigError, match="write one or the other"):
        inferred(table, fields="+grade,site")


def test_images_of_val_and_test_are_looked_at(tmp_path):
    table = table_of(tmp_path, {"age": range(3)})
    imsave(tmp_path / "1_m.png", np.zeros((8, 9), np.uint8), check_contrast=False)
    imsave(tmp_path / "2.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    rows = [
        {"image": str(tmp_path / f"{n}.png"), "label": str(tmp_path / f"{n}_m.png"), "case": str(n)}
        | {"split": ("train", "val", "test")[n]}
        for n in range(3)
    ]
    like = SimpleNamespace(classes=2, spatial_dims=2, channels=1)
    with warnings.catch_warnings(), pytest.raises(DataError, match=r"2 cases of val and test") as e:
        OwnTable(table).check_images(rows, like, "stored")
    assert "case '2': 3 channels, those of train have 1" in str(e.value)
