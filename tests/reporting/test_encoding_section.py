import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.figures.by_value import value_curves
from metaseg_monai.reporting.figures.style import CONDITIONS
from metaseg_monai.reporting.page import figures_of, tables_of
from metaseg_monai.reporting.response import Values, curve_by_value, encoding_section, unseen_values
from metaseg_monai.reporting.runs import Replicate, Result, Results
from metaseg_monai.study import Study

WHEN = {"provenance": "acquisition", "availability": "acquisition"}
LOG = Continuous(
    name="magnification", unit="x", range=(10, 40), scale="log2", out_of_range="flag", **WHEN
)
ONE_HOT = Categorical(name="magnification", values=("10", "20", "40"), **WHEN)
TRAINED = (10, 10, 20, 40)
TESTED = (10, 15, 20, 40, 64)
NEAREST = {15: 20, 64: 40}
HITS = {10: 8, 15: 6, 20: 8, 40: 8, 64: 2}  # of ten pixels, and as many more that are missed


@pytest.fixture
def run(tmp_path):
    """Writes a run: two wells of two fields at each tested value, F1 by the hits of its value."""

    def make(condition, seed=0, field=LOG, hits=HITS, told=None, values=TESTED, modes=("normal",)):
        folder = tmp_path / condition / str(seed)
        folder.mkdir(parents=True)
        counts, cases = [], []
        for value in values:
            for number in range(4):
                case, group = f"{value}x_{number}", f"P1_W{value}_{number // 2}"
                found = max(0, hits[value] - (number // 2))  # the second well is harder
                for mode in modes:
                    counts.append((case, group, "test", mode, "all", 1, found, 0, 10 - found, 90))
                cases.append((case, group, "test", (told or {}).get(value, value)))
        cases += [(f"t{n}", f"P0_W{n}", "train", value) for n, value in enumerate(TRAINED)]
        table = pd.DataFrame(cases, columns=["case", "group", "split", field.name])
        for name in ("volume", "plane", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm"):
            table[name] = ""
        table.to_csv(folder / "cases.csv", index=False)
        MetadataSchema([field]).save(folder / "schema.json")
        counts = pd.DataFrame(counts, columns=COUNT_COLUMNS)
        return Result(counts, {"": folder})

    return make


def results_of(study=None, **conditions):
    by_seed = {
        name.replace("_", "-"): {Replicate(0, seed): r for seed, r in enumerate(runs)}
        for name, runs in conditions.items()
    }
    return Results(by_seed, {}, study)


def f1(hits):
    return 2 * hits / (hits + 10)


def test_values_between_and_beyond_by_hand(run):
    section = encoding_section(results_of(sme=[run("sme"), run("sme", 1)]))
    table = tables_of([section])["by_magnification"].values
    assert list(table.index) == ["10", "15", "20", "40", "64"]
    assert table["training", "cases"].tolist() == [2, 0, 1, 1, 0]
    assert table["tested", "cases"].tolist() == [4] * 5
    assert table["tested", "groups"].tolist() == [2] * 5
    # two wells, of two fields each, one pixel apart
    assert table.loc["15", ("sme", "score")] == pytest.approx((f1(6) + f1(5)) / 2)
    assert table.loc["64", ("sme", "score")] == pytest.approx((f1(2) + f1(1)) / 2)
    assert table["sme"][["low", "high"]].isna().all(axis=None)  # two wells tell no interval
    told = section.parts[0]
    assert "Training cases have magnification 10, 20 and 40." in told
    assert "At 15, between them, mean case F1: sme 0.708." in told
    assert "At 64, beyond them, mean case F1: sme 0.258." in told
    caption = figures_of([section])["by_magnification"].caption
    assert "Hollow: 15 and 64, which no training case had." in caption


def test_the_interval_at_a_value_draws_groups():
    cases = pd.DataFrame(
        {"case": list("abcdef"), "group": list("vvwxyz"), "f1": [0, 0.2, 1, 1, 1, 1]}
    )
    curve = curve_by_value(cases, Values(dict.fromkeys("abcdef", 15.0), {}, []))
    row = curve.iloc[0]
    assert (row["score"], row["groups"]) == (pytest.approx((0.1 + 4) / 5), 5)
    # one of the five; 1 in 3125 samples holds none of the others, 21 at most one of them
    assert row["low"] == pytest.approx((4 * 0.1 + 1) / 5)
    assert row["high"] == 1


def test_a_code_that_was_told_the_nearest_stands_at_its_true_value(run):
    worse = {**HITS, 15: 3}
    runs = {
        "one_hot": [run("one-hot", field=ONE_HOT, told=NEAREST, hits=worse)],
        "nearest": [run("nearest", field=ONE_HOT, told=NEAREST)],
        "log": [run("log")],
    }
    section = encoding_section(results_of(**runs))
    table = tables_of([section])["by_magnification"].values
    assert table.loc["15", ("one-hot", "score")] == pytest.approx((f1(3) + f1(2)) / 2)
    assert table.loc["15", ("log", "score")] == pytest.approx((f1(6) + f1(5)) / 2)
    assert table["tested", "cases"].tolist() == [4] * 5
    note = tables_of([section])["by_magnification"].note
    assert "log was given other values of magnification than one-hot and nearest." in note


def test_planned_comparisons_are_paired_within_their_cases(run):
    study = Study(name="s", bundle="b", conditions={"se": {}, "sme": {}})
    better = {value: hits + 1 for value, hits in HITS.items()}
    section = encoding_section(results_of(study, se=[run("se")], sme=[run("sme", hits=better)]))
    table = tables_of([section])["differences_by_magnification"].values
    by_hand = (f1(7) - f1(6) + f1(6) - f1(5)) / 2
    assert table.loc["15", ("sme - se", "difference")] == pytest.approx(by_hand)


def test_only_true_metadata_count(run):
    section = encoding_section(results_of(sme=[run("sme", modes=("normal", "shuffle"))]))
    table = tables_of([section])["by_magnification"].values
    assert table["tested", "cases"].tolist() == [4] * 5


def test_nothing_is_told_where_every_value_was_trained(run):
    assert encoding_section(results_of(sme=[run("sme", values=(10, 20, 40))])) is None
    nearest = run("one-hot", field=ONE_HOT, told=NEAREST)
    assert encoding_section(results_of(one_hot=[nearest])) is None


def test_a_continuum_and_names_are_no_such_values(run):
    result = run("sme")
    cases = pd.read_csv(result.folder / "cases.csv", keep_default_na=False)
    continuum = cases.assign(magnification=np.linspace(5, 50, len(cases)))
    continuum.to_csv(result.folder / "cases.csv", index=False)
    assert unseen_values(results_of(sme=[result]), "magnification") is None
    cases.assign(magnification="HeLa").to_csv(result.folder / "cases.csv", index=False)
    assert unseen_values(results_of(sme=[result]), "magnification") is None
    (result.folder / "cases.csv").unlink()
    assert encoding_section(results_of(sme=[result])) is None


def test_empty_cases_and_unknown_values_are_left_out(run):
    result = run("sme")
    empty = result.counts["case"] == "15x_0"
    result.counts.loc[empty, ["tp", "fp", "fn"]] = 0
    cases = pd.read_csv(result.folder / "cases.csv", keep_default_na=False, dtype=str)
    cases.loc[cases["case"] == "64x_0", "magnification"] = ""
    cases.to_csv(result.folder / "cases.csv", index=False)
    table = tables_of([encoding_section(results_of(sme=[result]))])["by_magnification"].values
    assert table["tested", "cases"].tolist() == [4, 3, 4, 4, 3]


def test_unseen_values_are_hollow():
    curve = pd.DataFrame({"value": [10.0, 15.0, 20.0], "score": [0.5, 0.6, 0.7]})
    curve = curve.assign(low=np.nan, high=np.nan)
    colour = np.round(np.array(to_rgb(CONDITIONS["sme"])) * 255)

    def coloured(unseen):
        png = value_curves({"sme": curve}, unseen, "magnification (x)", "F1")
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float)
        return int((np.abs(pixels - colour) <= 1).all(axis=-1).sum())

    assert coloured([]) > coloured([15.0]) > coloured([10.0, 15.0, 20.0])
    with pytest.raises(DataError, match="no score to draw"):
        value_curves({"sme": curve.iloc[:0]}, [], "", "")


def test_values_at_and_below_zero_are_drawn_on_a_straight_axis():
    curve = pd.DataFrame({"value": [-4.0, 0.0, 4.0], "score": [0.5, 0.6, 0.7]})
    png = value_curves({"sme": curve.assign(low=0.4, high=0.8)}, [4.0], "focus (um)", "F1")
    assert png.startswith(b"\x89PNG")
