"""Which columns of a user's own table are metadata: inferred, asked, or left out with a reason."""

import csv

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.own_metadata import (
    infer_schema,
    mend_cells,
    names_alike,
    not_in_training,
)
from metaseg_monai.sharing.own_table import OwnTable
from tests.sharing.test_own_table import HALVES, table_of


def with_objects(count, number=0):
    mask = np.zeros((8, 8))
    for one in range(count):
        mask[2 * (one // 4), 2 * (one % 4)] = 1
    mask[7, : number % 3] = 1
    return mask


def inferred(table, fields=None, training=None, **settings):
    found = OwnTable(table, **settings)
    found.scan_labels()
    mend_cells(found, fields)
    rows = range(len(found.rows)) if training is None else training
    return infer_schema(found, fields, rows)


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


@pytest.mark.parametrize("scans", [20, 8])
def test_a_slice_thickness_is_not_taken_for_a_size_in_voxels(tmp_path, scans):
    rng, rows = np.random.default_rng(3), []
    for number in range(scans):
        thick = [1.5, 3.0, 5.0, 2.0][number % 4]
        label = np.zeros((12, 12, round(60 / thick)), np.uint8)
        label[2:10, 2 : 7 + int(rng.integers(0, 4)), label.shape[2] // 4 : -label.shape[2] // 4] = 1
        for name in ("ct", "mask"):
            file = tmp_path / f"{number}_{name}.nii.gz"
            nib.save(nib.Nifti1Image(label, np.diag([3, 3, thick, 1])), file)
        row = {name: f"{number}_{name}.nii.gz" for name in ("ct", "mask")}
        rows.append({**row, "slice_thickness_mm": thick, "tumour_px": int(label.sum())})
    found = OwnTable(write_table(rows, tmp_path / "t.csv"))
    found.scan_labels()
    schema, _, left_out = infer_schema(found, None, range(scans))
    assert schema.names[:1] == ("slice_thickness_mm",)
    assert "slice_thickness_mm" not in str(found.inferred.get("to look at"))
    assert "the label's size" in left_out["tumour_px"]


def test_what_a_person_has_one_of_is_told_where_rows_of_a_patient_differ(tmp_path):
    columns = {
        "patient": ["p1", "p1", "p2", "p2", "p3", "p3", *"abcdef"],
        "sex": ["F", "f", "F", "M", "", "M", *"FMFMFM"],
        "age": [30, 31, 44, 81, "", 60, *range(50, 56)],
        "scanner": [*"ABABABABABAB"],
    }
    found = OwnTable(table_of(tmp_path, columns))
    found.scan_labels()
    infer_schema(found, None, range(12))
    told, _ = found.inferred["differs within a group"]
    assert told == "sex F, M in rows 4, 5 of p2; age 44, 81 in rows 4, 5 of p2"


def test_the_number_of_channels_is_left_out(tmp_path):
    columns = {"channels": [1, 3] * 6, "channel_nm": [405, 488] * 6, "site": [*"aabb"] * 3}
    schema, _, left_out = inferred(table_of(tmp_path, columns))
    assert schema.names == ("channel_nm", "site")
    assert "which it shows by itself" in left_out["channels"]


@pytest.mark.parametrize("column", ["MRN", "PatID", "pat_id", "subj", "participant id"])
def test_columns_of_persons_are_the_group_by_their_names(tmp_path, column):
    found = OwnTable(table_of(tmp_path, {column: [4710 + n // 2 for n in range(12)]}))
    assert found.group == column


@pytest.mark.parametrize("column", ["slide_id", "accession", "section_no", "sample barcode"])
def test_columns_that_may_tell_individuals_are_asked_about_and_are_no_metadata(tmp_path, column):
    table = table_of(tmp_path, {column: [n // 3 for n in range(12)], "site": list("ab") * 6})
    with pytest.raises(ConfigError, match=f"--group '?{column}'? if so"):
        OwnTable(table)
    schema, _, left_out = inferred(table, group="none")
    assert "site" in schema.names
    assert ("tells individuals, by its name" in left_out.get(column, "")) == (column[-2:] != "no")


def test_kinds_of_animals_are_no_group_unasked(tmp_path):
    table = table_of(tmp_path, {"animal": ["rat", "pig"] * 9, "mouse": [n // 2 for n in range(18)]})
    assert OwnTable(table).group == "mouse"
    table = table_of(tmp_path, {"animal": ["rat", "pig"] * 9})
    with pytest.raises(ConfigError, match="--group animal if so"):
        OwnTable(table)


def test_counters_of_rows_and_columns_without_a_name_are_no_metadata(tmp_path):
    columns = {
        "": range(20),
        "Unnamed: 0": range(20),
        "count": range(5, 25),
        "age": range(30, 70, 2),
    }
    _, _, left_out = inferred(table_of(tmp_path, columns), training=range(0, 20, 3))
    assert "has no name" in left_out[""]
    assert "has no name" in left_out["Unnamed: 0"]
    assert "counts the rows, from 5 to 24" in left_out["count"]
    assert "age" not in left_out


def test_a_column_named_group_beside_patients_keeps_its_own_cells(tmp_path):
    columns = {"patient": [n // 2 for n in range(12)], "group": ["control", "treated"] * 6}
    table = table_of(tmp_path, {**columns, "plane": ["axial", "coronal"] * 6})
    for fields in (None, "+group"):
        schema, names_of, _ = inferred(table, fields)
        assert names_of == {"group_value": "group", "plane_value": "plane"}
        assert schema.field("group_value").values == ("control", "treated")


def test_places_and_gaps_that_are_the_labels_own_are_found(tmp_path):
    rng, masks, columns = np.random.default_rng(0), [], {"centre_x": [], "texture": [], "age": []}
    for number in range(24):
        mask, left = np.zeros((8, 40)), int(rng.integers(0, 30))
        if number % 4:
            mask[3:6, left : left + 4] = 1
        masks.append(mask)
        columns["centre_x"].append(left + 1.5 if number % 4 else "")
        columns["texture"].append(["solid", "cystic"][number % 3 % 2] if number % 4 else "")
        columns["age"].append(int(rng.integers(20, 90)))
    images = table_of(tmp_path, columns, masks)
    schema, _, left_out = inferred(images)
    assert schema.names == ("age",)
    assert "says nothing just where labels are empty" in left_out["texture"]
    columns["centre_x"] = [one or 15 for one in columns["centre_x"]]
    assert (
        "goes with where the label lies"
        in inferred(table_of(tmp_path, columns, masks))[2]["centre_x"]
    )


def test_what_stands_for_nothing_is_no_value(tmp_path):
    columns = {
        "age": [31, 44, -999, 52, 67, 78, 80, 35, 9999, 60, 47, 71],
        "site": ["A", "B", "?", "A", "Unknown", "#N/A", *"ABABAB"],
        "score": [1, 2, 9, 3, 1, 2, 9, 3, 1, 2, 3, 1],
    }
    found = OwnTable(table_of(tmp_path, columns))
    found.scan_labels()
    mend_cells(found, None)
    schema, _, _ = infer_schema(found, None, range(12))
    assert schema.field("age").range == (21, 90)
    assert schema.field("site").values == ("A", "B")
    assert "9" in schema.field("score").values
    assert found.inferred["nothing said in age"][0] == "row 4: '-999', row 10: '9999'"
    assert found.inferred["nothing said in site"][0].startswith("row 4: '?', row 6: 'Unknown'")
    kept, _, _ = inferred(found.file, "+site:categorical")
    assert {"?", "Unknown"} <= {*kept.field("site").values}


def test_thousands_in_a_table_of_decimal_commas_are_not_divided(tmp_path):
    columns = {"dose": ["1,5", "2,5"] * 6, "ms": ["1.250", "850", "2.000", "1.500"] * 3}
    table = table_of(tmp_path, {**columns, "b0": ["1.5", "3.0"] * 6})
    lines = csv.reader(table.read_text().splitlines())
    table.write_text("\n".join(";".join(line) for line in lines))
    schema, _, left_out = inferred(table)
    assert schema.names == ("dose", "b0")
    assert "thousands or decimals, such as '1.250'" in left_out["ms"]


def test_kinds_ranges_and_names_are_of_training_rows(tmp_path):
    columns = {"age": [*range(20, 40, 2), 95, 40], "scanner": [*"ABABABABAB", "Z", "A"]}
    found = OwnTable(table_of(tmp_path, columns))
    found.scan_labels()
    schema, names_of, _ = infer_schema(found, None, range(10))
    assert schema.field("age").range[1] < 50
    assert schema.field("scanner").values == ("A", "B")
    assert schema.field("age").description.startswith("20 to 38 seen in training rows")
    assert not_in_training(found, schema, names_of, range(10)) == {(10, "scanner"): "Z"}
    assert names_alike(found) == ["scanner"]


def test_ranges_tell_what_was_seen_and_keep_counts_whole_and_fractions_below_one(tmp_path):
    columns = {
        "age": [25, 27, 31, 36, 40, 44, 50, 55, 60, 66, 70, 73],
        "z_fraction": [0.05, 0.1, 0.2, 0.31, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.97],
        "n_slices": [11, 13, 14, 17, 20, 21, 22, 25, 27, 30, 31, 31],
        "signal_ratio": [0.2, 0.4, 0.9, 1.1, 1.7, 2.2, 2.4, 2.5, 2.6, 2.7, 2.8, 2.9],
    }
    schema, _, _ = inferred(table_of(tmp_path, columns))
    ranges = {one.name: one.range for one in schema.fields}
    assert ranges["age"] == (15, 83)
    assert ranges["z_fraction"] == (0, 1)
    assert all(end.is_integer() for end in ranges["n_slices"])
    assert ranges["signal_ratio"][1] > 3
    told = schema.field("age").description
    assert told == "25 to 73 seen in training rows, the rest is a margin for others"


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


def test_odd_cells_of_a_quantity_are_unknown_and_told_with_their_rows(tmp_path):
    ages = [20 + 3 * n for n in range(11)]
    thick = [3, 3, 6, 6, 3, 6, 3, "5-6", 6, 3, 6, 3]
    columns = {"age (years)": [*ages, "65+"], "slice_thickness_mm": thick, "dose": [*ages, 70]}
    found = OwnTable(table_of(tmp_path, columns))
    found.scan_labels()
    mend_cells(found, None)
    schema, names_of, left_out = infer_schema(found, None, range(12))
    assert [one.kind for one in schema.fields] == ["continuous"] * 3
    assert left_out == {}
    told, step = found.inferred["no number in age (years)"]
    assert told == "row 13: '65+'"
    assert "unknown in the copy of the table, as the other 11 of 12 cells are numbers" in step
    assert "--fields '+age (years):categorical'" in step
    assert found.inferred["no number in slice_thickness_mm"][0] == "row 9: '5-6'"
    assert [found.rows[11]["age (years)"], found.rows[7]["slice_thickness_mm"]] == ["unknown"] * 2
    assert not_in_training(found, schema, names_of, range(12)) == {}
    assert "65+" in found.file.read_text()
    assert inferred(found.file, fields="age (years):categorical")[0].names == ("age_years",)


def test_many_odd_cells_of_a_quantity_leave_it_out(tmp_path):
    ages = [20 + 3 * n for n in range(8)]
    table = table_of(
        tmp_path, {"age": [*ages, "65+", "70+", "75+", "old"], "stage_x": [*"12X"] * 4}
    )
    schema, _, left_out = inferred(table)
    assert schema.names == ("stage_x",)
    assert "8 of 12 cells are numbers, and row 10: '65+', row 11: '70+'" in left_out["age"]
    with pytest.raises(ConfigError, match=r"row 10: '65\+', .* is none; mend or empty"):
        inferred(table, fields="age")
    for empty in ("", " ", ","):
        with pytest.raises(ConfigError, match="--fields is empty"):
            inferred(table, fields=empty)
    with pytest.raises(ConfigError, match="--group is empty"):
        OwnTable(table, group="")


def test_outcomes_are_left_out_and_doubtful_names_are_told(tmp_path):
    late = ("treatment_response", "vital_status", "OS", "followup_months", "recist", "WHO")
    late += ("biopsy_result",)
    place = ("tumor_location", "laterality", "side")
    doubtful = ("diagnosis", "stage", "T_stage", "volume_ml", "radiologist")
    plain = ("residence", "stage_x", "reader_software", "scanner_os", "contrast_volume_ml")
    cells = np.random.default_rng(0).choice(["A", "B", "C"], (20, 12))
    names = (*late, *doubtful, *place, *plain)
    found = OwnTable(table_of(tmp_path, dict(zip(names, cells, strict=True))))
    found.scan_labels()
    schema, _, left_out = infer_schema(found, None, range(12))
    assert set(left_out) == set(late)
    assert schema.names == (*doubtful, *place, *plain)
    where = "(says where the label is; fine if known before)"
    assert all(f"{one} {where}" in found.inferred["to look at"][0] for one in place)
    assert found.inferred["to look at"][0].count(where) == len(place)
    provenance = {field.name: field.provenance for field in schema.fields}
    assert {name for name, one in provenance.items() if one == "clinical prior"} == {*place}
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


def test_of_few_rows_a_measure_of_the_label_is_found_all_the_same(tmp_path):
    sizes = [1, 2, 3, 5, 6, 8, 9, 11, 12]
    masks = [with_objects(n) for n in sizes]
    columns = {
        "tumor_px": sizes,
        "lesion_mm2": [0.64 * n for n in sizes],
        "burden": [0.6 * n + 0.02 * n * n for n in sizes],
        "age": [50, 41, 77, 62, 38, 55, 49, 70, 66],
    }
    found = OwnTable(table_of(tmp_path, columns, masks))
    found.scan_labels()
    schema, _, left_out = infer_schema(found, None, range(9))
    assert schema.names == ("burden", "age")
    assert "label's size times a constant in 9 rows" in left_out["tumor_px"]
    assert "times a constant" in left_out["lesion_mm2"]
    assert found.inferred["to look at"][0].startswith("burden (goes with the label's size, rank 1")
    assert found.inferred["not judged"][0] == "age"


def test_numbers_with_commas_that_become_names_are_told(tmp_path):
    found = OwnTable(table_of(tmp_path, {"dose": ["0,8", "1,6"] * 6}))  # quoted, in a comma file
    found.scan_labels()
    schema, _, _ = infer_schema(found, None, range(12))
    assert schema.field("dose").kind == "categorical"
    assert found.inferred["numbers with commas"][0] == "dose (0,8)"


def test_a_group_is_no_guess(tmp_path):
    slices = [n // 4 for n in range(12)]
    with pytest.raises(ConfigError, match=r"--group case_id if so, .* --group none"):
        OwnTable(table_of(tmp_path, {"case_id": slices}))
    table = table_of(tmp_path, {"group": ["control", "treated"] * 6, "patient": slices})
    schema, _, _ = inferred(table)
    assert schema.names == ("group_value",)
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


def test_writings_of_one_value_are_joined_in_the_copy_and_told(tmp_path):
    columns = {
        "sex": ["F", "M", "f", "female", "m", "F", "M", "F", "M", "F", "M", "N/A"],
        "scanner": ["SIEMENS", "Siemens ", "siemens", "Siemens", "GE", "GE"] * 2,
        "phases": ["3", "3.0", "6", "6.0", "3", "6"] * 2,
        "genotype": [*["AA", "Aa", "aa"] * 4],
        "field": ["1.5T", "3 T", "1.5 T", "3.0T", "15T", "3 T"] * 2,
        "site": list("ab") * 6,
    }
    found = OwnTable(table_of(tmp_path, columns))
    before = found.file.read_bytes()
    found.scan_labels()
    mend_cells(found, "+genotype:categorical")
    schema, _, _ = infer_schema(found, "+genotype:categorical", range(12))
    assert [one.values for one in schema.fields] == [
        ("F", "M", "female"), ("GE", "Siemens"), ("3", "6"), ("AA", "Aa", "aa"),
        ("1.5T", "15T", "3 T"), ("a", "b"),
    ]  # fmt: skip
    told = {name: value for name, (value, _) in found.inferred.items() if "joined" in name}
    assert told == {
        "joined in sex": "'f' (1) -> 'F'; 'm' (1) -> 'M'",
        "joined in scanner": "'SIEMENS' (2), 'Siemens ' (2), 'siemens' (2) -> 'Siemens'",
        "joined in phases": "'3.0' (2) -> '3'; '6.0' (2) -> '6'",
        "joined in field": "'1.5 T' (2) -> '1.5T'; '3.0T' (2) -> '3 T'",
    }
    assert "--fields +sex:categorical keeps them apart" in found.inferred["joined in sex"][1]
    assert [one["scanner"] for one in found.rows[:3]] == ["Siemens"] * 3
    assert found.rows[11]["sex"] == "N/A"
    assert found.file.read_bytes() == before


def test_names_that_look_like_one_are_told_with_the_edit(tmp_path):
    columns = {
        "sex": ["F", "M"] * 4 + ["female", "M", "F", "female"],
        "phase": ["non contrast", "non-contrast", "venous", "ven"] * 3,
        "kind": ["CT", "CTA", "I", "II"] * 3,
        "receptor": ["ER+", "ER-", "ER"] * 4,
    }
    found = OwnTable(table_of(tmp_path, columns))
    found.scan_labels()
    mend_cells(found, None)
    schema, _, _ = infer_schema(found, None, range(12))
    assert schema.field("sex").values == ("F", "M", "female")
    told, step = found.inferred["look like one value"]
    assert told == (
        "sex 'female' and 'F' (write 'F' in row 10, 13 of the file); "
        "phase 'non-contrast' and 'non contrast' (write 'non contrast' in row 3, 7, 11 of the "
        "file); phase 'venous' and 'ven' (write 'ven' in row 4, 8, 12 of the file)"
    )
    assert "each is a value of its own" in step


def of_size(pixels):
    return (np.arange(64) < pixels).reshape(8, 8)


@pytest.mark.parametrize("rows", [[2, 16, 12], [2, 2, 26], [10, 12, 2]])
def test_a_size_cut_into_kinds_is_found_where_one_has_two_rows(tmp_path, rows):
    masks = [of_size(1 + n) for n in range(sum(rows))]
    sizes = sorted(int(mask.sum()) for mask in masks)
    small, large = sizes[rows[0]], sizes[rows[0] + rows[1]]
    kinds = [
        "small" if mask.sum() < small else "medium" if mask.sum() < large else "large"
        for mask in masks
    ]
    table = table_of(tmp_path, {"kind": kinds, "site": list("abc") * (len(masks) // 3)}, masks)
    schema, _, left_out = inferred(table)
    assert schema.names == ("site",)
    assert "goes with the label's size, rank correlation" in left_out["kind"]


def test_kinds_that_divide_a_size_in_few_rows_are_told(tmp_path):
    masks = [of_size(1 + n) for n in range(12)]
    found = OwnTable(table_of(tmp_path, {"kind": [*"SSSSSMMMMMLL"]}, masks))
    found.scan_labels()
    assert infer_schema(found, None, range(12))[0].names == ("kind",)
    assert "kind (goes with the label's size" in found.inferred["to look at"][0]


def test_few_numbers_are_told_as_codes_with_what_else_they_may_be(tmp_path):
    columns = {"sex": [1, 2] * 6, "phase": [0, 1, 2] * 4, "age": range(20, 44, 2)}
    found = OwnTable(table_of(tmp_path, columns))
    found.scan_labels()
    schema, _, _ = infer_schema(found, None, range(12))
    assert [one.kind for one in schema.fields] == ["categorical", "categorical", "continuous"]
    told, step = found.inferred["codes"]
    assert told == "sex 1, 2; phase 0, 1, 2"
    assert "write them in the table" in step
    assert "--fields +COLUMN:continuous:UNIT" in step
    del found.inferred["codes"]
    infer_schema(found, "+sex:categorical,+phase:ordinal", range(12))
    assert "codes" not in found.inferred


def test_a_thickness_that_no_header_has_is_told_by_row(tmp_path):
    rows = []
    for number in range(12):
        label = np.ones((4, 4, 3), np.uint8)
        for name in ("ct", "mask"):
            file = tmp_path / f"{number}_{name}.nii.gz"
            nib.save(nib.Nifti1Image(label, np.diag([0.7, 0.7, 2 + number / 10, 1])), file)
        thick = {3: 5, 4: "", 7: 9}.get(number, round(2 + number / 10, 1))
        row = {name: f"{number}_{name}.nii.gz" for name in ("ct", "mask")}
        rows.append({**row, "slice_thickness_mm": thick})
    found = OwnTable(write_table(rows, tmp_path / "t.csv"))
    found.scan_labels()
    infer_schema(found, None, range(12))
    told, step = found.inferred["not as in headers"]
    assert told == (
        "slice_thickness_mm of 2 in 11 volumes (row 5: 5, header 0.7 x 0.7 x 2.3, "
        "row 9: 9, header 0.7 x 0.7 x 2.7)"
    )
    assert "mend the cells or the files" in step
