import csv
import os

import pandas as pd
import pytest

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.prepare.splits import read_splits
from metaseg_monai.rows import frame_csv, read_lines, write_problems, write_table


def test_table_round_trip(tmp_path):
    rows = [{"image": "a,b.tif", "task": 'di"sc'}, {"task": "ring", "image": "ä\n.tif"}]
    path = write_table(rows, tmp_path / "new" / "table.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == rows


def test_table_of_uneven_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="row 3"):
        write_table([{"a": 1}, {"b": 1}], tmp_path / "t.csv")
    with pytest.raises(DataError, match="no rows"):
        write_table([], tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


def test_problems_are_a_table_and_go_with_them(tmp_path):
    problem = Problem("a", "x/a.png", "cut short", "copy it anew")
    (path,) = write_problems(tmp_path, [problem])
    assert path.read_text() == "case,file,problem,next_step\na,x/a.png,cut short,copy it anew\n"
    assert write_problems(tmp_path, []) == []
    path.write_text("my own problems\n")
    write_problems(tmp_path, [])
    assert path.read_text() == "my own problems\n"


FORMULAS = ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "'=1", "''-x", "\uff1d1"]
PLAIN = ["a=b", "-3.2", "+4", "1e-3", "'a", "", "-inf"]


def test_no_cell_is_a_formula_and_text_comes_back(tmp_path):
    texts = FORMULAS + PLAIN
    path = write_table([{"=name": text, "b": -1.5} for text in texts], tmp_path / "a.csv")
    for line in list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]:
        number = line[0].lstrip("+-").replace(".", "").replace("e-", "").isalnum()
        assert number or not line[0].startswith(("=", "+", "-", "@", "\t", "\uff1d"))
        assert line[1] == "-1.5"
    header, rows, problems = read_lines(path)
    assert header == ["=name", "b"]
    assert not problems
    assert [cells["=name"] for _, cells in rows] == texts


def test_a_frame_is_written_as_a_table_is():
    frame = pd.DataFrame({"@": ["=x", None, "-1"], "n": [-1.0, 2.0, -3.5]}, index=["-a", "b", "=c"])
    written = frame_csv(frame, index=True).splitlines()
    assert written == [",'@,n", "'-a,'=x,-1.0", "b,,2.0", "'=c,-1,-3.5"]


@pytest.mark.parametrize("blank", [",\n,\n", " , \n", "\t,  \n\n,\n"])
def test_rows_without_text_are_no_rows(blank, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"a,b\n1,2\n{blank}3,\n{blank}", encoding="utf-8")
    _, rows, problems = read_lines(path)
    assert [cells for _, cells in rows] == [{"a": "1", "b": "2"}, {"a": "3", "b": ""}]
    assert not problems


def test_blank_cells_beyond_the_header_are_no_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n,,,,\n", encoding="utf-8")
    assert not read_lines(path)[2]


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"PK\x03\x04rest", "workbook of Excel"),
        ("image,split\na,train\n".encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08", "compressed"),
    ],
)
def test_a_table_that_is_no_text_is_told_with_what_it_is(tmp_path, start, told):
    (tmp_path / "table.csv").write_bytes(start)
    with pytest.raises(DataError, match=rf"table\.csv: is .*{told}.*save the sheet as"):
        read_lines(tmp_path / "table.csv")


def test_what_may_have_no_end_is_no_table(tmp_path):
    (tmp_path / "device.csv").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "pipe.csv")
    with (tmp_path / "large.csv").open("wb") as sparse:
        sparse.truncate(2 << 30)
    for name, told in (
        ("device", "no regular file"),
        ("pipe", "no regular file"),
        ("large", r"2048 MB, more than .* \(1024\)"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.csv: it .*{told}; give a table"):
            read_lines(tmp_path / f"{name}.csv")
        with pytest.raises(DataError, match=rf"{name}\.csv: it "):
            read_splits(tmp_path / f"{name}.csv")
        (tmp_path / f"{name}.csv").rename(tmp_path / f"{name}.json")
        with pytest.raises(DataError, match=rf"{name}\.json: no lists of splits"):
            read_splits(tmp_path / f"{name}.json")


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("a;dose (Gy, abs);b\nx;1,5;1,000\ny;2;2,000\n", ["x", "1.5", "1,000"]),
        ("a\tb\nx\t-1,25\n", ["x", "-1.25"]),
        ('a,b\nx,"1,5"\n', ["x", "1,5"]),  # commas divide it: it may be a list
        ("a;mm\nx;0,625\ny;1,250\n", ["x", "0.625"]),
        ("a,b;c\n1;2,3\n", ["1;2", "3"]),
        ("image\nx.png;y.png\n", ["x.png;y.png"]),
    ],
)
def test_what_divides_cells_is_found_and_decimals_follow_it(tmp_path, text, cells):
    (tmp_path / "table.csv").write_text(text)
    _, rows, problems = read_lines(tmp_path / "table.csv")
    assert list(rows[0][1].values()) == cells
    assert not problems
