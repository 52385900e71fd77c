import csv
import hashlib

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.files import file_sha256, replacing, sweep_temporaries, write_table


def test_the_old_file_survives_a_failure_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_text("old")

    def write_half():
        with replacing(path) as part:
            assert part.name.endswith(".nii.gz")
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sweep_removes_only_what_was_left_for_this_file(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    with replacing(path) as part:
        part.write_text("new")
        left = part.with_name(part.name.replace(".part-", ".part-killed"))
        left.write_text("half")
    other.write_text("kept")
    assert sweep_temporaries(other) == []
    assert sweep_temporaries(path) == [left]
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_a_digest_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 500_000)
    expected = hashlib.sha256(b"abc" * 500_000).hexdigest()
    assert file_sha256(tmp_path / "a") == expected


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
