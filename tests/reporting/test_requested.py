import math

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.per_case import BINS
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.figures.requested import requested_labels
from metaseg_monai.reporting.page import figures_of, tables_of
from metaseg_monai.reporting.response import (
    OWN,
    by_group,
    requested_modes,
    requested_section,
    summarise_requested,
)
from metaseg_monai.reporting.runs import Replicate, Result, Results

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

    def __init__(self, folder):
        self.folder = folder

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
        return Result(table, {"": folder})


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def results(**conditions):
    return Results(
        {
            name.replace("_", "-"): {Replicate(0, seed): run for seed, run in enumerate(of_name)}
            for name, of_name in conditions.items()
        },
        {},
    )


def test_modes_are_those_of_the_fields_labels():
    present = ["normal", "shuffle", "fixed:style=exact", "fixed:line=A", "fixed:size=4"]
    assert requested_modes(present, "style", ["exact", "coarse"]) == {
        "normal": OWN,
        "fixed:style=exact": "exact",
    }


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
    table = by_group(counts, bins, {"normal": OWN})
    assert list(table.index) == [(1, OWN, "p"), (1, OWN, "q")]
    found = table.loc[(1, OWN, "p")]
    assert found["area"] == pytest.approx(30 / 40)
    assert found["inside"] == pytest.approx(27.7 / 40)
    assert found["outside"] == pytest.approx((48.5 - 27.7) / 110)
    assert table.loc[(1, OWN, "q")].isna().all()
    assert by_group(counts, None, {"normal": OWN})["inside"].isna().all()


def test_seeds_are_averaged_within_a_group_before_the_interval():
    def of(*areas):
        index = pd.MultiIndex.from_product(
            [[1], [OWN], list("pqrst")], names=["class", "asked", "group"]
        )
        return pd.DataFrame({"area": areas, "inside": np.nan, "outside": np.nan}, index=index)

    # 0.8 in all groups
    table = summarise_requested([of(0.6, 1.2, 0.8, 0.8, 0.8), of(1.0, 0.4, 0.8, 0.8, 0.8)])
    row = table.loc[(1, OWN)]
    assert row["area"].tolist() == pytest.approx([0.8, 0.8, 0.8, 5])
    assert math.isnan(row["inside", "mean"])
    assert row["inside", "groups"] == 0


def test_a_style_lowers_area_and_probability(runs):
    found = results(
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
    assert figure.size[0] == 1110


def test_a_network_that_does_not_listen_is_said_to(runs):
    section = requested_section(results(me=[runs.run("me", follows=0)]))
    assert section.parts[0] == "me draws as much for every style."


def test_old_files_still_give_areas(runs):
    section = requested_section(results(sme=[runs.run("sme", bins=False)]))
    assert "coarse (0.76 of the labels' area) and" in section.parts[0]
    values = tables_of([section])["requested_style"].values
    assert values["inside"].isna().all(axis=None)


def test_every_class_has_a_figure(runs):
    section = requested_section(results(sme=[runs.run("sme", classes=(1, 2))]))
    assert set(figures_of([section])) == {"requested_style_class1", "requested_style_class2"}
    assert section.parts[0].startswith("class 1: sme draws least")


def test_a_class_that_no_label_holds_is_left_out(runs):
    run = runs.run("sme", classes=(1, 2))
    empty = run.counts["class"] == 2
    run.counts.loc[empty, ["tp", "fn"]] = 0
    section = requested_section(results(sme=[run]))
    assert set(figures_of([section])) == {"requested_style"}
    run.counts[["tp", "fn"]] = 0
    assert requested_section(results(sme=[run])) is None


def test_conditions_that_were_not_asked_are_named(runs):
    unasked = runs.run("film", modes=("normal", "zeros"))
    section = requested_section(results(sme=[runs.run("sme")], film=[unasked]))
    caption = figures_of([section])["requested_style"].caption
    assert "Not drawn, because asked with no other label: film." in caption


def test_experts_count_on_their_own_domain(runs):
    one, two = (runs.run("experts", seed, modes=("normal",)) for seed in range(2))
    folders = {"x": one.folder, "y": two.folder}
    for domain, folder in folders.items():
        bins = pd.read_csv(folder / "calibration.csv").assign(domain="y")
        bins["inside"] = bins["positives"] * (0.5 if domain == "y" else 0.1)
        bins.to_csv(folder / "calibration.csv", index=False)
    experts = Result(one.counts, folders)
    section = requested_section(results(sme=[runs.run("sme")], experts=[experts]))
    values = tables_of([section])["requested_style"].values
    assert values.loc["experts, own value", ("inside", "mean")] == pytest.approx(0.5)
    (two.folder / "calibration.csv").unlink()  # half of the experts are not the experts
    section = requested_section(results(sme=[runs.run("sme", 1)], experts=[experts]))
    values = tables_of([section])["requested_style"].values
    assert math.isnan(values.loc["experts, own value", ("inside", "mean")])


def test_there_is_nothing_to_show_where_nothing_was_asked(runs):
    assert requested_section(results(se=[runs.run("se", modes=("normal",))])) is None
    assert requested_section(results(me=[runs.run("me", modes=("normal", "zeros"))])) is None
    run = runs.run("sme")
    (run.folder / "schema.json").unlink()
    assert requested_section(results(sme=[run])) is None


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(DataError, match="No label was asked for"):
        requested_labels({}, ["exact"])
