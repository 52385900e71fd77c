"""The layout of CONTRIBUTING: one file of at most 60 lines, with all checks of the pipeline."""

import re
from pathlib import Path

import numpy as np
import pytest

from metaseg_monai.cli.commands import call
from metaseg_monai.errors import WITH_PROBLEMS, DataError
from metaseg_monai.tables.table import read_table

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
(CODE,) = re.findall(r'```python\n(""".*?)```', PAGE.read_text("utf-8"), flags=re.S)


@pytest.fixture(scope="module")
def prepare():
    """The function that CONTRIBUTING shows."""
    made = {}
    exec(compile(CODE, str(PAGE), "exec"), made)
    return made["prepare_dishes"]


@pytest.fixture
def dishes(lab, tmp_path):
    for number, dish in enumerate(["HeLa_0", "HeLa_5", "A549_0", "A549_5", "MCF7_0"]):
        for n in range(2):
            lab.tif(tmp_path / "src" / "raw" / dish / f"{n}.tif", lab.image(10 * number + n))
            lab.png(tmp_path / "src" / "seg" / dish / f"{n}.png", lab.mask(255))
    return tmp_path / "src"


def test_it_is_short_and_makes_a_folder_that_training_reads(prepare, dishes, lab, tmp_path):
    assert len(CODE.splitlines()) <= 60
    made = prepare(dishes, tmp_path / "out")
    assert made.problems == []
    rows = read_table(made.table, None).rows
    assert {row["group"] for row in rows} == {path.name for path in (dishes / "raw").iterdir()}
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert {row["columns"]["cell_line"] for row in rows} == {"HeLa", "A549", "MCF7"}
    assert "dose_um: 0 " in made.summary
    before = lab.content(tmp_path / "out")
    prepare(dishes, tmp_path / "out")
    assert lab.content(tmp_path / "out") == before
    with pytest.raises(DataError, match="was made with seed=0, asked for seed=1"):
        prepare(dishes, tmp_path / "out", seed=1)
    assert "nothing is written" in prepare(dishes, tmp_path / "none", dry_run=True).summary


def test_a_folder_of_another_layout_is_no_empty_data_set(prepare, tmp_path):
    (tmp_path / "src").mkdir()
    with pytest.raises(DataError, match="src: no case in this layout"):
        prepare(tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_told_by_case_and_left_out(prepare, dishes, lab, tmp_path, capsys):
    (dishes / "seg" / "HeLa_0" / "0.png").unlink()
    (dishes / "raw" / "HeLa_5" / "0.tif").write_bytes(b"II*\0")
    lab.png(dishes / "seg" / "A549_0" / "0.png", np.arange(600, dtype=np.uint8).reshape(20, 30))
    lab.png(dishes / "seg" / "A549_5" / "0.png", lab.mask(255)[:10])
    words = ["prepare", "dishes"]
    assert call(prepare, words, [str(dishes), str(tmp_path / "out")]) == WITH_PROBLEMS
    told, ended = capsys.readouterr()
    assert "4 problem" in ended
    assert "problems.csv" in ended
    for expected in (
        "HeLa_0_0: raw/HeLa_0/0.tif: no mask; get seg/HeLa_0/0.png",
        "HeLa_5_0: raw/HeLa_5/0.tif: ",
        "A549_0_0: seg/A549_0/0.png: 256 values (0, 1, 2, 3, 4, ...), expected 0 and one other",
        "A549_5_0: seg/A549_5/0.png: label of shape (10, 30), expected (20, 30)",
    ):
        assert expected in told, told
    assert len(lab.rows(tmp_path / "out" / "table.csv")) == 6
    with pytest.raises(DataError, match="no such folder; expected a folder with raw/ and seg/"):
        prepare(tmp_path / "gone", tmp_path / "b")
