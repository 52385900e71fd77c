import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.prepare import kits as kits_run
from metaseg_monai.prepare.kits import prepare_kits21
from metaseg_monai.tables.table import read_table

COMMAND = """
import sys
from metaseg_monai.prepare.kits import prepare_kits21
if __name__ == "__main__":
    print(prepare_kits21(sys.argv[1], sys.argv[2], workers=int(sys.argv[3])).summary)
"""


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_that_training_can_read(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 4, case_2={"radiographic_size": None})
    made = prepare_kits21(source, tmp_path / "out", spacing="native")
    assert made.table == tmp_path / "out" / "table.csv"
    assert made.problems == []
    rows = rows_of(made.table)
    assert [(row["group"], row["plane"]) for row in rows] == [
        (f"case_{n:05d}", plane) for n in range(4) for plane in "234"
    ]
    sizes = {row["group"]: row["tumour_size_mm"] for row in rows}
    assert list(sizes.values()) == ["20", "30", "", "50"]
    assert rows[0]["gender"] == "male"
    field = Continuous(
        name="tumour_size_mm",
        unit="mm",
        range=(5, 250),
        provenance="clinical prior",
        availability="pre-operative",
        missing="unknown",
    )
    table = read_table(made.table, MetadataSchema([field]))
    assert len(table.rows) == 12
    assert set(table.splits) == {"train", "val", "test"}


