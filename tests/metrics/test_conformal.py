"""Bounds, p-values, thresholds and confident pixels hold with the probability that they state."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.segmentation import watershed

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.conformal import (
    POOLED,
    ClassConfidence,
    area_interval,
    area_scores,
    bin_edges,
    bin_name,
    bound,
    class_histograms,
    coverage_band,
    cutoff,
    mondrian,
    p_values,
)


def script_of(name):
    path = Path(__file__).parents[2] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return script_of("conformal_coverage")


def test_a_bound_by_hand():
    # 19 groups of one case: the rank is ceil(20 * 0.9) = 18
    assert bound(range(1, 20), range(19), 0.9) == 18
    # a group of nine like cases counts as one: of 10 groups the rank is ceil(11 * 0.9) = 10
    groups = [0] * 9 + list(range(1, 10))
    assert bound([0.0] * 9 + list(range(1, 10)), groups, 0.9) == 9
    # and its cases share its weight: 0.5 of 3 / 4 is reached within group a
    assert bound([1, 2, 3, 4], ["a", "a", "b", "c"], 0.25) == 2


def test_too_few_groups_promise_nothing():
    assert bound([1.0] * 8, range(8), 0.9) == math.inf
    assert bound([1.0] * 9, range(9), 0.9) == 1.0
    assert bound([1.0] * 900, [0] * 900, 0.9) == math.inf  # one patient
    low, high = area_interval(50.0, math.inf)
    assert (low, high) == (0, math.inf)


@pytest.mark.parametrize("level", [0, 1, 1.5, True, "0.9", None])
def test_other_levels_are_refused(level):
    with pytest.raises(ConfigError, match="share above 0 and below 1"):
        bound([1.0], [0], level)


def test_bounds_hold_for_cases_of_new_groups_whose_cases_are_alike():
    rng, inside, alone = np.random.default_rng(0), [], []
    for _ in range(300):
        shift = rng.normal(size=41)  # of each patient
        scores = np.abs(shift[:, None] + 0.2 * rng.normal(size=(41, 5)))
        groups = np.repeat(np.arange(40), 5)
        inside.append((scores[40] <= bound(scores[:40].ravel(), groups, 0.9)).mean())
        of_few = bound(scores[:12].ravel(), np.repeat(np.arange(12), 5), 0.9)
        alone.append((scores[40] <= of_few).mean())
    assert 0.87 < np.mean(inside) < 0.96
    assert np.mean(alone) >= 0.88


def test_p_values_are_no_smaller_than_they_may_be():
    rng = np.random.default_rng(1)
    found = [p_values(rng.normal(size=1), rng.normal(size=59), range(59))[0] for _ in range(2000)]
    for rate in (0.05, 0.1, 0.5):
        assert abs(np.mean(np.array(found) <= rate + 1e-9) - rate) < 0.025
    assert p_values([9.0], [1.0, 2.0, 3.0], ["a", "b", "c"]).tolist() == [0.25]
    assert p_values([2.0], [1.0, 2.0, 3.0], ["a", "b", "c"]).tolist() == [0.75]  # ties count


def test_a_threshold_keeps_the_missed_share_of_new_cases():
    rng, thresholds = np.random.default_rng(2), np.linspace(0, 1, 51)
    missed = []
    for _ in range(300):
        hardness = rng.beta(2, 5, size=61)  # where a case's foreground lies
        losses = np.clip(thresholds - hardness[:, None], 0, 1)
        place = cutoff(losses[:60], range(60), 0.1)
        missed.append(losses[60, place])
    assert 0.07 < np.mean(missed) <= 0.102


def test_a_value_with_few_groups_takes_the_bound_of_all():
    scores = np.concatenate([np.linspace(0, 1, 40), np.linspace(5, 6, 30), np.full(19, 9.0)])
    values = ["a"] * 40 + ["b"] * 30 + ["rare"] * 19
    found = mondrian(scores, range(89), values, 0.9)
    assert found["a"].bound < 1 < 5 < found["b"].bound < 6.1
    assert found["rare"] == found[POOLED]
    assert found["rare"].pooled
    assert (found["a"].cases, found["a"].pooled, found["rare"].cases) == (40, False, 89)
    with pytest.raises(DataError, match="no case"):
        mondrian(np.zeros(0), [], [], 0.9)
    with pytest.raises(DataError, match="'all'"):
        mondrian(np.zeros(1), [0], [POOLED], 0.9)


def test_areas_are_within_their_own_interval_and_bins_hold_their_numbers():
    predicted, true = np.array([0.0, 10.0, 500.0]), np.array([3.0, 4.0, 900.0])
    low, high = area_interval(predicted, area_scores(predicted, true) + 1e-12)
    assert ((low <= true) & (true <= high)).all()
    edges = bin_edges(range(100), 4)
    assert edges == [24.75, 49.5, 74.25]
    sizes = pd.Series([bin_name(one, edges) for one in range(100)]).value_counts()
    assert sizes.tolist() == [25] * 4
    assert bin_name(7, []) == "any"


def simulated(seed=0, cases=1000):
    """Stored cases whose network errs by value: little, much, and with a bias."""
    rng, parts = np.random.default_rng(seed), []
    for value, noise, bias in (("sure", 0.05, 0.0), ("unsure", 0.4, 0.0), ("small", 0.1, -0.3)):
        true = np.round(rng.lognormal(6, 0.5, cases))
        predicted = np.round(true * np.exp(bias + noise * rng.normal(size=cases)))
        # the foreground lies below 0.5 where the network is unsure
        missed = np.clip((np.arange(10) / 10 - rng.beta(4, 4, (cases, 1))) + noise, 0, 1)
        missed[:, 0] = 0
        parts.append(
            pd.DataFrame({"value": value, "true": true, "predicted": predicted}).assign(
                missed=list(missed), group=[f"{value}{number}" for number in range(cases)]
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_simulated_cases_are_covered_in_every_value(script):
    table = script.divided(simulated(), 0.9, divisions=100)
    assert (table["coverage"] - 0.9).abs().max() < 0.02, table.to_string()
    assert table["kept"].all(), table.to_string()
    # one interval for all is wrong for each, and wide where it need not be
    values = table.drop(index=POOLED)
    assert values["coverage of all"].max() > 0.97
    assert values["coverage of all"].min() < 0.8
    assert table.loc["sure", "width"] < 0.25 * table.loc["sure", "width of all"]
    assert (values["found"] >= 0.895).all(), table.to_string()
    assert values["threshold"].nunique() > 1


def test_a_wrong_interval_is_found_out(script, monkeypatch):
    monkeypatch.setattr(script, "area_scores", lambda *areas: 0.8 * area_scores(*areas))
    table = script.divided(simulated(), 0.9, divisions=3)
    assert not table["kept"].any()
    assert table["coverage"].max() < 0.88


def test_the_script_reads_results_as_evaluations_store_them(script, tmp_path, capsys):
    line = {"kind": "categorical", "name": "line", "values": ["HeLa", "MDCK"]}
    size = {"kind": "continuous", "name": "size", "unit": "mm", "range": [0, 200]}
    own = {"provenance": "acquisition", "availability": "acquisition"}
    MetadataSchema([{**line, **own}, {**size, **own}]).save(tmp_path / "schema.json")
    rng, counts, cases, bins = np.random.default_rng(3), [], [], []
    for number in range(120):
        name = {"case": f"c{number}", "group": f"g{number // 2}", "split": "test"}
        area = int(rng.integers(50, 200))
        hit = int(area * rng.uniform(0.6, 1))
        cells = {"class": 1, "tp": hit, "fp": 5, "fn": area - hit, "tn": 1000}
        counts.append({**name, "mode": "normal", "domain": "x", **cells})
        place = {"volume": "", "plane": "", "spacing_z_mm": "", "spacing_y_mm": ""}
        known = {"line": "HeLa" if number % 4 < 2 else "MDCK", "size": number}
        cases.append({**name, **place, "spacing_x_mm": "", **known})
        for place, positives in ((2, area - hit), (8, hit)):
            told = {"class": 1, "bin": place, "pixels": positives + 3, "confidence": 1.0}
            row = {**name, "mode": "normal", "domain": "x", **told}
            bins.append({**row, "positives": positives, "inside": 1.0})
    for name, rows in (("counts", counts), ("cases", cases), ("calibration", bins)):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    script.main(str(tmp_path), by="line", divisions=5, output=str(tmp_path / "found.csv"))
    told = pd.read_csv(tmp_path / "found.csv", index_col="value")
    assert "HeLa" in capsys.readouterr().out
    assert told.loc["HeLa", ["cases", "groups"]].tolist() == [60, 30]
    # at 0.2 all is found; above it a share is missed that is more than a tenth
    assert told.loc[POOLED, "threshold"] == pytest.approx(0.2)
    assert told.loc[POOLED, "found"] == 1
    script.main(str(tmp_path), by="size", divisions=2, bins=3)
    assert "below 39.67" in capsys.readouterr().out
    with pytest.raises(DataError, match="no column grade"):
        script.main(str(tmp_path), by="grade")


def wells(count, seed, images=1, side=24, drift=0.5):
    """Probabilities (2, H, W) and labels of images of wells, each with its own sharpness."""
    rng, made = np.random.default_rng(seed), []
    for well in range(count):
        own = rng.normal() * drift
        for _ in range(images):
            label = (np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]) < 0.7).astype(int)
            logit = (2 * label - 1) * (1.5 + own) + 1.5 * rng.normal(size=label.shape)
            one = 1 / (1 + np.exp(-logit))
            made.append((f"w{well}", np.stack([1 - one, one]), label))
    return made


def test_pixels_of_each_class_are_covered_in_wells_held_out():
    script = script_of("conformal_pixels")
    answers = [script.Answer(well, found, label, label) for well, found, label in wells(80, seed=4)]
    drawn = script.divided(answers, divisions=100, share=0.75, seed=5)
    table = script.covered(answers, [0.9, 0.95], drawn)
    assert table["class"].tolist() == ["background", "nucleus"] * 2
    assert (table["wells"] == 20).all()
    missed = table["level"] - table["coverage"]
    assert missed.abs().max() < 0.03, table.to_string()
    assert missed.max() <= 0.005, table.to_string()
    assert table["decided"].between(0.3, 0.99).all(), table.to_string()
    # images whose probabilities say nothing leave both classes to every pixel
    flat = [replace(one, probabilities=np.full_like(one.probabilities, 0.5)) for one in answers]
    none = script.covered(flat, [0.9], drawn[:1])
    assert (none["coverage"] == 1).all()
    assert (none["decided"] == 0).all()


def test_seeds_are_confident_centres_from_which_a_watershed_parts_what_touches():
    sure = ClassConfidence(
        [class_histograms(found, label) for _, found, label in wells(30, seed=6, drift=0.1)],
        list(range(30)),
    )
    rows, columns = np.mgrid[:40, :60]
    near = np.minimum(np.hypot(rows - 20, columns - 18), np.hypot(rows - 20, columns - 41))
    one = 1 / (1 + np.exp((near - 11.2) / 1.2))  # two discs that touch
    found = np.stack([1 - one, one])
    seeds = sure.seeds(found, 0.9)
    assert seeds.max() == 2
    assert seeds[20, 18] != seeds[20, 41]
    assert not seeds[near > 11].any()
    objects = watershed(-one, seeds, mask=one > 0.4)
    assert np.bincount(objects.ravel())[1:].min() > 300
    assert sure.seeds(found, 0.9, smallest_px=1000).max() == 0
    confidence = sure.confidence(found)
    assert confidence[20, 18] > 0.9 > confidence[20, 29]
    again = ClassConfidence.of_plain(sure.as_plain())
    assert np.array_equal(again.seeds(found, 0.9), seeds)


def test_few_wells_exclude_no_class():
    few = ClassConfidence([class_histograms(f, m) for _, f, m in wells(8, seed=7)], range(8))
    assert few.groups.tolist() == [8, 8]
    assert few.sets(np.stack([np.ones((2, 2)), np.zeros((2, 2))]), 0.9).all()
    with pytest.raises(DataError, match="do not fit"):
        class_histograms(np.zeros((2, 3, 3)), np.zeros((4, 4)))
    with pytest.raises(DataError, match="3 classes"):
        few.p_values(np.zeros((3, 2, 2)))
    with pytest.raises(DataError, match="one of each image"):
        ClassConfidence([], [])


def test_the_band_of_one_division_is_exact():
    rng, outside = np.random.default_rng(8), 0
    low, high = coverage_band(200, 100, 0.9)
    for _ in range(2000):
        scores = rng.normal(size=300)
        inside = (scores[100:] <= bound(scores[:100], range(100), 0.9)).mean()
        outside += not low <= inside <= high
    assert 0.004 < outside / 2000 < 0.017
    assert coverage_band(10, 5, 0.9) == (0, 1)  # infinite intervals


@pytest.mark.parametrize("groups", [19, 39, 59, 79, 99])
def test_p_values_reach_a_level_whatever_sums_of_weights_round_to(groups):
    found = p_values(range(groups), range(groups), range(groups))
    assert (found <= 0.05).sum() == (groups + 1) // 20 - 1
