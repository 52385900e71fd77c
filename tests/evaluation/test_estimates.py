import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.estimates import (
    FieldEstimates,
    TellFit,
    alarm_of,
    alarm_words,
    decoded,
    known_items,
    p_value,
    tell_estimate,
)
from metaseg_monai.evaluation.modes import read_predicted
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.networks import ImageRegressor
from metaseg_monai.training.weights import LoadWeights, read_weights, write_weights

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
SIZE = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **KNOWN)
LOG = Continuous(name="size", unit="mm", range=(1, 10000), scale="log", **KNOWN)


def item(case, group, split, size, volume=None):
    made = {"case": case, "group": group, "split": split, "metadata": {"size": size}}
    return made if volume is None else {**made, "volume": volume}


ITEMS = [
    item("a0", "a", "train", "10"),
    item("b0", "b", "train", "20"),
    item("c0", "c", "train", "90"),
    item("d0", "d", "val", "30"),
    item("d1", "d", "val", "30"),
    item("d2", "d", "val", ""),
    item("e0", "e", "test", "unknown"),
    item("f0", "f", "test", "40"),
]
CODES = {"a0": 0.1, "b0": 0.4, "c0": 0.7, "d0": 0.3, "d1": 0.9, "d2": 0.34, "e0": -0.2, "f0": 1.5}


@pytest.fixture
def predicted(tmp_path, measured):
    def predict(items=ITEMS, codes=CODES, field=SIZE):
        names = list(codes)
        pairs = [
            ({"case": part}, {"pred": torch.tensor([[codes[case]] for case in part])})
            for part in (names[:3], names[3:])
        ]
        path = measured(FieldEstimates(items, field), tmp_path / "predicted.csv", pairs)
        return read_predicted(path).set_index("group")

    return predict


def test_a_group_gets_the_median_of_its_slices_in_the_unit_of_the_field(predicted):
    table = predicted()
    assert table.index.tolist() == list("abcdef")
    assert table["predicted"].tolist() == pytest.approx([10, 40, 70, 34, 0, 100], rel=1e-6)
    assert table["true"].fillna(-1).tolist() == [10, 20, 90, 30, -1, 40]
    assert table["clipped"].tolist() == [0, 0, 0, 0, 1, 1]
    assert table["slices"].tolist() == [1, 1, 1, 3, 1, 1]
    assert table["split"].tolist() == ["train"] * 3 + ["val"] + ["test"] * 2
    assert set(table["field"]) == {"size"}
    assert set(table["unit"]) == {"mm"}


def test_the_median_is_that_of_the_codes(predicted):
    items = [item("a0", "a", "train", "10"), item("a1", "a", "train", "10")]
    table = predicted(items, {"a0": 0.25, "a1": 0.75}, LOG)
    assert table["predicted"].tolist() == pytest.approx([100])  # not the mean of 10 and 1000


def test_volumes_of_one_group_have_estimates_of_their_own(predicted):
    items = [item("a0", "a", "train", "10", "x"), item("a1", "a", "train", "20", "y")]
    table = predicted(items, {"a0": 0.1, "a1": 0.2})
    assert table["volume"].tolist() == ["x", "y"]
    assert table["predicted"].tolist() == pytest.approx([10, 20])


def test_scores_stand_beside_those_of_the_training_median(tmp_path, predicted):
    predicted()
    scores = json.loads((tmp_path / "estimate_scores.json").read_text())
    assert (scores["field"], scores["unit"], scores["scale"]) == ("size", "mm", "linear")
    assert scores["constant"] == pytest.approx(20)
    train, val, test = (scores["splits"][split] for split in ("train", "val", "test"))
    assert train["network"]["mae"] == pytest.approx((0 + 20 + 20) / 3)
    assert train["network"]["r2"] == pytest.approx(1 - 800 / 3800)
    assert train["constant"]["mae"] == pytest.approx((10 + 0 + 70) / 3)
    assert train["constant"]["spearman"] is None
    assert val["network"] == {"mae": pytest.approx(4), "r2": None, "spearman": None}
    assert [test[key] for key in ("groups", "missing", "clipped")] == [2, 1, 2]
    assert (train["clipped"], val["clipped"]) == (0, 0)
    assert test["network"]["mae"] == pytest.approx(60)
    told = tell_estimate(tmp_path)
    assert "val: mean absolute error 4 (constant 10), R2 -, Spearman -; 1 groups" in told


