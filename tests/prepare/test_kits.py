"""A KiTS folder from volumes to slices: resumed, alone, and with the tables that belong to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Continuous, MetadataSchema, MetadataWarning
from metaseg_monai.owners import owned
from metaseg_monai.prepare import kits, kits_case, kits_volumes, prepare_kits21
from metaseg_monai.prepare.kits_source import find_clinical, find_kits
from metaseg_monai.tables.table import read_table

FILES = ("imaging.nii.gz", "aggregated_MAJ_seg.nii.gz")
SIZE = {"unit": "mm", "provenance": "clinical prior", "availability": "pre-operative"}
CONTRACT = [
    "image", "label", "tumour_size_mm", "group", "split", "volume", "plane", "planes",
    "position_mm", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "kidney_mm2", "tumour_mm2",
    "cyst_mm2", "image_sha256", "label_sha256", "radiographic_size", "gender",
]  # fmt: skip
COMMAND = """
import sys
from metaseg_monai.prepare.kits import prepare_kits21
if __name__ == "__main__":
    print(prepare_kits21(sys.argv[1], sys.argv[2], workers=int(sys.argv[3])).summary)
"""


def schema(name="tumour_size_mm"):
    return MetadataSchema([Continuous(name=name, range=(5, 250), missing="unknown", **SIZE)])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def source(scans, tmp_path):
    """Two sound cases with sizes of 20 and 30 mm."""
    return scans.folder(tmp_path / "source", 2)


@pytest.fixture
def lists(tmp_path):
    def write(text):
        (tmp_path / "lists.json").write_text(text)
        return tmp_path / "lists.json"

    return write


def test_a_folder_that_training_can_read(scans, tmp_path, out):
    source = scans.folder(
        tmp_path / "source", 4, case_2={"radiographic_size": None, "split": "a", "image": "b"}
    )
    scans.case(source, 1, codes=("R", "A", "S"))
    made = prepare_kits21(source, out, spacing="native")
    assert (made.table, made.problems) == (out / "table.csv", [])
    rows = scans.rows(made.table)
    assert [(row["group"], row["plane"]) for row in rows] == [
        (f"case_{n:05d}", plane) for n in range(4) for plane in "234"
    ]
    sizes = {row["group"]: row["tumour_size_mm"] for row in rows}
    assert list(sizes.values()) == ["20", "30", "", "50"]
    assert rows[0]["gender"] == "male"
    assert list(rows[0]) == [*CONTRACT, "clinical_split", "clinical_image"]
    table = read_table(made.table, schema())
    assert len(table.rows) == 12
    assert set(table.splits) == {"train", "val", "test"}
    first, second = scans.rows(out / "cases.csv")[:2]
    assert (first["shape"], first["orientation"]) == ("6x20x24", "IPL")
    assert (second["shape"], second["orientation"]) == ("24x20x6", "RAS")
    expected = {"planes": 6, "slices": 3, "planes_kidney": 2, "planes_tumour": 2}
    expected |= {"planes_cyst": 2, "planes_tumour_and_cyst": 1, "planes_mass": 3}
    expected |= {"planes_kidney_or_mass": 4, "tumour_mm3": 1125, "tumour_components": 1}
    for row in (first, second):  # 200 voxels of 5.625 mm3
        assert {name: int(row[name]) for name in expected} == expected
        assert len(row["image_sha256"]) == 64


@pytest.mark.parametrize(("rule", "planes"), [("mass", 3), ("kidney", 4), ("all", 6)])
def test_rules(scans, source, out, rule, planes):
    made = prepare_kits21(source, out, rule)
    assert len(scans.rows(made.table)) == 2 * planes
    assert f"{2 * planes} slices written (rule {rule})" in made.summary
    assert "planes by rule: mass 6, kidney 8, all 12" in made.summary
    assert json.loads((out / "prepared.json").read_text())["slice_rule"] == rule


@pytest.mark.parametrize(
    ("sizes_cm", "meaning"),
    [
        ((2, 3, 4, 5), "the size is partly derived from what the label shows"),
        ((5, 4, 3, 2), "size and label disagree: check the units and the case_id of the clinical"),
    ],
)
def test_summary_counts_and_compares_the_size_with_the_label(
    scans, tmp_path, out, sizes_cm, meaning
):
    for number in range(4):
        label = scans.label()
        label[2, 4 : 5 + 4 * number, 20:22] = 2
        scans.case(tmp_path, number, label=label)
    changed = {f"case_{n}": {"radiographic_size": size} for n, size in enumerate(sizes_cm)}
    scans.clinical(tmp_path, 4, **changed)
    summary = prepare_kits21(tmp_path, out).summary
    for told in (
        "4 cases prepared, 0 with problems",
        "planes with tumour 8, with cyst 8, with both 4, with kidney 8",
        "splits: train 2 patients with 6 slices",
        "2 cases have several tumours; the size is that of the largest one",
        "diameter of the label (4 cases): Spearman ",
        meaning,
        "the radiographic size, known before surgery; missing in 0 cases",
    ):
        assert told in summary
    assert "case_00003" not in summary


def test_labels_only(scans, source, tmp_path, out):
    for case in source.glob("case_*"):
        (case / "imaging.nii.gz").unlink()
    problems = prepare_kits21(source, tmp_path / "none").problems
    assert len(problems) == 2
    assert "case_00000/imaging.nii.gz: no such file" in problems[0]
    scans.save(source / "case_00001" / FILES[1], scans.label()[::-1])
    made = prepare_kits21(source, out, labels_only=True)
    assert made.table == out / "slices.csv"
    assert not (out / "table.csv").exists()
    assert not (out / "images").exists()
    columns = list(scans.rows(made.table)[0])
    assert columns == [name for name in CONTRACT if not name.startswith("image")]


def test_suspicious_but_allowed_images_are_remarked(scans, tmp_path, out):
    twice = scans.image()
    twice[5] = twice[1]
    scans.case(tmp_path, 0, image=twice)
    tall = [np.concatenate([array] * 11) for array in (scans.image(1), scans.label())]
    scans.case(tmp_path, 1, *tall, spacing=(20.0, 1.0, 1.0))
    scans.case(tmp_path, 2, image=np.full(scans.shape, 7, np.int16))
    scans.case(tmp_path, 3, image=np.abs(scans.image(3)))
    scans.case(tmp_path, 4, image=scans.image(4) + np.float32(0.5))
    scans.case(tmp_path, 5)
    prepare_kits21(tmp_path, out)
    remarks = [row["remarks"] for row in scans.rows(out / "cases.csv")]
    assert "planes 1 and 5 are equal to the bit: several contrast phases" in remarks[0]
    assert "66 planes over 1320 mm: several contrast phases" in remarks[1]
    assert "every voxel is 7" in remarks[2]
    assert "none below 0" in remarks[3]
    assert "no whole numbers" in remarks[4]
    assert remarks[5] == ""


# Given again, killed, or given twice at once.


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_run_keeps_what_is_done(scans, source, tmp_path, out, workers):
    prepare_kits21(source, out, workers=workers)
    before = scans.content(out)
    times = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    prepare_kits21(source, out, workers=workers)
    assert scans.content(out) == before
    assert times == {path: path.stat().st_mtime_ns for path in times}
    prepare_kits21(source, tmp_path / "other", workers=3 - workers)
    assert scans.content(tmp_path / "other") == before


def test_lost_or_damaged_slices_are_made_anew(scans, source, out):
    prepare_kits21(source, out)
    before = scans.content(out)
    (out / "images" / "case_00000_0003.tif").unlink()
    (out / "labels" / "case_00001_0003.tif").write_bytes(b"")
    (out / "images" / ".part-case_00001_0003.tif").write_bytes(b"half")
    (out / "images" / "case_00009_0003.tif").write_bytes(b"of no case")
    (out / ".cases" / ".part-0-case_00002.json").write_bytes(b"half")
    (out / ".part-0-prepared.json").write_bytes(b"half")
    prepare_kits21(source, out)
    assert scans.content(out) == before


def test_slices_of_a_case_whose_name_begins_alike_are_its_own(scans, tmp_path, out):
    source = scans.folder(tmp_path / "source", 4)
    entries = json.loads((source / "kits.json").read_text())
    for number, name in ((0, "case_00001_01"), (2, "case_00001_0002")):
        (source / f"case_{number:05d}").rename(source / name)
        entries[number]["case_id"] = name
    (source / "kits.json").write_text(json.dumps(entries))
    assert prepare_kits21(source, out).problems == []
    before = scans.content(out)
    (out / "images" / "case_00001_0003.tif").unlink()  # its case is made anew
    prepare_kits21(source, out)
    assert scans.content(out) == before
    shutil.copy(source / "case_00003" / FILES[0], source / "case_00001")  # copies of each other
    assert len(prepare_kits21(source, out).problems) == 2
    (source / "case_00001" / FILES[0]).write_bytes(b"")  # or damaged
    assert len(prepare_kits21(source, out).problems) == 1
    left = {path for path in scans.content(out) if path.startswith(("images", ".cases"))}
    names = ("case_00001_01", "case_00001_0002", "case_00003")
    slices = {f"images/{name}_000{plane}.tif" for name in names for plane in (2, 3, 4)}
    assert left == slices | {f".cases/{name}.json" for name in names}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"image"', '"images"', 1),
        lambda text: text.replace("images/case_00001_0003.tif", "images/case_00001_0002.tif"),
        lambda text: text.replace('"6x20x24"', "[" * 5000 + "]" * 5000, 1),
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_damaged_record_is_made_anew(scans, source, out, damage):
    prepare_kits21(source, out)
    before = scans.content(out)
    record = out / ".cases" / "case_00001.json"
    text = record.read_text()
    record.write_text(damage(text))
    assert record.read_text() != text
    assert prepare_kits21(source, out).problems == []
    assert scans.content(out) == before


def test_the_tables_are_gone_before_the_first_new_slice(source, out, monkeypatch):
    prepare_kits21(source, out)
    (out / "images" / "case_00001_0003.tif").unlink()
    write, seen = kits.write_slices, []

    def watched(*args):
        seen.extend(path.name for path in out.glob("*.csv"))
        return write(*args)

    monkeypatch.setattr(kits, "write_slices", watched)
    prepare_kits21(source, out)
    assert seen == []
    assert {path.name for path in out.glob("*.csv")} == {"table.csv", "cases.csv"}


@pytest.mark.parametrize(("workers", "after"), [(1, "images/case_00003_0002.tif"), (2, ".cases")])
def test_killed_and_resumed_equals_undisturbed(scans, tmp_path, out, workers, after):
    source, whole = scans.folder(tmp_path / "source", 8), tmp_path / "whole"
    prepare_kits21(source, whole)
    script = tmp_path / "run.py"
    script.write_text(COMMAND)
    command = [sys.executable, str(script), str(source), str(out), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / after).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # workers end with their parent
    assert not (out / "table.csv").exists()
    for record in (out / ".cases").glob("case_*.json"):
        for row in json.loads(record.read_text())["slices"]:
            assert (out / row["image"]).read_bytes() == (whole / row["image"]).read_bytes()
    prepare_kits21(source, out, workers=workers)
    assert scans.content(out) == scans.content(whole)


class Deadly:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return (signal.raise_signal, (signal.SIGKILL,))


def test_a_killed_worker_is_told_and_the_rest_resumed(scans, source, tmp_path, out, monkeypatch):
    prepare_kits21(source, tmp_path / "whole")
    each = kits.each_case
    deadly = lambda write, cases, n: each(write, [*cases, Deadly()], n)  # noqa: E731
    monkeypatch.setattr(kits, "each_case", deadly)
    with pytest.raises(DataError, match=r"a worker was killed.*finished cases are kept"):
        prepare_kits21(source, out, workers=2)
    monkeypatch.undo()
    assert not (out / "table.csv").exists()
    prepare_kits21(source, out, workers=2)
    assert scans.content(out) == scans.content(tmp_path / "whole")


def test_a_second_owner_is_refused_at_once(scans, source, out):
    with owned(out, "has it"), ThreadPoolExecutor(1) as pool:
        late = pool.submit(prepare_kits21, source, out).exception()
    assert "out: another thread of process" in str(late)
    assert not out.exists()
    assert prepare_kits21(source, out).problems == []


def test_a_folder_that_another_process_took_meanwhile_is_kept(scans, source, out, monkeypatch):
    lock = kits.owned

    def late(*args):  # the other one has begun and ended between the first look and the lock
        monkeypatch.undo()
        prepare_kits21(source, out, slice_rule="all")
        return lock(*args)

    monkeypatch.setattr(kits, "owned", late)
    with pytest.raises(DataError, match="was made with slice_rule='all', asked for slice_rule='ma"):
        prepare_kits21(source, out)
    assert len(list((out / "images").iterdir())) == 2 * len(scans.image())


def test_a_failed_preparation_frees_its_folder(source, out, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kits, "write_slices", full)
    with pytest.raises(DataError, match=r"No space left .*; free some room"):
        prepare_kits21(source, out)
    monkeypatch.undo()
    assert prepare_kits21(source, out).problems == []


# What is refused before anything is written.


def test_other_settings_are_refused(scans, source, out):
    prepare_kits21(source, out, labels_only=True)
    before = scans.content(out)
    told = r"was made with slice_rule='mass', labels_only=True, asked for slice_rule='all', labels_"
    with pytest.raises(DataError, match=told):
        prepare_kits21(source, out, slice_rule="all")
    assert scans.content(out) == before
    recorded = {"source", "slice_rule", "spacing", "label_name", "labels_only", "size", "splits"}
    recorded |= {"shares", "seed", "clinical"}
    assert set(json.loads((out / "prepared.json").read_text())) == recorded


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slice_rule": "tumour"}, "slice_rule='tumour': expected one of mass, kidney, all"),
        ({"workers": 0}, "workers=0"),
        ({"spacing": "0,78"}, "spacing='0,78': expected mm"),
        ({"spacing": 0}, "spacing=0"),
        ({"size": "clinical"}, "size='clinical'"),
        ({"train": 0.9}, "sum to 1"),
        ({"clinical": "missing.json"}, "missing.json"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(source, out, values, message):
    with pytest.raises(DataError, match=message):
        prepare_kits21(source, out, **values)
    assert not out.exists()


def test_a_folder_of_other_files_is_refused(source, tmp_path):
    with pytest.raises(DataError, match=r"holds case_00000, case_00001, kits\.json; give a new"):
        prepare_kits21(source, source)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="a file, expected a new or empty folder"):
        prepare_kits21(source, tmp_path / "file")


def test_slices_of_another_source_are_not_removed(scans, tmp_path, out):
    prepare_kits21(scans.folder(tmp_path / "source", 3), out)
    before = scans.content(out)
    scans.case(tmp_path / "other", 1)
    with pytest.raises(DataError, match=r"holds 2 cases that .*other has not: case_00000, case_0"):
        prepare_kits21(tmp_path / "other", out)
    assert scans.content(out) == before
    for case in ("case_00000", "case_00002"):  # the step that the message names
        (out / ".cases" / f"{case}.json").unlink()
    made = prepare_kits21(tmp_path / "other", out)
    assert {row["group"] for row in scans.rows(made.table)} == {"case_00001"}


# Lists and clinical tables.


def test_official_lists_decide_and_leave_out(scans, tmp_path, out, lists):
    source = scans.folder(tmp_path / "source", 3)
    with pytest.raises(DataError, match=r"lists\.json: names no case of the source.*case_00070"):
        prepare_kits21(source, out, splits=lists('{"train": [70, 71], "test": [72]}'))
    assert not out.exists()
    made = prepare_kits21(source, out, splits=lists('{"train": [2, 71], "test": [0]}'))
    splits = {row["case"]: row["split"] for row in scans.rows(out / "cases.csv")}
    assert splits == {"case_00000": "test", "case_00002": "train"}
    assert "left out, as no list names them: case_00001" in made.summary
    assert "1 cases of the lists are not in the source: case_00071; get them" in made.summary


def test_an_empty_split_is_told_and_no_case_moves(scans, tmp_path, out, lists):
    source = scans.folder(tmp_path / "source", 4)
    splits = lists('{"train": [0, 1], "val": [2], "test": [3]}')
    assert "is empty" not in prepare_kits21(source, tmp_path / "whole", splits=splits).summary
    (source / "case_00002" / FILES[0]).write_bytes(b"")  # a problem
    scans.save(source / "case_00003" / FILES[1], np.zeros(scans.shape, np.uint8))
    made = prepare_kits21(source, out, splits=splits)
    for split, case in (("val", "case_00002"), ("test", "case_00003")):
        assert f"{split} is empty: its cases have problems or no slice ({case})" in made.summary
    assert "train is empty" not in made.summary
    assert {row["split"] for row in scans.rows(made.table)} == {"train"}
    assert made.refusal is None
    assert str(made).count(made.problems[0]) == 1


def test_without_clinical_table_sizes_are_missing_and_it_is_said(scans, source, tmp_path, out):
    (source / "kits.json").rename(tmp_path / "elsewhere.json")
    made = prepare_kits21(source, out)
    assert "no clinical table: tumour_size_mm is missing everywhere" in made.summary
    assert {row["tumour_size_mm"] for row in scans.rows(made.table)} == {""}
    made = prepare_kits21(source, out, clinical=tmp_path / "elsewhere.json")
    assert {row["tumour_size_mm"] for row in scans.rows(made.table)} == {"20", "30"}
    scans.clinical(source, 1)
    made = prepare_kits21(source, out)
    assert "case_00001: not in the clinical table" in made.summary
    assert scans.rows(made.table)[-1]["gender"] == ""


def test_clinical_tables_without_size_or_of_other_cases_are_refused(source, tmp_path, out):
    own = tmp_path / "own.csv"
    for text, message in (
        (
            "case_id,size_mm\ncase_00000,41\n",
            "no column tumour_size_mm .*radiographic_size.*size_mm",
        ),
        (
            "case_id,tumour_size_mm\n0,41\n",
            r"own\.csv: no row for any of 2 cases .*case_00000.* 0:",
        ),
    ):
        own.write_text(text)
        with pytest.raises(DataError, match=message):
            prepare_kits21(source, out, clinical=own)
        assert not out.exists()
    own.write_text("case_id,tumour_size_mm\n0,41\ncase_00001,30\n")
    made = prepare_kits21(source, out, clinical=own)
    assert "own.csv; it has no row for 1 cases (case_00000)" in made.summary


def test_a_clinical_table_beside_the_source_is_not_taken(scans, tmp_path, out):
    source = scans.folder(tmp_path / "download" / "data", 2)
    (source / "kits.json").rename(tmp_path / "download" / "kits.json")
    assert "no clinical table: tumour_size_mm is missing" in prepare_kits21(source, out).summary
    above = prepare_kits21(tmp_path / "download", tmp_path / "above")
    assert f"clinical table: {tmp_path / 'download' / 'kits.json'}" in above.summary


@pytest.mark.parametrize(
    ("cases", "name"),
    [("data", "kits.json"), ("kits21/data", "kits.json"), ("dataset", "kits23.json")],
)
def test_the_clinical_table_of_every_download(tmp_path, monkeypatch, cases, name):
    (tmp_path / cases / "case_00000").mkdir(parents=True)
    (tmp_path / cases / name).touch()
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path, tmp_path / cases, Path(), Path(cases)):
        inside = "." if cases in str(source) else cases
        assert find_clinical(source, find_kits(source).root) == source / inside / name


def test_prepared_json_names_the_clinical_table_and_follows_it(source, tmp_path, out):
    other = tmp_path / "other.json"
    other.write_bytes((source / "kits.json").read_bytes())
    for given, name in ((None, "kits.json"), (other, other.as_posix())):
        made = prepare_kits21(source, out, clinical=given)
        assert json.loads((out / "prepared.json").read_text())["clinical"] == name
        assert f"clinical table: {given or source / 'kits.json'}" in made.summary


# What the system does not let us read.


def denied(monkeypatch, name, forbidden):
    """Path.<name> as without the right to read, which root always has."""
    whole = getattr(Path, name)

    def refuse(path, *args, **kwargs):
        if forbidden(path):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(Path, name, refuse)


def test_a_case_folder_that_cannot_be_read_is_a_problem_of_its_case(
    scans, source, out, monkeypatch
):
    denied(monkeypatch, "is_file", lambda path: path.parent.name == "case_00001")
    made = prepare_kits21(source, out)
    assert made.problems == [
        "case_00001: case_00001/: Permission denied; check its permissions and those of its "
        "folder, or use another place"
    ]
    assert {row["group"] for row in scans.rows(made.table)} == {"case_00000"}


def test_a_source_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    denied(monkeypatch, "glob", lambda path: path == tmp_path)
    with pytest.raises(DataError, match=r"Permission denied; check its permissions"):
        find_kits(tmp_path)


def test_an_image_that_cannot_be_read_is_told_once_done_or_not(
    scans, source, tmp_path, monkeypatch
):
    prepare_kits21(source, tmp_path / "out")
    image, label = (source / "case_00001" / name for name in FILES)
    image.touch()  # so that its content is compared
    scans.save(label, scans.label() + 200)
    denied(monkeypatch, "open", lambda path: path == image)
    as_it_is = kits_case.read_image

    def refuse(path, dims):  # gzip has a way of its own to files
        if path == image:
            raise DataError(f"{path}: cannot be read (Permission denied); copy it anew")
        return as_it_is(path, dims)

    monkeypatch.setattr(kits_case, "read_image", refuse)
    for out in ("out", "new"):
        of_label, of_image = prepare_kits21(source, tmp_path / out).problems
        assert "aggregated_MAJ_seg.nii.gz: label value 203" in of_label
        assert of_image == (
            "case_00001: case_00001/imaging.nii.gz: Permission denied; check its permissions and "
            "those of its folder, or use another place"
        )


# Whole volumes, for 3D networks.


def test_one_item_a_case(scans, tmp_path, lists):
    source = scans.folder(tmp_path / "source", case_1={"radiographic_size": None})
    rows = kits_volumes(source, schema()).rows
    assert [row["case"] for row in rows] == ["case_00000", "case_00001", "case_00002"]
    assert [row["metadata"]["tumour_size_mm"] for row in rows] == ["20", "", "40"]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert rows[0]["image"] == str(source / "case_00000" / "imaging.nii.gz")
    scans.clinical(source, 3, case_0={"radiographic_size": "big"})  # a case that is left out
    rows = kits_volumes(source, schema(), splits=lists('{"train": [1], "test": [2]}')).rows
    assert [row["case"] for row in rows] == ["case_00001", "case_00002"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"case_0": {"radiographic_size": "big"}}, "case_00000: .*'big' is no size"),
        ({"case_2": {"radiographic_size": ">=4"}}, "case_00002: .*only a bound"),
        ({"case_2": {"case_id": "case_00001"}}, "case_00001: .*appears more than once"),
        ({"case_1": {"radiographic_size": 41}}, "case_00001.*410"),
        (
            {f"case_{n}": {"case_id": f"Case {n}"} for n in range(3)},
            "no row for any of 3 cases such as case_00000; it has 3 rows, such as Case 0: ",
        ),
    ],
)
def test_a_wrong_clinical_table_is_told_with_its_case(scans, tmp_path, changed, message):
    source = scans.folder(tmp_path / "source", **changed)
    with pytest.raises(DataError, match=message):
        kits_volumes(source, schema())


def test_a_wrong_case_is_set_aside_where_problems_are_listed(scans, tmp_path, caplog):
    changed = {"case_2": {"radiographic_size": "big"}}
    source = scans.folder(tmp_path / "source", **changed)
    split = next(
        row["split"]
        for row in kits_volumes(scans.folder(tmp_path / "right"), schema()).rows
        if row["case"] == "case_00002"
    )
    with pytest.raises(DataError, match="case_00002"):
        kits_volumes(source, schema())
    problems = []
    rows = kits_volumes(source, schema(), problems=problems).rows
    assert [row["case"] for row in rows] == ["case_00000", "case_00001"]
    assert [(one.case, "big" in one.problem) for one in problems] == [("case_00002", True)]
    problems = []
    other = next(row["split"] for row in rows if row["split"] != split)
    kits_volumes(source, schema(), problems=problems, split=other)
    assert problems == []
    assert f"left aside, as it is not of {other}" in caplog.text


def test_a_table_without_a_field_and_lists_without_a_case_are_refused(source, lists):
    with pytest.raises(DataError, match="no column width_mm, but tumour_size_mm, radiographic"):
        kits_volumes(source, schema("width_mm"))
    with pytest.raises(DataError, match="names no case of the source"):
        kits_volumes(source, schema(), splits=lists('{"train": [7]}'))
    (source / "kits.json").unlink()
    with pytest.raises(DataError, match=r"no kits\.json found"):
        kits_volumes(source, schema())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"case_1": {"case_id": "Case 1"}},
            "no row for 'case_00001'; their tumour_size_mm are",
        ),
        (
            {"case_2": {"radiographic_size": None}},
            r"kits\.json: no 'tumour_size_mm' in any of 1 training row\(s\)",
        ),
    ],
)
def test_cases_without_a_row_and_fields_that_training_never_gives_are_told(
    scans, tmp_path, changed, message
):
    source = scans.folder(tmp_path / "source", **changed)
    with pytest.warns(MetadataWarning, match=message):
        rows = kits_volumes(source, schema()).rows
    assert [row["metadata"]["tumour_size_mm"] for row in rows].count("") == 1
