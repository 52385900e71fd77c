"""From tables with object numbers through an engine to objects_scores.csv."""

import numpy as np
import pytest
import tifffile
import torch

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.object_scores import (
    SCORES,
    ObjectScores,
    read_object_scores,
    true_objects,
)
from metaseg_monai.metrics.objects import ObjectSettings, split_objects
from metaseg_monai.rows import write_table
from metaseg_monai.tables.table import read_table

TOUCHING = np.zeros((12, 20), np.uint16)  # two objects that touch, and a third
TOUCHING[2:6, 2:6], TOUCHING[2:6, 6:10], TOUCHING[8:11, 12:18] = 7, 3, 60000
LABEL = (TOUCHING > 0).astype(np.uint8)


def one_hot(classes, count=2):
    return torch.nn.functional.one_hot(torch.as_tensor(classes).long(), count).movedim(-1, 0)


def table_of(folder, cases, columns=None):
    """A table of {case: (label, instances or None)}."""
    rows = []
    for case, (label, instances) in cases.items():
        tifffile.imwrite(folder / f"{case}.tif", np.arange(label.size).reshape(label.shape))
        tifffile.imwrite(folder / f"{case}_label.tif", label)
        row = {"image": f"{case}.tif", "label": f"{case}_label.tif", "group": f"well {case}"}
        row |= {"split": "test", "instances": ""}
        if instances is not None:
            row["instances"] = f"{case}_objects.tif"
            tifffile.imwrite(folder / row["instances"], instances)
        rows.append(row)
    write_table(rows, folder / "table.csv")
    return read_table(folder, None, columns)


def pairs_of(table, preds, mode="normal", classes=2, **more):
    """Pairs of batch and output, one a case; a label among the rest is that of the first."""
    pairs = []
    for item in table.rows:
        label = more.pop("label", (tifffile.imread(item["label"]) > 0).astype(np.uint8))
        names = {name: [item[name]] for name in ("case", "group", "split")}
        output = {
            "pred": one_hot(preds[item["case"]], classes)[None].float(),
            "label": torch.from_numpy(label)[None, None],
        }
        pairs.append(({**names, "mode": [mode], "domain": ["line"], **more}, output))
    return pairs


@pytest.fixture
def scored(tmp_path, measured):
    def score(measure, pairs):
        return read_object_scores(measured(measure, tmp_path / "s.csv", pairs))

    return score


def test_every_case_and_mode_has_a_row_of_hand_counted_scores(tmp_path, scored):
    table = table_of(tmp_path, {"a": (LABEL, TOUCHING), "b": (LABEL, TOUCHING)})
    cut = LABEL.copy()
    cut[:, 6] = 0  # the two that touch come apart, the second smaller by a quarter
    cut[8:11, 15:] = 0  # half of the third is left
    measure = ObjectScores(table, ObjectSettings())
    pairs = [*pairs_of(table, {"a": LABEL, "b": cut})]
    pairs += pairs_of(table, {"a": 0 * LABEL, "b": LABEL}, "shuffle")
    scores = scored(measure, pairs)
    assert scores.columns.tolist() == list(SCORES.columns)
    keys = ["case", "mode", "true", "pred", "tp_50", "fp_50", "fn_50", "splits", "merges"]
    assert scores[keys].to_numpy().tolist() == [
        ["a", "normal", 3, 2, 2, 0, 1, 0, 1],  # one of the exact halves is found
        ["b", "normal", 3, 3, 3, 0, 0, 0, 0],
        ["a", "shuffle", 3, 0, 0, 0, 3, 0, 0],
        ["b", "shuffle", 3, 2, 2, 0, 1, 0, 1],
    ]
    assert scores["f1_50"].tolist() == pytest.approx([0.8, 1, 0, 0.8])
    assert scores["recall_50"].tolist() == pytest.approx([2 / 3, 1, 0, 2 / 3])
    assert scores["precision_50"].isna().tolist() == [False, False, True, False]
    b = scores.iloc[1]
    # IoU 1, 0.75 and 0.5: three at 0.5, two up to 0.75, one to 0.95
    assert b["matched_iou"] == pytest.approx(2.25 / 3)
    assert b["f1_50_95"] == pytest.approx((1 + 5 * 2 / 3 + 4 / 3) / 10)
    assert [b[f"tp_{percent}"] for percent in range(50, 100, 5)] == [3, 2, 2, 2, 2, 2, 1, 1, 1, 1]
    assert set(scores["truth"]) == {"instances"}
    assert set(scores["group"]) == {"well a", "well b"}


