import json
import os
from contextlib import nullcontext

import pytest
import tifffile

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.tables import DataWarning, find_cases, read_table
from metaseg_monai.tables.find import Layout, image_paths
from tests.extras import needed

WHEN = {"provenance": "clinical prior", "availability": "pre-operative"}
SIZE = Continuous(name="tumour_size_mm", unit="mm", range=(5, 250), missing="unknown", **WHEN)
SCHEMA = MetadataSchema([SIZE])


def test_folder_with_table_without_labels_groups_and_splits(folder, task_schema, write_csv):
    path, rows = folder
    write_csv(path / "table.csv", [{key: row[key] for key in ("image", "task")} for row in rows])
    items = find_cases(path, task_schema)
    assert [item["metadata"]["task"] for item in items] == ["disc", "ring", "disc"]
    assert items[0] == {
        "image": str(path / "images/0.tif"),
        "case": "images_0",
        "group": "images_0",
        "metadata": {"task": "disc"},
        "columns": {"image": "images/0.tif", "task": "disc"},
    }
    assert find_cases(path / "table.csv", task_schema) == items


def test_labels_are_kept_only_where_all_rows_have_one(folder, task_schema, write_csv):
    path, rows = folder
    assert all("split" in item for item in find_cases(path, task_schema))
    assert not any("label" in item for item in find_cases(path, task_schema))
    rows[1]["label"] = ""
    write_csv(path / "table.csv", rows)
    assert not any("label" in item for item in find_cases(path, task_schema))


def test_given_metadata_take_the_place_of_the_table(folder, task_schema, write_csv):
    path, rows = folder
    with pytest.warns(MetadataWarning, match="task=ring is given for all rows, 2 of which say"):
        items = find_cases(path, task_schema, metadata={"task": "ring"})
    assert {item["metadata"]["task"] for item in items} == {"ring"}
    write_csv(path / "table.csv", [{"image": row["image"]} for row in rows])
    assert find_cases(path, task_schema, metadata={"task": "ring"})[2]["case"] == "images_2"
    with pytest.raises(DataError, match="no column 'task'"):
        find_cases(path, task_schema)


@pytest.mark.parametrize("door", ["table", "values", "file"])
def test_another_writing_of_a_value_is_that_value_and_told(
    folder, task_schema, write_csv, caplog, door
):
    path, rows = folder
    rows[0]["task"] = "DISC"
    (path / "images" / "2.tif").unlink()
    told = "field 'task': 'DISC' is read as 'disc' in {} case(s), from which it differs in letter"
    if door == "table":
        write_csv(path / "table.csv", rows[:2])
        items = find_cases(path, task_schema)
        assert told.format(1) in caplog.text
        assert [row["metadata"]["task"] for row in read_table(path, task_schema).rows] == [
            "disc", "ring"
        ]  # fmt: skip
    else:
        given = {"task": "DISC"}
        if door == "file":
            cells = [{"case_id": one, "task": task} for one, task in (("0", "DISC"), ("1", "ring"))]
            given = write_csv(path / "clinical.csv", cells)
        with pytest.warns(MetadataWarning) as heard:
            items = find_cases(path / "images", task_schema, metadata=given)
        assert told.format(1 if door == "file" else 2) in str(heard[0].message)
    expected = ["disc", "disc"] if door == "values" else ["disc", "ring"]
    assert [item["metadata"]["task"] for item in items] == expected


def test_columns_that_the_network_does_not_read_are_told(folder, task_schema, write_csv, caplog):
    path, rows = folder
    write_csv(path / "table.csv", [{**row, "kvp": "120", "age": "7"} for row in rows])
    find_cases(path, task_schema)
    assert caplog.messages == [
        f"{path / 'table.csv'}: the network is told nothing of column(s) 'kvp', 'age', which it "
        "was not trained with"
    ]
    caplog.clear()
    read_table(path, task_schema)
    assert caplog.messages == []


def test_an_application_sets_what_metadata_do_not_name(folder, task_schema):
    path, _ = folder
    settings = {"task": "ring", "threshold": 0.4}

    def tasks(**given):
        found = find_cases(path / "images", task_schema, default=settings, **given)
        return {item["metadata"]["task"] for item in found}

    assert tasks() == {"ring"}
    assert tasks(metadata={"task": "disc"}) == {"disc"}
    settings |= {"task": "unknown", "size": "unknown"}  # fields of a schema that is not used
    with pytest.raises(MetadataError, match="give the metadata of the images"):
        tasks()
    settings["size"] = 5
    with pytest.raises(ConfigError, match=r"names 'size'; expected fields of the schema \(task\)"):
        tasks()


