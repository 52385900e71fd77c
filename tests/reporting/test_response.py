"""What networks make of metadata that is set: ranges of values, labels, values not trained."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.evaluation.per_case import BINS
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, Ordinal
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.metrics.statistics import score_interval
from metaseg_monai.reporting.page import figures_of, tables_of
from metaseg_monai.reporting.response import (
    OWN,
    Values,
    by_group,
    curve_by_value,
    encoding_section,
    measured,
    monotonicity,
    requested_modes,
    requested_section,
    response_curve,
    response_section,
    responses,
    sweep_areas,
    sweep_modes,
    unseen_values,
)
from metaseg_monai.reporting.scores import over_groups
from metaseg_monai.study import Study


def swept(areas, number=2, values=(10, 20, 40), groups=None, without=()):
    """Predicted areas by case at each value, half of them right; none where no label is."""
    rows = [
        (case, (groups or {}).get(case, case), "test", f"fixed:size={value}", "all", number,
         *((0, area, 0) if case in without else (area // 2, area - area // 2, 7)), 100)
        for case, of_case in areas.items()
        for value, area in zip(values, of_case, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COUNT_COLUMNS)


def test_areas_are_all_that_is_predicted():
    modes = ["normal", "fixed:size=100", "fixed:size=9", "fixed:sizes=1", "fixed:line=HeLa"]
    assert list(sweep_modes(modes, "size")) == [9.0, 100.0]
    areas = sweep_areas(swept({"a": (4, 8, 12)}, values=(40, 10, 20)), "size")
    assert areas["value"].tolist() == [10, 20, 40]
    assert areas["area"].tolist() == [8, 12, 4]
    in_mm = sweep_areas(swept({"a": (4, 8, 12)}).assign(scale=0.25), "size")
    assert in_mm["area"].tolist() == [1, 2, 3]


def test_an_incomplete_sweep_is_refused():
    counts = swept({"a": (1, 2, 3), "b": (1, 2, 3)})
    with pytest.raises(DataError, match="needs two modes fixed:size=<value>"):
        sweep_areas(counts[counts["mode"] == "fixed:size=10"], "size")
    with pytest.raises(DataError, match="Case b was not counted once at each value of size"):
        sweep_areas(counts.iloc[:-1], "size")


def test_the_curve_weighs_groups_alike_and_averages_seeds_before():
    groups = {"a": "p", "b": "p", "c": "q"}
    counts = swept({"a": (1, 2, 3), "b": (3, 4, 5), "c": (10, 10, 10)}, groups=groups)
    first = sweep_areas(counts, "size")
    curve = response_curve(pd.concat([first, first.assign(area=first["area"] + 2)]))
    # group p: 2 3 4 and 1 more by the second seed, group q: 11
    assert curve["mean"].tolist() == [7, 7.5, 8]
    assert curve["groups"].tolist() == [2, 2, 2]
    many = swept({f"c{n}": (n, 2 * n, 3 * n) for n in range(1, 9)})
    curve = response_curve(sweep_areas(many, "size"))
    assert ((curve["low"] < curve["mean"]) & (curve["mean"] < curve["high"])).all()
    assert response_curve(first[first["group"] == "q"])["low"].isna().all()


def test_monotone_by_hand():
    areas = {
        "grows": (10, 50, 100),
        "starts late": (0, 0, 100),
        "shakes": (100, 1000, 981),  # a contour may shake by 2 % of the largest, not more
        "shrinks once": (100, 1000, 979),
        "flat": (100, 100, 101),
        "falls": (100, 50, 10),
        "never predicted": (0, 0, 0),
        "no label": (10, 50, 100),
    }
    one = monotonicity(sweep_areas(swept(areas, without=["no label"]), "size")).loc[2]
    assert one.monotone == pytest.approx(3 / 7)
    assert one.flat == pytest.approx(2 / 7)
    assert (one.cases, one["never predicted"]) == (7, pytest.approx(1 / 7))
    # of two steps each: 2, 2, 1, 1, 2, 0 do not shrink
    assert one.steps == pytest.approx(8 / 12)
    late = 1.5 / math.sqrt(3)  # ranks 1.5 1.5 3
    assert one.Spearman == pytest.approx(np.mean([1, late, 0.5, 0.5, late, -1]))
    for area, steps in ((5, 1), (0, math.nan)):  # reads nothing, predicts nothing
        one = monotonicity(sweep_areas(swept({"a": (area,) * 3}), "size")).loc[2]
        found = (one.monotone, one.flat, one.steps, one.Spearman)
        assert found == pytest.approx((0, 1, steps, math.nan), nan_ok=True)


def test_classes_are_told_apart_and_one_that_no_label_holds_has_no_share():
    grows, falls = swept({"a": (1, 2, 3)}, without="a"), swept({"a": (30, 20, 10)}, number=1)
    found = monotonicity(sweep_areas(pd.concat([grows, falls]), "size"))
    assert (found.loc[1, "monotone"], found.loc[2, "cases"]) == (0, 0)
    assert math.isnan(found.loc[2, "monotone"])


def section_of(volumes, **conditions):
    return response_section(volumes.results(**conditions))


def test_a_network_that_follows_and_one_that_cannot(volumes):
    runs = [volumes.run("sme", 0, follows=1), volumes.run("sme", 1, follows=1)]
    volumes.samples(runs[0])
    section = section_of(volumes, sme=runs, se=[volumes.run("se", modes=("normal",))])
    assert set(figures_of([section])) == {"response_size", "montage_size_sme"}
    assert "Training values: 15 to 80 mm" in figures_of([section])["response_size"].caption
    tables = tables_of([section])
    row = tables["monotone_size"].values.loc["sme, class 2"]
    assert (row["monotone"], row["cases"]) == (1, 10)
    area = tables["response_size_class2"].values
    assert list(area.index) == ["10", "40", "160"]
    assert area["training", "holds it"].tolist() == [False, True, False]
    # label of a patient: size^2 and half of it, so at 40 mm the area is 40 x size x 3 / 4 pixels
    # of 0.25 mm2; mean size 55
    assert area.loc["40", ("sme", "mean")] == pytest.approx(40 * 55 * 0.75 * 0.25, rel=1e-3)


@pytest.mark.parametrize(
    ("follows", "silent", "told"),
    [
        (1, 0, "sme follows size: class 2 grows with size in 100 % of the 10 cases whose label"),
        (1, 2, "sme follows size: class 2 grows with size in 80 % of the 10 cases"),
        (1, 3, "sme does not follow size reliably: class 2 grows with size in 70 % of the 10"),
        (1, 10, "sme predicts nothing at any value."),
        (0, 0, "sme does not respond to size."),
        (-0.5, 0, "sme does not follow size reliably: class 2 grows with size in 0 %"),
    ],
)
def test_what_is_never_predicted_counts_against_a_network(volumes, follows, silent, told):
    names = [f"p{patient}_{plane}" for plane in range(2) for patient in range(5)]
    run = volumes.run("sme", follows=follows).silence(*names[:silent])
    section = section_of(volumes, sme=[run])
    assert section.parts[0].startswith(told)
    row = tables_of([section])["monotone_size"].values.loc["sme, class 2"]
    assert row["never predicted"] == silent / 10


def test_whole_volumes_are_measured_in_ml(volumes):
    runs = {"sme": [volumes.whole("sme", follows=1)], "se": [volumes.whole("se")]}
    section = section_of(volumes, **runs)
    table = tables_of([section])["response_size_class2"]
    assert table.title == "Volume of class 2 (ml) at each size"
    # a ball of d mm has pi / 6 d^3 mm3, and at 40 mm 40 / d of it is predicted
    balls = [math.pi / 6 * d**2 * 40 / 1000 for d in (20, 40, 55, 70, 90)]
    assert table.values.loc["40", ("sme", "mean")] == pytest.approx(np.mean(balls), rel=1e-3)
    assert figures_of([section])["response_size"].caption.startswith("Predicted volume over")
    counts, unit = measured(volumes.results(**runs), ["normal"])
    assert (unit, set(counts["scale"])) == ("ml", {0.75 / 1000})
    runs["me"] = [volumes.run("me")]  # slices and whole volumes have only pixels in common
    counts, unit = measured(volumes.results(**runs), ["normal"])
    assert (unit, set(counts["scale"])) == ("pixels", {1.0})


def test_level_lines_are_means_over_groups(volumes):
    run = volumes.run("sme", follows=1)
    fewer = run.counts[run.counts["case"] != "p4_1"]  # one slice of the largest patient
    results = volumes.results(sme=[replace(run, counts=fewer)])
    drawn = responses(measured(results, ["normal"])[0], {}, {})["class 2"]
    sizes = [0.75 * size**2 for size in (20, 40, 55, 70)]  # mean of size^2 and half of it
    assert drawn.true == pytest.approx(0.25 * np.mean([*sizes, 90**2]), rel=1e-3)


def test_training_values_are_those_of_the_training_cases_with_both_ends(volumes):
    other = ["v0", "v0", "val", "v0", 0, 3.0, 0.5, 0.5, 240.0]

    def change(cases):
        cases.loc[len(cases)] = other
        return cases.replace({"size": {15.0: 10.0, 80.0: 160.0}})

    section = section_of(volumes, sme=[volumes.run("sme", follows=1).edit(change)])
    assert "Training values: 10 to 160 mm" in figures_of([section])["response_size"].caption
    area = tables_of([section])["response_size_class2"].values
    assert area["training", "holds it"].tolist() == [True, True, True]


def test_who_was_asked_with_what_is_said(volumes):
    runs = {
        "me": [volumes.run("me", follows=1).edit(size=33)],
        "sme": [volumes.run("sme", follows=1)],
        "film": [volumes.run("film", follows=1)],
        "me_unrelated": [volumes.run("me-unrelated", modes=("normal", "missing"))],
        "se": [volumes.run("se", modes=("normal",))],
    }
    caption = figures_of([section_of(volumes, **runs)])["response_size"].caption
    assert "Not drawn, because asked with no other value: me-unrelated." in caption
    assert "Training values: 15 to 80 mm" in caption  # those of most, in any order
    assert "me was given other values of size than sme and film." in caption


def test_without_spacing_areas_are_pixels(volumes):
    run = volumes.run("sme", follows=1).edit(spacing_y_mm="")
    known = volumes.run("me", follows=1)  # whose areas would be others than in pixels
    area = tables_of([section_of(volumes, sme=[run], me=[known])])["response_size_class2"]
    assert "(pixels)" in area.title
    for name in ("sme", "me"):
        assert area.values.loc["40", (name, "mean")] == pytest.approx(40 * 55 * 0.75, rel=1e-3)


def test_without_a_label_or_known_training_values_it_is_said(volumes):
    run = volumes.run("sme", follows=1)
    run.counts.loc[:, "fp"] += run.counts["tp"]
    run.counts.loc[:, ["tp", "fn"]] = 0
    (run.folder / "cases.csv").unlink()
    section = section_of(volumes, sme=[run])
    assert section.parts[0] == "No label holds a class, so sme has nothing to follow."
    assert "Training values" not in figures_of([section])["response_size"].caption


def test_a_run_whose_name_goes_on_is_another(volumes):
    runs = {"sme": [volumes.run("sme", follows=1)], "sme, wide": [volumes.run("wide")]}
    told = section_of(volumes, **runs).parts[0]
    assert told.startswith("sme follows size: class 2 grows with size in 100 % of the 10 cases")
    assert told.endswith("sme, wide does not respond to size.")


def test_older_runs_have_no_such_section(volumes):
    assert section_of(volumes, se=[volumes.run("se", modes=("normal",))]) is None
    run = volumes.run("sme", follows=1)
    (run.folder / "schema.json").unlink()
    assert section_of(volumes, sme=[run]) is None


def test_damaged_files_are_named(volumes):
    run = volumes.run("sme", follows=1)
    cases = pd.read_csv(run.folder / "cases.csv")
    with pytest.raises(DataError, match=r"cases\.csv lacks case p0_0 of counts\.csv"):
        section_of(volumes, sme=[run.edit(lambda _: cases.iloc[1:])])
    with pytest.raises(DataError, match="case p0_0 stands twice"):
        section_of(volumes, sme=[run.edit(lambda _: pd.concat([cases, cases.iloc[:1]]))])
    (run.folder / "schema.json").write_text("{}")
    with pytest.raises(MetadataError, match=r"schema\.json: not a metadata schema"):
        section_of(volumes, sme=[run])


# Requested labels.

STYLE = Categorical(
    name="style",
    values=["exact", "fine", "coarse"],
    provenance="acquisition",
    availability="acquisition",
)
MODES = ("normal", "zeros", "fixed:exact", "fixed:fine", "fixed:coarse")
DRAWN = {"normal": 1.0, "zeros": 0.2, "exact": 1.0, "fine": 0.95, "coarse": 0.8}


class Runs:
    """Writes runs of four wells with two cases of 100 pixels, 40 of them of the class."""

    def __init__(self, folder, made):
        self.folder, self.made = folder, made

    def run(self, name, seed=0, modes=MODES, follows=1.0, bins=True, classes=(1,)):
        folder = self.folder / name / f"seed{seed}"
        folder.mkdir(parents=True)
        counts, sums = [], []
        for well in range(4):
            for case in range(2):
                for mode in modes:
                    share = 1 - follows * (1 - DRAWN[mode.removeprefix("fixed:")])
                    names = (f"w{well}_{case}", f"w{well}", "test", mode, "all")
                    for number in classes:
                        tp = round(40 * share) - well
                        counts.append((*names, number, tp, 0, 40 - tp, 60))
                        sums.append((*names, number, 0, 60, 6.0, 0, 0.0))
                        sums.append((*names, number, 9, 40, 36.0 * share, 40, 36.0 * share))
        table = pd.DataFrame(counts, columns=COUNT_COLUMNS)
        table.to_csv(folder / "counts.csv", index=False)
        if bins:
            pd.DataFrame(sums, columns=list(BINS.columns)).to_csv(
                folder / "calibration.csv", index=False
            )
        MetadataSchema([STYLE]).save(folder / "schema.json")
        return self.made(table, folder)


@pytest.fixture
def runs(tmp_path, made, one_pixel):
    return Runs(tmp_path, made)


def test_modes_are_those_of_the_fields_labels():
    present = ["normal", "shuffle", "fixed:style=exact", "fixed:line=A", "fixed:size=4"]
    found = requested_modes(present, "style", ["exact", "coarse"])
    assert found == {"normal": OWN, "fixed:style=exact": "exact"}


def counted(*rows):
    filled = [(c, g, "test", m, "all", 1, tp, fp, fn, 0) for c, g, m, tp, fp, fn in rows]
    return pd.DataFrame(filled, columns=COUNT_COLUMNS)


def test_a_group_by_hand():
    counts = counted(
        ("a", "p", "normal", 8, 4, 2),  # of 10 + 30 pixels of the class 12 + 18 are predicted
        ("b", "p", "normal", 15, 3, 15),
        ("c", "q", "normal", 0, 5, 0),  # no pixel of the class: no area to compare with
        ("a", "p", "ones", 0, 0, 10),
    )
    bins = pd.DataFrame(
        [
            ("a", "p", "test", "normal", "all", 1, 0, 90, 9.0, 2, 0.1),
            ("a", "p", "test", "normal", "all", 1, 9, 10, 9.5, 8, 7.6),
            ("b", "p", "test", "normal", "all", 1, 5, 50, 30.0, 30, 20.0),
            ("c", "q", "test", "normal", "all", 1, 5, 50, 30.0, 0, 0.0),
            ("a", "p", "test", "ones", "all", 1, 5, 50, 30.0, 30, 20.0),
        ],
        columns=list(BINS.columns),
    )
    counts, bins = (table.assign(data_seed=0, seed=0) for table in (counts, bins))
    table = by_group(counts, bins, {"normal": OWN})
    assert list(table.index) == [(1, OWN, "p"), (1, OWN, "q")]
    found = table.loc[(1, OWN, "p")]
    assert found["area"] == pytest.approx(30 / 40)
    assert found["inside"] == pytest.approx(27.7 / 40)
    assert found["outside"] == pytest.approx((48.5 - 27.7) / 110)
    assert table.loc[(1, OWN, "q")].isna().all()
    assert by_group(counts, bins[:0], {"normal": OWN})["inside"].isna().all()


def test_seeds_are_averaged_within_a_group_before_the_interval():
    pixels = ((6, 4, 8, 8, 8), (10, 12, 8, 8, 8))  # of ten, 0.8 of them in all groups
    tables = []
    for seed, drawn in enumerate(pixels):
        rows = ((g, g, "normal", n, 0, 10 - n) for g, n in zip("pqrst", drawn, strict=True))
        tables.append(counted(*rows).assign(data_seed=0, seed=seed))
    counts = pd.concat(tables)
    groups = by_group(counts, pd.DataFrame(), {"normal": OWN})
    assert groups["area"].tolist() == pytest.approx([0.8] * 5)
    row = over_groups(groups["area"]).loc[(1, OWN)]
    assert row.tolist() == pytest.approx([0.8, 0.8, 0.8, 5])
    assert over_groups(groups["inside"]).loc[(1, OWN), "groups"] == 0


def test_a_style_lowers_area_and_probability(runs, results_of):
    found = results_of(
        se=[runs.run("se", modes=("normal",), follows=0)],
        sme=[runs.run("sme", seed) for seed in range(2)],
    )
    section = requested_section(found)
    assert section.parts[0] == (
        "sme draws least for coarse (0.76 of the labels' area, probability 0.72) and most for "
        "exact (0.96 of the labels' area, probability 0.90)."
    )
    values = tables_of([section])["requested_style"].values
    assert list(values.index) == ["se, own value", "sme, own value", "sme, exact", "sme, fine",
                                  "sme, coarse"]  # fmt: skip
    row = values.loc["sme, coarse"]  # 32 - 0, 1, 2, 3 of 40 pixels
    assert row["area", "mean"] == pytest.approx((32 + 31 + 30 + 29) / 160)
    assert math.isnan(row["area", "low"])  # of four wells there is no interval
    assert row["inside", "mean"] == pytest.approx(0.72)
    assert row["outside", "mean"] == pytest.approx(0.1)
    assert row["groups", ""] == 4
    figure = figures_of([section])["requested_style"]
    assert "networks that read no metadata" in figure.caption


def test_who_does_not_listen_was_not_asked_or_wrote_no_probabilities_is_said(runs, results_of):
    tested = {
        "me": [runs.run("me", follows=0)],
        "old": [runs.run("old", bins=False)],
        "film": [runs.run("film", modes=("normal", "zeros"))],
    }
    section = requested_section(results_of(**tested))
    assert section.parts[0].startswith("me draws as much for every style. old draws least for")
    assert "coarse (0.76 of the labels' area) and" in section.parts[0]
    values = tables_of([section])["requested_style"].values
    assert values.loc["old, exact", "inside"].isna().all()
    caption = figures_of([section])["requested_style"].caption
    assert "Not drawn, because asked with no other label: film." in caption


def test_every_class_that_a_label_holds_has_a_figure(runs, results_of):
    run = runs.run("sme", classes=(1, 2))
    section = requested_section(results_of(sme=[run]))
    assert set(figures_of([section])) == {"requested_style_class1", "requested_style_class2"}
    assert section.parts[0].startswith("class 1: sme draws least")
    run.counts.loc[run.counts["class"] == 2, ["tp", "fn"]] = 0
    assert set(figures_of([requested_section(results_of(sme=[run]))])) == {"requested_style"}
    run.counts[["tp", "fn"]] = 0
    assert requested_section(results_of(sme=[run])) is None


def test_experts_count_on_their_own_domain(runs, results_of, made):
    one, two = (runs.run("experts", seed, modes=("normal",)) for seed in range(2))
    for run, share in ((one, 0.1), (two, 0.5)):
        inside = pd.read_csv(run.folder / "calibration.csv")["positives"] * share
        run.edit(name="calibration.csv", domain="y", inside=inside)
    experts = made(one.counts, {"x": one.folder, "y": two.folder})
    section = requested_section(results_of(sme=[runs.run("sme")], experts=[experts]))
    values = tables_of([section])["requested_style"].values
    assert values.loc["experts, own value", ("inside", "mean")] == pytest.approx(0.5)
    (two.folder / "calibration.csv").unlink()  # half of the experts are not the experts
    section = requested_section(results_of(sme=[runs.run("sme", 1)], experts=[experts]))
    values = tables_of([section])["requested_style"].values
    assert math.isnan(values.loc["experts, own value", ("inside", "mean")])


def test_there_is_nothing_to_show_where_nothing_was_asked(runs, results_of):
    assert requested_section(results_of(se=[runs.run("se", modes=("normal",))])) is None
    assert requested_section(results_of(me=[runs.run("me", modes=("normal", "zeros"))])) is None
    run = runs.run("sme")
    (run.folder / "schema.json").unlink()
    assert requested_section(results_of(sme=[run])) is None


# Values that were not trained.

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
def run(tmp_path, made, one_pixel):
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
        return made(counts, folder)

    return make


def f1(hits):
    return 2 * hits / (hits + 10)


def test_values_between_and_beyond_by_hand(run, results_of):
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
    assert (row["mean"], row["groups"]) == (pytest.approx((0.1 + 4) / 5), 5)
    wells = np.array([0.1, 1, 1, 1, 1])  # not the six cases
    assert (row["low"], row["high"]) == pytest.approx(score_interval(wells))
    assert 0 < row["low"] < row["mean"] < row["high"] <= 1


def test_a_code_that_was_told_the_nearest_stands_at_its_true_value(run, results_of):
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


def test_planned_comparisons_are_paired_within_their_cases(run, results_of):
    study = Study(name="s", bundle="b", conditions={"se": {}, "sme": {}})
    better = {value: hits + 1 for value, hits in HITS.items()}
    results = results_of(study, se=[run("se")], sme=[run("sme", hits=better)])
    section = encoding_section(results)
    table = tables_of([section])["differences_by_magnification"].values
    by_hand = (f1(7) - f1(6) + f1(6) - f1(5)) / 2
    assert table.loc["15", ("sme - se", "difference")] == pytest.approx(by_hand)
    begun = encoding_section(replace(results, short={"se": (1, 9)}))
    assert "differences_by_magnification" not in tables_of([begun])


def test_nothing_is_told_where_every_value_was_trained(run, results_of):
    assert encoding_section(results_of(sme=[run("sme", values=(10, 20, 40))])) is None
    nearest = run("one-hot", field=ONE_HOT, told=NEAREST)
    assert encoding_section(results_of(one_hot=[nearest])) is None


def test_a_category_named_as_a_number_is_no_number(run, results_of):
    names = tuple(map(str, TESTED))
    category = Categorical(name="cluster", values=names, **WHEN)
    ordinal = Ordinal(name="grade", values=names, **WHEN)
    assert encoding_section(results_of(sme=[run("sme", field=category)])) is None
    section = encoding_section(results_of(me=[run("me", field=ordinal)]))
    assert "At 15, between them" in section.parts[0]
    (undeclared := run("film")).folder.joinpath("schema.json").unlink()
    assert encoding_section(results_of(film=[undeclared])) is None


def test_a_continuum_and_names_are_no_such_values(run, results_of):
    one = run("sme")
    number = len(pd.read_csv(one.folder / "cases.csv"))
    for values in (np.linspace(5, 50, number), "HeLa"):
        one.edit(magnification=values)
        assert unseen_values(results_of(sme=[one]), "magnification") is None
    (one.folder / "cases.csv").unlink()
    assert encoding_section(results_of(sme=[one])) is None


def test_empty_cases_and_unknown_values_are_left_out(run, results_of):
    one = run("sme", modes=("normal", "shuffle"))  # only true metadata count
    one.counts.loc[one.counts["case"] == "15x_0", ["tp", "fp", "fn"]] = 0
    one.edit(lambda cases: cases.where(cases["case"] != "64x_0", cases.assign(magnification="")))
    table = tables_of([encoding_section(results_of(sme=[one]))])["by_magnification"].values
    assert table["tested", "cases"].tolist() == [4, 3, 4, 4, 3]