def test_both_empty_has_no_score(tmp_path, scored):
    label = np.zeros((12, 20), np.uint8)
    table = table_of(tmp_path, {"a": (label, None)})
    measure = ObjectScores(table, ObjectSettings())
    scores = scored(measure, pairs_of(table, {"a": label}))
    row = scores.iloc[0]
    assert (row["true"], row["pred"], row["truth"]) == (0, 0, "components")
    assert scores[["f1_50", "f1_50_95", "precision_50", "recall_50"]].isna().all(axis=None)
    assert ",,,,,," in (tmp_path / "s.csv").read_text()


def test_a_perfect_mask_without_object_numbers_is_perfect_whatever_the_method(tmp_path, scored):
    crack = np.zeros((40, 60), np.uint8)
    for column in range(4, 56):  # a line that bends and widens, which a watershed cuts
        middle = 20 + round(8 * np.sin(column / 4))
        half = 2 + (column % 12 > 5)
        crack[middle - half : middle + half + 1, column] = 1
    crack[1, 1] = 1  # a speck below the smallest size
    instances = np.zeros(crack.shape, np.uint16)
    instances[:12, :20] = TOUCHING
    nuclei = (instances > 0).astype(np.uint8)
    table = table_of(tmp_path, {"crack": (crack, None), "nuclei": (nuclei, instances)})
    preds = {"crack": crack, "nuclei": nuclei}
    measure = ObjectScores(table, {"method": "watershed", "smallest_px": 4, "min_distance_px": 2})
    scores = scored(measure, pairs_of(table, preds)).set_index("case")
    of_crack = scores.loc["crack"]
    assert of_crack["truth"] == "components"
    assert of_crack[["true", "pred", "splits", "merges", "ignored"]].tolist() == [1, 1, 0, 0, 1]
    assert (of_crack["f1_50"], of_crack["f1_50_95"], of_crack["matched_iou"]) == (1, 1, 1)
    assert scores.loc["nuclei", "pred"] > 2  # objects that are numbered are still cut
    # the watershed does cut the crack
    assert split_objects(crack > 0, measure.settings)[1] > 2


def test_tables_from_before_small_objects_were_ignored_are_told_apart(tmp_path, scored):
    table = table_of(tmp_path, {"a": (LABEL, None)})
    path = tmp_path / "s.csv"
    scores = scored(ObjectScores(table, ObjectSettings()), pairs_of(table, {"a": LABEL}))
    assert scores["ignored"].tolist() == [0]
    scores.drop(columns="ignored").to_csv(path, index=False)
    assert read_object_scores(path)["ignored"].isna().all()
    scores.assign(ignored=-1).to_csv(path, index=False)
    with pytest.raises(DataError, match="ignored must be whole numbers from 0"):
        read_object_scores(path)


def test_true_objects_come_from_column_then_label_then_components(tmp_path):
    plain = table_of(tmp_path, {"a": (LABEL, TOUCHING), "b": (LABEL, None)})
    truth = [true_objects(item, tmp_path, LABEL, 2) for item in plain.rows]
    assert [one.source for one in truth] == ["instances", "components"]
    assert [len(one.objects.classes) for one in truth] == [3, 2]
    numbers = truth[0].objects.labels
    assert numbers.dtype == np.int32
    # the smallest number stays the smallest
    assert [numbers[3, 8], numbers[3, 3], numbers[9, 13]] == [1, 2, 3]
    folder = tmp_path / "numbered"
    folder.mkdir()
    cases = {"a": (TOUCHING, None), "b": (TOUCHING, np.minimum(TOUCHING, 1))}
    numbered = table_of(folder, cases, {"label_values": "instances"})
    truth = [true_objects(item, folder, LABEL, 2) for item in numbered.rows]
    assert [one.source for one in truth] == ["label", "instances"]
    assert [len(one.objects.classes) for one in truth] == [3, 1]