def test_given_value_replaces_all_values_of_a_row(folder, task_schema, write_csv):
    path, rows = folder
    rows[0]["task"] = "disc;ring"
    write_csv(path / "table.csv", rows)
    assert len(find_cases(path, task_schema, {"rows_per": "task"})) == 4
    assert len(find_cases(path, task_schema, {"rows_per": "task"}, {"task": "ring"})) == 3


def test_problems_of_the_table_are_told(folder, task_schema, write_csv):
    path, rows = folder
    rows[0]["task"] = "dsic"
    write_csv(path / "table.csv", rows)
    with pytest.raises(DataError, match=r"row 2.*dsic"):
        find_cases(path, task_schema)


def test_folder_of_images_is_searched_in_order(folder, task_schema):
    path, _ = folder
    (path / "table.csv").unlink()
    (path / ".hidden").mkdir()
    tifffile.imwrite(path / ".hidden" / "x.tif", [[1, 2]])
    (path / "images" / "notes.txt").write_text("x")
    items = find_cases(path, task_schema, metadata={"task": "ring"})
    assert [item["case"] for item in items] == [
        f"{kind}_{number}" for kind in ("images", "labels") for number in range(3)
    ]
    assert all(item["metadata"] == {"task": "ring"} for item in items)
    items[0]["metadata"]["task"] = "changed"
    assert items[1]["metadata"]["task"] == "ring"


@pytest.mark.parametrize("metadata", [None, {"task": "dsic"}, {"task": "ring", "colour": "red"}])
def test_images_without_right_metadata_name_the_option(folder, task_schema, metadata):
    with pytest.raises(MetadataError, match="--meta task=VALUE"):
        find_cases(folder[0] / "images", task_schema, metadata=metadata)


def test_single_image(folder, task_schema):
    image = folder[0] / "images/1.tif"
    (item,) = find_cases(image, task_schema, metadata={"task": "ring"})
    assert item == {
        "image": str(image),
        "case": "1",
        "group": "1",
        "metadata": {"task": "ring"},
    }


def test_without_schema_no_metadata_are_asked_for(folder):
    assert [item["metadata"] for item in find_cases(folder[0] / "images", None)] == [{}] * 3


def test_nothing_to_find(tmp_path, task_schema):
    with pytest.raises(DataError, match="no such file or folder"):
        find_cases(tmp_path / "no", task_schema)
    with pytest.raises(DataError, match="neither the table"):
        find_cases(tmp_path, task_schema)


def test_labels_beside_images_are_told(folder, caplog):
    path, _ = folder
    (path / "table.csv").unlink()
    assert len(find_cases(path, None)) == 6
    assert "3 of 6 files lie in a folder of labels (labels/0.tif ...)" in caplog.text
    caplog.clear()
    find_cases(path / "images", None)
    assert not caplog.records


def test_dicom_folders_are_images_of_their_own(tmp_path):
    for name in ("in/p.1/s2.3", "in/q"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "IM0").write_bytes(b"\0" * 128 + b"DICM")
    items = find_cases(tmp_path / "in", None)
    assert [(item["case"], item["mask"]) for item in items] == [
        ("p.1_s2.3", "p.1/s2.3.nii.gz"),
        ("q", "q.nii.gz"),
    ]
    (one,) = find_cases(tmp_path / "in" / "q", None)
    assert (one["image"], one["case"], one["mask"]) == (str(tmp_path / "in/q"), "q", "q.nii.gz")


def test_linked_folders_are_searched_but_never_in_a_circle(tmp_path, save_volume):
    save_volume(tmp_path / "store" / "p" / "ct.nii")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").symlink_to(tmp_path / "store" / "p")
    (tmp_path / "store" / "p" / "back").symlink_to(tmp_path / "in")
    assert [item["case"] for item in find_cases(tmp_path / "in", None)] == ["b_ct"]


