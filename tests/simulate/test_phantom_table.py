import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.simulate.phantoms import table
from metaseg_monai.simulate.phantoms.scans import write_phantoms

SCHEMA = MetadataSchema(
    [
        Continuous(
            name="tumour_size_mm",
            unit="mm",
            range=(5, 250),
            provenance="clinical prior",
            availability="pre-operative",
        )
    ]
)
FEW = {"train": 1, "val": 1, "test": 1, "matrix": 48}


def test_the_default_folder_is_filled_with_all_splits(tmp_path):
    made = table.phantom_table(tmp_path / "a", tmp_path / "a", SCHEMA, **FEW)
    assert {row["split"]: row["group"] for row in made.rows} == {
        "train": "case_00000",
        "val": "case_10000",
        "test": "case_20000",
    }


def test_a_phantom_that_cannot_be_prepared_is_told_and_nothing_is_left(tmp_path, monkeypatch):
    def write_broken(folder, numbers, matrix, seed):
        cases = write_phantoms(folder, numbers, matrix, seed)
        (folder / "case_10000" / "imaging.nii.gz").write_bytes(b"")
        return cases

    monkeypatch.setattr(table, "write_phantoms", write_broken)
    with pytest.raises(DataError, match="problems of generated phantoms, such as case_10000"):
        table.phantom_table(tmp_path / "a", tmp_path / "a", SCHEMA, **FEW)
    assert not list(tmp_path.rglob("*.tif"))