@pytest.mark.parametrize(("code", "value"), [(0, 1), (1, 10000), (-3, 1), (900, 10000)])
def test_a_code_beyond_the_range_is_clipped_to_exactly_its_ends(code, value):
    assert decoded(float(code), LOG) == (value, code not in (0, 1))


def test_missing_values_are_left_out_of_training():
    known = known_items([each for each in ITEMS if each["split"] == "val"], SIZE)
    assert [each["case"] for each in known] == ["d0", "d1"]
    with pytest.raises(DataError, match="'test' has a value of 'size'"):
        known_items([item("e0", "e", "test", "")], SIZE)


def test_two_values_in_one_group_are_refused():
    items = [item("a0", "a", "train", "10"), item("a1", "a", "train", "11")]
    for call in (known_items, FieldEstimates):
        with pytest.raises(DataError, match=r"Group 'a' has size 10 and 11.*'a1'"):
            call(items, SIZE)


def test_no_training_value_is_refused():
    with pytest.raises(DataError, match="No training case has a value of 'size'"):
        FieldEstimates(ITEMS[3:], SIZE)


# Names, and whether what is given fits the image.

LINE = Categorical(name="line", values=("HeLa", "MDCK", "A549"), missing="unknown", **KNOWN)
COUNTS = {"train": 9, "calibration": 180, "test": 240}


def looks(shown, seed=0):
    """Items of three lines, and logits that show the line or do not."""
    rng, items, codes = np.random.default_rng(seed), [], {}
    for split, count in COUNTS.items():
        for number in range(count):
            place, case = number % 3, f"{split}{number}"
            items.append(
                {
                    "case": case,
                    "group": case,
                    "split": split,
                    "metadata": {"line": LINE.values[place]},
                }
            )
            logits = rng.normal(size=3)
            logits[place] += 6 if shown else 0
            codes[case] = logits.tolist()
    return items, codes


def estimated(tmp_path, measured, items, codes, field=LINE, weights=None):
    names = list(codes)
    batch = {"case": names}
    pairs = [(batch, {"pred": torch.tensor([codes[name] for name in names])})]
    measured(FieldEstimates(items, field, weights), tmp_path / "predicted.csv", pairs)
    return json.loads((tmp_path / "estimate_scores.json").read_text())


@pytest.mark.parametrize("shown", [True, False])
def test_an_alarm_keeps_its_rate_and_tells_whether_images_show_the_field(tmp_path, measured, shown):
    scores = estimated(tmp_path, measured, *looks(shown))
    alarm = scores["alarm"]
    assert alarm["low"] <= 0.05 <= alarm["high"]
    assert alarm["cases"] == 240
    words = alarm_words("line", alarm)
    right = scores["splits"]["test"]["network"]["right"]
    if shown:
        assert alarm["auc"] >= 0.95
        assert right > 0.9
        assert words.startswith("The images show line; at the level of the alarm")
    else:
        assert abs(alarm["auc"] - 0.5) <= 0.05
        assert right < 0.45
        assert words.startswith("This estimate does not see line in the images")
    assert words in tell_estimate(tmp_path)
    table = pd.read_csv(tmp_path / "alarm.csv")
    assert len(table) == 3 * 240
    assert set(table["told"]) == set(LINE.values)
    predicted = read_predicted(tmp_path / "predicted.csv")
    assert predicted["true"].tolist()[:3] == list(LINE.values)
    for text in predicted["soft"][:20]:  # as `--meta` takes it
        assert sum(LINE.shares(text).values()) == pytest.approx(1, abs=1e-9)


def test_each_name_has_its_own_rate_and_few_take_all():
    """HeLa looks like itself, A549 does not: one rate for both would let A549 alarm alone."""
    rng = np.random.default_rng(3)

    def cases(count, split):
        rows = []
        for number in range(count):
            place = number % 3
            code = np.log(rng.dirichlet([8, 1, 1]) if place == 0 else rng.dirichlet([1, 1, 1]))
            name = {"case": f"{split}{number}", "group": f"{split}{number}", "split": split}
            rows.append({**name, "code": code, "true": LINE.values[place]})
        return pd.DataFrame(rows)

    fact = alarm_of(cases(600, "val"), LINE)
    assert fact["values"].keys() == {"all", "=HeLa", "=MDCK", "=A549"}
    test = cases(3000, "test")
    p = [
        p_value(fact, code, true, LINE)
        for code, true in zip(test["code"], test["true"], strict=True)
    ]
    rates = (pd.Series(p) <= 0.05).groupby(test["true"]).mean()
    assert rates.between(0.02, 0.08).all(), rates.to_dict()
    assert alarm_of(cases(45, "val"), LINE)["values"].keys() == {"all"}
    assert alarm_of(cases(30, "test"), LINE) is None  # a test calibrates nothing


