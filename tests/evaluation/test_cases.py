import math

import pytest
import torch
from ignite.engine import Engine

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import KnownOfCases, read_cases
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.tables import CaseTable

SIZE = Continuous(
    name="size_mm",
    unit="mm",
    range=(5, 250),
    missing="unknown",
    provenance="label-derived",
    availability="pre-operative",
)


def test_every_case_with_its_metadata_and_place(tmp_path):
    schema = MetadataSchema([SIZE])
    slice_of = {"volume": "v", "plane": 3, "planes": 9, "spacing_mm": (5.0, 0.8, 0.7)}
    names = {"group": "g", "split": "train"}
    rows = (
        {"case": "a", **names, "metadata": {"size_mm": "41"}, **slice_of},
        {"case": "b", **names, "metadata": {"size_mm": "unknown"}},
    )
    handler = KnownOfCases(tmp_path / "cases.csv", CaseTable("table.csv", rows), schema)
    spacing = torch.tensor([[5.0, 2.0, 0.78125]], dtype=torch.float64)
    image = torch.zeros(1, 1, 4, 4)
    batches = [{"case": ["a"], "plane": [3], "spacing_mm": spacing, "image": image}]
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.run(batches)
    table = read_cases(tmp_path / "cases.csv")
    assert table["size_mm"].tolist() == ["41", ""]
    assert table["plane"].tolist() == ["3", ""]
    assert table["spacing_x_mm"][0] == 0.78125  # of the counted pixels, not the stored 0.7
    assert table["spacing_x_mm"].isna().tolist() == [False, True]
    assert MetadataSchema.load(tmp_path / "schema.json") == schema


@pytest.mark.parametrize(
    ("image", "planes_mm"), [(torch.zeros(1, 1, 4, 4), None), (torch.zeros(1, 1, 4, 4, 4), 5.0)]
)
def test_only_planes_of_volumes_have_a_distance(tmp_path, image, planes_mm):
    rows = ({"case": "a", "group": "a", "split": "test", "metadata": {}},)
    handler = KnownOfCases(
        tmp_path / "cases.csv", CaseTable("table.csv", rows), MetadataSchema([SIZE])
    )
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.run([{"case": ["a"], "spacing_mm": torch.tensor([[5.0, 2.0, 3.0]]), "image": image}])
    row = read_cases(tmp_path / "cases.csv").iloc[0]
    assert (row["volume"], row["plane"], row["spacing_y_mm"]) == ("", "", 2.0)
    assert math.isnan(row["spacing_z_mm"]) if planes_mm is None else row["spacing_z_mm"] == 5


@pytest.mark.parametrize("content", ["case,group\na,b\n", ""])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "cases.csv").write_text(content)
    with pytest.raises(DataError, match=r"cases\.csv: no table of cases"):
        read_cases(tmp_path / "cases.csv")
