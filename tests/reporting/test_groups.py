"""Scores of groups (patients, wells) by class: by hand, with outlines and without."""

import pandas as pd
import pytest

from metaseg_monai.evaluation.surface_table import SURFACES
from metaseg_monai.metrics.statistics import score_interval
from metaseg_monai.reporting.objects import NO_TOLERANCE, group_section
from metaseg_monai.reporting.page import tables_of
from metaseg_monai.study.design import Protocol


@pytest.fixture
def run(tmp_path, made):
    """A training of five patients, with the Dice told; two cases of the first, one empty class."""

    def make(condition, dice, nsd=None):
        folder = tmp_path / condition
        folder.mkdir()
        rows, surfaces = [], []
        for case, share in enumerate(dice):
            place = (f"c{case}", f"p{max(0, case - 1)}", "test", "normal", "all")
            tp = int(100 * share) if share is not None else 0
            wrong = 100 - tp if share is not None else 0  # None: right that there is nothing
            rows += [(*place, 1, tp, wrong, wrong, 9), (*place, 2, 0, 0, 0, 9)]
            if nsd:
                surfaces += [(*place, 1, nsd[case], 2.0, "px"), (*place, 2, "", 2.0, "px")]
        names = ["case", "group", "split", "mode", "domain", "class", "tp", "fp", "fn", "tn"]
        if surfaces:
            pd.DataFrame(surfaces, columns=list(SURFACES.columns)).to_csv(
                folder / "surfaces.csv", index=False
            )
        return made(pd.DataFrame(rows, columns=names), folder)

    return make


DICE = (0.2, 0.6, 0.8, 0.9, 0.7, 0.5)


def shown(section):
    return tables_of([section])["groups"].values, [p for p in section.parts if isinstance(p, str)]


def test_a_patient_counts_once_and_empty_classes_are_left_out_and_counted(run, results_of):
    table, told = shown(group_section(results_of(se=[run("se", DICE)]), Protocol()))
    row = table.loc["se, class 1"]
    patients = [0.4, 0.8, 0.9, 0.7, 0.5]  # the first is the mean of two cases
    assert row["Dice", "mean"] == pytest.approx(sum(patients) / 5)
    ends = score_interval(pd.Series(patients).to_numpy())
    assert (row["Dice", "low"], row["Dice", "high"]) == pytest.approx(ends)
    assert row["Dice", "groups"] == 5
    assert pd.isna(table.loc["se, class 2"]["Dice", "mean"])
    assert "Left out as empty in label and prediction: 6 of 12." in told
    assert NO_TOLERANCE in told


def test_means_of_different_cases_are_told(run, results_of):
    """A condition that rightly finds nothing in a case has no score of it."""
    of = results_of(se=[run("se", DICE)], sme=[run("sme", (None, *DICE[1:]))])
    _, told = shown(group_section(of, Protocol()))
    assert (
        "Left out as empty in label and prediction: 13 of 24 (se 6, sme 7), so that these means "
        "are of different cases; comparisons are made on the same cases."
    ) in told


def test_outlines_are_scored_and_compared(run, results_of):
    nsd = [0.5, 0.7, 0.8, 0.9, 0.6, 0.4]
    better = [one + 0.1 for one in nsd]
    results = results_of(se=[run("se", DICE, nsd)], sme=[run("sme", DICE, better)])
    section = group_section(results, Protocol(comparisons=[["sme", "se"]]))
    table, told = shown(section)
    assert table.loc["se, class 1"]["NSD", "mean"] == pytest.approx(
        (0.6 + 0.8 + 0.9 + 0.6 + 0.4) / 5
    )
    assert "Tolerance of the NSD: 2 px." in told
    row = tables_of([section])["surfaces_comparisons"].values.loc["sme - se"]
    assert row["difference"] == pytest.approx(0.1)