def test_a_quantity_fits_or_does_not_and_its_range_is_soft(tmp_path, measured):
    rng, items, codes = np.random.default_rng(1), [], {}
    for split, count in COUNTS.items():
        for number in range(count):
            size, case = float(rng.uniform(5, 95)), f"{split}{number}"
            items.append(item(case, case, split, size))
            codes[case] = [size / 100 + rng.normal(0, 0.04)]
    scores = estimated(tmp_path, measured, items, codes, SIZE)
    assert scores["alarm"]["auc"] > 0.98
    assert scores["alarm"]["low"] <= 0.05 <= scores["alarm"]["high"]
    table = read_predicted(tmp_path / "predicted.csv")
    test = table[table["split"] == "test"]
    ends = pd.DataFrame([SIZE.ends(text) for text in test["soft"]], index=test.index)
    inside = test["true"].between(ends[0], ends[1])
    assert 0.84 < inside.mean() < 0.96


def test_a_prediction_notes_how_well_metadata_fit(tmp_path, measured):
    schema = MetadataSchema([LINE])
    network = ImageRegressor(channels=(2,), outputs=3)
    torch.nn.init.zeros_(network.head[0].weight)
    torch.nn.init.zeros_(network.head[0].bias)
    with torch.no_grad():
        network.head[0].weight[0, 0] = 0.0
        network.head[-1].bias.copy_(torch.tensor([0.0, 6.0, 0.0]))  # all look like MDCK
    facts = {
        "network": {
            "_target_": "metaseg_monai.networks.regressor.ImageRegressor",
            "channels": [2],
            "outputs": 3,
        },
        "schema": schema.to_dict(),
        "preprocessing": [{"_target_": "a"}],
    }
    write_weights(tmp_path / "estimate.pt", network, facts)
    weights = LoadWeights(tmp_path / "estimate.pt", network)
    weights.recorded = read_weights(tmp_path / "estimate.pt")[1]
    model = SimpleNamespace(recorded={"preprocessing": [{"_target_": "a"}]}, path=tmp_path / "m.pt")
    notes = {}
    record = SimpleNamespace(
        marks={}, note=lambda case, **told: notes.__setitem__(case, told["fit"])
    )
    handler = TellFit(tmp_path, model, schema, record, window=[8, 8])
    with pytest.raises(ConfigError, match="holds no p-values of an alarm"):
        handler.begin()
    estimated(tmp_path, measured, *looks(shown=True), weights=weights)
    assert read_weights(tmp_path / "estimate.pt")[1]["alarm"]["split"] == "calibration"
    handler.begin()
    assert record.marks["alarm"]["weights"] == weights.recorded["weights_sha256"]
    told = {"a": "MDCK", "b": "HeLa", "c": "unknown", "d": "HeLa:0.5|MDCK:0.5"}
    items = [{"case": case, "metadata": {"line": line}} for case, line in told.items()]

    class Loader(list):
        dataset = SimpleNamespace(data=items)

    def step(engine, batch):
        engine.state.batch = batch
        return {"pred": batch["image"]}

    engine = Engine(step)
    handler.attach(engine)
    engine.run(Loader([{"case": list(told), "image": torch.rand(4, 1, 5, 12)}]))
    assert notes["a"]["told"] == ""
    assert notes["a"]["p"] > 0.05
    assert notes["b"] == {
        "p": pytest.approx(1 / 61, abs=1e-6),
        "told": "told HeLa, looks like MDCK",
    }
    assert notes["c"] == notes["d"] == {"p": None, "told": "looks like MDCK"}
    model.recorded = {"preprocessing": [{"_target_": "b"}]}
    with pytest.raises(ConfigError, match="trained for something else than the masks"):
        handler.begin()
    with pytest.raises(ConfigError, match=r"holds no estimate\.pt"):
        TellFit(tmp_path / "none", model, schema, record).begin()
    TellFit(None, model, schema, record).begin()