def test_an_object_is_of_the_class_that_most_of_its_pixels_have(tmp_path, scored):
    label = LABEL.copy()
    label[8:11, 12:18] = 2
    label[2:4, 2:6] = 2
    label[4, 2:4] = 2  # 10 of 16 pixels
    table = table_of(tmp_path, {"a": (label, TOUCHING)})
    truth = true_objects(table.rows[0], tmp_path, label, 3)
    assert truth.objects.classes.tolist() == [1, 2, 2]
    parts = true_objects({"case": "a"}, tmp_path, label, 3)
    assert parts.objects.classes.tolist() == [1, 2, 2]
    measure = ObjectScores(table, ObjectSettings())
    pred = np.where(TOUCHING == 3, 1, np.where(TOUCHING > 0, 2, 0))
    scores = scored(measure, pairs_of(table, {"a": pred}, classes=3, label=label))
    assert scores[["class", "true", "pred", "tp_50"]].to_numpy().tolist() == [
        [1, 1, 1, 1],
        [2, 2, 2, 2],
    ]
    label[8:11, 12:18] = 0
    with pytest.raises(DataError, match="case 'a': object 3 of 3 has no pixel of the label"):
        true_objects(table.rows[0], tmp_path, label, 3)


def test_resampled_images_are_scored_at_their_own_resolution(tmp_path, scored):
    large = TOUCHING.repeat(2, 0).repeat(2, 1)
    table = table_of(tmp_path, {"a": ((large > 0).astype(np.uint8), large)})
    native = {"native_shape": torch.tensor([large.shape]), "label": LABEL}
    measure = ObjectScores(table, ObjectSettings())
    scores = scored(measure, pairs_of(table, {"a": LABEL}, **native))
    assert scores.loc[0, "true"] == 3
    with pytest.raises(DataError, match=r"case 'a': .*shape \(24, 40\), evaluated were \(12, 20\)"):
        scored(measure, pairs_of(table, {"a": LABEL}, label=LABEL))


def test_files_that_hold_no_objects_of_the_label_are_refused(tmp_path):
    for wrong, message in (
        (TOUCHING + 0.5, "label value 0.5, expected whole numbers"),
        (-TOUCHING.astype(np.int32), "expected one channel of object numbers"),
        (np.roll(TOUCHING, 10, axis=1) * (TOUCHING == 0), None),
    ):
        table = table_of(tmp_path, {"a": (LABEL, wrong)})
        with pytest.raises(DataError, match=message or "none of its .* pixel of the label"):
            true_objects(table.rows[0], tmp_path, LABEL, 2)
    (tmp_path / "a_objects.tif").unlink()
    with pytest.raises(DataError, match=r"case 'a': .*a_objects\.tif: no such file"):
        true_objects(table.rows[0], tmp_path, LABEL, 2)


def test_cases_that_cannot_be_scored_are_refused_and_nothing_is_written(tmp_path, scored):
    table = table_of(tmp_path, {"a": (LABEL, None)})
    (strange,) = pairs_of(table, {"a": LABEL})
    strange[0]["case"] = ["other"]
    with pytest.raises(DataError, match="case 'other' is not in the table"):
        scored(ObjectScores(table, ObjectSettings()), [strange])
    strange[1]["pred"] = torch.zeros(1, 2, 3, 4, 5)
    with pytest.raises(ConfigError, match="set objects to null for volumes"):
        scored(ObjectScores(table, ObjectSettings()), [strange])
    assert not (tmp_path / "s.csv").exists()
    for off in (None, {}):  # volumes are no matter
        assert list(ObjectScores(table, off)(strange)) == []
    with pytest.raises(ConfigError, match="unknown key"):
        ObjectScores(table, {"methods": "watershed"})
