"""One handler collects every case, one reader refuses what is no such table."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import (
    CalibrationBins,
    CaseCounts,
    KnownOfCases,
    PerCase,
    count_pixels,
    read_calibration,
    read_cases,
    read_counts,
    read_object_scores,
    read_volumes,
)
from metaseg_monai.evaluation.object_scores import SCORES
from metaseg_monai.evaluation.per_case import (
    AMOUNT,
    BINS,
    COUNTS,
    SHARE,
    TEXT,
    Table,
    read_rows,
)
from metaseg_monai.evaluation.volume_table import VOLUMES
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
SCHEMA = MetadataSchema([SIZE])
LABEL = torch.zeros(2, 1, 4, 6)
LABEL[0, 0, 1:3, 1:3] = 1


def pairs(pred, modes=("normal", "ones")):
    """Two cases in each mode, of which the first has 4 foreground pixels."""
    names = {"case": ["a", "b"], "group": ["01", "NA"], "split": ["test"] * 2, "domain": ["x", "y"]}
    output = {"label": MetaTensor(LABEL), "pred": MetaTensor(pred)}
    return [(names | {"mode": [mode] * 2}, output) for mode in modes]


def shifted(one_hot):
    return one_hot(LABEL[:, 0].roll(1, -1)).movedim(0, 1).float()


def test_counts_of_two_images_and_two_classes_by_hand():
    pred = torch.tensor([[[0, 1, 1, 2]], [[0, 0, 0, 0]]])
    label = torch.tensor([[[0, 1, 2, 2]], [[1, 0, 0, 0]]])
    assert count_pixels(pred, label, classes=3).tolist() == [
        [[1, 1, 0, 2], [1, 0, 1, 2]],
        [[0, 0, 1, 3], [0, 0, 0, 4]],
    ]
    with pytest.raises(DataError, match="differ"):
        count_pixels(torch.zeros(1, 2), torch.zeros(1, 3), classes=2)


def test_every_case_mode_and_class_is_counted_once_also_the_second_time(tmp_path, run, one_hot):
    handler = PerCase(tmp_path / "counts.csv", CaseCounts(classes=2))
    for _ in range(2):
        state = run(handler, pairs(shifted(one_hot)))
    assert state.written == [tmp_path / "counts.csv"]
    assert state.metrics == {"val_mean_dice": 0.5}  # of the one case that is not empty
    counts = read_counts(tmp_path / "counts.csv")
    assert counts[["case", "group", "mode"]].to_numpy().tolist() == [
        ["a", "01", "normal"], ["b", "NA", "normal"], ["a", "01", "ones"], ["b", "NA", "ones"],
    ]  # fmt: skip
    assert (
        counts[["tp", "fp", "fn", "tn"]].to_numpy().tolist() == [[2, 2, 2, 18], [0, 0, 0, 24]] * 2
    )


def test_what_is_kept_of_a_case_are_numbers_not_pixels(tmp_path, run, one_hot):
    for measure in (CaseCounts(2), CalibrationBins(2)):
        run(handler := PerCase(tmp_path / "a.csv", measure), pairs(shifted(one_hot)))
        assert {type(cell) for row in handler.found for cell in row.values()} <= {str, int, float}


def three_quarters(channels=2):
    """Logits of p = 0.75 everywhere."""
    pred = torch.zeros(2, channels, 4, 6)
    pred[:, 1] = math.log(3)
    return pred


def test_the_filled_bins_of_every_mode(tmp_path, measured):
    path = measured(CalibrationBins(classes=2), tmp_path / "bins.csv", pairs(three_quarters()))
    table = read_calibration(path, mode=None)
    assert list(table.columns) == list(BINS.columns)
    counted = table.drop(columns=["confidence", "inside"]).to_numpy().tolist()
    assert counted == [
        [*case, "test", mode, domain, 1, 7, 24, positives]
        for mode in ("normal", "ones")
        for case, domain, positives in ((["a", "01"], "x", 4), (["b", "NA"], "y", 0))
    ]
    assert table["confidence"].tolist() == pytest.approx([18] * 4)
    assert table["inside"].tolist() == pytest.approx([3, 0, 3, 0])
    assert set(read_calibration(path)["mode"]) == {"normal"}
    assert read_calibration(path, mode="ones")["case"].tolist() == ["a", "b"]


def test_bins_of_other_modes_alone_are_none_of_normal(tmp_path, measured):
    path = measured(CalibrationBins(2), tmp_path / "bins.csv", pairs(three_quarters(), ("ones",)))
    assert read_calibration(path).empty
    assert len(read_calibration(path, mode=None)) == 2


def test_another_number_of_channels_is_refused(tmp_path, measured):
    with pytest.raises(DataError, match="a: the prediction has 3 channels for 2 classes"):
        measured(CalibrationBins(classes=2), tmp_path / "c.csv", pairs(three_quarters(3)))
    assert not list(tmp_path.iterdir())


def test_bins_of_an_earlier_version_are_of_mode_normal(tmp_path):
    (tmp_path / "calibration.csv").write_text(
        "case,group,split,domain,class,bin,pixels,confidence,positives\na,g,test,x,1,7,8,6.0,4\n"
    )
    table = read_calibration(tmp_path / "calibration.csv")
    assert sorted(table.columns) == sorted(BINS.columns)
    assert (table["mode"].item(), table["confidence"].item()) == ("normal", 6)
    assert math.isnan(table["inside"].item())


def test_every_case_with_its_metadata_and_place(tmp_path, run):
    slice_of = {"volume": "v", "plane": 3, "planes": 9, "spacing_mm": (5.0, 0.8, 0.7)}
    names = {"group": "g", "split": "train"}
    rows = (
        {"case": "a", **names, "metadata": {"size_mm": "41"}, **slice_of},
        {"case": "b", **names, "metadata": {"size_mm": "unknown"}},
    )
    table = CaseTable("table.csv", rows, class_names={1: "tumour"})
    known = KnownOfCases(table, SCHEMA)
    spacing = torch.tensor([[5.0, 2.0, 0.78125]], dtype=torch.float64)
    batch = {"case": ["a"], "plane": [3], "spacing_mm": spacing, "image": torch.zeros(1, 1, 4, 4)}
    state = run(PerCase(tmp_path / "cases.csv", known), [(batch, {})])
    table = read_cases(tmp_path / "cases.csv")
    assert table["size_mm"].tolist() == ["41", ""]
    assert table["plane"].tolist() == ["3", ""]
    assert table["spacing_x_mm"][0] == 0.78125  # of the counted pixels, not the stored 0.7
    assert table["spacing_x_mm"].isna().tolist() == [False, True]
    assert MetadataSchema.load(tmp_path / "schema.json") == SCHEMA
    assert (tmp_path / "classes.json").read_text() == '{"1": "tumour"}\n'
    assert sorted(state.written) == sorted(tmp_path.iterdir())


def test_an_image_of_many_objects_is_one_case(tmp_path, measured):
    image = {"case": "a", "group": "g", "split": "train", "metadata": {}}
    rows = ({**image, "centre_px": (1, 2)}, {**image, "centre_px": (3, 4)}, {**image, "case": "b"})
    known = KnownOfCases(CaseTable("table.csv", rows), SCHEMA)
    sides = torch.tensor([[0.0, 2.0, 3.0]])
    batch = {"case": ["a"], "spacing_mm": sides, "image": torch.zeros(1, 1, 4, 4)}
    table = read_cases(measured(known, tmp_path / "cases.csv", [(batch, {})]))
    assert table["case"].tolist() == ["a", "b"]


@pytest.mark.parametrize(("dims", "planes_mm"), [(2, math.nan), (3, 5.0)])
def test_only_planes_of_volumes_have_a_distance(tmp_path, measured, dims, planes_mm):
    rows = ({"case": "a", "group": "a", "split": "test", "metadata": {}},)
    known = KnownOfCases(CaseTable("table.csv", rows), SCHEMA)
    image = torch.zeros(1, 1, *[4] * dims)
    batch = {"case": ["a"], "spacing_mm": torch.tensor([[5.0, 2.0, 3.0]]), "image": image}
    row = read_cases(measured(known, tmp_path / "cases.csv", [(batch, {})])).iloc[0]
    assert (row["volume"], row["plane"], row["spacing_y_mm"]) == ("", "", 2.0)
    np.testing.assert_equal(row["spacing_z_mm"], planes_mm)


TABLE = Table(
    "things",
    "make them.",
    {"name": TEXT, "group": TEXT, "share": SHARE, "size": AMOUNT._replace(empty=True)},
    key=("name",),
)


def test_text_stays_text_and_empty_numbers_are_none(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,group,share,size,more\n007,NA,0.5,,1\n")
    (row,) = read_rows(path, TABLE).to_dict("records")
    assert (row["name"], row["group"], row["more"]) == ("007", "NA", "1")
    assert math.isnan(row["size"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"There are no things at .*t\.csv: make them"),
        ("", r"t\.csv is no table of things \(.*\); evaluate again"),
        ("name,group\na,b\n", "no table of things: it lacks share, size; evaluate again"),
        ("name,group,share,size\n", "lacks rows"),
        ("name,group,share,size\na,g,x,1\n", "share must be numbers from 0 to 1; evaluate"),
        ("name,group,share,size\na,g,,1\n", "share must be numbers"),
        ("name,group,share,size\na,g,1.5,1\n", "share must be numbers from 0 to 1"),
        ("name,group,share,size\na,g,1,-1\n", "size must be numbers from 0; "),
        ("name,group,share,size\na,g,1,inf\n", "size must be numbers from 0"),
        ("name,group,share,size\na,g,1,1\na,h,1,1\n", "name a stands there twice; evaluate"),
    ],
)
def test_missing_foreign_and_damaged_tables_are_refused(tmp_path, content, message):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_rows(path, TABLE)


def test_every_table_says_how_it_is_made(tmp_path):
    for read, message in (
        (read_counts, "no counts at .*run the evaluation of this model first"),
        (read_calibration, "no calibration bins at .*in mode normal first"),
        (read_cases, "no cases at .*evaluate"),
        (read_object_scores, "no scores of objects at .*evaluate with objects set"),
        (read_volumes, "no scores of volumes at .*or use the command score"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path / "none.csv")


COUNTED = "a,a,test,normal,x,1,1,0,0,0"
SCORED = "a,g,test,normal,d,1,3,2,2,0,1,0.8,0.5,1.0,0.667,0.9,0,1,2,2,1,1,1,1,0,0,0,instances,0"
MEASURED = "a,g,test,normal,tumour,1,5,0.9,0.8,,1.0,1.0,0.0,1,1,0"


@pytest.mark.parametrize(
    ("read", "table", "good", "part", "wrong", "message"),
    [
        (read_counts, COUNTS, COUNTED, "1,1,0", "1,0.5,0", "tp must be whole numbers from 0"),
        (read_counts, COUNTS, COUNTED, "1,1,0", "1,-1,0", "tp must be whole numbers from 0"),
        (read_counts, COUNTS, COUNTED, "x", "average", "'average' names an aggregate"),
        (read_object_scores, SCORES, SCORED, "3,2,2", "3,2,9", "tp_50 above the number"),
        (read_object_scores, SCORES, SCORED, "3,2,2", "3,,2", "pred must be whole numbers"),
        (read_object_scores, SCORES, SCORED, "3,2,2", "-3,2,2", "true must be whole numbers"),
        (read_object_scores, SCORES, SCORED, "0.8", "1.8", "f1_50 must be numbers from 0 to 1"),
        (read_object_scores, SCORES, SCORED, "", "", "mode normal, class 1 stands there twice"),
        (read_volumes, VOLUMES, MEASURED, "0.9", "", "dice must be numbers from 0 to 1"),
        (read_volumes, VOLUMES, MEASURED, "0.9", "1.9", "dice must be numbers from 0 to 1"),
        (read_volumes, VOLUMES, MEASURED, "0.8", "1.8", "surface_dice must be numbers from 0 to 1"),
        (read_volumes, VOLUMES, MEASURED, "r,1", "r,2", "complete must be numbers from 0 to 1"),
        (read_volumes, VOLUMES, MEASURED, "", "", "region tumour stands there twice"),
    ],
)
def test_damaged_rows_of_each_table_are_refused(tmp_path, read, table, good, part, wrong, message):
    path, head = tmp_path / "t.csv", ",".join(table.columns)
    path.write_text(f"{head}\n{good}\n")
    assert len(read(path)) == 1
    changed = good.replace(part, wrong, 1) if part else f"{good}\n{good}"
    path.write_text(f"{head}\n{changed}\n")
    with pytest.raises(DataError, match=message):
        read(path)


def test_without_rows_only_a_table_that_begins_so_is_removed(tmp_path):
    path = tmp_path / "scores.csv"
    assert TABLE.write(path, []) == []
    for own in (b"name,size\n", b"name\n", b"", b"group,name\n", b"name,group2\n", b"\xff\xfe\x00"):
        path.write_bytes(own)
        TABLE.write(path, [])
        assert path.read_bytes() == own
    for table in ("name,group,share\na,b,1\n", "name,group\r\n", "name,group"):
        path.write_text(table)
        TABLE.write(path, [])
        assert not path.exists()
    path.mkdir()
    TABLE.write(path, [])
    assert path.is_dir()