def test_cases_table(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    kits.case(source, 1, codes=("R", "A", "S"))
    prepare_kits21(source, tmp_path / "out")
    first, second = rows_of(tmp_path / "out" / "cases.csv")
    assert (first["shape"], first["orientation"]) == ("6x20x24", "IPL")
    assert (second["shape"], second["orientation"]) == ("24x20x6", "RAS")
    expected = {"planes": 6, "slices": 3, "planes_kidney": 2, "planes_tumour": 2}
    expected |= {"planes_cyst": 2, "planes_tumour_and_cyst": 1, "planes_mass": 3}
    expected["planes_kidney_or_mass"] = 4
    for row in (first, second):
        assert {name: int(row[name]) for name in expected} == expected
        assert row["tumour_mm3"] == "1125"  # 200 voxels of 5.625 mm3
        assert row["tumour_components"] == "1"
        assert len(row["image_sha256"]) == 64
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["slice_rule"] == "mass"


@pytest.mark.parametrize(("rule", "planes"), [("mass", 3), ("kidney", 4), ("all", 6)])
def test_rules(kits, tmp_path, rule, planes):
    made = prepare_kits21(kits.folder(tmp_path / "source", 2), tmp_path / "out", rule)
    assert len(rows_of(made.table)) == 2 * planes
    assert f"{2 * planes} slices written (rule {rule})" in made.summary
    assert "planes by rule: mass 6, kidney 8, all 12" in made.summary


def test_summary_counts_and_compares_the_size_with_the_label(kits, tmp_path):
    source = tmp_path / "source"
    for number in range(4):
        label = kits.label()
        label[2, 4 : 5 + 4 * number, 20:22] = 2
        kits.case(source, number, label=label)
    kits.clinical(source, 4)
    summary = prepare_kits21(source, tmp_path / "out").summary
    assert "4 cases prepared, 0 with problems" in summary
    assert "planes with tumour 8, with cyst 8, with both 4, with kidney 8" in summary
    assert "splits: train 2 patients with 6 slices" in summary
    assert "Spearman" in summary
    assert "partly derived from what the label shows" in summary
    assert "the radiographic size, known before surgery; missing in 0 cases" in summary
    assert "case_00003" not in summary


def test_labels_only(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    for case in source.glob("case_*"):
        (case / "imaging.nii.gz").unlink()
    problems = prepare_kits21(source, tmp_path / "none").problems
    assert len(problems) == 2
    assert "case_00000/imaging.nii.gz: no such file" in problems[0]
    kits.save(source / "case_00001" / "aggregated_MAJ_seg.nii.gz", kits.label()[::-1])
    made = prepare_kits21(source, tmp_path / "out", labels_only=True)
    assert made.table == tmp_path / "out" / "slices.csv"
    assert not (tmp_path / "out" / "table.csv").exists()
    assert not (tmp_path / "out" / "images").exists()
    assert "image" not in rows_of(made.table)[0]


def test_official_lists_decide_and_leave_out(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 3)
    (tmp_path / "lists.json").write_text('{"train": [2], "test": [0]}')
    made = prepare_kits21(source, tmp_path / "out", splits=tmp_path / "lists.json")
    splits = {row["case"]: row["split"] for row in rows_of(tmp_path / "out" / "cases.csv")}
    assert splits == {"case_00000": "test", "case_00002": "train"}
    assert "left out, as no list names them: case_00001" in made.summary


def test_without_clinical_table_sizes_are_missing_and_it_is_said(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    (source / "kits.json").rename(tmp_path / "elsewhere.json")
    made = prepare_kits21(source, tmp_path / "out")
    assert "no clinical table: tumour_size_mm is missing everywhere" in made.summary
    assert {row["tumour_size_mm"] for row in rows_of(made.table)} == {""}
    made = prepare_kits21(source, tmp_path / "out", clinical=tmp_path / "elsewhere.json")
    assert {row["tumour_size_mm"] for row in rows_of(made.table)} == {"20", "30"}


def test_a_case_that_the_clinical_table_lacks_is_remarked(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    kits.clinical(source, 1)
    made = prepare_kits21(source, tmp_path / "out")
    assert "case_00001: not in the clinical table" in made.summary
    assert rows_of(made.table)[-1]["gender"] == ""


def test_suspicious_but_allowed_images_are_remarked(kits, tmp_path):
    source = tmp_path / "source"
    twice = kits.image()
    twice[5] = twice[1]
    kits.case(source, 0, image=twice)
    kits.case(source, 1, spacing=(250.0, 1.0, 1.0))
    kits.case(source, 2, image=np.full(kits.shape, 7, np.int16))
    kits.case(source, 3, image=np.abs(kits.image(3)))
    kits.case(source, 4, image=kits.image(4) + np.float32(0.5))
    kits.case(source, 5)
    prepare_kits21(source, tmp_path / "out")
    remarks = [row["remarks"] for row in rows_of(tmp_path / "out" / "cases.csv")]
    assert "planes 1 and 5 are equal to the bit: several contrast phases" in remarks[0]
    assert "6 planes over 1500 mm: several contrast phases" in remarks[1]
    assert "every voxel is 7" in remarks[2]
    assert "none below 0" in remarks[3]
    assert "no whole numbers" in remarks[4]
    assert remarks[5] == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_run_keeps_what_is_done(kits, tmp_path, workers):
    source = kits.folder(tmp_path / "source", 2)
    prepare_kits21(source, tmp_path / "out", workers=workers)
    before = content(tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "images").iterdir()}
    prepare_kits21(source, tmp_path / "out", workers=workers)
    assert content(tmp_path / "out") == before
    assert times == {p: p.stat().st_mtime_ns for p in times}
    prepare_kits21(source, tmp_path / "other", workers=3 - workers)
    assert content(tmp_path / "other") == before


def test_lost_or_damaged_slices_are_made_anew(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 3)
    prepare_kits21(source, tmp_path / "out")
    before = content(tmp_path / "out")
    (tmp_path / "out" / "images" / "case_00000_0003.tif").unlink()
    (tmp_path / "out" / "labels" / "case_00001_0003.tif").write_bytes(b"")
    (tmp_path / "out" / "images" / ".part-case_00002_0003.tif").write_bytes(b"half")
    (tmp_path / "out" / "images" / "case_00009_0003.tif").write_bytes(b"of no case")
    (tmp_path / "out" / ".cases" / ".part-0-case_00002.json").write_bytes(b"half")
    prepare_kits21(source, tmp_path / "out")
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("slice_rule", "all"),
        ("spacing", "native"),
        ("seed", 1),
        ("test", 0.1),
        ("size", "pathologic"),
        ("label_name", "segmentation"),
        ("labels_only", True),
    ],
)
def test_other_settings_are_refused(kits, tmp_path, setting, value):
    source = kits.folder(tmp_path / "source", 1, case_0={"pathologic_size": None})
    prepare_kits21(source, tmp_path / "out")
    before = content(tmp_path / "out")
    values = {setting: value} | ({"train": 0.75} if setting == "test" else {})
    name = "shares" if setting == "test" else setting
    with pytest.raises(DataError, match=f"prepared with other settings .*{name} "):
        prepare_kits21(source, tmp_path / "out", **values)
    assert content(tmp_path / "out") == before


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
def test_wrong_settings_are_refused_before_anything_is_written(kits, tmp_path, values, message):
    source = kits.folder(tmp_path / "source", 1)
    with pytest.raises(DataError, match=message):
        prepare_kits21(source, tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_refused(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 1)
    with pytest.raises(DataError, match="not empty"):
        prepare_kits21(source, source)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        prepare_kits21(source, tmp_path / "file")


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.parametrize(("workers", "after"), [(1, "images/case_00003_0002.tif"), (2, ".cases")])
def test_killed_and_resumed_equals_undisturbed(kits, tmp_path, workers, after):
    source = kits.folder(tmp_path / "source", 8)
    prepare_kits21(source, tmp_path / "whole")
    out = tmp_path / "out"
    script = tmp_path / "run.py"
    script.write_text(COMMAND)
    command = [sys.executable, str(script), str(source), str(out), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(out / after, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # workers end with their parent
    assert not (out / "table.csv").exists()
    for record in (out / ".cases").glob("case_*.json"):
        for row in json.loads(record.read_text())["slices"]:
            assert (out / row["image"]).read_bytes() == (
                tmp_path / "whole" / row["image"]
            ).read_bytes()
    prepare_kits21(source, out, workers=workers)
    assert content(out) == content(tmp_path / "whole")


def test_a_killed_worker_is_told_and_the_rest_resumed(kits, tmp_path, monkeypatch):
    source = kits.folder(tmp_path / "source", 4)
    prepare_kits21(source, tmp_path / "whole")
    results = kits_run._results
    monkeypatch.setattr(kits_run, "_results", lambda jobs, n: results([*jobs[:2], Deadly()], n))
    with pytest.raises(DataError, match=r"a worker was killed.*finished cases are kept"):
        prepare_kits21(source, tmp_path / "out", workers=2)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "table.csv").exists()
    prepare_kits21(source, tmp_path / "out", workers=2)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


class Deadly:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return (signal.raise_signal, (signal.SIGKILL,))
