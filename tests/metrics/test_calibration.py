import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.calibration import (
    BIN_COLUMNS,
    CalibrationBins,
    bin_probabilities,
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
    read_calibration,
    reliability,
)


def logits_of(*p):
    """Logits (1, 2, N) of a foreground probability for each pixel."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()])[None]


def bins_of(*rows):
    """A table of (domain, bin, pixels, confidence, positives)."""
    filled = [
        (f"c{i}", f"c{i}", "test", "normal", d, 1, *rest, 0.0) for i, (d, *rest) in enumerate(rows)
    ]
    return pd.DataFrame(filled, columns=BIN_COLUMNS)


def test_bins_of_one_image_by_hand():
    cells = bin_probabilities(
        logits_of(0.0, 0.1, 0.2, 0.3, 0.6, 0.9, 1.0), torch.tensor([[0, 1, 0, 1, 0, 1, 1]]), bins=4
    )
    expected = torch.tensor([[3, 0.3, 1, 0.1], [1, 0.3, 1, 0.3], [1, 0.6, 0, 0], [2, 1.9, 2, 1.9]])
    torch.testing.assert_close(cells[0, 0], expected.double())


def test_a_probability_on_an_edge_is_in_the_upper_bin():
    cells = bin_probabilities(logits_of(0.5, 0.5), torch.tensor([[1, 0]]), bins=2)
    torch.testing.assert_close(cells[0, 0], torch.tensor([[0, 0, 0, 0], [2, 1, 1, 0.5]]).double())


def test_images_and_classes_are_kept_apart():
    logits = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    label = torch.arange(3 * 30).view(3, 5, 6) % 4
    cells = bin_probabilities(logits, label, bins=5)
    p = logits.softmax(1)
    for image in range(3):
        for number in (1, 2, 3):
            of_class, truth = p[image, number], label[image] == number
            for place in range(5):
                inside = (of_class >= place / 5) & (of_class < (place + 1) / 5)
                by_loop = [inside.sum(), of_class[inside].double().sum(), (inside & truth).sum()]
                by_loop.append(of_class[inside & truth].double().sum())
                assert cells[image, number - 1, place].tolist() == pytest.approx(
                    [float(value) for value in by_loop]
                )


def test_half_precision_is_binned_after_a_float32_softmax():
    logits = logits_of(0.05, 0.35, 0.95).bfloat16()
    label = torch.tensor([[0, 1, 1]])
    torch.testing.assert_close(
        bin_probabilities(logits, label), bin_probabilities(logits.float(), label), rtol=0, atol=0
    )


def test_logits_that_do_not_fit_the_target_are_refused():
    with pytest.raises(DataError, match="do not fit"):
        bin_probabilities(torch.zeros(1, 2, 4), torch.zeros(1, 5))


def evaluated(handler, modes=("normal", "ones"), classes=2):
    """Run an evaluator over two cases with p = 0.75 everywhere; case "a" is half foreground."""
    label = torch.zeros(2, 1, 2, 4)
    label[0, 0, 0] = 1
    pred = torch.zeros(2, classes, 2, 4)
    pred[:, 1] = math.log(3)

    def step(engine, modes):
        names = {"case": ["a", "b"], "group": ["01", "NA"], "split": ["test"] * 2}
        engine.state.batch = names | {"mode": modes, "domain": ["x", "y"]}
        return {"label": MetaTensor(label), "pred": MetaTensor(pred)}

    engine = Engine(step)
    handler.attach(engine)
    engine.run([[mode, mode] for mode in modes])


def test_the_file_holds_the_filled_bins_of_every_mode(tmp_path):
    evaluated(CalibrationBins(tmp_path / "calibration.csv", classes=2))
    table = read_calibration(tmp_path / "calibration.csv", mode=None)
    assert list(table.columns) == BIN_COLUMNS
    assert table.drop(columns=["confidence", "inside"]).to_numpy().tolist() == [
        ["a", "01", "test", "normal", "x", 1, 7, 8, 4],
        ["b", "NA", "test", "normal", "y", 1, 7, 8, 0],
        ["a", "01", "test", "ones", "x", 1, 7, 8, 4],
        ["b", "NA", "test", "ones", "y", 1, 7, 8, 0],
    ]
    assert table["confidence"].tolist() == pytest.approx([6, 6, 6, 6])
    assert table["inside"].tolist() == pytest.approx([3, 0, 3, 0])


def test_one_mode_is_read_and_that_is_normal_unless_told(tmp_path):
    evaluated(CalibrationBins(tmp_path / "calibration.csv", classes=2))
    assert set(read_calibration(tmp_path / "calibration.csv")["mode"]) == {"normal"}
    ones = read_calibration(tmp_path / "calibration.csv", mode="ones")
    assert ones[["case", "mode"]].to_numpy().tolist() == [["a", "ones"], ["b", "ones"]]


def test_a_file_of_an_earlier_version_is_of_mode_normal(tmp_path):
    (tmp_path / "calibration.csv").write_text(
        "case,group,split,domain,class,bin,pixels,confidence,positives\na,g,test,x,1,7,8,6.0,4\n"
    )
    table = read_calibration(tmp_path / "calibration.csv")
    assert sorted(table.columns) == sorted(BIN_COLUMNS)
    assert (table["mode"].item(), table["confidence"].item()) == ("normal", 6)
    assert math.isnan(table["inside"].item())


def test_cases_of_a_batch_keep_their_modes(tmp_path):
    handler = CalibrationBins(tmp_path / "calibration.csv", classes=2)
    batch = {"case": ["a", "b"], "group": ["a", "b"], "split": ["test"] * 2, "domain": ["x", "x"]}
    output = {"pred": torch.zeros(2, 2, 3), "label": torch.tensor([[[0, 0, 0]], [[1, 1, 0]]])}
    state = SimpleNamespace(batch=batch | {"mode": ["zeros", "normal"]}, output=output)
    handler.count(SimpleNamespace(state=state))
    found = [(row["case"], row["mode"], row["bin"], row["positives"]) for row in handler.rows]
    assert found == [("a", "zeros", 5, 0), ("b", "normal", 5, 2)]


def test_a_second_evaluation_starts_from_nothing(tmp_path):
    handler = CalibrationBins(tmp_path / "calibration.csv", classes=2)
    evaluated(handler)
    evaluated(handler)
    assert len(read_calibration(tmp_path / "calibration.csv")) == 2


def test_without_mode_normal_there_is_no_file_not_even_an_old_one(tmp_path):
    handler = CalibrationBins(tmp_path / "calibration.csv", classes=2)
    evaluated(handler)
    evaluated(handler, modes=("ones",))
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_channels_is_refused(tmp_path):
    with pytest.raises(DataError, match="3 channels for 2 classes"):
        CalibrationBins(tmp_path / "calibration.csv", classes=2).count(
            SimpleNamespace(
                state=SimpleNamespace(
                    batch={"mode": ["normal"], "case": ["a"]},
                    output={"pred": torch.zeros(1, 3, 2), "label": torch.zeros(1, 1, 2)},
                )
            )
        )


def test_one_bin_is_refused():
    with pytest.raises(ConfigError, match="at least 2"):
        CalibrationBins("calibration.csv", classes=2, bins=1)


def test_missing_or_foreign_tables_are_refused(tmp_path):
    with pytest.raises(DataError, match="in mode normal first"):
        read_calibration(tmp_path / "calibration.csv")
    (tmp_path / "calibration.csv").write_text("case,bin\na,1\n")
    with pytest.raises(DataError, match="lacks group"):
        read_calibration(tmp_path / "calibration.csv")
    (tmp_path / "calibration.csv").write_text(",".join(BIN_COLUMNS) + "\n")
    with pytest.raises(DataError, match="lacks rows"):
        read_calibration(tmp_path / "calibration.csv")


def test_reliability_adds_cases_before_it_divides():
    bins = reliability(bins_of(("x", 9, 10, 9.0, 9), ("x", 9, 30, 29.0, 15), ("y", 0, 60, 1.5, 3)))
    assert bins.to_numpy().tolist() == [
        [0, 60, pytest.approx(0.025), pytest.approx(0.05)],
        [9, 40, pytest.approx(0.95), pytest.approx(0.6)],
    ]


def test_errors_by_hand():
    table = bins_of(("x", 0, 60, 1.5, 3), ("x", 5, 10, 5.5, 5), ("x", 9, 30, 28.5, 18))
    # |0.05 - 0.025| * 60, |0.5 - 0.55| * 10, |0.6 - 0.95| * 30
    assert expected_calibration_error(table) == pytest.approx((1.5 + 0.5 + 10.5) / 100)
    assert foreground_calibration_error(table) == pytest.approx((0.5 + 10.5) / 40)


def test_sure_background_makes_the_error_small_but_not_that_of_the_foreground():
    few = bins_of(("x", 0, 10, 0, 0), ("x", 9, 10, 9.5, 5))
    many = bins_of(("x", 0, 990, 0, 0), ("x", 9, 10, 9.5, 5))
    assert expected_calibration_error(few) == pytest.approx(0.225)
    assert expected_calibration_error(many) == pytest.approx(0.0045)
    assert foreground_calibration_error(few) == pytest.approx(0.45)
    assert foreground_calibration_error(many) == pytest.approx(0.45)


def test_right_probabilities_have_no_error_and_none_beyond_the_first_bin_is_unknown():
    table = bins_of(("x", 0, 20, 1.0, 1), ("y", 0, 10, 0.5, 1))
    assert expected_calibration_error(table[:1]) == 0
    assert math.isnan(foreground_calibration_error(table))


def test_errors_of_each_domain_stand_in_table_order():
    table = bins_of(("y", 9, 10, 9.5, 5), ("x", 0, 90, 0.9, 0), ("x", 9, 10, 9.5, 9))
    errors = calibration_errors(table)
    assert list(errors.index) == ["y", "x"]
    assert errors.loc["y"].tolist() == pytest.approx([10, 0.45, 0.45])
    assert errors.loc["x"].tolist() == pytest.approx([100, (0.9 + 0.5) / 100, 0.05])