def dicom_series(folder, frames=1, files=1):
    pydicom = needed("pydicom", reason="needs the extra [dicom]")
    folder.mkdir(parents=True)
    for number in range(files):
        plane = pydicom.Dataset()
        plane.file_meta = pydicom.dataset.FileMetaDataset()
        plane.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        plane.file_meta.MediaStorageSOPClassUID = plane.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        plane.file_meta.MediaStorageSOPInstanceUID = plane.SOPInstanceUID = f"1.2.{number + 1}"
        plane.SeriesInstanceUID, plane.NumberOfFrames = "1.2.9", frames
        plane.save_as(folder / f"IM{number}.dcm", enforce_file_format=True)


def test_localisers_among_series_are_left_out_with_a_word(tmp_path):
    dicom_series(tmp_path / "in" / "1_scout")
    dicom_series(tmp_path / "in" / "2_abdomen", files=3)
    dicom_series(tmp_path / "in" / "3_frames", frames=30)
    with pytest.warns(DataWarning, match=r"1 DICOM series of one plane .*: '1_scout'$"):
        items = find_cases(tmp_path / "in", None)
    assert [item["case"] for item in items] == ["2_abdomen", "3_frames"]
    (one,) = find_cases(tmp_path / "in" / "1_scout", None)  # named itself, its reader refuses it
    assert one["case"] == "1_scout"
    dicom_series(tmp_path / "only" / "scout")
    with pytest.raises(DataError, match="'scout' have one plane"):
        find_cases(tmp_path / "only", None)


def test_the_row_of_the_case_goes_before_that_of_its_group(tmp_path, write_csv, save_volume):
    for name in ("a", "b"):
        save_volume(tmp_path / f"{name}.nii.gz")
    rows = [{"image": f"{name}.nii.gz", "name": name, "group": "patient"} for name in ("a", "b")]
    write_csv(tmp_path / "table.csv", rows)
    given = [{"case_id": "patient", "tumour_size_mm": "20"}, {"case_id": "a", SIZE.name: "30"}]
    file = write_csv(tmp_path / "sizes.csv", given)
    items = find_cases(tmp_path, SCHEMA, {"case": "name"}, file)
    assert [item["metadata"] for item in items] == [{SIZE.name: "30"}, {SIZE.name: "20"}]


@pytest.mark.parametrize(
    ("one", "other", "case"),
    [
        ("s1.nii", "s1.nii.gz", "s1"),
        ("a/s1.nii.gz", "a_s1.nii.gz", "a_s1"),
    ],
)
def test_images_that_would_be_one_case_are_told_by_path(tmp_path, save_volume, one, other, case):
    for name in (one, other):
        save_volume(tmp_path / name)
    with pytest.raises(DataError) as caught:
        find_cases(tmp_path, None)
    assert f"{other}: the case '{case}' is also {one}; rename one" in str(caught.value)
    assert "row" not in str(caught.value)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch, save_volume):
    for name in ("a", "b"):
        save_volume(tmp_path / name / "ct.nii.gz")
    scandir = os.scandir

    def forbid_b(path):
        if str(path) == str(tmp_path / "b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid_b)
    with pytest.raises(DataError, match=r"/b: Permission denied; check its perm"):
        find_cases(tmp_path, None)


def test_a_table_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("image\na.nii\n")

    def forbidden(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", forbidden)
    for reading in (find_cases, read_table):
        with pytest.raises(DataError, match=r"table\.csv: Permission denied; check"):
            reading(path, None)


def test_a_clinical_csv_is_matched_by_case(tmp_path, write_csv, save_volume):
    for name in ("b/p1.nii.gz", "p2.nii"):
        save_volume(tmp_path / "in" / name)
    rows = [{"case_id": "p2", "tumour_size_mm": "30"}, {"case_id": "b_p1", "tumour_size_mm": "20"}]
    path = write_csv(tmp_path / "clinical.csv", rows)
    items = find_cases(tmp_path / "in", SCHEMA, metadata=path)
    assert [(item["case"], item["mask"], item["metadata"]) for item in items] == [
        ("b_p1", "b/p1.nii.gz", {"tumour_size_mm": "20"}),
        ("p2", "p2.nii", {"tumour_size_mm": "30"}),
    ]


def test_a_table_of_volumes_with_its_own_or_a_files_metadata(tmp_path, write_csv, save_volume):
    save_volume(tmp_path / "in" / "v" / "a.nii.gz")
    save_volume(tmp_path / "in" / "b.nii.gz")
    rows = [
        {"image": "v/a.nii.gz", "name": "first", "tumour_size_mm": "40"},
        {"image": "b.nii.gz", "name": "second", "tumour_size_mm": "unknown"},
        {"image": "b.nii.gz", "name": "third", "tumour_size_mm": "60"},
    ]
    write_csv(tmp_path / "in" / "table.csv", rows)
    items = find_cases(tmp_path / "in", SCHEMA, {"case": "name"})
    assert [item["metadata"]["tumour_size_mm"] for item in items] == ["40", "unknown", "60"]
    assert [item["mask"] for item in items] == ["v/a.nii.gz", "second.nii.gz", "third.nii.gz"]
    write_csv(
        tmp_path / "in" / "table.csv", [{k: row[k] for k in row if k[0] != "t"} for row in rows[:2]]
    )
    sizes = [{"case_id": name, "tumour_size_mm": "77"} for name in ("first", "second")]
    file = write_csv(tmp_path / "sizes.csv", sizes)
    items = find_cases(tmp_path / "in", SCHEMA, {"case": "name"}, file)
    assert [item["metadata"] for item in items] == [{"tumour_size_mm": "77"}] * 2


@pytest.mark.parametrize("metadata", [None, {}, {"tumour_size_mm": ""}])
def test_a_value_that_no_one_gave_is_not_silently_unknown(tmp_path, metadata, save_volume):
    save_volume(tmp_path / "in" / "a.nii.gz")
    with pytest.warns(MetadataWarning, match=r"no tumour_size_mm .* unknown for all 1 image"):
        find_cases(tmp_path / "in", SCHEMA, metadata=metadata)


@pytest.mark.parametrize("given", [{"tumour_size_mm": "41"}, "kits.json"])
def test_metadata_are_refused_where_the_variant_takes_none(folder, given):
    with pytest.raises(ConfigError, match="variant takes no metadata"):
        find_cases(folder[0], None, metadata=given)


def test_a_file_without_the_field_or_the_cases_says_what_it_has(tmp_path, write_csv, save_volume):
    save_volume(tmp_path / "in" / "a.nii")
    path = write_csv(tmp_path / "c.csv", [{"case_id": "A", "age": "61"}])
    with pytest.raises(MetadataError, match=r"no column 'tumour_size_mm'; it has 'age'"):
        find_cases(tmp_path / "in", SCHEMA, metadata=str(path))
    write_csv(path, [{"case_id": "A", "tumour_size_mm": "41"}])
    with pytest.raises(MetadataError, match=r"no row for any of 1 case\(s\) \('a'\).*for 'A'"):
        find_cases(tmp_path / "in", SCHEMA, metadata=path)


def test_a_layout_is_asked_for_images_and_labels(folder):
    class Odd(Layout):
        def find(self, source, problems):
            return {path: path.stem * 2 for path in sorted(source.glob("images/[12].tif"))}

        def is_label(self, path):
            return path.parent.name == "labels"

    path, _ = folder
    (path / "table.csv").unlink()
    assert [item["case"] for item in find_cases(path, layout=Odd())] == ["11", "22"]
    (path / "images").rename(path / "others")
    found = find_cases(path, layout=Odd())
    assert [item["case"] for item in found] == [f"others_{number}" for number in range(3)]


@pytest.mark.parametrize("name", ["meta.csv", "meta.json"])
def test_rows_are_found_however_their_accents_are_stored(tmp_path, name):
    for stem in ("Zu\u0308rich #1", "e\u0301+[2]"):
        tifffile.imwrite(tmp_path / f"{stem}.tif", [[1, 2]])
    given = {"Z\u00fcrich #1": "12", "\u00e9+[2]": " n/A "}
    text = "case_id,tumour_size_mm\n" + "".join(f'"{c}",{s}\n' for c, s in given.items())
    if name.endswith("json"):
        text = json.dumps([{"case_id": c, "tumour_size_mm": s} for c, s in given.items()])
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.warns(
        MetadataWarning, match="no tumour_size_mm for '\u00e9\\+\\[2\\]'; taken as unk"
    ):
        items = find_cases(tmp_path, SCHEMA, metadata=tmp_path / name)
    assert [item["case"] for item in items] == list(given)
    assert items[0]["metadata"] == {"tumour_size_mm": "12"}


@pytest.mark.parametrize("word", ["", "NaN", " na", "N/A", "n/a", "NULL", "None", "-", "."])
@pytest.mark.parametrize("form", ["table", "csv", "json", "flag"])
def test_one_list_of_words_is_missing_in_every_form(tmp_path, word, form):
    tifffile.imwrite(tmp_path / "a.tif", [[1, 2]])
    metadata = {"tumour_size_mm": word} if form == "flag" else tmp_path / f"m.{form}"
    source = tmp_path
    if form == "table":
        source, metadata = tmp_path / "t.csv", None
        source.write_text(f"image,tumour_size_mm\na.tif,{word}\n,\n")
    elif form == "csv":
        metadata.write_text(f"case_id,tumour_size_mm\na,{word}\n,\n")
    elif form == "json":
        metadata.write_text(json.dumps([{"case_id": "a", "tumour_size_mm": word}]))
    with nullcontext() if form == "table" else pytest.warns(MetadataWarning, match="as unknown"):
        (item,) = find_cases(source, SCHEMA, metadata=metadata)
    assert SIZE.is_missing(item["metadata"]["tumour_size_mm"])


def test_a_declared_word_says_something_in_a_file_too(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", [[1, 2]])
    (tmp_path / "m.csv").write_text("case_id,grade\na,none\n")
    grade = Categorical(name="grade", values=("none", "high"), **WHEN)
    (item,) = find_cases(tmp_path, MetadataSchema([grade]), metadata=tmp_path / "m.csv")
    assert item["metadata"] == {"grade": "none"}


def test_a_folder_that_is_named_as_an_image_is_told(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", [[1, 2]])
    (tmp_path / "b.nii.gz").mkdir()
    (tmp_path / "c.tif").mkdir()
    tifffile.imwrite(tmp_path / "c.tif" / "c.tif", [[1, 2]])  # as some archives are unpacked
    problems = []
    assert [path.name for path in image_paths(tmp_path, problems)] == ["a.tif", "c.tif"]
    assert [(one.case, one.problem) for one in problems] == [
        ("b.nii.gz", "is a folder without images, named as an image")
    ]


def test_links_to_nothing_and_what_is_no_file_are_told_and_never_opened(tmp_path):
    for name, target in {"gone.png": "nowhere.png", "loop.nii.gz": "loop.nii.gz"}.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "nowhere.txt")
    for name in ("slide.svs", "a.gif", "two\nlines.nii"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"left out: gone\.png: .*leads to no file"):
        find_cases(tmp_path, problems=[])
    tifffile.imwrite(tmp_path / "a.tif", [[1, 2]])
    problems = []
    assert [item["case"] for item in find_cases(tmp_path, problems=problems)] == ["a"]
    assert [(one.case, one.problem) for one in problems] == [
        ("gone.png", "is a link that leads to no file"),
        ("loop.nii.gz", "is a link that leads to no file"),
        ("pipe.tif", "is no regular file (but a FIFO or device)"),
        ("two\nlines.nii", "has a line break in its name"),
        ("slide.svs", "unsupported file type"),
    ]
    assert "\n" not in "".join(map(str, problems))


@pytest.mark.parametrize(
    ("one", "other"), [("e\u0301.nii", "\u00e9.nii"), ("s.nii", "s.nii.gz"), ("a/s.nii", "a_s.nii")]
)
def test_images_of_one_name_are_left_out_of_a_batch(tmp_path, save_volume, one, other):
    for name in (one, other, "right.nii"):
        save_volume(tmp_path / name)
    problems = []
    assert [item["case"] for item in find_cases(tmp_path, problems=problems)] == ["right"]
    assert {problem.file for problem in problems} == {one, other}
    assert len({problem.problem for problem in problems}) == 2  # also where both look alike


KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
THREE = MetadataSchema(
    [
        Categorical(name="task", values=("disc", "ring"), **KNOWN),
        Continuous(name="slice_mm", unit="mm", range=(1, 5), missing="unknown", **KNOWN),
        Categorical(name="scanner", values=("GE", "Philips"), missing="unknown", **KNOWN),
    ]
)


def without(rows, *names, **more):
    return [{key: row[key] for key in row if key not in names} | more for row in rows]


def test_a_field_that_may_be_unknown_needs_no_column(folder, write_csv):
    path, rows = folder
    write_csv(path / "table.csv", without(rows, "label", sex="F"))
    with pytest.warns(MetadataWarning) as heard:
        items = find_cases(path, THREE, unknown_trained=True)
    assert len(heard) == 1
    told = str(heard[0].message)
    assert "no column 'slice_mm', 'scanner'; taken as unknown for every case" in told
    assert told.endswith("--meta slice_mm=unknown,scanner=unknown")
    assert [item["metadata"] for item in items] == [
        {"task": task, "slice_mm": "", "scanner": ""} for task in ("disc", "ring", "disc")
    ]
    given = {"slice_mm": "3", "scanner": "unknown"}
    assert find_cases(path, THREE, metadata=given, unknown_trained=True)[0]["metadata"] == {
        "task": "disc", **given
    }  # fmt: skip


@pytest.mark.parametrize("unknown_trained", [False, True])
def test_an_applications_default_stands_where_there_is_no_column(
    folder, write_csv, unknown_trained, recwarn
):
    path, rows = folder
    write_csv(path / "table.csv", without(rows, "label", slice_mm="2"))
    default = {"scanner": "GE", "slice_mm": "4", "threshold": 0.5}
    items = find_cases(path, THREE, default=default, unknown_trained=unknown_trained)
    assert {(one["metadata"]["scanner"], one["metadata"]["slice_mm"]) for one in items} == {
        ("GE", "2")
    }
    assert not recwarn.list
    rows_of = [{"case_id": one["case"], "task": "disc", "slice_mm": "2"} for one in items]
    write_csv(path / "more.csv", rows_of)
    found = find_cases(
        *(path, THREE),
        metadata=str(path / "more.csv"),
        default=default,
        unknown_trained=unknown_trained,
    )
    assert {tuple(one["metadata"].items()) for one in found} == {
        (("task", "disc"), ("slice_mm", "2"), ("scanner", "GE"))
    }
    given = find_cases(
        path, THREE, metadata={"scanner": "Philips"}, default=default, unknown_trained=True
    )
    assert given[0]["metadata"]["scanner"] == "Philips"


@pytest.mark.parametrize(
    ("left_out", "more", "told"),
    [
        (
            (),
            {"Slice MM": "3"},
            "no column 'slice_mm'; .*mean 'Slice MM'?.*--meta slice_mm=unknown$",
        ),
        (
            (),
            {"slice_mm": "3", "scaner": "GE"},
            "no column 'scanner'; .*mean 'scaner'?.*--meta scanner=unknown$",
        ),
        (
            ("task",),
            {},
            "no column 'task'; .*in a column map; or give it for all images: --meta task=VALUE$",
        ),
    ],
)
def test_a_slip_in_a_columns_name_is_no_missing_column(folder, write_csv, left_out, more, told):
    path, rows = folder
    write_csv(path / "table.csv", without(rows, *left_out, **more))
    with pytest.raises(DataError, match=told):
        find_cases(path, THREE, unknown_trained=True)


def test_a_network_that_never_saw_unknown_needs_every_column(folder, write_csv):
    path, _ = folder
    with pytest.raises(DataError, match=r"no column 'slice_mm', 'scanner'.*scanner=VALUE$"):
        find_cases(path, THREE)
    with pytest.raises(DataError, match=r"no column 'slice_mm', 'scanner'.*in a column map$"):
        read_table(path, THREE)


def test_a_file_of_metadata_may_lack_a_field_too(folder, write_csv):
    path, _ = folder
    named = [{"case_id": f"{number}", "task": "ring", "slice_mm": "3"} for number in range(3)]
    file = write_csv(path / "clinical.csv", named)
    with pytest.warns(MetadataWarning, match="no scanner for '0', '1', '2'; taken as unknown"):
        items = find_cases(path / "images", THREE, metadata=file, unknown_trained=True)
    assert items[0]["metadata"] == {"task": "ring", "slice_mm": "3"}
    write_csv(file, without(named, SCANNER="GE"))
    with pytest.raises(MetadataError, match=r"no column 'scanner'; .* did you mean 'SCANNER'\?"):
        find_cases(path / "images", THREE, metadata=file, unknown_trained=True)
    write_csv(file, [{"case_id": "0", "age": "61"}])
    with pytest.raises(MetadataError, match="no column 'tumour_size_mm'; it has 'age'"):
        find_cases(path / "images/0.tif", SCHEMA, metadata=file, unknown_trained=True)
